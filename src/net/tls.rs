//! TLS as a byte pump: ciphertext in, plaintext out, and the other way round. No sockets and no
//! HTTP.
//!
//! ```text
//!  socket ─► read buffer ─ receive ─► plaintext (shared) ─► parser
//!  request ─ seal ─► Scratch (shared) ─► socket;  what it does not take ─► TlsState
//! ```
//!
//! A TLS state at rest holds no buffer. Records are decrypted in the buffer that all links read
//! into, and encrypted into one that all links write from. A TLS state keeps only an incomplete
//! record, and ciphertext that its socket has not taken. This requires rustls' unbuffered API,
//! because the buffered one keeps at least 4 KiB for each connection.
//!
//! rustls copies each record's plaintext into a vector of its own, and lends it only while it
//! borrows the read buffer. It is therefore copied once more, after the plaintext of the previous
//! record, and the parser gets all plaintext of one read in one piece.

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

/// A TLS connection without its socket. The size of a pointer.
pub(crate) struct TlsState(Box<Inner>);

struct Inner {
    connection: UnbufferedClientConnection,
    state: State,
    /// Incomplete input: part of a record, or of handshake messages. Also whole records, if the
    /// allowance did not cover them.
    kept: Vec<u8>,
    /// How much of `kept` rustls has already seen as whole records, which are fragments of a
    /// handshake message.
    shown: usize,
    /// Records without data, and tickets, since data was last received or sealed.
    unasked: usize,
    /// Ciphertext that must be sent before any other.
    outbound: Vec<u8>,
}

/// ```text
/// Handshaking ──► Established ──► Finished
///      └───────────────┴──────────────┴────► Failed
/// ```
enum State {
    /// The server's certificate chain will be interned in this [`Tls`].
    Handshaking(Tls),
    /// Data may flow both ways.
    Established(CertificateChain),
    /// The peer has sent close_notify. Data may still be sent.
    Finished(CertificateChain),
    /// Nothing more can be read or sent, except the alert that reports the failure. Boxed because
    /// it is large and rare.
    Failed(Box<Problem>),
}

/// Buffers that all TLS states of an engine share, used within one call.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Grows as needed and never shrinks. Only the bytes up to `filled` are valid.
    ciphertext: Vec<u8>,
    filled: usize,
    /// Plaintext from several slices that goes into one record.
    joined: Vec<u8>,
}

/// The minimum size of a read buffer: the longest record (RFC 8446 §5.2), and some room for
/// handshake messages before it.
pub(crate) const MIN_READ_BUFFER: usize = 32 << 10;

/// The fixed cost of a record, expressed in bytes: its header, nonce and tag, and a vector that
/// rustls allocates. Half a microsecond.
const RECORD_WORK: usize = 512;

/// The same for a record without data: a ticket for a later connection, whose secret is derived and
/// which includes the server's certificates, or a key update. Several microseconds.
const UNASKED_WORK: usize = 8 << 10;

/// The most plaintext that one call of [`TlsState::seal`] takes: four full records.
const MAX_SEALED: usize = 64 << 10;

impl TlsState {
    /// Starts a connection to `host`, which is a name in lower case or an IP address, as in an
    /// origin. The ClientHello is outbound afterwards.
    ///
    /// # Errors
    /// [`Problem::NoRoots`], or [`Problem::Name`] for a host that cannot appear in a certificate.
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

    /// Copies what is kept of the last read to the front of `buffer`, and returns its length. The
    /// socket is then read into the space after it. `buffer` must not be shorter than it was for
    /// the last read.
    ///
    /// The bytes are also kept until [`receive`](Self::receive), so nothing is lost if the socket
    /// has nothing to read.
    pub(crate) fn restore(&self, buffer: &mut [u8]) -> usize {
        let kept = &self.0.kept;
        buffer[..kept.len()].copy_from_slice(kept);
        kept.len()
    }

    /// Processes ciphertext: `buffer` up to `filled`, which starts with what
    /// [`restore`](Self::restore) copied there. Appends the plaintext of all complete records to
    /// `plaintext`, and keeps the rest. Afterwards there may be outbound ciphertext, even after an
    /// error: the alert that informs the peer.
    ///
    /// `allowance` limits the work, in bytes. Each record takes a fixed amount from it, and a
    /// record without data takes more. When the allowance is used up, the rest is kept as it is,
    /// and [`has_pending`](Self::has_pending) returns true. A few records, or one that is full of
    /// tickets, are processed in any case, so the allowance may be exceeded by that much. The limit
    /// exists because a server can make records of one byte, or tickets of twenty, and a buffer of
    /// these is far more work than a buffer of data.
    ///
    /// # Errors
    /// Returns whatever ended the connection, and returns it again when called again. The plaintext
    /// of records before the bad one is in `plaintext`.
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

    /// Returns whether whole records are kept. If so, [`receive`](Self::receive) must be called
    /// with what [`restore`](Self::restore) returns before the socket is read again. The poll
    /// reports no event for them.
    pub(crate) fn has_pending(&self) -> bool {
        !self.0.kept.is_empty() && record_len(&self.0.kept[self.0.shown..]).is_some()
    }

    /// Returns how many records without data, or tickets, have arrived since data was last received
    /// or sealed.
    pub(crate) fn unasked(&self) -> usize {
        self.0.unasked
    }

    /// Returns whether application data may be sent.
    pub(crate) fn is_established(&self) -> bool {
        match self.0.state {
            State::Established(_) | State::Finished(_) => true,
            State::Handshaking(_) | State::Failed(_) => false,
        }
    }

    /// Returns whether the peer has sent close_notify. No plaintext follows, and the end of the
    /// stream is authentic (RFC 8446 §6.1).
    pub(crate) fn is_finished(&self) -> bool {
        match self.0.state {
            State::Finished(_) => true,
            State::Handshaking(_) | State::Established(_) | State::Failed(_) => false,
        }
    }

    /// Returns why nothing more can be read or sent, if the TLS state has failed.
    pub(crate) fn failure(&self) -> Option<&Problem> {
        match &self.0.state {
            State::Failed(problem) => Some(problem),
            State::Handshaking(_) | State::Established(_) | State::Finished(_) => None,
        }
    }

    /// Returns whether ciphertext waits for the socket.
    pub(crate) fn has_outbound(&self) -> bool {
        !self.0.outbound.is_empty()
    }

    /// Returns whether part of a record has been received, but not all of it.
    pub(crate) fn is_inside_record(&self) -> bool {
        !self.0.kept.is_empty()
    }

    /// Encrypts what follows the first `skip` bytes of `parts`, at most 64 KiB. The parts share
    /// records, so a head and a short body can go out in one record. Encrypts nothing before the
    /// handshake is complete, or while 64 KiB already wait for the socket.
    ///
    /// # Errors
    /// Returns an error if the TLS state has failed, or has encrypted as much as its keys allow.
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

    /// Ends TLS on the connection, and returns the last bytes for the peer: ciphertext that waits
    /// for the socket, followed by close_notify (RFC 8446 §6.1) or by the alert that reports the
    /// failure. They are meant for one last send, and need not arrive.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        match self.0.state {
            State::Handshaking(_) => return Vec::new(),
            State::Failed(_) => {}
            State::Established(_) | State::Finished(_) => {
                // The connection is closing, so a failure to send the alert does not matter.
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

    /// Returns how many tickets have been received.
    #[cfg(test)]
    pub(crate) fn tickets(&self) -> usize {
        self.0.connection.tls13_tickets_received() as usize
    }

    /// Returns how the connection is protected, once it is established.
    pub(crate) fn info(&self) -> Option<TlsInfo> {
        match &self.0.state {
            State::Established(chain) | State::Finished(chain) => {
                Some(TlsInfo::new(&self.0.connection, chain.clone()))
            }
            State::Handshaking(_) | State::Failed(_) => None,
        }
    }
}

/// Shows neither keys nor data.
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

/// Ciphertext on its way to the socket. If dropped, it counts as if the socket had taken nothing,
/// and all of it stays with the TLS state: records are numbered, so none may be lost or sent twice.
#[must_use]
#[derive(Debug)]
pub(crate) struct Flight<'a> {
    outbound: &'a mut Vec<u8>,
    scratch: &'a mut Scratch,
    sealed: usize,
    sent: usize,
}

impl Flight<'_> {
    /// Returns how many bytes of plaintext have been encrypted. They must not be passed to
    /// [`TlsState::seal`] again, no matter how much the socket takes.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed
    }

    /// Returns the bytes to send: what the TLS state had kept, and what was just encrypted.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 2] {
        [
            IoSlice::new(self.outbound),
            IoSlice::new(&self.scratch.ciphertext[..self.scratch.filled]),
        ]
    }

    /// Returns the total length of [`slices`](Self::slices).
    pub(crate) fn len(&self) -> usize {
        self.outbound.len() + self.scratch.filled
    }

    /// Records that the socket took the first `n` bytes. The TLS state keeps the others.
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

/// Allows sending, when rustls has nothing more to read.
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
        // The bytes before this have been shown to rustls as whole records, processed or not.
        let mut shown = self.shown.min(bytes.len());
        loop {
            let (records, len) = first_records(&bytes[shown..]);
            let whole = shown + len;
            let is_last = record_len(&bytes[whole..]).is_none();
            // Show the start of the next record as well, so an invalid header is detected now.
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

    /// Like [`run`](Self::run), for bytes that end with `records` new records. Deducts their cost
    /// from `allowance`.
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
        // One record may contain several tickets. rustls limits how many other messages it may
        // contain.
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
            // rustls has closed the connection on its own: TLS 1.2 cannot change keys that are
            // exhausted.
            0 => Err(self.fail(Problem::Rustls(Error::EncryptError))),
            _ => Ok(data.len()),
        }
    }

    /// Runs rustls without new input, to obtain output.
    fn run_kept(
        &mut self,
        at_rest: impl FnOnce(Traffic<'_>, &mut Vec<u8>) -> Result<(), EncryptError>,
    ) -> Result<(), Problem> {
        let mut kept = mem::take(&mut self.kept);
        // rustls has already seen the whole records among these bytes, so there is no plaintext,
        // and the empty vector never allocates.
        let taken = self.run(&mut kept[..self.shown], &mut Vec::new(), &mut 0, at_rest)?;
        kept.drain(..taken);
        self.shown -= taken;
        self.kept = kept;
        Ok(())
    }

    /// Runs rustls over `bytes` until it needs more, then lets `at_rest` send if data may be sent.
    /// Returns how many bytes were consumed, and adds the number of plaintext records to `data`.
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
                // Encoded messages are sent in order, so it does not matter when.
                Ok(ConnectionState::TransmitTlsData(message)) => message.done(),
                // Reported once. The resulting state follows.
                Ok(ConnectionState::PeerClosed) => closed = true,
                Ok(ConnectionState::WriteTraffic(traffic)) => {
                    let written = at_rest(traffic, &mut self.outbound);
                    break written.map_err(|_| Error::EncryptError);
                }
                Ok(ConnectionState::BlockedHandshake | ConnectionState::Closed) => break Ok(()),
                // Early data only occurs on servers. Any future state would have to be enabled
                // first.
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

    /// Updates the state after a run. `closed` is whether the peer has closed its side.
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

    /// Appends the alert that rustls has for the peer, if any, to the outbound bytes. Must be
    /// called only once: a second call would make rustls continue to read.
    fn collect_alert(&mut self, rest: &mut [u8]) {
        if let Ok(ConnectionState::EncodeTlsData(message)) =
            self.connection.process_tls_records(rest).state
        {
            encode(message, &mut self.outbound);
        }
    }

    /// Distinguishes a peer of another protocol from a faulty TLS peer: TLS starts with a handshake
    /// or alert record (RFC 8446 §5.1).
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

/// Returns the length of the record at the start of `bytes`, if it is complete (RFC 8446 §5.1).
fn record_len(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low, rest @ ..] = bytes else {
        return None;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    (len <= rest.len()).then_some(5 + len)
}

/// Returns the number and total length of the records to process in one step. A data record is full
/// at 16 KiB, so the limit does not split large bodies into smaller steps.
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

/// Appends the plaintext of the records that are ready. Returns how many bytes of ciphertext can be
/// discarded, in addition to those that rustls reports elsewhere.
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

/// Appends a handshake message or an alert.
fn encode(mut message: EncodeTlsData<'_, ClientConnectionData>, outbound: &mut Vec<u8>) {
    let end = outbound.len();
    // The first attempt returns the required size.
    while let Err(EncodeError::InsufficientSize(short)) = message.encode(&mut outbound[end..]) {
        outbound.resize(end + short.required_size, 0);
    }
}

/// Lets `write` fill the front of `buffer`, which is extended if it is too short. Returns how much
/// was written.
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

/// Returns what follows the first `skip` bytes of `parts`, at most [`MAX_SEALED`] bytes. A single
/// piece is borrowed, and several are copied together.
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

/// Returns the name that the server's certificate must contain. It includes neither a trailing dot
/// nor the zone of an address: both only say how a host is found from here (RFC 6066 §3, RFC 6874
/// §4).
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

/// Frees the memory of an empty buffer.
fn release_if_empty(buffer: &mut Vec<u8>) {
    if buffer.is_empty() {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests;
