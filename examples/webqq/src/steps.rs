//! What the bot's steps have in common: the session they belong to, and what makes an answer a good
//! one.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use httpstream::{Context, Error, ErrorKind, Next, Phase, Reply, Request, Response};

use crate::answers::Trouble;
use crate::bot::Bot;
use crate::events::{Entry, Event};

/// What follows from a good answer.
pub(crate) type Step = Result<Next<Bot>, Trouble>;

impl Bot {
    /// A step of the login: any trouble in it starts the login again.
    pub(crate) fn step(
        &self,
        request: Request,
        read: fn(&mut Self, &Response<'_>, &mut Context<'_, Self>) -> Step,
    ) -> Next<Self> {
        Next::send(request).read_by(self.in_session(move |bot, reply, cx| {
            let next = bot.good(reply).and_then(|answer| read(bot, &answer, cx));
            next.unwrap_or_else(|trouble| bot.on_login_trouble(&trouble, cx))
        }))
    }

    /// A readback which belongs to this session: when another has begun it hears nothing.
    pub(crate) fn in_session<F>(
        &self,
        mut read: F,
    ) -> impl FnMut(&mut Self, Reply<'_>, &mut Context<'_, Self>) -> Next<Self> + use<F>
    where
        F: FnMut(&mut Self, Reply<'_>, &mut Context<'_, Self>) -> Next<Self>,
    {
        let session = self.session.number;
        move |bot, reply, cx| {
            bot.session.set_now(cx.now());
            if bot.session.number != session {
                return Next::done();
            }
            read(bot, reply, cx)
        }
    }

    /// A call which belongs to this session.
    pub(crate) fn in_session_call<F>(
        &self,
        call: F,
    ) -> impl FnOnce(&mut Self, &mut Context<'_, Self>) -> Next<Self> + use<F>
    where
        F: FnOnce(&mut Self, &mut Context<'_, Self>) -> Next<Self>,
    {
        let session = self.session.number;
        move |bot, cx| {
            bot.session.set_now(cx.now());
            if bot.session.number != session {
                return Next::done();
            }
            call(bot, cx)
        }
    }

    /// The response, if there is one that says something, with its cookies kept.
    pub(crate) fn good<'a>(&mut self, reply: Reply<'a>) -> Result<Response<'a>, Trouble> {
        let response = reply.map_err(|error| lost(&error))?;
        self.session.store_cookies(&response);
        match response.status() {
            status if status.is_success() || status.is_redirection() => Ok(response),
            status => Err(Trouble::Status(status.as_u16())),
        }
    }

    pub(crate) fn jittered(&mut self, wait: Duration) -> Duration {
        let wait = self.session.jitter(wait, 0.2);
        self.wait(wait)
    }

    /// What a wait of the protocol lasts here.
    pub(crate) fn wait(&self, wait: Duration) -> Duration {
        self.session.clock().wait(wait)
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let at = self.session.clock().since_begin();
        self.events.push(Entry { at, event });
    }
}

fn lost(error: &Error) -> Trouble {
    let why = format!("{error:#}");
    let was_cut = error
        .source()
        .is_some_and(|source| source.is::<io::Error>());
    match (error.kind(), error.phase()) {
        // What was said in the handshake will be said in the next.
        (ErrorKind::Tls, Phase::Tls) if !was_cut => Trouble::Disbelieved(why),
        _ => Trouble::Lost(why),
    }
}

/// The text of an answer that has one.
pub(crate) fn text<'a>(answer: &'a Response<'_>) -> Result<&'a str, Trouble> {
    match answer.text() {
        Ok("") => Err(Trouble::Empty),
        Ok(text) => Ok(text),
        Err(error) => Err(Trouble::Garbled(error.to_string())),
    }
}
