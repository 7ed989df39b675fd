//! A complete bot: it logs in, polls for messages, answers each of them, sends heartbeats, and logs
//! out after two seconds. Its methods are its readbacks. The server is `bot/server.rs`, a chat on
//! loopback in which Alice posts a message every 200 ms.

use std::time::Duration;

use httpstream::http::StatusCode;
use httpstream::{ChainId, Context, Engine, Error, Next, Reply, Request};

#[path = "bot/server.rs"]
mod server;

struct Bot {
    server: String,
    session: String,
    heartbeat: Option<ChainId>,
}

impl Bot {
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.session = match text_of(reply) {
            Ok(session) => session,
            Err(error) => return retry(&error, cx),
        };
        // Heartbeat and logout are separate chains. This chain continues with the poll.
        self.heartbeat = Some(cx.submit(self.request("/beat", &[]), Bot::on_beat));
        let logout = cx.send(self.request("/logout", &[])).read_by(Bot::on_done);
        cx.start(logout.after(Duration::from_secs(2)));
        Next::send(self.request("/poll", &[])).read_by(Bot::on_poll)
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match text_of(reply) {
            Ok(news) => {
                for message in news.lines() {
                    println!("Alice: {message}");
                    let id = message.split(' ').next().unwrap_or_default();
                    let answer = [("to", id), ("text", "indeed")];
                    cx.submit(self.request("/answer", &answer), Bot::on_done);
                }
                Next::again().after(Duration::from_millis(50)) // in case polls are not held
            }
            Err(error) if error.status() == Some(StatusCode::GONE) => {
                // The session is over. `run` still completes the answers that are in flight.
                self.heartbeat.map(|heartbeat| cx.cancel(heartbeat));
                Next::done()
            }
            Err(error) => retry(&error, cx),
        }
    }

    fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::again().after(Duration::from_millis(450))
    }

    fn on_done(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        text_of(reply).map_or_else(|error| retry(&error, cx), |_| Next::done())
    }

    fn request(&self, path: &str, form: &[(&str, &str)]) -> Request {
        Request::post(format!("{}{path}", self.server))
            .form([&[("session", &*self.session)], form].concat())
            .long_poll(Duration::from_secs(60)) // the server holds a poll open until there is news
            .idempotent(path == "/answer") // the server ignores an answer that it has already
            .build()
            .expect("only the form varies, and a form can contain any text")
    }
}

/// Returns the text of a successful response, and an error for one with any other status.
fn text_of(reply: Reply<'_>) -> Result<String, Error> {
    let response = reply?;
    if !response.status().is_success() {
        return Err(Error::of_status(&response));
    }
    response.text().map(str::to_owned)
}

/// Sends the same request again after half a second, but gives up if the server refuses it.
fn retry(error: &Error, cx: &mut Context<'_, Bot>) -> Next<Bot> {
    eprintln!("{error:#}");
    if matches!(error.status(), Some(status) if status.is_client_error()) {
        cx.stop();
    }
    Next::again().after(Duration::from_millis(500))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chat = server::Chat::open()?;
    let mut bot = Bot {
        server: chat.url(),
        session: String::new(),
        heartbeat: None,
    };
    let mut engine = Engine::new()?;
    engine.submit(bot.request("/login", &[("user", "bot")]), Bot::on_login);
    engine.run(&mut bot)?; // until no chain is left
    chat.check()
}
