//! Code that all of the bot's steps share: binding a step to its session, and checking its answer.

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
    /// A step of the login. Any trouble in it restarts the login.
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

    /// Wraps a readback of this session. Its answer is dropped if another session has begun.
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

    /// Wraps a call of this session, which does nothing if another session has begun.
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

    /// Stores the response's cookies, and returns the response if its status is a success or a
    /// redirection.
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

    /// Scales a wait of the protocol.
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
        // The next handshake would fail the same way.
        (ErrorKind::Tls, Phase::Tls) if !was_cut => Trouble::Unverified(why),
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
