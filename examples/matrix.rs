//! A bot for Matrix. It logs in, joins the rooms that it is invited to, and answers the messages in
//! them.
//!
//! ```text
//! MATRIX_SERVER=example.org MATRIX_USER=bot MATRIX_PASSWORD=… cargo run --example matrix
//! ```
//!
//! If the server ends the login, the bot logs in again and does what was left undone. The
//! transaction id of an answer names the message that it replies to, so the server drops a
//! repetition.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use httpstream::session::{Redirects, Session};
use httpstream::{Context, Engine, Error, ErrorKind, Next, Request, RequestBuilder};
use serde_json::{Value, json};

/// How long the server holds a sync open until there is news.
const HOLD: Duration = Duration::from_secs(30);

pub(crate) struct Bot {
    server: String,
    login: Value,
    session: Session,
    token: String,
    user_id: String,
    /// Up to where the bot has read.
    since: Option<String>,
    /// The rooms to join and the messages to answer, by their ids. They outlast a login.
    jobs: BTreeMap<String, Request>,
}

impl Bot {
    pub(crate) fn new(server: &str, user: &str, password: &str) -> Result<Self, Error> {
        let session = Session::builder().redirects(Redirects::limited(5).https_only());
        Ok(Self {
            server: server.to_owned(),
            login: json!({
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": user},
                "password": password,
                "device_id": "HTTPSTREAM", // part of the identity of an answer
            }),
            session: session.error_for_status(true).build()?,
            token: String::new(),
            user_id: String::new(),
            since: None,
            jobs: BTreeMap::new(),
        })
    }

    /// Asks the server where its homeserver is.
    pub(crate) fn start(&mut self, _: &mut Context<'_, Self>) -> Next<Self> {
        let url = format!("https://{}/.well-known/matrix/client", self.server);
        send(self.session.get(url), Bot::on_discovery)
    }

    fn on_discovery(&mut self, known: Value, _: &mut Context<'_, Self>) -> Next<Self> {
        let url = text(&known["m.homeserver"]["base_url"]);
        // A redirect takes the password of a login along, so it must not lead elsewhere.
        let session = Session::builder()
            .base(format!("{}/_matrix/client/v3", url.trim_end_matches('/')))
            .redirects(Redirects::limited(5).same_origin())
            .error_for_status(true);
        match session.build() {
            Ok(session) if url.starts_with("https://") => self.session = session,
            Ok(_) | Err(_) => return Next::done(),
        }
        self.log_in()
    }

    fn log_in(&self) -> Next<Self> {
        let login = self.session.post("login").json(&self.login);
        send(login.idempotent(true), Bot::on_login)
    }

    fn on_login(&mut self, login: Value, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.token = text(&login["access_token"]);
        self.user_id = text(&login["user_id"]);
        for id in self.jobs.keys() {
            self.begin(id, cx);
        }
        self.sync()
    }

    fn sync(&self) -> Next<Self> {
        let sync = self.session.get("sync").bearer_auth(&self.token);
        let sync = sync.query(self.since.iter().map(|since| ("since", since)));
        let sync = sync.param("timeout", HOLD.as_millis()).long_poll(HOLD);
        send(sync, Bot::on_sync)
    }

    fn on_sync(&mut self, news: Value, cx: &mut Context<'_, Self>) -> Next<Self> {
        for (room, _) in news["rooms"]["invite"].as_object().into_iter().flatten() {
            let join = self.session.post("join").segment(room).json(&json!({}));
            self.add(room, join.idempotent(true), cx);
        }
        // The first sync returns what was said before the bot came.
        if self.since.replace(text(&news["next_batch"])).is_some() {
            for (room, joined) in news["rooms"]["join"].as_object().into_iter().flatten() {
                for event in joined["timeline"]["events"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    self.on_event(room, event, cx);
                }
            }
        }
        self.sync()
    }

    fn on_event(&mut self, room: &str, event: &Value, cx: &mut Context<'_, Self>) {
        let content = &event["content"];
        // Bots send notices and do not answer them, so two bots do not talk to each other for ever.
        if content["msgtype"] == "m.text" && event["sender"] != *self.user_id {
            let id = text(&event["event_id"]);
            let answer = format!("You said: {}", text(&content["body"]));
            let path = [room, "send", "m.room.message", &id];
            let answer = json!({"msgtype": "m.notice", "body": answer});
            let put = self.session.put("rooms").segments(path).json(&answer);
            self.add(&id, put, cx);
        }
    }

    fn add(&mut self, id: &str, request: RequestBuilder, cx: &mut Context<'_, Self>) {
        // Ids come from other people, and not every text can be in a path.
        if let Ok(request) = request.build() {
            self.jobs.insert(id.to_owned(), request);
            self.begin(id, cx);
        }
    }

    /// Begins a job in the current login, in a chain of its own.
    fn begin(&self, id: &str, cx: &mut Context<'_, Self>) {
        let request = self.jobs[id].edit().session(&self.session);
        let id = id.to_owned();
        let job = send(request.bearer_auth(&self.token), move |bot, _, _| {
            bot.jobs.remove(&id);
            Next::done()
        });
        cx.start(job);
    }

    /// Decides what follows a failure.
    fn on_failure(&mut self, error: &Error, cx: &mut Context<'_, Self>) -> Next<Self> {
        if error.kind() == ErrorKind::Cancelled {
            return Next::done();
        }
        eprintln!("{error:#}"); // contains neither URL nor token
        let pause = Duration::from_secs(1 << cx.failures().clamp(1, 6));
        match error.status().map(|status| status.as_u16()) {
            Some(401) if is_logged_out(error) => {
                // All else that was begun in this login ends. This chain goes on with the next.
                cx.end(&self.session);
                self.log_in()
            }
            Some(429) => Next::again().after(error.retry_after().unwrap_or(pause)),
            Some(300..=499) => Next::done(),
            _ if error.resend_is_safe() => Next::again().after(pause),
            _ => Next::done(),
        }
    }
}

/// Sends a request, and calls `then` with the JSON of its response once it succeeds.
fn send(
    request: RequestBuilder,
    then: impl Fn(&mut Bot, Value, &mut Context<'_, Bot>) -> Next<Bot> + 'static,
) -> Next<Bot> {
    let request = match request.build() {
        Ok(request) => request,
        Err(error) => {
            eprintln!("{error:#}");
            return Next::done();
        }
    };
    Next::send(request).read_by(move |bot: &mut Bot, reply, cx| {
        match reply.and_then(|response| response.json()) {
            Ok(result) => then(bot, result, cx),
            Err(error) => bot.on_failure(&error, cx),
        }
    })
}

fn is_logged_out(error: &Error) -> bool {
    let answer: Value = serde_json::from_slice(error.partial_body()).unwrap_or_default();
    answer["errcode"] == "M_UNKNOWN_TOKEN"
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let var = |name| env::var(name).map_err(|_| format!("{name} is not set"));
    let (server, user) = (var("MATRIX_SERVER")?, var("MATRIX_USER")?);
    let mut bot = Bot::new(&server, &user, &var("MATRIX_PASSWORD")?)?;
    let mut engine = Engine::new()?;
    engine.call(Bot::start);
    engine.run(&mut bot)?; // until no chain is left
    Err("the server has refused the bot".into())
}
