//! A bot for Telegram. It asks for messages by long polls and answers each of them.
//!
//! ```text
//! TELEGRAM_TOKEN=123456:ABC-DEF cargo run --example telegram
//! ```
//!
//! Everything but an answer may be repeated, so it is sent again until it succeeds. Telegram could
//! not tell an answer that arrives twice from two answers, so an answer is sent again only if it
//! certainly had no effect. The bot ends when its token has been revoked.

use std::env;
use std::time::Duration;

use httpstream::session::Session;
use httpstream::{Context, Engine, Error, ErrorKind, Next, RequestBuilder};
use serde_json::{Value, json};

/// How long the server holds a poll open until there is a message.
const HOLD: Duration = Duration::from_secs(50);

pub(crate) struct Bot {
    session: Session,
    /// The id of the next update. A poll for it tells the server to forget all earlier ones.
    offset: i64,
}

impl Bot {
    pub(crate) fn new(server: &str, token: &str) -> Result<Self, Error> {
        let session = Session::builder()
            .base(format!("{server}/bot{token}"))
            .error_for_status(true)
            .build()?;
        Ok(Self { session, offset: 0 })
    }

    pub(crate) fn start(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
        send(self.session.get("getMe"), Bot::on_me)
    }

    fn on_me(&mut self, me: &Value, _: &mut Context<'_, Self>) -> Next<Self> {
        println!("this is @{}", me["username"].as_str().unwrap_or("?"));
        // As long as there is a webhook, the server refuses polls.
        let delete = self.session.get("deleteWebhook");
        send(delete, |bot, _, _| bot.poll())
    }

    fn poll(&self) -> Next<Self> {
        let poll = self.session.get("getUpdates").param("offset", self.offset);
        let poll = poll.param("timeout", HOLD.as_secs()).long_poll(HOLD);
        send(poll, Bot::on_updates)
    }

    fn on_updates(&mut self, updates: &Value, cx: &mut Context<'_, Self>) -> Next<Self> {
        for update in updates.as_array().into_iter().flatten() {
            let id = update["update_id"].as_i64().unwrap_or_default();
            self.offset = self.offset.max(id.saturating_add(1));
            let message = &update["message"];
            if let Some(text) = message["text"].as_str() {
                let text = format!("You said: {text}");
                let answer = json!({"chat_id": message["chat"]["id"], "text": text});
                // A new connection, because the server may close an idle one just as the answer is
                // sent, and nobody would know whether it has arrived.
                let answer = self.session.post("sendMessage").json(&answer);
                // A chain of its own: the next poll does not wait for it.
                cx.start(send(answer.fresh_connection(), |_, _, _| Next::done()));
            }
        }
        self.poll()
    }

    /// Decides what follows a failure.
    fn on_failure(&mut self, error: &Error, cx: &mut Context<'_, Self>) -> Next<Self> {
        if error.kind() == ErrorKind::Cancelled {
            return Next::done();
        }
        eprintln!("{error:#}"); // contains no URL, and so no token
        let pause = Duration::from_secs(1 << cx.failures().clamp(1, 6));
        match error.status().map(|status| status.as_u16()) {
            Some(401 | 404) => {
                // There is no such token, or not any more. Answers under way end as well.
                cx.end(&self.session);
                Next::done()
            }
            Some(429) => Next::again().after(wait_of(error).unwrap_or(pause)),
            _ if error.resend_is_safe() => Next::again().after(pause),
            _ => Next::done(),
        }
    }
}

/// Sends a request, and calls `then` with its result once it succeeds.
fn send(
    request: RequestBuilder,
    then: impl Fn(&mut Bot, &Value, &mut Context<'_, Bot>) -> Next<Bot> + 'static,
) -> Next<Bot> {
    let request = request.build().expect("JSON and numbers can be sent");
    Next::send(request).read_by(move |bot: &mut Bot, reply, cx| {
        match reply.and_then(|response| response.json::<Value>()) {
            Ok(answer) => then(bot, &answer["result"], cx),
            Err(error) => bot.on_failure(&error, cx),
        }
    })
}

/// Returns how long the server asks to wait.
fn wait_of(error: &Error) -> Option<Duration> {
    let answer: Value = serde_json::from_slice(error.partial_body()).ok()?;
    let seconds = answer["parameters"]["retry_after"].as_u64()?;
    Some(Duration::from_secs(seconds))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = env::var("TELEGRAM_TOKEN").map_err(|_| "TELEGRAM_TOKEN is not set")?;
    let server = env::var("TELEGRAM_SERVER");
    let server = server.unwrap_or_else(|_| "https://api.telegram.org".to_owned());
    let mut bot = Bot::new(&server, &token)?;
    let mut engine = Engine::new()?;
    engine.call(Bot::start);
    engine.run(&mut bot)?; // until no chain is left
    Err("the token is not valid".into())
}
