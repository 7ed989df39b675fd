//! Transport: the bytes of one link on their way out, plain or through a TLS state.
//!
//! The way in is the engine's, since what is read has to lie in a buffer of its choice.

use std::io::{self, IoSlice};

use crate::net::Net;
use crate::net::tls::{Problem, Scratch, TlsState};

/// What became of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes that count as written: the socket took them, or the TLS state has encrypted them and
    /// sees to them.
    pub(crate) taken: usize,
    /// Bytes that the socket took.
    pub(crate) sent: usize,
    /// The socket takes no more for now, or is not connected yet.
    pub(crate) is_blocked: bool,
}

/// Why nothing can be written.
#[derive(Debug)]
pub(crate) enum Trouble {
    Io(io::Error),
    Tls(Problem),
}

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Trouble::Tls(problem)
    }
}

/// Writes what follows the first `skip` bytes of `parts`, as far as the socket takes it; through a
/// TLS state, what that has to say first.
#[inline]
pub(crate) fn write<N: Net>(
    net: &mut N,
    socket: &N::Socket,
    tls: Option<&mut TlsState>,
    parts: &[&[u8]],
    skip: usize,
    scratch: &mut Scratch,
) -> Result<Written, Trouble> {
    write_from::<MAX_PARTS, N>(net, socket, tls, parts, skip, scratch)
}

/// [`write`], from `PARTS` places at most.
#[inline]
pub(crate) fn write_from<const PARTS: usize, N: Net>(
    net: &mut N,
    socket: &N::Socket,
    tls: Option<&mut TlsState>,
    parts: &[&[u8]],
    skip: usize,
    scratch: &mut Scratch,
) -> Result<Written, Trouble> {
    let Some(tls) = tls else {
        let mut slices = [IoSlice::new(&[]); PARTS];
        let n = slices_of(parts, skip, &mut slices);
        let sent = send(net, socket, &slices[..n])?;
        return Ok(Written {
            taken: sent.unwrap_or_default(),
            sent: sent.unwrap_or_default(),
            is_blocked: sent.is_none(),
        });
    };
    let flight = tls.seal(parts, skip, scratch)?;
    let taken = flight.sealed();
    if flight.len() == 0 {
        return Ok(Written {
            taken,
            sent: 0,
            is_blocked: false,
        });
    }
    let sent = send(net, socket, &flight.slices())?;
    flight.on_sent(sent.unwrap_or_default());
    Ok(Written {
        taken,
        sent: sent.unwrap_or_default(),
        is_blocked: sent.is_none(),
    })
}

/// A request lies in so many places at most.
const MAX_PARTS: usize = 4;

#[inline(always)]
fn slices_of<'a>(parts: &[&'a [u8]], skip: usize, slices: &mut [IoSlice<'a>]) -> usize {
    let mut skip = skip;
    let mut n = 0;
    for part in parts {
        let from = skip.min(part.len());
        skip -= from;
        if from < part.len() {
            slices[n] = IoSlice::new(&part[from..]);
            n += 1;
        }
    }
    n
}

/// `None`: the socket takes nothing for now, or is not connected yet.
#[inline]
fn send<N: Net>(
    net: &mut N,
    socket: &N::Socket,
    slices: &[IoSlice<'_>],
) -> Result<Option<usize>, Trouble> {
    loop {
        match net.send(socket, slices) {
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Trouble::Io(error)),
        }
    }
}
