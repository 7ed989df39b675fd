//! Parts of a write that all kinds of requests share.

use log::trace;

use crate::engine::core::Core;
use crate::net::Net;
use crate::net::link::Link;
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};

impl<N: Net> Core<N> {
    /// Returns how many of `left` unwritten bytes may be written to a link, or `None` if the cap
    /// of its front exchange holds them back.
    pub(super) fn room_to_write(&mut self, key: LinkKey, left: usize) -> Option<usize> {
        let chain = self.links[key].chain()?;
        let now = self.nanos();
        let Some(cap) = &mut self.meter(chain).upload else {
            return Some(left);
        };
        let was_holding = cap.is_holding();
        let room = cap.ask(Some(left as u64), now);
        if room.is_none() && !was_holding {
            self.arm_again(key, chain, false);
        }
        room.map(|room| usize::try_from(room).unwrap_or(usize::MAX).min(left))
    }

    /// Writes the pending bytes of a link's TLS state, in one send. Returns `None` if nothing can
    /// be written any more.
    #[inline(never)]
    pub(super) fn write_outbound(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let link = &mut self.links[key];
        if !link.h1.is_writable() {
            return None;
        }
        let (socket, tls) = link.reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        Some(transport::write(net, socket, tls, &[], 0, scratch))
    }
}

/// Turns Nagle's algorithm off, so that small segments go out at once.
pub(super) fn send_at_once<N: Net>(link: &mut Link<N::Socket>, net: &mut N) {
    if !std::mem::replace(&mut link.is_undelayed, true) {
        let socket = link.socket().expect("an open link has a socket");
        if let Err(error) = net.set_nodelay(socket) {
            trace!("setting TCP_NODELAY failed ({error})");
        }
    }
}
