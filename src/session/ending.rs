//! How requests and chains join a session, and how the session is ended from inside an engine.

use crate::builder::RequestBuilder;
use crate::engine::{Context, Engine, Local, Mode, Next, Submitter};
use crate::error::Gone;
use crate::session::Session;

impl RequestBuilder {
    /// Makes the request belong to a session: it is sent as the session's settings say, and ends
    /// with the session's current login; see [`Session::end`]. [`Session::get`] and its siblings do
    /// this. The URL must be absolute: it is not resolved against the session's base.
    pub fn session(self, session: &Session) -> Self {
        self.in_session(session.carried(), session.mark())
    }
}

impl<S> Next<S> {
    /// Makes a wait, a call or a task end with the session's current login: see [`Session::end`].
    /// Has no effect on a request, which belongs to the session that it was begun in.
    ///
    /// ```
    /// use std::time::Duration;
    /// use httpstream::session::Session;
    /// use httpstream::{Context, Next, Reply};
    ///
    /// struct Bot { session: Session }
    ///
    /// impl Bot {
    ///     fn on_reply(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
    ///         // Does not run if the session ends within the minute.
    ///         let remind = Next::call(|_: &mut Self, _: &mut Context<'_, Self>| Next::done());
    ///         cx.start(remind.after(Duration::from_secs(60)).session(&self.session));
    ///         Next::done()
    ///     }
    /// }
    /// ```
    pub fn session(self, session: &Session) -> Self {
        self.marked(session.mark())
    }
}

impl<S> Context<'_, S> {
    /// Ends everything that belongs to the session so far, except this chain: see
    /// [`Session::end`]. This chain goes on: [`Next::again`] sends its request in the session's
    /// next login. Any other request that it sends must have been begun after this call. A clone of
    /// one that was prepared before, such as a login kept in a field, is canceled and ends the
    /// chain: send `edit().build()` of it.
    ///
    /// ```
    /// use httpstream::session::Session;
    /// use httpstream::{Context, Next, Reply, Request};
    ///
    /// struct Bot { session: Session, login: Request }
    ///
    /// impl Bot {
    ///     fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
    ///         match reply {
    ///             // Logged out: nothing that belongs to the old login may be sent.
    ///             Ok(response) if response.status() == 401 => {
    ///                 cx.end(&self.session);
    ///                 match self.login.edit().build() {
    ///                     Ok(login) => Next::send(login),
    ///                     Err(_) => Next::done(),
    ///                 }
    ///             }
    ///             _ => Next::again(),
    ///         }
    ///     }
    /// }
    /// ```
    pub fn end(&mut self, session: &Session) {
        self.end_generation(session.generation());
    }
}

impl<S, M: Mode> Engine<S, M> {
    /// Ends everything that belongs to the session so far, in this engine and all others. The same
    /// as [`Session::end`].
    pub fn end(&mut self, session: &Session) {
        session.end();
    }
}

impl<S> Local<S> {
    /// Ends everything that belongs to the session so far. The same as [`Session::end`]. A task
    /// that was itself [marked](Next::session) ends too, at its next `await`.
    pub fn end(&self, session: &Session) {
        session.end();
    }
}

impl<S> Submitter<S> {
    /// Ends everything that belongs to the session so far. The same as [`Session::end`].
    ///
    /// # Errors
    /// [`Gone`] if the engine has been dropped. The session is ended nevertheless.
    pub fn end(&self, session: &Session) -> Result<(), Gone> {
        session.end();
        self.check_alive()
    }
}
