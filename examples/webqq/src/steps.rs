//! Code that all of the bot's steps share: binding a step to its login, and checking its answer.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use httpstream::{
    Context, Error, ErrorKind, Next, Outcome, Phase, Readback, Reply, Request, Response,
};

use crate::answers::Trouble;
use crate::bot::Bot;
use crate::events::{Entry, Event};

/// What follows from a good answer.
pub(crate) type Step = Result<Next<Bot>, Trouble>;

/// A readback that ends with its login, and reports what its session repeats.
pub(crate) struct OfLogin<F> {
    what: &'static str,
    read: F,
}

impl<F> OfLogin<F>
where
    F: FnMut(&mut Bot, Reply<'_>, &mut Context<'_, Bot>) -> Next<Bot>,
{
    pub(crate) fn new(what: &'static str, read: F) -> Self {
        Self { what, read }
    }
}

impl<F> Readback<Bot> for OfLogin<F>
where
    F: FnMut(&mut Bot, Reply<'_>, &mut Context<'_, Bot>) -> Next<Bot>,
{
    fn reads_heads(&self) -> bool {
        false
    }

    fn on_retry(
        &mut self,
        bot: &mut Bot,
        why: Outcome<'_>,
        _: Duration,
        cx: &mut Context<'_, Bot>,
    ) {
        bot.login.set_now(cx.now());
        let trouble = match (why.error(), why.response()) {
            (Some(error), _) => trouble_of(error),
            (None, Some(response)) => Trouble::Status(response.status().as_u16()),
            (None, None) => return,
        };
        bot.report(self.what, &trouble);
    }

    fn on_reply(
        &mut self,
        bot: &mut Bot,
        reply: Reply<'_>,
        cx: &mut Context<'_, Bot>,
    ) -> Next<Bot> {
        bot.login.set_now(cx.now());
        match reply {
            // Another login has begun, or none.
            Err(error) if error.kind() == ErrorKind::Cancelled => Next::done(),
            reply => (self.read)(bot, reply, cx),
        }
    }
}

impl Bot {
    /// A step of the login. Any trouble in it restarts the login.
    pub(crate) fn step(
        &self,
        request: Request,
        read: fn(&mut Self, &Response<'_>, &mut Context<'_, Self>) -> Step,
    ) -> Next<Self> {
        Next::send(request).read_to(OfLogin::new("login", move |bot: &mut Self, reply, cx| {
            let next = good(reply).and_then(|answer| read(bot, &answer, cx));
            next.unwrap_or_else(|trouble| bot.on_login_trouble(&trouble, cx))
        }))
    }

    /// A call after a wait. It ends with the login.
    pub(crate) fn later(
        &self,
        wait: Duration,
        call: impl FnOnce(&mut Self, &mut Context<'_, Self>) -> Next<Self> + 'static,
    ) -> Next<Self> {
        let call = move |bot: &mut Self, cx: &mut Context<'_, Self>| {
            bot.login.set_now(cx.now());
            call(bot, cx)
        };
        Next::call(call)
            .after(wait)
            .session(&self.login.sessions.once)
    }

    pub(crate) fn jittered(&mut self, wait: Duration) -> Duration {
        let wait = self.login.jitter(wait, 0.2);
        self.wait(wait)
    }

    /// Scales a wait of the protocol.
    pub(crate) fn wait(&self, wait: Duration) -> Duration {
        self.login.clock().wait(wait)
    }

    pub(crate) fn report(&mut self, what: &'static str, trouble: &Trouble) {
        let why = trouble.to_string();
        self.tell(Event::Trouble { what, why });
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let at = self.login.clock().since_begin();
        self.events.push(Entry { at, event });
    }
}

/// Returns the response, unless its status is an error.
pub(crate) fn good(reply: Reply<'_>) -> Result<Response<'_>, Trouble> {
    reply.map_err(|error| trouble_of(&error))
}

pub(crate) fn trouble_of(error: &Error) -> Trouble {
    let why = format!("{error:#}");
    let was_cut = error
        .source()
        .is_some_and(|source| source.is::<io::Error>());
    match (error.kind(), error.phase(), error.status()) {
        (ErrorKind::Status, _, Some(status)) => Trouble::Status(status.as_u16()),
        // The next handshake would fail the same way.
        (ErrorKind::Tls, Phase::Tls, _) if !was_cut => Trouble::Unverified(why),
        _ => Trouble::Lost(why),
    }
}

/// Returns the text of a response that is not empty.
pub(crate) fn text<'a>(answer: &'a Response<'_>) -> Result<&'a str, Trouble> {
    match answer.text() {
        Ok("") => Err(Trouble::Empty),
        Ok(text) => Ok(text),
        Err(error) => Err(Trouble::Garbled(error.to_string())),
    }
}
