//! A question in a datagram, and the answer to it.
//!
//! Each question has its own socket on a random port, connected to the server. The kernel then
//! drops datagrams from other addresses, and reports a closed port at once. Datagrams are
//! [screened](screen) before they are parsed: one that answers another question is a forgery or a
//! late answer, and is dropped silently. Anybody can send thousands of those, so the reactor limits
//! the reads of a turn.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::Name;
use log::warn;
use mio::net::UdpSocket;
use mio::{Interest, Token};

use super::reactor::{Direction, ReactorId, Readiness, no_reactor};
use super::runtime::unreachable_from_here;
use super::verdict::{Failure, record_type};
use crate::resolver::Family;

/// The maximum payload advertised to servers: what fits into one packet almost everywhere
/// (<https://www.dnsflagday.net/2020/>).
const MAX_PAYLOAD: u16 = 1232;

/// How much of a datagram is read. Some servers send more than the advertised size.
const BUFFER: usize = 4096;

/// Length of a message header in bytes (RFC 1035 §4.1.1).
const HEADER: usize = 12;

/// Datagrams that one question reads per turn.
const READS: u32 = 32;

/// Random ports that are tried before the system chooses one.
const PORTS: usize = 8;

/// The minimum interval between two warnings about one server.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// This many datagrams without a matching question are an attack or a fault, not late answers.
const MANY: u32 = 1000;

/// Whether a question has an OPT record (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edns0 {
    With,
    Without,
}

/// The upper and lower case of the letters in a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// Random, so that a forger has to guess it too (draft-vixie-dnsext-dns0x20).
    Random,
    /// As given, for a server that does not preserve the case.
    AsGiven,
}

/// A question, ready to be sent.
#[derive(Debug)]
pub(super) struct Wire {
    bytes: Vec<u8>,
    /// The offset at which its question section ends.
    end: usize,
}

impl Wire {
    pub(super) fn new(
        name: &Name,
        family: Family,
        edns: Edns0,
        spelling: Spelling,
    ) -> Result<Self, Failure> {
        let mut name = name.clone();
        if spelling == Spelling::Random {
            name.randomize_label_case();
        }
        let mut message = Message::query();
        message.add_query(Query::query(name, record_type(family)));
        message.metadata.recursion_desired = true;
        if edns == Edns0::With {
            let opt = message.edns.get_or_insert_with(Edns::new);
            opt.set_max_payload(MAX_PAYLOAD);
        }
        let bytes = message
            .to_vec()
            .map_err(|error| Failure::Unusable(error.to_string()))?;
        let end = question_end(&bytes).unwrap_or(bytes.len());
        Ok(Self { bytes, end })
    }
}

/// How a datagram from the server relates to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Screened {
    /// It answers this question.
    Answer,
    /// It has a different identifier or answers a different question.
    Stranger,
    /// It has the same question in a different spelling: it is forged, or the server does not
    /// preserve the case.
    Respelled,
    /// It is only a header with an error code. A server that could not parse the question does not
    /// repeat it.
    Error(ResponseCode),
    /// It has the right identifier but is malformed.
    Nonsense(&'static str),
}

/// Compares a datagram with the question that it should answer, byte by byte.
fn screen(question: &Wire, datagram: &[u8]) -> Screened {
    let (asked, end) = (&question.bytes, question.end);
    let Some(header) = datagram.first_chunk::<HEADER>() else {
        return Screened::Stranger;
    };
    if header[..2] != asked[..2] {
        return Screened::Stranger;
    }
    let [flags, code] = [header[2], header[3] & 0x0f];
    if flags & 0x80 == 0 {
        return Screened::Nonsense("it is a query, not a response");
    }
    match u16::from_be_bytes([header[4], header[5]]) {
        0 => match ResponseCode::from_low(code) {
            ResponseCode::NoError | ResponseCode::NXDomain => return Screened::Stranger,
            code => return Screened::Error(code),
        },
        1 => {}
        _ => return Screened::Stranger,
    }
    let Some(section) = datagram.get(HEADER..end) else {
        return Screened::Nonsense("it ends within the question");
    };
    // The length bytes between the labels are smaller than any letter, so ignoring case does not
    // affect them.
    let (name, fixed) = section.split_at(section.len() - 4);
    let (asked_name, asked_fixed) = asked[HEADER..end].split_at(name.len());
    if fixed != asked_fixed || !name.eq_ignore_ascii_case(asked_name) {
        return Screened::Stranger;
    }
    if name == asked_name {
        Screened::Answer
    } else {
        Screened::Respelled
    }
}

/// Returns the offset at which the first question of one of our messages ends.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 5),
            len => at += 1 + len,
        }
    }
}

/// The reply to a question.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Message),
    /// Spelled differently; see [`Screened::Respelled`].
    Respelled,
}

/// Counts datagrams that may be forged, and limits the warnings about them.
#[derive(Debug, Default)]
pub(super) struct UnmatchedCount {
    count: Cell<u32>,
    told: Cell<Option<Instant>>,
}

impl UnmatchedCount {
    fn note(&self, server: SocketAddr) {
        self.count.set(self.count.get().saturating_add(1));
        if self.count.get() < MANY {
            return;
        }
        self.count.set(0);
        let now = Instant::now();
        if self
            .told
            .get()
            .is_none_or(|told| now.duration_since(told) >= WARN_EVERY)
        {
            self.told.set(Some(now));
            warn!("dropped {MANY} datagrams from {server} that answered none of our questions");
        }
    }
}

/// Sends a question and waits for the reply. Without one, the future never completes.
pub(super) async fn ask(
    reactor: ReactorId,
    server: SocketAddr,
    question: Wire,
    strangers: &UnmatchedCount,
) -> Result<Reply, Failure> {
    let socket = Udp::open(reactor, server).map_err(Failure::Socket)?;
    match socket.socket.send(&question.bytes) {
        // Treated like a datagram lost on the way, which is repeated later.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(Failure::Socket(error)),
        Ok(_) => {}
    }
    poll_fn(|cx| socket.poll_reply(cx, &question, strangers)).await
}

/// A UDP socket, connected to its server.
struct Udp {
    socket: UdpSocket,
    token: Token,
    reactor: ReactorId,
    server: SocketAddr,
}

impl Udp {
    fn open(id: ReactorId, server: SocketAddr) -> io::Result<Self> {
        let reactor = id.find().ok_or_else(no_reactor)?;
        let mut socket = bind(server)?;
        socket.connect(server).map_err(unreachable_from_here)?;
        // A new socket has room for a datagram, so only its readability has to be reported.
        let token = reactor.register(&mut socket, Interest::READABLE, Readiness::Ready)?;
        Ok(Self {
            socket,
            token,
            reactor: id,
            server,
        })
    }

    fn poll_reply(
        &self,
        cx: &mut Context<'_>,
        question: &Wire,
        strangers: &UnmatchedCount,
    ) -> Poll<Result<Reply, Failure>> {
        let Some(reactor) = self.reactor.find() else {
            return Poll::Ready(Err(Failure::Socket(no_reactor())));
        };
        let mut buf = [0; BUFFER];
        for _ in 0..READS {
            if !reactor.may_read(cx.waker()) {
                return Poll::Pending;
            }
            let recv = || self.socket.recv(&mut buf);
            let len = match reactor.poll_io(self.token, Direction::Read, cx, recv) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::Socket(error))),
                Poll::Ready(Ok(len)) => len,
            };
            match screen(question, &buf[..len]) {
                Screened::Answer => return Poll::Ready(parse(&buf[..len])),
                Screened::Stranger => strangers.note(self.server),
                Screened::Respelled => return Poll::Ready(Ok(Reply::Respelled)),
                Screened::Error(code) => return Poll::Ready(Err(Failure::Refused(code))),
                Screened::Nonsense(why) => {
                    return Poll::Ready(Err(Failure::Unusable(why.into())));
                }
            }
        }
        reactor.put_off(cx.waker());
        Poll::Pending
    }
}

impl Drop for Udp {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.find() {
            reactor.deregister(&mut self.socket, self.token);
        }
    }
}

/// Binds a socket to an unpredictable port, chosen from all unprivileged ports. They outnumber
/// those that the system would assign.
fn bind(server: SocketAddr) -> io::Result<UdpSocket> {
    let local = |port| match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
    };
    for _ in 0..PORTS {
        // hickory exposes its random numbers only as message identifiers.
        let port = Message::query().id.max(1024);
        match UdpSocket::bind(local(port)) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
                ) => {}
            bound => return bound,
        }
    }
    UdpSocket::bind(local(0))
}

/// Parses a datagram. If it was truncated within a record, only that fact is returned.
fn parse(datagram: &[u8]) -> Result<Reply, Failure> {
    match Message::from_vec(datagram) {
        Ok(message) => Ok(Reply::Answer(message)),
        Err(_) if datagram[2] & 0x02 != 0 => {
            let mut message = Message::query().into_response();
            message.metadata.truncation = true;
            Ok(Reply::Answer(message))
        }
        Err(error) => Err(Failure::Unusable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(host: &str) -> Wire {
        let name = Name::from_labels(host.split('.').map(str::as_bytes)).unwrap();
        Wire::new(&name, Family::V4, Edns0::With, Spelling::AsGiven).unwrap()
    }

    /// Returns an answer to `question` without records, modified by `change`.
    fn answer(question: &Wire, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = question.bytes[..question.end].to_vec();
        bytes[2] |= 0x80;
        bytes[11] = 0;
        change(&mut bytes);
        bytes
    }

    #[test]
    fn datagrams_are_told_apart() {
        type Change = fn(&mut Vec<u8>);
        #[rustfmt::skip]
        let rows: &[(&str, Change, Screened)] = &[
            ("the answer", |_| {}, Screened::Answer),
            ("with records behind it", |b| b.extend([1, 2, 3]), Screened::Answer),
            ("nothing", Vec::clear, Screened::Stranger),
            ("half a header", |b| b.truncate(11), Screened::Stranger),
            ("another identifier", |b| b[1] ^= 1, Screened::Stranger),
            ("another name", |b| b[13] ^= 1, Screened::Stranger),
            ("a name that is as long, of other labels", |b| { b[12] = 6; b[19] = 0 }, Screened::Stranger),
            ("another type", |b| { let n = b.len(); b[n - 3] = 28 }, Screened::Stranger),
            ("another class", |b| { let n = b.len(); b[n - 1] = 3 }, Screened::Stranger),
            ("no question", |b| { b.truncate(12); b[5] = 0 }, Screened::Stranger),
            ("two questions", |b| b[5] = 2, Screened::Stranger),
            ("another spelling", |b| b[13] = b'H', Screened::Respelled),
            ("a question", |b| b[2] &= 0x7f, Screened::Nonsense("it is a query, not a response")),
            ("a header that promises a question", |b| b.truncate(12), Screened::Nonsense("it ends within the question")),
            ("a header that says FORMERR", |b| { b.truncate(12); b[5] = 0; b[3] = 1 }, Screened::Error(ResponseCode::FormErr)),
            ("a header that says REFUSED", |b| { b.truncate(12); b[5] = 0; b[3] = 5 }, Screened::Error(ResponseCode::Refused)),
            ("a header that says NXDOMAIN, which needs a name", |b| { b.truncate(12); b[5] = 0; b[3] = 3 }, Screened::Stranger),
        ];
        let question = question("host.test");
        for (why, change, expected) in rows {
            let datagram = answer(&question, change);
            assert_eq!(screen(&question, &datagram), *expected, "{why}");
        }
    }

    #[test]
    fn any_bytes_are_screened_and_parsed() {
        let question = question("host.test");
        let mut random = crate::proto::testing::Random::new(7);
        for _ in 0..20_000 {
            let mut datagram = answer(&question, |_| {});
            datagram.extend((0..random.below(40)).map(|_| random.below(256) as u8));
            for _ in 0..random.below(4) {
                let at = random.below(datagram.len());
                datagram[at] = random.below(256) as u8;
            }
            datagram.truncate(random.below(datagram.len() + 1));
            if screen(&question, &datagram) == Screened::Answer {
                // The result does not matter.
                let _ = parse(&datagram);
            }
        }
    }
}
