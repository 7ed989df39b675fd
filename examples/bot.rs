//! The main job in miniature: log in, poll for ever, beat in between. `bot --seconds N` logs out after N seconds (3 if not said).
//!
//! The bot is a plain struct, and its methods read the responses: each is lent the bot, is given a response or the error in its
//! place, and answers what follows. What it talks to is a small chat server on loopback, in `bot/server.rs`: Alice says something
//! every 200 ms, and a poll is held until she has.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use http::StatusCode;
use httpstream::{Context, Engine, Error, Next, Reply, Request, RequestBuilder, RequestId};

#[path = "bot/server.rs"]
mod server;

/// How long the server may hold a poll before it answers that there is nothing.
const HOLD: Duration = Duration::from_secs(60);
const BEAT: Duration = Duration::from_millis(450);
/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);

struct Bot {
    server: String,
    /// Empty before the login.
    session: String,
    lifetime: Duration,
    heartbeat: Option<RequestId>,
    received: usize,
    answered: usize,
    beats: usize,
    begin: Instant,
}

impl Bot {
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply.and_then(|response| response.text().map(str::to_owned)) {
            Ok(session) => self.session = session,
            Err(error) => return self.try_again("login", &error),
        }
        self.tell(&format!("logged in, session {}", self.session));
        let heartbeat = cx.submit_after(BEAT, build(self.post("/beat")), Bot::on_beat);
        self.heartbeat = Some(heartbeat);
        cx.submit_after(self.lifetime, build(self.post("/logout")), Bot::on_logout);
        Next::send(build(self.post("/poll").hold(HOLD))).read_by(Bot::on_poll)
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status() == StatusCode::OK => {
                for message in response.text().unwrap_or_default().lines() {
                    self.tell(&format!("Alice: {message}"));
                    self.received += 1;
                    cx.submit(self.answer(message), Bot::on_answered);
                }
                // The next poll does not wait for the answers: they go beside it, on a connection of their own.
                Next::again()
            }
            Ok(_) => {
                self.tell("the session is over");
                if let Some(heartbeat) = self.heartbeat.take() {
                    cx.cancel(heartbeat);
                }
                Next::done()
            }
            Err(error) => self.try_again("poll", &error),
        }
    }

    fn on_answered(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(_) => self.answered += 1,
            Err(error) if error.resend_is_safe() => return self.try_again("answer", &error),
            Err(error) => self.tell(&format!("an answer is lost: {error}")),
        }
        Next::done()
    }

    fn on_beat(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        if reply.is_ok() {
            self.beats += 1;
            self.tell(&format!("heartbeat {}", self.beats));
        }
        // Whatever came of it: nothing is allocated for the next one. After the cancellation this is dropped.
        Next::again().after(BEAT)
    }

    fn on_logout(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(_) => self.tell("logged out"),
            Err(error) => return self.try_again("logout", &error),
        }
        Next::done()
    }

    fn answer(&self, message: &str) -> Request {
        let id = message.split(' ').next().unwrap_or_default();
        let answer = [("session", &*self.session), ("to", id), ("text", "indeed")];
        // The server knows an answer by the message's number: it may be sent twice.
        build(self.post("/answer").form(answer).idempotent(true))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        Request::post(&format!("{}{path}", self.server)).form([("session", &self.session)])
    }

    fn try_again(&self, what: &str, error: &Error) -> Next<Self> {
        self.tell(&format!("{what} failed, tried again soon: {error}"));
        Next::again().after(PAUSE)
    }

    fn tell(&self, what: &str) {
        println!("{:7.3} s  {what}", self.begin.elapsed().as_secs_f64());
    }
}

fn build(request: RequestBuilder) -> Request {
    request.build().expect("all that varies is in the form")
}

fn main() -> ExitCode {
    env_logger::init();
    let lifetime = match seconds(std::env::args().skip(1)) {
        Ok(lifetime) => lifetime,
        Err(wrong) => {
            eprintln!("bot: {wrong}\nUsage: bot [--seconds N]");
            return ExitCode::from(2);
        }
    };
    match run(lifetime) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bot: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every message came through and was answered.
fn run(lifetime: Duration) -> Result<bool, Box<dyn std::error::Error>> {
    let chat = server::Chat::open()?;
    let mut bot = Bot {
        server: chat.url(),
        session: String::new(),
        lifetime,
        heartbeat: None,
        received: 0,
        answered: 0,
        beats: 0,
        begin: Instant::now(),
    };

    let mut engine = Engine::new()?;
    let login = Request::post(&format!("{}/login", bot.server)).form([("user", "bot")]);
    engine.submit(build(login), Bot::on_login);
    engine.run(&mut bot)?; // until no chain is left

    let (said, heard) = chat.tally();
    println!(
        "{} messages received of {said}, {} answered, {} heartbeats, {} connections opened",
        bot.received,
        bot.answered,
        bot.beats,
        engine.stats().opened,
    );
    Ok(bot.received == said && bot.answered == said && heard == said)
}

fn seconds(mut args: impl Iterator<Item = String>) -> Result<Duration, String> {
    let mut lifetime = Duration::from_secs(3);
    while let Some(arg) = args.next() {
        if arg != "--seconds" {
            return Err(format!("{arg}: no such option"));
        }
        let value = args.next().ok_or("--seconds: a value is missing")?;
        let seconds = value.parse().ok();
        lifetime = seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .ok_or_else(|| format!("--seconds {value:?}: not a number of seconds"))?;
    }
    Ok(lifetime)
}
