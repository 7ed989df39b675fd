//! Sends requests whose bodies are read from sources.
//!
//! A source is user code that does not see the state `S`, so `Core` can call it, as it calls a
//! policy. It is called while its link is being written to, when everything that it yielded before
//! has been written. When it has nothing yet, the link is left alone until its waker is woken.
//! While a request waits for its source, no deadline runs but that of the request as a whole.
//!
//! A chain with a source has [`Marks::METERED`], by which its supply ends with its exchange.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::body::Factory;
use crate::engine::agenda::Completion;
use crate::engine::chain::{ChainKey, Marks, Stage};
use crate::engine::chains::Chains;
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::fail::Failure;
use crate::engine::supplies::SupplyFailure;
use crate::engine::visits::block_of;
use crate::engine::writing::send_at_once;
use crate::error::{Error, ErrorKind};
use crate::h1::exchange::{Exchange, Upload};
use crate::net::Net;
use crate::net::slots::LinkKey;
use crate::net::transport::{self, Trouble, Written};
use crate::policy::Waits;

impl<N: Net> Core<N> {
    /// Gets the source of the body of a chain's request, which is about to be put on a link.
    /// Returns false if there is none: the chain is then on the agenda.
    #[cold]
    pub(super) fn open_supply(&mut self, key: ChainKey) -> bool {
        let request = self.chains[key].request().clone();
        let factory = Factory::of(&request).expect("this request carries its body");
        let supplies = &mut self.supplies;
        let opened = catch_unwind(AssertUnwindSafe(|| {
            factory.open().map(|source| supplies.insert(key, source))
        }));
        self.clock.since = Since::UserCode;
        match opened {
            Ok(Ok(())) => {
                self.chains[key].marks.set(Marks::METERED);
                true
            }
            Ok(Err(error)) => {
                self.disarm(key);
                let at = self.circumstances_unlinked(key);
                let error = Error::from_io(ErrorKind::Body, error, at);
                self.complete(key, Completion::Failed(error));
                self.agenda.carried_out += 1;
                false
            }
            Err(panic) => {
                self.panic.get_or_insert(panic);
                self.disarm(key);
                self.complete(key, Completion::Over);
                false
            }
        }
    }

    /// Gives the front exchange of a link the supply of its chain.
    #[cold]
    pub(super) fn begin_supply(&mut self, key: LinkKey, chain: ChainKey) {
        let (defaults, chains, visits) = (&self.settings.defaults, &self.chains, &self.visits);
        let front = self.links[key].h1.front_mut();
        let front = front.expect("the request has just been put on the link");
        let supplied = self.supplies.get_mut(chain);
        let supplied = supplied.expect("the source was opened before");
        if supplied.is_empty() && front.upload == Upload::Head {
            front.omit_expect();
        }
        let layout = front.layout(|number| block_of((chain, number), defaults, chains, visits));
        let [front_of_head, rest_of_head, block, _] = *layout.parts();
        supplied.begin([front_of_head, rest_of_head], block);
        front.begin_supply(supplied.bytes());
    }

    /// Writes what a link's only request has been supplied with, and reads its source if there is
    /// nothing left. Returns `None` if there is nothing to write for now.
    #[cold]
    pub(super) fn write_supplied_once(&mut self, key: LinkKey) -> Option<Result<Written, Trouble>> {
        let chain = self.links[key].chain()?;
        let mut upload = self.front_of(key).upload;
        if upload == Upload::SupplyOpen {
            upload = self.replenish(key, chain)?;
        }
        let has_outbound = self.links[key].has_outbound();
        if upload == Upload::SupplyWaiting {
            self.arm(chain, None);
            return if has_outbound {
                self.write_outbound(key)
            } else {
                None
            };
        }
        let (written, writable) = (self.front_of(key).written(), self.front_of(key).writable());
        let mut most = writable - written;
        if self.front_of(key).is_capped() && most > 0 {
            match self.room_to_write(key, most) {
                None if !has_outbound => return None,
                room => most = room.unwrap_or(0),
            }
        }
        // A piece must not wait until the one before it is acknowledged.
        let link = &mut self.links[key];
        send_at_once(link, &mut self.net);
        let (socket, tls) = link.reach.wire().expect("an open link has a socket");
        let (net, scratch) = (&mut self.net, &mut self.buffers.scratch);
        let supplied = self.supplies.get_mut(chain);
        let supplied = supplied.expect("it was pulled from");
        let parts = [&supplied.waiting(written)[..most]];
        let done = transport::write(net, socket, tls, &parts, 0, scratch);
        if let Ok(done) = &done {
            supplied.on_taken(done.taken);
        }
        Some(done)
    }

    fn front_of(&self, key: LinkKey) -> &Exchange<ChainKey> {
        let front = self.links[key].h1.front();
        front.expect("a request that is being supplied is in front")
    }

    /// Reads the source of a request when everything else has been written, and at the beginning,
    /// so that the body goes out together with the head. Returns `None` if the source failed.
    fn replenish(&mut self, key: LinkKey, chain: ChainKey) -> Option<Upload> {
        let front = self.front_of(key);
        let supplied = self.supplies.get(chain);
        let supplied = supplied.expect("a request with a source has a supply");
        let is_due = front.written() == front.writable() || supplied.is_untouched();
        if is_due && !supplied.is_waiting() {
            self.pull(key, chain)?;
        }
        let front = self.links[key].h1.front_mut()?;
        let supplied = self.supplies.get(chain)?;
        let bytes = supplied.bytes();
        let upload = if supplied.has_ended() {
            Upload::SupplyEnded
        } else if supplied.is_waiting() && front.written() == bytes {
            Upload::SupplyWaiting
        } else {
            Upload::SupplyOpen
        };
        front.on_supply(bytes, upload);
        if upload == Upload::SupplyWaiting {
            self.supplies.on_waiting(chain, bytes);
        }
        Some(upload)
    }

    /// Reads the source of a request. Returns `None` if it failed.
    fn pull(&mut self, key: LinkKey, chain: ChainKey) -> Option<()> {
        let id = self.chains.id(chain);
        let written = self.front_of(key).written();
        let (supplies, wakeups) = (&mut self.supplies, &self.wakeups);
        let request = self.chains[chain].request();
        let pulled = catch_unwind(AssertUnwindSafe(|| {
            supplies.pull(chain, written, request, || {
                wakeups.waker(id, Waits::ForBody)
            })
        }));
        self.clock.since = Since::UserCode;
        let supplied = self.supplies.get_mut(chain);
        let supplied = supplied.expect("it has just been pulled from");
        let failure = match pulled {
            Ok(Ok(())) => {
                let ended = supplied.has_ended().then(|| supplied.take_source());
                self.discard(ended);
                return Some(());
            }
            Ok(Err(error)) => SupplyFailure::Error(error),
            Err(panic) => {
                self.panic.get_or_insert(panic);
                SupplyFailure::Panicked
            }
        };
        supplied.failed = Some(failure);
        // The caller may still use the link; a command ends its exchange.
        let front = self.links[key].h1.front_mut()?;
        front.upload = Upload::Cut;
        self.chains.fail_body(chain);
        None
    }

    /// Ends the exchange of a chain whose source has failed.
    pub(super) fn fail_body(&mut self, key: ChainKey) {
        let Stage::Running { link } = self.chains[key].stage else {
            return;
        };
        let of_request = self.supplies.get_mut(key).and_then(|it| it.failed.take());
        let of_tunnel = |chains: &mut Chains| chains.outbox(key)?.failed.take();
        let failed = of_request.or_else(|| of_tunnel(&mut self.chains));
        match failed {
            Some(SupplyFailure::Error(error)) => self.fail(link, Failure::Body(error)),
            Some(SupplyFailure::Panicked) => {
                self.disarm(key);
                self.end_metering(key);
                self.end_tunnel(key);
                self.chains[key].marks.clear(Marks::PAUSED);
                self.close(link);
                self.complete(key, Completion::Over);
            }
            None => {}
        }
    }

    /// Records that the waker of a request's source has been woken. Returns the link that is to be
    /// written to, if the request has been waiting for its source.
    pub(super) fn on_supply_woken(&mut self, key: ChainKey) -> Option<LinkKey> {
        if let Some(supplied) = self.supplies.get_mut(key) {
            supplied.on_woken();
        }
        let Stage::Running { link } = self.chains[key].stage else {
            return None;
        };
        let front = self.links[link].h1.front_mut();
        let front = front.filter(|front| front.tag == key && front.waits_for_supply())?;
        let bytes = front.writable();
        front.on_supply(bytes, Upload::SupplyOpen);
        self.arm_again(link, key, false);
        Some(link)
    }
}
