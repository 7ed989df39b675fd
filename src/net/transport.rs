//! Writes the bytes of one link, directly or through a TLS state.
//!
//! Reading is left to the engine, because it chooses the buffer to read into.

use std::io::{self, IoSlice};

use crate::net::Net;
use crate::net::tls::{Problem, Scratch, TlsState};

/// The result of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Bytes that count as written: the socket took them, or the TLS state has encrypted them and
    /// will send them.
    pub(crate) taken: usize,
    /// Bytes that the socket took.
    pub(crate) sent: usize,
    /// The socket accepts no more at the moment, or is not connected yet.
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

/// Writes what follows the first `skip` bytes of `parts`, as far as the socket accepts it. A TLS
/// state sends its own pending bytes first.
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

/// Like [`write`], from at most `PARTS` slices.
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

/// The most slices that one request takes.
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

/// Sends once. Returns `None` if the socket accepts nothing at the moment, or is not connected yet.
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
