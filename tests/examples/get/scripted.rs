//! A server that records requests, and answers each with bytes of the test's choice.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A request as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case, in order.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Returns the values of the fields of this name, given in lower case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let fields = self.fields.iter().filter(|(field, _)| field == name);
        fields.map(|(_, value)| &**value).collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Returns the request without what may differ between two clients: the order of its fields
    /// and of the codings that it accepts, its User-Agent if that is the client's own, the boundary
    /// of a form, and whether it waits for a 100, which depends on the version of curl.
    pub(crate) fn comparable(&self) -> String {
        if let Some(seen) = self.without_boundary() {
            return seen.comparable();
        }
        let is_own = |(name, value): &&(String, String)| match &**name {
            "user-agent" => value.starts_with("curl/") || value.starts_with("httpstream/"),
            name => name == "expect",
        };
        let fields = self.fields.iter().filter(|it| !is_own(it)).cloned();
        let mut fields: Vec<_> = fields.collect();
        for (_, value) in fields
            .iter_mut()
            .filter(|(name, _)| name == "accept-encoding")
        {
            let mut codings: Vec<_> = value.split(", ").collect();
            codings.sort_unstable();
            *value = codings.join(", ");
        }
        fields.sort();
        let body = self.body.escape_ascii();
        format!("{} {fields:?} {body}", self.line())
    }

    /// Returns the request with another boundary, if it has one.
    fn without_boundary(&self) -> Option<Self> {
        const OTHER: &str = "boundary";
        let content_type = self.field("content-type")?;
        let (_, boundary) = content_type.split_once("boundary=")?;
        let boundary = boundary.to_owned();
        let parts = self.body.split(|&byte| byte == b'\n');
        let parts = parts.map(|line| match line.strip_prefix(b"--") {
            Some(rest) if rest.starts_with(boundary.as_bytes()) => {
                [b"--", OTHER.as_bytes(), &rest[boundary.len()..]].concat()
            }
            _ => line.to_owned(),
        });
        let body = parts.collect::<Vec<_>>().join(&b'\n');
        let mut seen = self.clone();
        for (name, value) in &mut seen.fields {
            match &**name {
                "content-type" => *value = value.replace("boundary=", "").replace(&boundary, OTHER),
                "content-length" => *value = body.len().to_string(),
                _ => {}
            }
        }
        Some(Self { body, ..seen })
    }

    /// `to` is where a request that waits for a 100 is told to go on, unless its target is
    /// `/silent`.
    fn read(from: &mut impl BufRead, mut to: impl Write) -> Option<Self> {
        let mut lines = VecDeque::new();
        loop {
            let mut line = Vec::new();
            from.read_until(b'\n', &mut line).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            if !line.ends_with("\r\n") {
                return None;
            }
            match line.trim_end_matches("\r\n") {
                "" => break,
                line => lines.push_back(line.to_owned()),
            }
        }
        let first = lines.pop_front()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let field = |line: String| {
            let (name, value) = line.split_once(':').expect("a field line");
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let mut seen = Self {
            method,
            target,
            fields: lines.into_iter().map(field).collect(),
            body: Vec::new(),
        };
        if seen.field("expect").is_some() && seen.target != "/silent" {
            to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        if seen.field("transfer-encoding") == Some("chunked") {
            seen.body = read_chunks(from)?;
        }
        let length = seen.field("content-length").map(str::parse);
        if let Some(length) = length {
            seen.body = vec![0; length.expect("a length")];
            from.read_exact(&mut seen.body).ok()?;
        }
        Some(seen)
    }
}

/// Reads a body in chunks, without trailers.
fn read_chunks(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok()?;
        let size = u64::from_str_radix(line.trim_end(), 16).ok()?;
        from.by_ref().take(size).read_to_end(&mut body).ok()?;
        let mut end = [0; 2];
        from.read_exact(&mut end).ok()?;
        if size == 0 {
            return Some(body);
        }
    }
}

/// An answer: pieces, each after a pause.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pieces: Vec<Piece>,
    /// The connection is closed afterwards.
    closes: bool,
}

#[derive(Clone, Debug)]
struct Piece {
    pause: Duration,
    bytes: Vec<u8>,
    times: usize,
}

impl Answer {
    /// A head with these lines, and a body with its length.
    pub(crate) fn new(status: &str, fields: &[&str], body: impl AsRef<[u8]>) -> Self {
        let length = format!("Content-Length: {}", body.as_ref().len());
        let fields = [fields, &[&*length]].concat().join("\r\n");
        let head = format!("HTTP/1.1 {status}\r\n{fields}\r\n\r\n");
        Self::default().then(head).then(body)
    }

    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new("200 OK", &[], body)
    }

    /// Bytes, after which the connection is closed.
    pub(crate) fn cut(bytes: impl AsRef<[u8]>) -> Self {
        Self::default().then(bytes).closing()
    }

    pub(crate) fn then(self, bytes: impl AsRef<[u8]>) -> Self {
        self.later(Duration::ZERO, bytes)
    }

    /// Adds these bytes so many times, with a pause before each.
    pub(crate) fn repeated(
        mut self,
        times: usize,
        pause: Duration,
        bytes: impl AsRef<[u8]>,
    ) -> Self {
        let bytes = bytes.as_ref().to_vec();
        self.pieces.push(Piece {
            pause,
            bytes,
            times,
        });
        self
    }

    /// Adds a piece that is sent so much later.
    pub(crate) fn later(self, pause: Duration, bytes: impl AsRef<[u8]>) -> Self {
        self.repeated(1, pause, bytes)
    }

    /// Closes the connection afterwards.
    pub(crate) fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// A response to HEAD has no body.
    fn without_body(mut self) -> Self {
        self.pieces.truncate(1);
        self
    }
}

/// Runs until the test ends.
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<Connections>>,
}

/// The connections that are open at once.
#[derive(Clone, Copy, Debug, Default)]
struct Connections {
    now: usize,
    most: usize,
}

impl Scripted {
    /// `answer` is given each request, and how many have come since the last [`take`](Self::take).
    pub(crate) fn start(answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has a free port");
        let server = Self {
            addr: listener.local_addr().expect("bound"),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (seen, connections) = (Arc::clone(&server.seen), Arc::clone(&server.connections));
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, connections) = (Arc::clone(&seen), Arc::clone(&connections));
                let answer = Arc::clone(&answer);
                thread::spawn(move || {
                    let mut open = locked(&connections);
                    open.now += 1;
                    open.most = open.most.max(open.now);
                    drop(open);
                    serve(&stream, &seen, &*answer);
                    locked(&connections).now -= 1;
                });
            }
        });
        server
    }

    /// Answers every request with this.
    pub(crate) fn always(answer: Answer) -> Self {
        Self::start(move |_, _| answer.clone())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// Returns the requests since the last call.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut locked(&self.seen))
    }

    /// Returns the most connections that were open at once.
    pub(crate) fn most_connections(&self) -> usize {
        locked(&self.connections).most
    }
}

fn serve(
    stream: &TcpStream,
    seen: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen, usize) -> Answer,
) -> Option<()> {
    // Each piece would otherwise wait for the one before to be acknowledged.
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let request = Seen::read(&mut reader, stream)?;
        let mut all = locked(seen);
        let mut answer = answer(&request, all.len());
        if request.method == "HEAD" {
            answer = answer.without_body();
        }
        all.push(request);
        drop(all);
        for piece in &answer.pieces {
            for _ in 0..piece.times {
                thread::sleep(piece.pause);
                (&*stream).write_all(&piece.bytes).ok()?;
            }
        }
        if answer.closes {
            return None;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
