//! The main job in miniature: log in, poll for ever, beat in between. `bot --seconds N` logs out
//! after N seconds (3 if not said).
//!
//! The bot is a plain struct, and its methods read the responses: each is lent the bot, is given a
//! response or the error in its place, and answers what follows. What it talks to is a small chat
//! server on loopback, in `bot/server.rs`: Alice says something every 200 ms, and a poll is held
//! until she has.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use httpstream::{ChainId, Context, Engine, Next, Reply, Request, RequestBuilder, Response};

#[path = "support/args.rs"]
mod args;
#[path = "bot/server.rs"]
mod server;

const USAGE: &str = "\
Usage: bot [--seconds N]

Logs in, answers what Alice says, beats in between, and logs out after N seconds (default 3).
";

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
    heartbeat: Option<ChainId>,
    received: usize,
    answered: usize,
    beats: usize,
    begin: Instant,
}

impl Bot {
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match wanted(reply) {
            Ok(response) => self.session = text_of(&response),
            Err(failure) => return self.on_failure("login", &failure),
        }
        self.tell(&format!("logged in, session {}", self.session));
        let heartbeat = cx.start(
            cx.send(build(self.post("/beat")))
                .after(BEAT)
                .read_by(Bot::on_beat),
        );
        self.heartbeat = Some(heartbeat);
        cx.start(
            cx.send(build(self.post("/logout")))
                .after(self.lifetime)
                .read_by(Bot::on_logout),
        );
        Next::send(build(self.post("/poll").long_poll(HOLD))).read_by(Bot::on_poll)
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match wanted(reply) {
            Ok(response) => {
                for message in text_of(&response).lines() {
                    self.tell(&format!("Alice: {message}"));
                    self.received += 1;
                    cx.submit(self.answer(message), Bot::on_answered);
                }
                // The next poll does not wait for the answers: they go beside it, on a connection
                // of their own.
                Next::again()
            }
            Err(failure) if failure.may_pass => self.on_failure("poll", &failure),
            Err(failure) => {
                self.tell(&format!("the session is over: {}", failure.why));
                if let Some(heartbeat) = self.heartbeat.take() {
                    cx.cancel(heartbeat);
                }
                Next::done()
            }
        }
    }

    fn on_answered(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match wanted(reply) {
            Ok(_) => self.answered += 1,
            Err(failure) => return self.on_failure("answer", &failure),
        }
        Next::done()
    }

    fn on_beat(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match wanted(reply) {
            Ok(_) => {
                self.beats += 1;
                self.tell(&format!("heartbeat {}", self.beats));
            }
            Err(failure) if self.heartbeat.is_some() => {
                self.tell(&format!("heartbeat failed: {}", failure.why));
            }
            // Cancelled, by the bot itself.
            Err(_) => {}
        }
        // Whatever came of it: nothing is allocated for the next one. After the cancellation this
        // is dropped.
        Next::again().after(BEAT)
    }

    fn on_logout(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match wanted(reply) {
            Ok(_) => self.tell("logged out"),
            Err(failure) => return self.on_failure("logout", &failure),
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

    fn on_failure(&self, what: &str, Failure { why, may_pass }: &Failure) -> Next<Self> {
        if !may_pass {
            self.tell(&format!("{what} failed: {why}"));
            return Next::done();
        }
        self.tell(&format!("{what} failed, tried again soon: {why}"));
        Next::again().after(PAUSE)
    }

    fn tell(&self, what: &str) {
        println!("{:7.3} s  {what}", self.begin.elapsed().as_secs_f64());
    }
}

struct Failure {
    why: String,
    /// Whether the same request may fare better later.
    may_pass: bool,
}

/// A response of any status is `Ok`, since only its reader knows which will do: here, those of
/// success.
fn wanted(reply: Reply<'_>) -> Result<Response<'_>, Failure> {
    match reply {
        Ok(response) if response.status().is_success() => Ok(response),
        Ok(response) => Err(Failure {
            why: format!("status {}", response.status()),
            may_pass: response.status().is_server_error(),
        }),
        Err(error) => Err(Failure {
            why: format!("{error:#}"),
            may_pass: true,
        }),
    }
}

fn text_of(response: &Response<'_>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

fn build(request: RequestBuilder) -> Request {
    request.build().expect("all that varies is in the form")
}

fn main() -> ExitCode {
    env_logger::init();
    let mut args = args::Args::new("bot", USAGE);
    let mut lifetime = Duration::from_secs(3);
    while let Some(arg) = args.next() {
        match &*arg {
            "--seconds" => lifetime = args.value(&arg, "a number of seconds", seconds),
            _ => args.wrong(&format!("{arg:?}: no such option")),
        }
    }
    match run(lifetime) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bot: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the bot came in, and every message came through and was answered.
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
    Ok(!bot.session.is_empty() && bot.received == said && bot.answered == said && heard == said)
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}
