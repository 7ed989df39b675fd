//! Bodies of any size take a constant amount of memory. A program of its own, because it looks at
//! the peak of its process.

#![cfg(target_os = "linux")]

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use httpstream::{Context, Engine, Flow, Next, Readback, Reply, Request, Response};

const BYTES: u64 = 2 << 30;
const MOST_RESIDENT: u64 = 16 << 20;

static CONTENT: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Answers a GET with [`BYTES`], and any other request with the length of its body.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            serve_one(socket.unwrap()).unwrap();
        }
    });
    address
}

fn serve_one(mut socket: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    let mut head = Vec::new();
    let head_len = loop {
        let n = socket.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..n]);
        if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let mut left = BYTES;
    if head.starts_with(b"GET ") {
        write!(
            socket,
            "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\nConnection: close\r\n\r\n"
        )?;
        while left > 0 {
            let n = left.min(CONTENT.len() as u64);
            socket.write_all(&CONTENT[..n as usize])?;
            left -= n;
        }
        return Ok(());
    }
    left -= (head.len() - head_len) as u64;
    while left > 0 {
        left -= match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => n as u64,
        };
    }
    write!(
        socket,
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nreceived"
    )
}

/// Counts the bytes of a body.
struct Counting;

impl Readback<u64> for Counting {
    fn on_head(&mut self, _: &mut u64, _: &Response<'_>, _: &mut Context<'_, u64>) -> Flow {
        Flow::Stream
    }

    fn on_data(&mut self, bytes: &mut u64, data: &[u8], _: &mut Context<'_, u64>) -> Flow {
        *bytes += data.len() as u64;
        Flow::Stream
    }

    fn on_reply(&mut self, _: &mut u64, reply: Reply<'_>, _: &mut Context<'_, u64>) -> Next<u64> {
        reply.unwrap();
        Next::done()
    }
}

/// Returns the most memory of this process that was resident at any time, in bytes.
fn peak_resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kibibytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn two_gibibytes_up_and_down_take_less_than_16_mebibytes() {
    let url = format!("http://{}/", serve());
    let mut engine = Engine::<u64>::new().unwrap();
    let mut bytes = 0;
    let content = io::repeat(b'x').take(BYTES);
    let put = Request::put(&url).body_reader(content, Some(BYTES));
    engine.submit(put.build().unwrap(), |_, reply, _| {
        assert_eq!(reply.unwrap().body(), b"received");
        Next::done()
    });
    engine.run(&mut bytes).unwrap();
    engine.submit_to(Request::get(&url).build().unwrap(), Counting);
    engine.run(&mut bytes).unwrap();
    assert_eq!(bytes, BYTES);
    let peak = peak_resident();
    assert!(peak < MOST_RESIDENT, "{peak} bytes were resident");
}
