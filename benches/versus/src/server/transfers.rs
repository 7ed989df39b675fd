//! The server of the transfers. It blocks, on a thread for each connection, and reads and writes
//! large pieces, so that it is faster than any client.
//!
//! `GET /N` is answered with N bytes. The body of any other request is read to its end, and its
//! length is the answer.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};

/// How much is read or written at once.
const PIECE: usize = 256 << 10;

/// Serves forever.
pub(super) fn serve(listener: &TcpListener) {
    for socket in listener.incoming().flatten() {
        std::thread::spawn(move || {
            // A client that goes away ends its connection.
            let _ = serve_one(socket);
        });
    }
}

fn serve_one(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![b'x'; PIECE];
    let mut unread = Vec::new();
    loop {
        let head_len = loop {
            if let Some(at) = memchr::memmem::find(&unread, b"\r\n\r\n") {
                break at + 4;
            }
            let n = read(&mut socket, &mut buffer)?;
            unread.extend_from_slice(&buffer[..n]);
        };
        let head = String::from_utf8_lossy(&unread[..head_len]).to_ascii_lowercase();
        let mut rest = unread.split_off(head_len);
        if let Some(target) = head.strip_prefix("get /") {
            let digits = target.split(' ').next().and_then(|it| it.parse().ok());
            let length = digits.ok_or(io::ErrorKind::InvalidInput)?;
            write!(
                socket,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            buffer.fill(b'x');
            let mut left: u64 = length;
            while left > 0 {
                let n = left.min(PIECE as u64) as usize;
                socket.write_all(&buffer[..n])?;
                left -= n as u64;
            }
        } else {
            let mut body = Body::of(&head)?;
            let mut taken = body.take(&rest)?;
            rest.drain(..taken);
            while !body.is_complete() {
                let n = read(&mut socket, &mut buffer)?;
                taken = body.take(&buffer[..n])?;
                rest.extend_from_slice(&buffer[taken..n]);
            }
            let text = body.length.to_string();
            let length = text.len();
            write!(
                socket,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{text}"
            )?;
        }
        unread = rest;
    }
}

fn read(socket: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match socket.read(buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        n => Ok(n),
    }
}

/// A body that is counted.
#[derive(Debug)]
struct Body {
    length: u64,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// The rest of a body of known length.
    Known {
        left: u64,
    },
    /// In the line with the size of a chunk.
    Size(String),
    /// In a chunk and the line break behind it.
    Chunk {
        left: u64,
    },
    /// In the line break behind the last chunk. There are no trailers.
    Last {
        left: usize,
    },
    Complete,
}

impl Body {
    /// `head` is in lower case.
    fn of(head: &str) -> io::Result<Self> {
        let field = |name| head.lines().find_map(|line| line.strip_prefix(name));
        let state = match field("content-length: ") {
            Some(digits) => State::Known {
                left: digits.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            },
            None if field("transfer-encoding: ") == Some("chunked") => State::Size(String::new()),
            None => return Err(io::ErrorKind::InvalidData.into()),
        };
        Ok(Self { length: 0, state })
    }

    fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete | State::Known { left: 0 })
    }

    /// Counts what of `bytes` belongs to the body. Returns the length of that.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_complete() {
            let most = (bytes.len() - taken) as u64;
            match &mut self.state {
                State::Known { left } => {
                    let n = most.min(*left);
                    *left -= n;
                    self.length += n;
                    taken += n as usize;
                }
                State::Size(line) => {
                    match bytes[taken] {
                        b'\n' => {
                            let size = u64::from_str_radix(line.trim_end(), 16);
                            let size = size.map_err(|_| io::ErrorKind::InvalidData)?;
                            self.length += size;
                            self.state = match size {
                                0 => State::Last { left: 2 },
                                size => State::Chunk { left: size + 2 },
                            };
                        }
                        byte => line.push(char::from(byte)),
                    }
                    taken += 1;
                }
                State::Chunk { left } => {
                    let n = most.min(*left);
                    *left -= n;
                    taken += n as usize;
                    if *left == 0 {
                        self.state = State::Size(String::new());
                    }
                }
                State::Last { left } => {
                    *left -= 1;
                    taken += 1;
                    if *left == 0 {
                        self.state = State::Complete;
                    }
                }
                State::Complete => {}
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_counted_wherever_they_are_split() {
        for (head, wire, length) in [
            ("content-length: 5\r\n\r\n", &b"helloGET"[..], 5),
            (
                "transfer-encoding: chunked\r\n\r\n",
                b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\nGET",
                13,
            ),
        ] {
            for split in 0..=wire.len() {
                let mut body = Body::of(head).expect("a framing");
                let (first, second) = wire.split_at(split);
                let mut taken = body.take(first).expect("valid chunks");
                if taken == first.len() {
                    taken += body.take(second).expect("valid chunks");
                }
                assert!(body.is_complete(), "split at {split}");
                assert_eq!(
                    (body.length, &wire[taken..]),
                    (length, &b"GET"[..]),
                    "split at {split}"
                );
            }
        }
    }
}
