//! What the bot talks to: a chat with one user, Alice, who says something every 200 ms. On the
//! standard library alone, a thread for each connection: it is here to be talked to, not to be
//! copied.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Alice's pace.
const PACE: Duration = Duration::from_millis(200);
/// How long a poll is held when there is nothing to tell.
const HOLD: Duration = Duration::from_secs(20);
const SESSION: &str = "4711";

/// The server, for as long as the process lives.
pub(crate) struct Chat {
    addr: SocketAddr,
    room: Arc<Room>,
}

#[derive(Default)]
struct Room {
    log: Mutex<Log>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    phase: Phase,
    /// Messages are numbered from 1.
    said: usize,
    delivered: usize,
    answered: BTreeSet<usize>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    BeforeLogin,
    Open,
    Closed,
}

struct Answer {
    status: &'static str,
    body: String,
}

impl Chat {
    pub(crate) fn open() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let room = Arc::new(Room::default());
        let (alice, host) = (Arc::clone(&room), Arc::clone(&room));
        thread::spawn(move || alice.talk());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let room = Arc::clone(&host);
                thread::spawn(move || room.serve(stream));
            }
        });
        Ok(Self { addr, room })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// How many messages were said, and how many of them answered.
    pub(crate) fn tally(&self) -> (usize, usize) {
        let log = self.room.log();
        (log.said, log.answered.len())
    }
}

impl Room {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn talk(&self) {
        loop {
            thread::sleep(PACE);
            let mut log = self.log();
            match log.phase {
                Phase::BeforeLogin => {}
                Phase::Open => log.said += 1,
                Phase::Closed => return,
            }
            self.changed.notify_all();
        }
    }

    /// Serves one connection to its end.
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(&stream);
        while let Some((path, form)) = read_request(&mut reader)? {
            let Answer { status, body } = self.answer(&path, &form);
            let length = body.len();
            let response = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            (&stream).write_all(response.as_bytes())?;
        }
        Ok(())
    }

    fn answer(&self, path: &str, form: &str) -> Answer {
        let value = |name| {
            let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(n, _)| *n == name).map(|(_, value)| value)
        };
        if path == "/login" {
            self.enter(Phase::Open);
            return Answer::ok(SESSION.to_owned());
        }
        if value("session") != Some(SESSION) {
            return Answer::of("403 Forbidden");
        }
        match path {
            "/poll" => self.hold(),
            "/beat" => Answer::ok(String::new()),
            "/answer" => {
                let id = value("to").and_then(|id| id.parse::<usize>().ok());
                self.log().answered.extend(id);
                Answer::ok(String::new())
            }
            "/logout" => {
                self.enter(Phase::Closed);
                Answer::ok(String::new())
            }
            _ => Answer::of("404 Not Found"),
        }
    }

    fn enter(&self, phase: Phase) {
        self.log().phase = phase;
        self.changed.notify_all();
    }

    /// Answers when there is something to tell.
    fn hold(&self) -> Answer {
        let is_quiet = |log: &mut Log| log.delivered == log.said && log.phase == Phase::Open;
        let waited = self.changed.wait_timeout_while(self.log(), HOLD, is_quiet);
        let (mut log, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let new = log.delivered + 1..=log.said;
        log.delivered = log.said;
        match (new.is_empty(), log.phase) {
            (false, _) => Answer::ok(new.map(|id| format!("{id} is a fine number\n")).collect()),
            (true, Phase::Closed) => Answer::of("410 Gone"),
            (true, _) => Answer::ok(String::new()),
        }
    }
}

impl Answer {
    fn of(status: &'static str) -> Self {
        let body = String::new();
        Self { status, body }
    }

    fn ok(body: String) -> Self {
        let status = "200 OK";
        Self { status, body }
    }
}

/// Path and body of the next request; `None` at the end of the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<(String, String)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(Some((path, body)))
}
