//! Sends a thousand messages to forty chats, as fast as the limits of a server allow.
//!
//! ```text
//! cargo run --release --features sim --example outbox
//! ```
//!
//! The server allows 30 messages in any second, and 20 to a chat in any minute. The session knows
//! these limits, so the server need not refuse anything. If another client uses them up, the server
//! answers 429 with the time to wait; then the chat waits, and no other. No message is lost to the
//! limits, sent twice, or overtaken by another one to the same chat.
//!
//! A message that may have arrived, because the connection broke or the server answered 503, is not
//! sent again. If the server recognizes a message by an id, call `.idempotent(true)` on it.
//!
//! The server is simulated, and so is the time: the run takes milliseconds.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use httpstream::session::{Rate, Retry, Session};
use httpstream::sim::{Incoming, Network};
use httpstream::{Config, Context, Engine, Error, Next, Reply, Sim};

#[path = "support/limited.rs"]
mod limited;

use limited::Limited;

// ---- the program ----

pub(crate) struct Outbox {
    session: Session,
    pub(crate) sent: usize,
}

impl Outbox {
    pub(crate) fn new(server: &str) -> Result<Self, Error> {
        let session = Session::builder()
            .base(server)
            .rate(Rate::per_second(30).burst(30))
            .lane_rate(Rate::per_minute(20).burst(20))
            .lane_concurrency(1)
            .retry(Retry::forever())
            .total(Duration::from_secs(3600))
            .build()?;
        Ok(Self { session, sent: 0 })
    }

    pub(crate) fn send(&self, chat: usize, text: String, cx: &mut Context<'_, Self>) {
        let chat = chat.to_string();
        let message = self.session.post("send").lane(&chat).param("chat", &chat);
        match message.body(text).build() {
            Ok(message) => _ = cx.submit(message, Self::on_sent),
            Err(error) => eprintln!("{error:#}"),
        }
    }

    fn on_sent(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply.and_then(|response| response.error_for_status()) {
            Ok(_) => self.sent += 1,
            Err(error) => eprintln!("{error:#}"),
        }
        Next::done()
    }
}

// ---- the messages, and the server ----

pub(crate) const CHATS: usize = 40;
pub(crate) const MESSAGES: usize = 1000;

/// Sends the messages over a network with this latency, one way, and returns the program and the
/// server. `neighbor` is the seed of another client of the server.
pub(crate) fn run(latency: Duration, neighbor: Option<u64>) -> Result<(Outbox, Limited), Error> {
    let network = Network::new(1);
    network.set_latency(latency);
    network.host("api.test", [[192, 0, 2, 1]]);
    let api = Rc::new(RefCell::new(Limited::new(neighbor)));
    let server = Rc::clone(&api);
    let addr = "192.0.2.1:80".parse().expect("a socket address");
    network.serve(addr, move |request: &Incoming| {
        server.borrow_mut().on_request(request)
    });

    let mut engine = Engine::<Outbox, Sim>::on_network(&network, Config::default())?;
    let mut outbox = Outbox::new("http://api.test/")?;
    engine.call(|outbox: &mut Outbox, cx| {
        for number in 0..MESSAGES {
            outbox.send(number % CHATS, format!("message {number}"), cx);
        }
        Next::done()
    });
    engine.run(&mut outbox)?;
    let api = std::mem::replace(&mut *api.borrow_mut(), Limited::new(None));
    Ok((outbox, api))
}

fn main() -> ExitCode {
    for (who, neighbor) in [("alone", None), ("beside another client", Some(1))] {
        match run(Duration::from_millis(20), neighbor) {
            Ok((outbox, api)) => println!(
                "{who}: {} of {MESSAGES} messages sent within {:.1} s; {} refused",
                outbox.sent,
                api.record.last_at.as_secs_f64(),
                api.record.refused,
            ),
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
