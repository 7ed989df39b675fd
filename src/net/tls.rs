//! A TLS state as a byte pump: ciphertext in, plaintext out, and the other way round. No socket, no
//! HTTP.
//!
//! ```text
//!  socket ─► read buffer ─ receive ─► plaintext (shared) ─► parser
//!  request ─ seal ─► Scratch (shared) ─► socket;  what that does not take ─► TlsState
//! ```
//!
//! The rule is that a TLS state at rest holds no buffer: records are decrypted in the buffer that
//! all links read into, and made in one that all links write from. What a TLS state keeps is an
//! incomplete record, and ciphertext that its socket has not taken. So it stands on rustls'
//! unbuffered interface; its buffered one keeps 4 KiB and more for each connection.
//!
//! rustls copies each record's plaintext into a vector of its own, and lends that only as long as
//! it borrows the read buffer; so it is copied once more, behind that of the record before. The
//! parser gets what one read has brought in one piece.

use std::fmt;
use std::io::IoSlice;
use std::mem;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{AlertDescription, Error};

use crate::tls::{CertificateChain, HTTP_1_1};
pub(crate) use crate::tls::{Problem, Tls, TlsInfo};

/// A TLS connection without its socket. One pointer wide.
pub(crate) struct TlsState(Box<Inner>);

struct Inner {
    connection: UnbufferedClientConnection,
    state: State,
    /// What has been read of a record, or of handshake messages, that is not complete; and records
    /// that are, where there was more to do than was allowed.
    kept: Vec<u8>,
    /// How much of `kept` has been shown to rustls already, as whole records: parts of a message of
    /// the handshake.
    shown: usize,
    /// Records and tickets without data, since data were last received or sealed.
    unasked: usize,
    /// Ciphertext that goes to the socket before any other.
    outbound: Vec<u8>,
}

/// ```text
/// Handshaking ──► Established ──► Finished
///      └───────────────┴──────────────┴────► Failed
/// ```
enum State {
    /// Whose chains its server's certificates are shared in.
    Handshaking(Tls),
    /// Data may go both ways.
    Established(CertificateChain),
    /// The peer has said that it sends nothing more; data may still be sent.
    Finished(CertificateChain),
    /// Nothing more can be read or sent, but for the alert that says so. Boxed, since it is the
    /// largest and few come to it.
    Failed(Box<Problem>),
}

/// Buffers that all TLS states of an engine share, for the length of a call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// As long as it has ever been needed; of interest up to `filled`.
    ciphertext: Vec<u8>,
    filled: usize,
    /// Plaintext from several places that goes into one record.
    joined: Vec<u8>,
}

/// The longest record (RFC 8446 §5.2), and some room for handshake messages before it: no shorter
/// buffer may be read into.
pub(crate) const MIN_READ_BUFFER: usize = 32 << 10;

/// What a record costs beside its bytes, as so many more: its header, nonce and tag, and a vector
/// of rustls' own. Half a microsecond.
const RECORD_WORK: usize = 512;

/// The same of one that brings no data: a ticket for a later connection, whose secret is derived
/// and which takes the server's certificates along, or a change of keys. Several microseconds.
const UNASKED_WORK: usize = 8 << 10;

/// Plaintext that one call of [`TlsState::seal`] takes: four full records.
const MAX_SEALED: usize = 64 << 10;

impl TlsState {
    /// Begins a connection to `host`: a name in lower case or an IP address, as an origin has it.
    /// What opens the handshake is outbound then.
    ///
    /// # Errors
    /// [`Problem::NoRoots`], or [`Problem::Name`] of a host that no certificate can name.
    pub(crate) fn new(tls: &Tls, host: &str) -> Result<Self, Problem> {
        let config = tls.config()?;
        let connection = UnbufferedClientConnection::new(config, server_name(host)?)?;
        let mut tls = Self(Box::new(Inner {
            connection,
            state: State::Handshaking(tls.clone()),
            kept: Vec::new(),
            shown: 0,
            unasked: 0,
            outbound: Vec::new(),
        }));
        tls.0.run_kept(|_, _| Ok(()))?;
        Ok(tls)
    }

    /// Puts what is kept of the last read at the front of `buffer`, and answers how much that is:
    /// the socket is read behind it. `buffer` is no shorter than it was then.
    ///
    /// It is kept until [`receive`](Self::receive), so nothing is lost where there is nothing to be
    /// read.
    pub(crate) fn restore(&self, buffer: &mut [u8]) -> usize {
        let kept = &self.0.kept;
        buffer[..kept.len()].copy_from_slice(kept);
        kept.len()
    }

    /// Takes ciphertext: `buffer` up to `filled`, which begins with what [`restore`](Self::restore)
    /// put there. Appends the plaintext of all records that are complete to `plaintext`, and keeps
    /// the rest. There may be something outbound afterwards, also after an error: the alert that
    /// tells the peer.
    ///
    /// `allowance` is how much of it may be done, in bytes: of each record something for itself is
    /// taken from it, and more of one that is no data. When it is used up the rest is kept as it
    /// is, and [`has_pending`](Self::has_pending) says so. A few records, or one that is full of
    /// tickets, are done in any case, so it may go over by that. A server can make records of one
    /// byte, or tickets of twenty, and so much more work with a buffer of them than with a buffer
    /// of data.
    ///
    /// # Errors
    /// Whatever ends the connection; the same again when called again. Plaintext of records before
    /// the bad one is in `plaintext`.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        filled: usize,
        plaintext: &mut Vec<u8>,
        allowance: &mut usize,
    ) -> Result<(), Problem> {
        let limit = buffer.len();
        self.0
            .receive(&mut buffer[..filled], limit, plaintext, allowance)
    }

    /// Whether whole records are kept: [`receive`](Self::receive) is to be called with what
    /// [`restore`](Self::restore) gives, before anything else is read. No event will tell of them.
    pub(crate) fn has_pending(&self) -> bool {
        !self.0.kept.is_empty() && record_len(&self.0.kept[self.0.shown..]).is_some()
    }

    /// How many records without data, or tickets, have come since data were last received or
    /// sealed.
    pub(crate) fn unasked(&self) -> usize {
        self.0.unasked
    }

    /// Whether application data may be sent.
    pub(crate) fn is_established(&self) -> bool {
        match self.0.state {
            State::Established(_) | State::Finished(_) => true,
            State::Handshaking(_) | State::Failed(_) => false,
        }
    }

    /// Whether the peer has said close_notify: no plaintext follows, and the end of the stream is a
    /// true one (RFC 8446 §6.1).
    pub(crate) fn is_finished(&self) -> bool {
        match self.0.state {
            State::Finished(_) => true,
            State::Handshaking(_) | State::Established(_) | State::Failed(_) => false,
        }
    }

    /// Why nothing more can be read or sent, if that is so.
    pub(crate) fn failure(&self) -> Option<&Problem> {
        match &self.0.state {
            State::Failed(problem) => Some(problem),
            State::Handshaking(_) | State::Established(_) | State::Finished(_) => None,
        }
    }

    /// Whether ciphertext waits for the socket.
    pub(crate) fn has_outbound(&self) -> bool {
        !self.0.outbound.is_empty()
    }

    /// Whether a part of a record has come, and the rest not.
    pub(crate) fn is_inside_record(&self) -> bool {
        !self.0.kept.is_empty()
    }

    /// Encrypts what follows the first `skip` bytes of `parts`, 64 KiB at most; they share records,
    /// so that a head and the body behind it may be one. Nothing is encrypted before the handshake
    /// is over, or while as much waits for the socket already.
    ///
    /// # Errors
    /// The TLS state has failed, or has sent as much as its keys are good for.
    pub(crate) fn seal<'a>(
        &'a mut self,
        parts: &[&[u8]],
        skip: usize,
        scratch: &'a mut Scratch,
    ) -> Result<Flight<'a>, Problem> {
        scratch.filled = 0;
        let inner = &mut *self.0;
        let sealed = match inner.state {
            State::Handshaking(_) => 0,
            State::Established(_) | State::Finished(_) => inner.seal(parts, skip, scratch)?,
            State::Failed(ref problem) => return Err((**problem).clone()),
        };
        Ok(Flight {
            outbound: &mut inner.outbound,
            scratch,
            sealed,
            sent: 0,
        })
    }

    /// Ends TLS on the connection. What is left to be said to the peer: ciphertext that waits for
    /// the socket, then close_notify (RFC 8446 §6.1) or the alert that says why the TLS state
    /// failed. It is for one last send, and need not be taken.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        match self.0.state {
            State::Handshaking(_) => return Vec::new(),
            State::Failed(_) => {}
            State::Established(_) | State::Finished(_) => {
                // Whoever closes has no more use for the reason why it cannot be said.
                let _ = self.0.run_kept(|mut traffic, outbound| {
                    let mut alert = Vec::new();
                    let n = fit(&mut alert, |room| traffic.queue_close_notify(room))?;
                    outbound.extend_from_slice(&alert[..n]);
                    Ok(())
                });
            }
        }
        mem::take(&mut self.0.outbound)
    }

    /// Tickets that have come.
    #[cfg(test)]
    pub(crate) fn tickets(&self) -> usize {
        self.0.connection.tls13_tickets_received() as usize
    }

    /// How the connection is protected, once it is.
    pub(crate) fn info(&self) -> Option<TlsInfo> {
        match &self.0.state {
            State::Established(chain) | State::Finished(chain) => {
                Some(TlsInfo::new(&self.0.connection, chain.clone()))
            }
            State::Handshaking(_) | State::Failed(_) => None,
        }
    }
}

/// Neither keys nor data.
impl fmt::Debug for TlsState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsState")
            .field("state", &self.0.state)
            .field("kept", &self.0.kept.len())
            .field("outbound", &self.0.outbound.len())
            .finish()
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Handshaking(_) => f.write_str("Handshaking"),
            State::Established(_) => f.write_str("Established"),
            State::Finished(_) => f.write_str("Finished"),
            State::Failed(problem) => write!(f, "Failed({problem})"),
        }
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("ciphertext", &self.ciphertext.len())
            .field("joined", &self.joined.capacity())
            .finish()
    }
}

/// Ciphertext on its way to the socket. Dropped, it is as if the socket had taken none: all of it
/// stays with the TLS state, since records count, and none may be lost or sent twice.
#[must_use]
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    outbound: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
    sealed: usize,
    sent: usize,
}

impl Flight<'_> {
    /// Bytes of plaintext that are encrypted now, and must not be given to [`TlsState::seal`]
    /// again, whatever the socket takes.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed
    }

    /// What is to be sent: what the TLS state had kept, and what was encrypted now.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        [
            IoSlice::new(self.outbound),
            IoSlice::new(&self.scratch.ciphertext[..self.scratch.filled]),
        ]
    }

    /// Bytes in [`slices`](Self::slices).
    pub(crate) fn len(&self) -> usize {
        self.outbound.len() + self.scratch.filled
    }

    /// The socket took the first `n` bytes; the TLS state keeps the others.
    pub(crate) fn on_sent(mut self, n: usize) {
        self.sent = n;
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let fresh = &self.scratch.ciphertext[..mem::take(&mut self.scratch.filled)];
        let from_outbound = self.sent.min(self.outbound.len());
        let from_fresh = self.sent - from_outbound;
        self.outbound.drain(..from_outbound);
        self.outbound.extend_from_slice(&fresh[from_fresh..]);
        release_if_empty(self.outbound);
    }
}

/// What may be sent when rustls has nothing more to read.
type Traffic<'c> = WriteTraffic<'c, ClientConnectionData>;

impl Inner {
    fn receive(
        &mut self,
        bytes: &mut [u8],
        limit: usize,
        plaintext: &mut Vec<u8>,
        allowance: &mut usize,
    ) -> Result<(), Problem> {
        let mut taken = 0;
        // Up to here rustls has been shown whole records, whether or not it is done with them.
        let mut shown = self.shown.min(bytes.len());
        loop {
            let (records, len) = first_records(&bytes[shown..]);
            let whole = shown + len;
            let is_last = record_len(&bytes[whole..]).is_none();
            // What begins another record is shown as well: if it is none, that is to be known now.
            let end = if is_last { bytes.len() } else { whole };
            let done = self.run_counted(&mut bytes[taken..end], records, plaintext, allowance);
            taken += done?;
            shown = whole;
            if is_last || *allowance == 0 || matches!(self.state, State::Finished(_)) {
                break;
            }
        }
        let rest = match self.state {
            State::Handshaking(_) | State::Established(_) => &bytes[taken..],
            // RFC 8446 §6.1: data after a closure alert is ignored.
            State::Finished(_) | State::Failed(_) => &[],
        };
        self.shown = shown.saturating_sub(taken).min(rest.len());
        let has_pending = record_len(&rest[self.shown..]).is_some();
        if rest.len() == limit && !has_pending {
            return Err(self.fail(Problem::TooLong { limit }));
        }
        self.kept.clear();
        self.kept.extend_from_slice(rest);
        release_if_empty(&mut self.kept);
        Ok(())
    }

    /// As [`run`](Self::run), of bytes that end with so many records which are new; takes what they
    /// cost from `allowance`.
    fn run_counted(
        &mut self,
        bytes: &mut [u8],
        records: usize,
        plaintext: &mut Vec<u8>,
        allowance: &mut usize,
    ) -> Result<usize, Problem> {
        let tickets = self.connection.tls13_tickets_received();
        let mut data = 0;
        let done = self.run(bytes, plaintext, &mut data, |_, _| Ok(()));
        // Several tickets may be in one record; how many other messages can be is limited by
        // rustls.
        let tickets = self.connection.tls13_tickets_received() - tickets;
        let unasked = (records.saturating_sub(data)).max(tickets as usize);
        let cost = records * RECORD_WORK + unasked * UNASKED_WORK;
        *allowance = allowance.saturating_sub(cost);
        self.unasked = match data {
            0 => self.unasked + unasked,
            _ => 0,
        };
        done
    }

    /// See [`TlsState::seal`].
    fn seal(
        &mut self,
        parts: &[&[u8]],
        skip: usize,
        scratch: &mut Scratch,
    ) -> Result<usize, Problem> {
        if self.outbound.len() >= MAX_SEALED {
            return Ok(0);
        }
        let Scratch {
            ciphertext,
            filled,
            joined,
        } = scratch;
        let data = pick(parts, skip, joined);
        if data.is_empty() {
            return Ok(0);
        }
        self.unasked = 0;
        self.run_kept(|mut traffic, _| {
            let sealed = fit(ciphertext, |room| traffic.encrypt(data, room));
            sealed.map(|n| *filled = n)
        })?;
        match *filled {
            // rustls has closed the connection on its own: TLS 1.2 has no way to change keys that
            // are worn out.
            0 => Err(self.fail(Problem::Rustls(Error::EncryptError))),
            _ => Ok(data.len()),
        }
    }

    /// Runs rustls without fresh bytes, to have something from it.
    fn run_kept(
        &mut self,
        at_rest: impl FnOnce(Traffic<'_>, &mut Vec<u8>) -> Result<(), EncryptError>,
    ) -> Result<(), Problem> {
        let mut kept = mem::take(&mut self.kept);
        // Of whole records rustls sees only those again that it has seen, so there is no plaintext;
        // a vector that stays empty takes no memory.
        let taken = self.run(&mut kept[..self.shown], &mut Vec::new(), &mut 0, at_rest)?;
        kept.drain(..taken);
        self.shown -= taken;
        self.kept = kept;
        Ok(())
    }

    /// Runs rustls over `bytes` until it needs more, then lets `at_rest` send, if data may be sent.
    /// Answers how many bytes are done with, and adds to `data` how many records of plaintext there
    /// were.
    fn run(
        &mut self,
        bytes: &mut [u8],
        plaintext: &mut Vec<u8>,
        data: &mut usize,
        at_rest: impl FnOnce(Traffic<'_>, &mut Vec<u8>) -> Result<(), EncryptError>,
    ) -> Result<usize, Problem> {
        if let State::Failed(problem) = &self.state {
            return Err((**problem).clone());
        }
        let mut taken = 0;
        let mut closed = false;
        let ended = loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(&mut bytes[taken..]);
            taken += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(traffic)) => match read(traffic, plaintext, data) {
                    Ok(discard) => taken += discard,
                    Err(error) => break Err(error),
                },
                Ok(ConnectionState::EncodeTlsData(message)) => encode(message, &mut self.outbound),
                // What is encoded is sent in order, whenever that is.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                // Told once; what is to be done in its wake comes next.
                Ok(ConnectionState::PeerClosed) => closed = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let written = at_rest(traffic, &mut self.outbound);
                    break written.map_err(|_| Error::EncryptError);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => break Ok(()),
                // Early data is for servers to read. What else there may be one day nobody here has
                // asked for.
                Ok(other) => break Err(Error::General(format!("unexpected state {other:?}"))),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = ended {
            self.collect_alert(&mut bytes[taken..]);
            let problem = self.explain(error, bytes);
            return Err(self.fail(problem));
        }
        self.advance(closed).map_err(|problem| self.fail(problem))?;
        Ok(taken)
    }

    /// What the handshake has come to, and whether the peer has `closed` its side.
    fn advance(&mut self, closed: bool) -> Result<(), Problem> {
        if let State::Handshaking(tls) = &self.state
            && !self.connection.is_handshaking()
        {
            match self.connection.alpn_protocol() {
                None | Some(HTTP_1_1) => {}
                Some(other) => return Err(Problem::Protocol(other.to_vec())),
            }
            let chain = tls.intern(self.connection.peer_certificates().unwrap_or_default());
            self.state = State::Established(chain);
        }
        match &self.state {
            State::Handshaking(_) if closed => Err(Problem::Alert(AlertDescription::CloseNotify)),
            State::Established(chain) if closed => {
                self.state = State::Finished(chain.clone());
                Ok(())
            }
            State::Handshaking(_)
            | State::Established(_)
            | State::Finished(_)
            | State::Failed(_) => Ok(()),
        }
    }

    /// Puts the alert that rustls has for the peer, if it has one, behind what is outbound. Asked
    /// once only: whoever asks on would have it read on.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(message)) =
            self.connection.process_tls_records(rest).state
        {
            encode(message, &mut self.outbound);
        }
    }

    /// Tells a peer of another protocol from one that is bad at this one: TLS begins with a record
    /// of a handshake or an alert (RFC 8446 §5.1).
    fn explain(&self, error: Error, bytes: &[u8]) -> Problem {
        let is_first = self.connection.protocol_version().is_none();
        let is_record = matches!(bytes.first(), Some(20..=23));
        match error {
            Error::InvalidMessage(_) if is_first && !is_record => Problem::NotTls,
            error => error.into(),
        }
    }

    fn fail(&mut self, problem: Problem) -> Problem {
        self.state = State::Failed(Box::new(problem.clone()));
        self.kept = Vec::new();
        self.shown = 0;
        problem
    }
}

/// How long the record is that `bytes` begin with, if all of it is there (RFC 8446 §5.1).
fn record_len(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, rest @ ..] = bytes else {
        return None;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    (len <= rest.len()).then_some(5 + len)
}

/// The records that are done at once, if there is more than one: how many, and how long they are. A
/// record of data is full at 16 KiB, so that a large body is not read in smaller portions for it.
fn first_records(bytes: &[u8]) -> (usize, usize) {
    const MOST: usize = 16;
    const ENOUGH: usize = 16 << 10;
    let (mut records, mut end) = (0, 0);
    while records < MOST
        && end < ENOUGH
        && let Some(len) = record_len(&bytes[end..])
    {
        records += 1;
        end += len;
    }
    (records, end)
}

/// Appends the plaintext of the records that are ready. Answers how many bytes of ciphertext are
/// done with beside those that rustls tells of itself.
fn read(
    mut traffic: ReadTraffic<'_, '_, ClientConnectionData>,
    plaintext: &mut Vec<u8>,
    data: &mut usize,
) -> Result<usize, Error> {
    let mut discard = 0;
    while let Some(record) = traffic.next_record() {
        let record = record?;
        plaintext.extend_from_slice(record.payload);
        discard += record.discard;
        *data += 1;
    }
    Ok(discard)
}

/// Appends a message of the handshake, or an alert.
fn encode(mut message: EncodeTlsData<'_, ClientConnectionData>, outbound: &mut Vec<u8>) {
    let end = outbound.len();
    // The first try tells how long it is.
    while let Err(EncodeError::InsufficientSize(short)) = message.encode(&mut outbound[end..]) {
        outbound.resize(end + short.required_size, 0);
    }
}

/// Has `write` fill the front of `buffer`, which is made longer if that is too short. Answers how
/// much it wrote.
fn fit(
    buffer: &mut Vec<u8>,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<usize, EncryptError> {
    match write(buffer) {
        Err(EncryptError::InsufficientSize(short)) => {
            buffer.resize(short.required_size, 0);
            write(buffer)
        }
        done => done,
    }
}

/// What follows the first `skip` bytes of `parts`, up to [`MAX_SEALED`]: where it lies, if that is
/// one place, else put together.
fn pick<'a>(parts: &[&'a [u8]], skip: usize, joined: &'a mut Vec<u8>) -> &'a [u8] {
    let mut skip = skip;
    let mut left = MAX_SEALED;
    let mut pieces = parts.iter().filter_map(|part| {
        let from = skip.min(part.len());
        skip -= from;
        let piece = &part[from..];
        let piece = &piece[..piece.len().min(left)];
        left -= piece.len();
        (!piece.is_empty()).then_some(piece)
    });
    let first = pieces.next().unwrap_or_default();
    let Some(second) = pieces.next() else {
        return first;
    };
    joined.clear();
    joined.extend_from_slice(first);
    joined.extend_from_slice(second);
    pieces.for_each(|piece| joined.extend_from_slice(piece));
    joined
}

/// The name that the server's certificate has to bear. A trailing dot is no part of it, nor is the
/// zone of an address: both say how a host is found from here (RFC 6066 §3, RFC 6874 §4).
fn server_name(host: &str) -> Result<ServerName<'static>, Problem> {
    let name = host.strip_suffix('.').unwrap_or(host);
    let name = match name.split_once('%') {
        Some((address, _zone)) => address,
        None => name,
    };
    match ServerName::try_from(name) {
        Ok(name) => Ok(name.to_owned()),
        Err(_) => Err(Problem::Name(host.to_owned())),
    }
}

/// Gives an empty buffer's memory back.
fn release_if_empty(buffer: &mut Vec<u8>) {
    if buffer.is_empty() {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests;
