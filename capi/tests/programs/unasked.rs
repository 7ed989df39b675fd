//! A server that sends unsolicited data on command.
//!
//! It answers each request with "CONNECTION ID": the number of the connection, counted from 1, and
//! the path of the request. Commands arrive on a third port, one line each. Each is confirmed with
//! a line once its effect has crossed loopback:
//!
//! - `send NAME`: send the [`Unasked`] data of that name on every connection without an open
//!   request
//! - `answer`: answer the requests for `/held`, which otherwise get no answer
//! - `stale`: report how many requests arrived on a connection that had sent unsolicited data
//! - `forget`: close all connections

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(feature = "tls")]
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Data that can arrive on a connection while no response is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unasked {
    /// Nothing: the connection can be reused.
    Nothing,
    /// A FIN; over TLS, without close_notify.
    Fin,
    /// Over TLS: close_notify, then a FIN.
    CloseNotify,
    /// A response that reports the server's timeout, then a FIN.
    RequestTimeout,
    /// A response to no request.
    Response,
    EmptyLine,
    LastChunk,
}

impl Unasked {
    fn of(name: &str) -> Self {
        match name {
            "nothing" => Self::Nothing,
            "fin" => Self::Fin,
            "close_notify" => Self::CloseNotify,
            "408" => Self::RequestTimeout,
            "200" => Self::Response,
            "crlf" => Self::EmptyLine,
            "last-chunk" => Self::LastChunk,
            other => panic!("there is no unsolicited data called {other}"),
        }
    }

    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Nothing | Self::Fin | Self::CloseNotify => b"",
            Self::RequestTimeout => {
                b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate"
            }
            Self::Response => b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked",
            Self::EmptyLine => b"\r\n",
            Self::LastChunk => b"0\r\n\r\n",
        }
    }
}

/// The encryption of one connection, if it has any.
enum Layer {
    Plain,
    #[cfg(feature = "tls")]
    Tls(Box<rustls::ServerConnection>),
}

/// One connection, shared by the thread that reads it and the one that carries out commands.
struct Connection {
    number: usize,
    stream: TcpStream,
    layer: Layer,
    unread: Vec<u8>,
    held: usize,
    /// Whether it has sent unsolicited data.
    is_spoilt: bool,
}

impl Connection {
    /// Processes data read from the socket, and returns the paths of the requests in it.
    fn receive(&mut self, wire: &[u8]) -> Vec<String> {
        match &mut self.layer {
            Layer::Plain => self.unread.extend_from_slice(wire),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => {
                let mut wire = wire;
                while !wire.is_empty() {
                    tls.read_tls(&mut wire).unwrap();
                    if tls.process_new_packets().is_err() {
                        break;
                    }
                    // This ends with `WouldBlock`.
                    let _ = tls.reader().read_to_end(&mut self.unread);
                }
                self.flush();
            }
        }
        std::iter::from_fn(|| self.request()).collect()
    }

    /// Removes the first request, including its body, from the unread data, and returns its path.
    fn request(&mut self) -> Option<String> {
        let end = self.unread.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(self.unread[..end].to_vec()).unwrap();
        let length = head.split("Content-Length: ").nth(1);
        let length = length.map_or(0, |rest| {
            rest.split("\r\n").next().unwrap().parse().unwrap()
        });
        if self.unread.len() < end + length {
            return None;
        }
        self.unread.drain(..end + length);
        head.split(' ').nth(1).map(str::to_owned)
    }

    fn answer(&mut self, path: &str) {
        let body = format!("{} {}", self.number, path.trim_start_matches('/'));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        self.send(format!("{head}{body}").as_bytes());
    }

    fn send(&mut self, bytes: &[u8]) {
        match &mut self.layer {
            Layer::Plain => drop(self.stream.write_all(bytes)),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => {
                tls.writer().write_all(bytes).unwrap();
                self.flush();
            }
        }
    }

    #[cfg(feature = "tls")]
    fn flush(&mut self) {
        match &mut self.layer {
            Layer::Plain => {}
            Layer::Tls(tls) => {
                while tls.wants_write() && tls.write_tls(&mut self.stream).is_ok() {}
            }
        }
    }

    fn send_unasked(&mut self, unasked: Unasked) {
        self.is_spoilt = unasked != Unasked::Nothing;
        if !unasked.bytes().is_empty() {
            self.send(unasked.bytes());
        }
        match (unasked, &mut self.layer) {
            #[cfg(feature = "tls")]
            (Unasked::CloseNotify, Layer::Tls(tls)) => {
                tls.send_close_notify();
                self.flush();
            }
            _ => {}
        }
        if let Unasked::Fin | Unasked::CloseNotify | Unasked::RequestTimeout = unasked {
            let _ = self.stream.shutdown(Shutdown::Write);
        }
    }
}

#[derive(Default)]
struct Shared {
    count: usize,
    stale: usize,
    connections: Vec<Arc<Mutex<Connection>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The protocol on the server's first port; the second port always speaks plain http.
#[derive(Clone)]
pub(crate) enum Speaks {
    Http,
    #[cfg(feature = "tls")]
    Https(Arc<rustls::ServerConfig>),
}

/// The ports of a server that runs until its process ends.
pub(crate) struct Ports {
    pub(crate) first: SocketAddr,
    pub(crate) second: SocketAddr,
    pub(crate) orders: SocketAddr,
}

pub(crate) fn start(speaks: Speaks) -> Ports {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (first, second, orders) = (listen(), listen(), listen());
    let ports = Ports {
        first: first.local_addr().unwrap(),
        second: second.local_addr().unwrap(),
        orders: orders.local_addr().unwrap(),
    };
    for (listener, speaks) in [(first, speaks), (second, Speaks::Http)] {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &speaks, &shared));
    }
    std::thread::spawn(move || {
        for client in orders.incoming() {
            obey(client.unwrap(), &shared);
        }
    });
    ports
}

/// Returns the TLS configuration of a server on loopback, and the path of the certificate that a
/// client must trust.
#[cfg(feature = "tls")]
pub(crate) fn identity() -> (Arc<rustls::ServerConfig>, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let file = super::library::scratch("unasked").join(format!("certificate-{number}.pem"));
    std::fs::write(&file, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), file.to_str().unwrap().to_owned())
}

fn accept(listener: &TcpListener, speaks: &Speaks, shared: &Arc<Mutex<Shared>>) {
    for stream in listener.incoming() {
        let stream = stream.unwrap();
        // A second small write must not wait for the acknowledgment of the first one.
        stream.set_nodelay(true).unwrap();
        let reader = stream.try_clone().unwrap();
        let layer = match speaks {
            Speaks::Http => Layer::Plain,
            #[cfg(feature = "tls")]
            Speaks::Https(config) => {
                let tls = rustls::ServerConnection::new(Arc::clone(config));
                Layer::Tls(Box::new(tls.unwrap()))
            }
        };
        let mut all = lock(shared);
        all.count += 1;
        let connection = Arc::new(Mutex::new(Connection {
            number: all.count,
            stream,
            layer,
            unread: Vec::new(),
            held: 0,
            is_spoilt: false,
        }));
        all.connections.push(Arc::clone(&connection));
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(reader, &connection, &shared));
    }
}

fn serve(mut reader: TcpStream, connection: &Mutex<Connection>, shared: &Mutex<Shared>) {
    let mut buffer = [0; 65536];
    loop {
        let len = match reader.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let mut stale = 0;
        let mut connection = lock(connection);
        for path in connection.receive(&buffer[..len]) {
            stale += usize::from(connection.is_spoilt);
            match path.as_str() {
                "/held" => connection.held += 1,
                path => connection.answer(path),
            }
        }
        drop(connection);
        lock(shared).stale += stale;
    }
}

fn obey(client: TcpStream, shared: &Mutex<Shared>) {
    let mut answers = client.try_clone().unwrap();
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { return };
        let connections = lock(shared).connections.clone();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("send", name) => {
                for connection in &connections {
                    let mut connection = lock(connection);
                    if connection.held == 0 {
                        connection.send_unasked(Unasked::of(name));
                    }
                }
            }
            ("answer", _) => {
                for connection in &connections {
                    let mut connection = lock(connection);
                    for _ in 0..std::mem::take(&mut connection.held) {
                        connection.answer("/held");
                    }
                }
            }
            ("stale", _) => {}
            ("forget", _) => {
                for connection in lock(shared).connections.drain(..) {
                    let _ = lock(&connection).stream.shutdown(Shutdown::Both);
                }
            }
            (other, _) => panic!("there is no command called {other}"),
        }
        // No call reports when the other end of loopback has received the data. It takes
        // microseconds.
        std::thread::sleep(Duration::from_millis(5));
        let stale = lock(shared).stale;
        if writeln!(answers, "{stale}").is_err() {
            return;
        }
    }
}
