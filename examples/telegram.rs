//! A bot for Telegram. It asks for messages by long polls and answers each of them.
//!
//! ```text
//! TELEGRAM_TOKEN=123456:ABC-DEF cargo run --example telegram
//! ```
//!
//! The session sends failed requests again, later if Telegram asks for that: polls until they
//! succeed, and answers only if they certainly had no effect, since Telegram could not tell an
//! answer that arrives twice from two answers. It also keeps Telegram's limits: 30 answers a
//! second, and one a second to each chat. The bot ends when its token has been revoked.

use std::env;
use std::time::Duration;

use httpstream::session::{Rate, Retry, Session};
use httpstream::{Context, Engine, Error, ErrorKind, Next, RequestBuilder, Response};
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
        // 409: another program polls with the same token.
        let retry = Retry::forever()
            .statuses([409, 429, 500, 502, 503, 504])
            .backoff(Duration::from_secs(2), Duration::from_secs(60))
            .max_wait(Duration::from_secs(600))
            .wait_from(wait_of);
        let session = Session::builder()
            .base(format!("{server}/bot{token}"))
            .retry(retry)
            .rate(Rate::per_second(30).burst(30))
            .lane_rate(Rate::per_second(1))
            .total(Duration::from_secs(3600))
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
                let chat = &message["chat"]["id"];
                let answer = json!({"chat_id": chat, "text": text});
                // A new connection, because the server may close an idle one just as the answer is
                // sent, and nobody would know whether it has arrived.
                let answer = self.session.post("sendMessage").json(&answer);
                let answer = answer.lane(chat.to_string()).fresh_connection();
                // A chain of its own: the next poll does not wait for it.
                cx.start(send(answer, |_, _, _| Next::done()));
            }
        }
        self.poll()
    }

    /// Decides what follows a failure that the session does not retry.
    fn on_failure(&mut self, error: &Error, cx: &mut Context<'_, Self>) -> Next<Self> {
        if error.kind() == ErrorKind::Cancelled {
            return Next::done();
        }
        eprintln!("{error:#}"); // contains no URL, and so no token
        match error.status().map(|status| status.as_u16()) {
            Some(401 | 404) => {
                // There is no such token, or not any more. Answers under way end as well.
                cx.end(&self.session);
                Next::done()
            }
            // A poll that took too long in all, or an answer that is not JSON.
            _ if error.resend_is_safe() => Next::again().after(Duration::from_secs(10)),
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
fn wait_of(response: &Response<'_>) -> Option<Duration> {
    let answer: Value = response.json().ok()?;
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
