//! The server that the small examples talk to: HTTP/1.1 on loopback, built on the standard library
//! alone, with one thread per connection. It is not meant as a model for other servers.

#![allow(dead_code, reason = "not every example uses every part")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

/// A request, as far as the examples need it.
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) path: String,
    /// The id of the last event of an event stream; empty if there is none.
    pub(crate) last_event_id: String,
    pub(crate) body: String,
}

/// Status code with reason phrase, which fields may follow, and body.
pub(crate) type Answer = (&'static str, String);

/// Returns a 200 response with this body.
pub(crate) fn ok(body: impl Into<String>) -> Answer {
    ("200 OK", body.into())
}

/// Returns an event stream, which ends after these events.
pub(crate) fn events(events: impl Into<String>) -> Answer {
    ("200 OK\r\nContent-Type: text/event-stream", events.into())
}

/// Starts a server on a free port, and returns its URL, without a path. The server runs until the
/// process ends.
pub(crate) fn serve(
    answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static,
) -> io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let url = format!("http://{}", listener.local_addr()?);
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || serve_connection(stream, &*answer));
        }
    });
    Ok(url)
}

/// Answers requests until the client closes the connection.
fn serve_connection(stream: TcpStream, answer: &impl Fn(&Asked) -> Answer) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(&stream);
    while let Some(asked) = read_request(&mut reader)? {
        let (status, body) = answer(&asked);
        let length = body.len();
        let response = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
        (&stream).write_all(response.as_bytes())?;
    }
    Ok(())
}

/// Reads the next request. Returns `None` if the client has closed the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut length, mut last_event_id) = (0, String::new());
    while line != "\r\n" {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        match &*name.to_ascii_lowercase() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "last-event-id" => last_event_id = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = String::new();
    reader.take(length).read_to_string(&mut body)?;
    Ok(Some(Asked {
        path,
        last_event_id,
        body,
    }))
}
