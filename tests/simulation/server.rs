//! The servers: they answer as the request's `Wish` specifies, and check that the request arrived
//! as it was sent.

use std::collections::HashMap;
use std::time::Duration;

use httpstream::sim::{Answer, ConnectionId, Incoming, Network, Server};

use crate::world::{Answered, Body, Expectation, Shared, World, body_bytes, check, upload_bytes};

pub(crate) struct Scripted {
    network: Network,
    world: Shared,
    /// The nonce of the last request on each connection.
    last: HashMap<ConnectionId, usize>,
}

impl Scripted {
    pub(crate) fn new(network: &Network, world: Shared) -> Self {
        Self {
            network: network.clone(),
            world,
            last: HashMap::new(),
        }
    }
}

impl Server for Scripted {
    fn on_head(&mut self, request: &Incoming) -> Option<Answer> {
        let mut world = self.world.borrow_mut();
        let nonce = nonce_of(request, &mut world)?;
        world.wishes[nonce].heads += 1;
        let wish = &world.wishes[nonce];
        let (method, early, expect) = (wish.method, wish.script.early, wish.expect);
        check!(
            world,
            request.method == method,
            "nonce {nonce} arrived with method {}",
            request.method
        );
        let before = self.last.insert(request.connection, nonce);
        if request.pipelined {
            let may_be = |nonce: usize| {
                let wish = &world.wishes[nonce];
                world.plan.depth > 1 && wish.idempotent && wish.expect.is_none()
            };
            let both = may_be(nonce) && before.is_some_and(may_be);
            check!(
                world,
                both,
                "nonce {nonce} arrived before the answer to the request before it, {before:?}"
            );
            world.coverage.hit("pipeline", "pipelined");
        }
        let right = world.addrs_of(nonce).contains(&request.server);
        check!(world, right, "nonce {nonce} arrived at {}", request.server);
        if request.header("expect").is_some() {
            match expect {
                Some(Expectation::Continued) => {
                    world.coverage.hit("answer", "continue");
                    self.network
                        .push(request.connection, "HTTP/1.1 100 Continue\r\n\r\n");
                }
                Some(Expectation::Failed) => {
                    world.coverage.hit("answer", "expectation failed");
                    let (serial, status) = (world.answers.len(), 417);
                    let len = 0;
                    world.answers.push(Answered { nonce, status, len });
                    let refusal = Answer::status(status)
                        .header("X-Nonce", nonce.to_string())
                        .header("X-Serial", serial.to_string());
                    return Some(refusal);
                }
                Some(Expectation::Ignored) => {}
                None => world.complain(format!(
                    "nonce {nonce} arrived with an Expect field that was not sent"
                )),
            }
        }
        if early {
            world.coverage.hit("answer", "early");
            return Some(answer(&mut world, nonce));
        }
        None
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.last.remove(&connection);
    }

    fn on_request(&mut self, request: &Incoming) -> Answer {
        let mut world = self.world.borrow_mut();
        let Some(nonce) = nonce_of(request, &mut world) else {
            return Answer::status(400);
        };
        world.wishes[nonce].arrived += 1;
        let upload = upload_bytes(nonce, world.wishes[nonce].upload);
        check!(
            world,
            request.body() == upload,
            "nonce {nonce} arrived with a different body"
        );
        world
            .coverage
            .hit_if(!upload.is_empty(), "answer", "upload");
        if request.header("expect").is_some()
            && world.wishes[nonce].expect == Some(Expectation::Continued)
        {
            world.coverage.hit("answer", "continue in time");
        }
        answer(&mut world, nonce)
    }
}

pub(crate) fn nonce_in(path: &str) -> Option<usize> {
    path.strip_prefix('/')?.parse().ok()
}

fn nonce_of(request: &Incoming, world: &mut World) -> Option<usize> {
    let nonce = nonce_in(request.path()).filter(|nonce| *nonce < world.wishes.len());
    check!(
        world,
        nonce.is_some(),
        "{} was never requested",
        request.target
    );
    nonce
}

fn answer(world: &mut World, nonce: usize) -> Answer {
    let serial = world.answers.len();
    let wish = &world.wishes[nonce];
    let script = wish.script.clone();
    let is_head = wish.method == "HEAD";
    let len = match script.body {
        Body::NoContent => 0,
        _ => script.len,
    };
    let status = match script.body {
        Body::NoContent => 204,
        Body::Http10 | Body::Garbage | Body::BadChunk | Body::HugeHead => 200,
        _ => script.status,
    };
    world.answers.push(Answered {
        nonce,
        status,
        len: if is_head { 0 } else { len },
    });
    let bytes = body_bytes(nonce, serial, len);
    let coverage = &mut world.coverage;
    coverage.hit_if(is_head, "answer", "head");
    coverage.hit_if(len >= 5_000, "answer", "large");
    coverage.hit_if(script.interims > 0, "answer", "interim");
    let ids = format!("X-Nonce: {nonce}\r\nX-Serial: {serial}\r\n");
    let plain = Answer::status(status)
        .header("X-Nonce", nonce.to_string())
        .header("X-Serial", serial.to_string());
    let mut answer = match script.body {
        Body::Length => {
            coverage.hit("answer", "length");
            plain.body(bytes)
        }
        Body::Truncated => plain.body(bytes),
        Body::NoContent => {
            coverage.hit("answer", "no content");
            plain
        }
        Body::Chunked => {
            coverage.hit("answer", "chunked");
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = world.random.between(1, rest.len());
                let (chunk, behind) = rest.split_at(most);
                chunks.push(chunk.to_vec());
                rest = behind;
            }
            let chunked = plain.chunked(chunks);
            match world.random.chance(300) {
                true => {
                    world.coverage.hit("answer", "trailers");
                    chunked.trailer("X-Sum", serial.to_string())
                }
                false => chunked,
            }
        }
        Body::UntilClose => {
            coverage.hit("answer", "until close");
            plain.until_close(bytes)
        }
        Body::Http10 => {
            coverage.hit("answer", "http 1.0");
            let mut wire = format!("HTTP/1.0 200 OK\r\n{ids}\r\n").into_bytes();
            if !is_head {
                wire.extend_from_slice(&bytes);
            }
            Answer::raw(wire).close()
        }
        Body::Garbage => Answer::raw("HTTP/1.1 2x0 OK\r\n\r\n"),
        Body::BadChunk => {
            let chunk = if is_head { "" } else { "zz\r\n" };
            let coded = "Transfer-Encoding: chunked\r\n\r\n";
            Answer::raw(format!("HTTP/1.1 200 OK\r\n{ids}{coded}{chunk}"))
        }
        Body::HugeHead => {
            let line = format!("X-Long: {}\r\n", "y".repeat(1000));
            let lines = line.repeat(70);
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\n{ids}{lines}Content-Length: 0\r\n\r\n"
            ))
        }
        Body::ClosedAtOnce => Answer::nothing().close(),
        Body::Nothing => Answer::nothing(),
    };
    for number in 0..script.interims {
        let status = if number == 0 { 103 } else { 102 };
        answer = answer.interim(status, &[("Link", "</style.css>")]);
    }
    if script.hold > Duration::ZERO {
        answer = answer.after(script.hold);
    }
    if let Some((bytes, every)) = script.drip {
        answer = answer.drip(bytes, every);
    }
    if let Some(seconds) = script.keep_alive {
        answer = answer.header("Keep-Alive", format!("timeout={seconds}"));
    }
    match (script.closes, script.body) {
        (Some(true), _) => answer = answer.header("Connection", "close").close(),
        (Some(false), _) => answer = answer.close(),
        (None, Body::Truncated) => answer = answer.close(),
        (None, _) => {}
    }
    match script.body {
        // Cut at any point inside the head or the body.
        Body::Truncated => answer
            .truncate(world.random.between(1, 70 + len / 2))
            .close(),
        _ => answer,
    }
}
