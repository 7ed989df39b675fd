//! Policies: what is done for a request besides sending it, such as signing it, holding it back,
//! decoding its response, or sending it again.
//!
//! A request carries a [`Policy`] as it carries a [`Route`](crate::Route). The same policy
//! therefore serves requests from closures, methods, tasks and other threads; it does not depend on
//! an engine's state. When the request begins, the policy creates a [`Visit`]. The visit
//! accompanies the request until its readback is called, and its methods are called at each step:
//!
//! ```text
//!            ┌──────────── Resend, after a delay ◄──────────────┐
//!            ▼                                                  │
//! visit ─► on_start ─► (connection) ─► on_send ─► on_head ─► on_end ─► reset ─► readback
//!           ▲    │                       ▲   │
//!           └────┘ After, Wait           └───┘ another attempt on a fresh connection
//! ```
//!
//! All of these methods run on the engine's thread, inside a turn, so they must not block. A policy
//! that has to wait returns [`Start::Wait`] and keeps a [`Moment::waker`]. A [`Lane`] uses this to
//! limit how many requests run at once.
//!
//! # Order
//! If there are two policies, the one of the configuration
//! ([`Config::policy`](crate::Config::policy)) is the outer one: it is called first on the way out
//! (`on_start`, `on_send`) and last on the way back (`on_head`, `on_end`). See [`both`](fn@both).
//!
//! # Example
//! A visit that can be cloned is its own policy:
//!
//! ```
//! use std::sync::Arc;
//! use httpstream::policy::{Fields, Visit};
//! use httpstream::{Error, Moment, Request};
//!
//! #[derive(Clone)]
//! struct Dated;
//!
//! impl Visit for Dated {
//!     fn on_send(
//!         &mut self,
//!         _: &Request,
//!         fields: &mut Fields<'_>,
//!         at: &Moment<'_>,
//!     ) -> Result<(), Error> {
//!         let age = at.wall_clock().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
//!         fields.add_fmt("X-Time", format_args!("{}", age.as_secs()))
//!     }
//! }
//!
//! let request = Request::get("http://example.com/").policy(Arc::new(Dated)).build()?;
//! # Ok::<(), Error>(())
//! ```
//!
//! # Limits
//! A policy holds no connection while it waits, and it sees a body only if it has the response
//! collected. It can add fields to a request, or have an edited request sent in its place. It can
//! decode the response for the readback, or replace it by an error.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::proto::Headers;
use crate::request::Request;
use crate::response::{Reply, Response};

mod both;
mod carried;
mod decoding;
pub(crate) mod fields;
mod lane;
mod moment;
mod outcome;
mod screening;
mod visiting;

pub use both::both;
pub(crate) use carried::Policies;
pub use decoding::{Decoder, Progress};
pub(crate) use decoding::{Decoding, ROOM, Step, Undecodable};
pub use fields::Fields;
pub use lane::{Lane, Ticket};
pub use moment::Moment;
#[cfg(test)]
pub(crate) use moment::testing;
pub(crate) use moment::{Held, Present, Waits, Wakeups, Woken};
pub use outcome::Outcome;
pub use screening::Screening;
pub(crate) use screening::Shown;
pub(crate) use visiting::{Screened, Unscreened, Visiting};

/// Creates a [`Visit`] for each request that carries it.
///
/// A policy is shared by all its requests, on all threads. State that belongs to one request goes
/// into its visit. A visit borrows nothing, so data of the policy that it needs is shared through
/// an `Arc`.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use httpstream::policy::{Policy, Screening, Verdict, Visit};
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Error, Moment, Next, Reply, Request, Response, Sim};
///
/// /// Sends a request again, up to so many times, while the server answers 503.
/// struct Patience { times: u32 }
/// struct Tries { left: u32 }
///
/// impl Policy for Patience {
///     fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
///         Box::new(Tries { left: self.times })
///     }
/// }
///
/// impl Visit for Tries {
///     fn on_head(
///         &mut self,
///         _: &Request,
///         head: &Response<'_>,
///         _: &Moment<'_>,
///     ) -> Result<Screening, Error> {
///         // A response that the readback has seen could not be replaced any more.
///         Ok(if head.status() == 503 { Screening::collect() } else { Screening::show() })
///     }
///
///     fn on_end(
///         &mut self,
///         request: &Request,
///         reply: &Reply<'_>,
///         _: &Moment<'_>,
///     ) -> Result<Verdict, Error> {
///         match reply {
///             Ok(response) if response.status() == 503 && self.left > 0 => {
///                 self.left -= 1;
///                 Ok(Verdict::Resend { request: request.clone(), after: Duration::from_secs(1) })
///             }
///             Ok(_) | Err(_) => Ok(Verdict::Deliver),
///         }
///     }
/// }
///
/// let network = Network::new(1);
/// network.host("busy.test", [[10, 0, 0, 1]]);
/// let mut requests = 0;
/// network.serve("10.0.0.1:80".parse().unwrap(), move |_: &Incoming| {
///     requests += 1;
///     if requests < 3 { Answer::status(503) } else { Answer::ok("at last") }
/// });
///
/// let mut engine = Engine::<u16, Sim>::on_network(&network, Config::default())?;
/// let patience = Arc::new(Patience { times: 5 });
/// let request = Request::get("http://busy.test/").policy(patience).build()?;
/// engine.submit(request, |status, reply, _| {
///     *status = reply.map_or(0, |response| response.status().as_u16());
///     Next::done()
/// });
/// let mut status = 0;
/// engine.run(&mut status)?;
/// assert_eq!(status, 200);
/// # Ok::<(), Error>(())
/// ```
pub trait Policy: Send + Sync {
    /// Begins a visit. This is called on the engine's thread when the request begins, so a request
    /// in the inbox of a [`Submitter`](crate::Submitter) holds only its policy, and a visit need
    /// not be `Send`.
    fn visit(&self, request: &Request, at: &Moment<'_>) -> Box<dyn Visit>;
}

/// A visit that can be cloned is its own policy: each request gets a clone.
impl<V: Visit + Clone + Send + Sync + 'static> Policy for V {
    fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(self.clone())
    }
}

/// The accompaniment of one request until its readback is called: through its first exchange and
/// any that are sent again.
///
/// A visit is dropped when that ends, for whatever reason: a response, a failure, a cancellation, a
/// panic, or the drop of the engine. Anything it holds, such as a [`Ticket`], is then released.
///
/// # Errors
/// Policies create their errors with [`Error::policy`]. An error from `on_start` or `on_end` goes
/// to the readback. An error from `on_send` or `on_head` ends the exchange and, like any other
/// failure, is passed to `on_end` first.
pub trait Visit {
    /// Returns how long the visit may take in total, over all its exchanges and waits: the value of
    /// [`Timeouts::total`](crate::Timeouts::total) for requests that do not set their own. `None`,
    /// the default, means the engine's. Called once, when the visit begins.
    fn total(&self) -> Option<Duration> {
        None
    }

    /// Returns whether [`on_start`](Self::on_start) is to be called, as by default. Called once,
    /// when the visit begins. A visit that never holds a request back returns false, which saves
    /// the calls.
    fn holds_back(&self) -> bool {
        true
    }

    /// Returns whether [`on_head`](Self::on_head) is to be called for a response with this status
    /// and these fields, as by default. If not, the response is [shown](Screening::show) without
    /// the call.
    fn reads_head(&self, status: StatusCode, fields: &Headers<'_>) -> bool {
        let _ = (status, fields);
        true
    }

    /// Returns whether [`on_end`](Self::on_end) is to be called for complete responses that were
    /// [shown](Screening::show), as by default. Called once, when the visit begins. It is called in
    /// any case for errors, and for responses that were held back.
    fn reads_shown(&self) -> bool {
        true
    }

    /// Decides when the exchange may begin. Called before each exchange, while it holds no
    /// connection, and again after each wait, until it returns [`Start::Now`].
    ///
    /// # Errors
    /// An error refuses the request: nothing is sent.
    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        let _ = (request, at);
        Ok(Start::Now)
    }

    /// Adds fields. Called once for each attempt, when the attempt has been assigned to a
    /// connection, either an open one or one that is about to be opened for it. A timestamp or a
    /// signature therefore does not age in a queue. It does age while the connection is being made,
    /// which is bounded by [`Timeouts::connect`](crate::Timeouts::connect) and the other timeouts
    /// of that phase.
    ///
    /// # Errors
    /// An error refuses to send the request, which then does not count as an attempt.
    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        let _ = (request, fields, at);
        Ok(())
    }

    /// Chooses what happens to the response whose final head has arrived; its body has not. By
    /// default the response is shown to the readback as it arrives, and can then no longer be
    /// replaced. A policy that has responses sent again therefore holds them back here.
    ///
    /// # Errors
    /// An error gives up the response and its connection.
    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let _ = (request, head, at);
        Ok(Screening::show())
    }

    /// Called when the exchange is over, with or without a response. The body of a response is
    /// available if it was collected, either by [`Screening::collect`] or for the readback.
    ///
    /// A response that was [shown](Screening::show) stands: `Resend` then counts as `Deliver`. The
    /// exception is one that broke off before the readback [saw](Moment::is_shown) any of it.
    ///
    /// # Errors
    /// The error goes to the readback in place of `reply`.
    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let _ = (request, reply, at);
        Ok(Verdict::Deliver)
    }

    /// Ends the visit, before the readback is called. Release here whatever the visit holds.
    ///
    /// Returns whether the visit is as good as new. If so, it serves the next request of its chain
    /// that carries the same policy, so that [`Next::again`](crate::Next::again) allocates nothing.
    /// Otherwise, which is the default, it is dropped.
    fn reset(&mut self) -> bool {
        false
    }
}

/// When an exchange may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// Immediately.
    Now,
    /// After this delay; [`Visit::on_start`] is then called again.
    After(Duration),
    /// When a waker taken from the [`Moment`] is woken, from any thread; [`Visit::on_start`] is
    /// then called again. If no such waker is alive, the request fails at once.
    Wait,
}

/// What follows an exchange.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The readback receives the result of the exchange.
    Deliver,
    /// Another exchange begins, with [`Visit::on_start`], and the readback learns nothing of this
    /// one. For a response that was [shown](Screening::show), this counts as `Deliver`.
    ///
    /// [`Timeouts::total`](crate::Timeouts::total) counts from the submission, over all exchanges
    /// and the time between them; the value of the request that is sent applies. Once it has
    /// passed, nothing more is sent: the readback receives [`Timeout`](crate::ErrorKind::Timeout),
    /// and the policy is not called.
    Resend {
        /// The request to send: the same one, or one that was [edited](Request::edit) from it.
        request: Request,
        /// How long to wait before sending it.
        after: Duration,
    },
}

impl fmt::Debug for dyn Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Policy")
    }
}

impl fmt::Debug for dyn Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visit")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Checks the auto traits that programs rely on.
    #[test]
    fn types_are_shared_and_sent_as_promised() {
        fn send<T: Send>() {}
        fn sync<T: Send + Sync + ?Sized>() {}
        fn shared<T: Clone + Send + Sync + 'static>() {}
        sync::<dyn Policy>();
        shared::<Arc<dyn Policy>>();
        shared::<Lane>();
        shared::<Request>();
        send::<Ticket>();
        sync::<Ticket>();
        sync::<Error>();
        sync::<crate::RequestBuilder>();
    }

    #[test]
    fn traits_are_object_safe_and_moments_covariant() {
        fn objects(_: &dyn Policy, _: &dyn Visit, _: &dyn Decoder) {}
        fn shorter<'s>(
            response: &'s Response<'static>,
            moment: &'s Moment<'static>,
        ) -> (&'s Response<'s>, &'s Moment<'s>) {
            (response, moment)
        }
        let _ = (objects as fn(&_, &_, &_), shorter as fn(_, _) -> _);
    }

    #[test]
    fn a_visit_that_can_be_cloned_is_its_own_policy() {
        #[derive(Clone)]
        struct Counts(u32);
        impl Visit for Counts {
            fn reset(&mut self) -> bool {
                self.0 += 1;
                self.0 == 1
            }
        }
        let policy: Arc<dyn Policy> = Arc::new(Counts(0));
        let request = Request::get("http://a/").build().unwrap();
        moment::testing::at(1, |at| {
            for _ in 0..2 {
                let mut visit = policy.visit(&request, at);
                assert!(visit.reset() && !visit.reset(), "a clone for each");
            }
        });
    }
}
