//! A scripted name server on loopback, over UDP and TCP. Messages are assembled by hand (RFC 1035
//! §4).

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const SOA: u16 = 6;
pub const AAAA: u16 = 28;
const OPT: u16 = 41;
const IN: u16 = 1;

pub const FORMERR: u16 = 1;
pub const SERVFAIL: u16 = 2;
pub const NXDOMAIN: u16 = 3;
pub const REFUSED: u16 = 5;

/// The flags in a header: a response, with recursion desired and available.
const RESPONSE: u16 = 0x8180;
const TRUNCATED: u16 = 0x0200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// A question to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: u16,
    /// In the question's spelling, without the last dot.
    pub spelled: String,
    /// A, AAAA, …
    pub kind: u16,
    pub edns: bool,
    pub transport: Transport,
}

impl Question {
    /// Parses a message with one question; returns `None` for anything else.
    fn parse(message: &[u8], transport: Transport) -> Option<Self> {
        let word = |at: usize| {
            let bytes = message.get(at..at + 2)?;
            Some(u16::from_be_bytes([bytes[0], bytes[1]]))
        };
        if word(2)? & 0x8000 != 0 || word(4)? != 1 {
            return None;
        }
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let len = usize::from(*message.get(at)?);
            let label = message.get(at + 1..at + 1 + len)?;
            at += 1 + len;
            if len == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(label).into_owned());
        }
        // The root's name, and the type of the first additional record.
        let edns = word(10)? > 0 && word(at + 5) == Some(OPT);
        Some(Self {
            id: word(0)?,
            spelled: labels.join("."),
            kind: word(at)?,
            edns,
            transport,
        })
    }

    /// The name in lower case.
    pub fn name(&self) -> String {
        self.spelled.to_ascii_lowercase()
    }

    /// Returns an answer to this question, without records.
    pub fn answer(&self) -> Message {
        Message {
            id: self.id,
            flags: RESPONSE,
            question: Some((self.spelled.clone(), self.kind)),
            answers: Vec::new(),
            authorities: Vec::new(),
        }
    }

    /// Returns an answer with the addresses of the requested family.
    pub fn addresses(&self, ttl: u32, ips: &[IpAddr]) -> Message {
        let of_kind = ips.iter().filter(|ip| ip.is_ipv4() == (self.kind == A));
        of_kind.fold(self.answer(), |answer, ip| {
            answer.address(&self.spelled, ttl, *ip)
        })
    }
}

/// A message, which a test changes as needed.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    pub question: Option<(String, u16)>,
    pub answers: Vec<Vec<u8>>,
    pub authorities: Vec<Vec<u8>>,
}

impl Message {
    pub fn rcode(mut self, code: u16) -> Self {
        self.flags |= code;
        self
    }

    pub fn truncated(mut self) -> Self {
        self.flags |= TRUNCATED;
        self
    }

    pub fn address(mut self, name: &str, ttl: u32, ip: IpAddr) -> Self {
        self.answers.push(match ip {
            IpAddr::V4(ip) => record(name, A, ttl, &ip.octets()),
            IpAddr::V6(ip) => record(name, AAAA, ttl, &ip.octets()),
        });
        self
    }

    pub fn alias(mut self, name: &str, ttl: u32, target: &str) -> Self {
        self.answers.push(record(name, CNAME, ttl, &wire(target)));
        self
    }

    /// Adds the zone's SOA to the authority section.
    pub fn soa(mut self, zone: &str, ttl: u32, minimum: u32) -> Self {
        let mut data = [wire("ns"), wire("admin")].concat();
        for number in [1, 3600, 600, 86400, minimum] {
            data.extend(u32::to_be_bytes(number));
        }
        self.authorities.push(record(zone, SOA, ttl, &data));
        self
    }

    /// Adds a name server of the zone to the authority section.
    pub fn ns(mut self, zone: &str, ttl: u32, server: &str) -> Self {
        self.authorities.push(record(zone, 2, ttl, &wire(server)));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let counts = [
            usize::from(self.question.is_some()),
            self.answers.len(),
            self.authorities.len(),
            0,
        ];
        let mut bytes = Vec::new();
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(self.flags.to_be_bytes());
        for count in counts {
            bytes.extend((count as u16).to_be_bytes());
        }
        if let Some((name, kind)) = &self.question {
            bytes.extend(wire(name));
            bytes.extend(kind.to_be_bytes());
            bytes.extend(IN.to_be_bytes());
        }
        for record in self.answers.iter().chain(&self.authorities) {
            bytes.extend(record);
        }
        bytes
    }
}

/// Encodes a name without compression.
fn wire(name: &str) -> Vec<u8> {
    let labels = name.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels
        .flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat())
        .collect();
    bytes.push(0);
    bytes
}

fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The way back to the client. Usable from any thread.
#[derive(Clone)]
pub struct Back(Arc<Line>);

enum Line {
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpStream),
}

impl Back {
    pub fn send(&self, message: &Message) {
        self.send_bytes(&message.bytes());
    }

    /// Sends bytes. The client may be gone.
    pub fn send_bytes(&self, bytes: &[u8]) {
        match &*self.0 {
            Line::Udp(socket, peer) => {
                let _ = socket.send_to(bytes, peer);
            }
            Line::Tcp(stream) => {
                let framed = [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
                let _ = (&mut &*stream).write_all(&framed);
            }
        }
    }

    /// Closes the connection, if there is one.
    pub fn close(&self) {
        if let Line::Tcp(stream) = &*self.0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Like `send`, but from a port that the client has not sent anything to.
    pub fn send_from_elsewhere(&self, message: &Message) {
        if let Line::Udp(socket, peer) = &*self.0 {
            let here = socket.local_addr().expect("bound").ip();
            let elsewhere = UdpSocket::bind((here, 0)).expect("a free port");
            let _ = elsewhere.send_to(&message.bytes(), peer);
        }
    }
}

/// A scripted name server. Its threads live as long as the process.
pub struct NameServer {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Question>>>,
}

impl NameServer {
    /// Listens on UDP and TCP; `script` is called with every question.
    pub fn start(script: impl Fn(Question, Back) + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1", script)
    }

    pub fn on(ip: &str, script: impl Fn(Question, Back) + Send + Sync + 'static) -> Self {
        let (socket, listener) = Self::bind_both(ip);
        Self::serve(socket, Some(listener), script)
    }

    /// Listens on this address; on UDP only, unless `tcp`.
    pub fn at(
        addr: SocketAddr,
        tcp: bool,
        script: impl Fn(Question, Back) + Send + Sync + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(addr).expect("the address is free");
        let listener = tcp.then(|| TcpListener::bind(addr).expect("the address is free"));
        Self::serve(socket, listener, script)
    }

    fn serve(
        socket: UdpSocket,
        listener: Option<TcpListener>,
        script: impl Fn(Question, Back) + Send + Sync + 'static,
    ) -> Self {
        let script = Arc::new(script);
        let server = Self::serve_udp(socket, Arc::clone(&script));
        let seen = Arc::clone(&server.seen);
        let Some(listener) = listener else {
            return server;
        };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let (script, seen) = (Arc::clone(&script), Arc::clone(&seen));
                thread::spawn(move || Self::serve_tcp(&stream, &*script, &seen));
            }
        });
        server
    }

    /// Listens on UDP only, so TCP is refused.
    pub fn udp_only(script: impl Fn(Question, Back) + Send + Sync + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        Self::serve_udp(socket, Arc::new(script))
    }

    /// Receives questions, and never answers.
    pub fn unresponsive() -> Self {
        Self::start(|_, _| {})
    }

    /// Binds one port for both; another program may be using it in TCP.
    fn bind_both(ip: &str) -> (UdpSocket, TcpListener) {
        for _ in 0..100 {
            let socket = UdpSocket::bind((ip, 0)).expect("a free port");
            let addr = socket.local_addr().expect("bound");
            if let Ok(listener) = TcpListener::bind(addr) {
                return (socket, listener);
            }
        }
        panic!("no port is free in both UDP and TCP");
    }

    fn serve_udp(
        socket: UdpSocket,
        script: Arc<impl Fn(Question, Back) + Send + Sync + 'static>,
    ) -> Self {
        let server = Self {
            addr: socket.local_addr().expect("bound"),
            seen: Arc::default(),
        };
        // Many questions may arrive at once.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        let seen = Arc::clone(&server.seen);
        thread::spawn(move || {
            let mut buf = [0; 4096];
            loop {
                // If an earlier client's port is closed, that is reported as an error here.
                let Ok((n, peer)) = socket.recv_from(&mut buf) else {
                    continue;
                };
                if let Some(question) = Question::parse(&buf[..n], Transport::Udp) {
                    seen.lock().expect("not poisoned").push(question.clone());
                    let socket = socket.try_clone().expect("a descriptor");
                    script(question, Back(Arc::new(Line::Udp(socket, peer))));
                }
            }
        });
        server
    }

    fn serve_tcp(
        mut stream: &TcpStream,
        script: &dyn Fn(Question, Back),
        seen: &Mutex<Vec<Question>>,
    ) {
        let mut len = [0; 2];
        while stream.read_exact(&mut len).is_ok() {
            let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
            if stream.read_exact(&mut message).is_err() {
                return;
            }
            if let Some(question) = Question::parse(&message, Transport::Tcp) {
                seen.lock().expect("not poisoned").push(question.clone());
                let stream = stream.try_clone().expect("a descriptor");
                script(question, Back(Arc::new(Line::Tcp(stream))));
            }
        }
    }

    /// Returns all questions so far, in order of arrival.
    pub fn seen(&self) -> Vec<Question> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Returns the names asked for so far. Repeated questions count once.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for question in self.seen() {
            if names.last() != Some(&question.name()) {
                names.push(question.name());
            }
        }
        names
    }
}
