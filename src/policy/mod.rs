//! What is done for a request besides sending it: signing it, holding it back, decoding its
//! response, sending it again.
//!
//! A request carries a [`Policy`] as it carries a [`Route`](crate::Route), so that one works from
//! closures, methods, tasks and other threads alike; it knows nothing of an engine's state. When
//! the request begins, the policy makes a [`Visit`], which goes with the request to its readback
//! and is asked at each step:
//!
//! ```text
//!            ┌──────────── Resend, after a delay ◄──────────────┐
//!            ▼                                                  │
//! visit ─► on_start ─► (connection) ─► on_send ─► on_head ─► on_end ─► reset ─► readback
//!           ▲    │                       ▲   │
//!           └────┘ After, Wait           └───┘ another attempt on a fresh connection
//! ```
//!
//! All of it runs on the engine's thread, inside a turn, so none of it may block. A policy that has
//! to wait returns [`Start::Wait`] and keeps a [`Moment::waker`]. A [`Lane`] does that to limit how
//! many requests run at once.
//!
//! # Order
//! Of two policies, that of the configuration ([`Config::policy`](crate::Config::policy)) is the
//! outer one: it is asked first on the way out (`on_start`, `on_send`) and last on the way back
//! (`on_head`, `on_end`). See [`both`].
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
//! A policy holds no connection while it waits, and sees a body only where it has the response
//! collected. It can add fields to a request, and have an edited request sent in its place. What
//! the readback is given it can decode, or replace by an error.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
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
pub use decoding::{Decoder, Progress};
pub(crate) use decoding::{Decoding, ROOM, Step, Undecodable};
pub use fields::Fields;
pub use lane::{Lane, Ticket};
pub use moment::Moment;
pub(crate) use moment::{Bell, Present, Rung, Waits};
pub use outcome::Outcome;
pub use screening::Screening;
pub(crate) use screening::Shown;
pub(crate) use visiting::{Screened, Unscreened, Visiting};

/// Makes a [`Visit`] for each request that carries it.
///
/// A policy is shared by all its requests, on all threads; what one request needs to itself goes
/// into its visit. What a visit needs of its policy stands behind an `Arc`, since a visit borrows
/// nothing.
pub trait Policy: Send + Sync {
    /// Begins a visit. Asked on the engine's thread, when the request begins: so a request that
    /// waits in the inbox of a [`Submitter`](crate::Submitter) holds its policy only, and a visit
    /// need not be `Send`.
    fn visit(&self, request: &Request, at: &Moment<'_>) -> Box<dyn Visit>;
}

/// A visit that can be cloned is its own policy: each request gets a clone.
impl<V: Visit + Clone + Send + Sync + 'static> Policy for V {
    fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(self.clone())
    }
}

/// One request's way to its readback: its first exchange, and those that are sent again.
///
/// It is dropped when that way ends, whatever ended it: a response, a failure, a cancellation, a
/// panic, or the drop of the engine. So what a visit holds, such as a [`Ticket`], is released.
///
/// # Errors
/// Policies make theirs with [`Error::policy`]. An error of `on_start` or `on_end` is what the
/// readback is told. One of `on_send` or `on_head` ends the exchange, and is passed to `on_end`
/// first, as any other failure is.
pub trait Visit {
    /// Decides when the exchange may begin. Called before each exchange, while it holds no
    /// connection, and again after each wait, until it returns [`Start::Now`].
    ///
    /// # Errors
    /// Refuses the request: nothing is sent.
    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        let _ = (request, at);
        Ok(Start::Now)
    }

    /// Adds fields. Called once an attempt, when it has its place on a connection: one that is
    /// open, or one that begins to be opened for it. So a timestamp or a signature does not age in
    /// a queue, but does while the connection is made, for
    /// [`Timeouts::connect`](crate::Timeouts::connect) and its kin at most.
    ///
    /// # Errors
    /// Refuses to send it: this is no attempt then.
    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        let _ = (request, fields, at);
        Ok(())
    }

    /// Chooses what becomes of the response whose final head has come. Its body is not there yet.
    /// By default the readback is shown it as it comes; then it stands, so a policy that has
    /// responses sent again keeps those back here.
    ///
    /// # Errors
    /// Gives the response up, and its connection.
    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let _ = (request, head, at);
        Ok(Screening::show())
    }

    /// The exchange is over, with a response or without one. The body of a response is there if it
    /// was collected, by [`Screening::collect`] or for the readback.
    ///
    /// A response that was [shown](Screening::show) stands: for it `Resend` counts as `Deliver`.
    ///
    /// # Errors
    /// What the readback is told in place of `reply`.
    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let _ = (request, reply, at);
        Ok(Verdict::Deliver)
    }

    /// Ends the visit, before the readback is called. Release here what the visit holds. Return
    /// true if it is as new: it then serves the next request of its chain that carries the same
    /// policy, so that [`Next::again`](crate::Next::again) allocates nothing. Otherwise, which is
    /// the default, it is dropped.
    fn reset(&mut self) -> bool {
        false
    }
}

/// When an exchange may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// At once.
    Now,
    /// After so long; then [`Visit::on_start`] is asked again.
    After(Duration),
    /// When a waker taken from the [`Moment`] is woken, from any thread; then [`Visit::on_start`]
    /// is asked again. If no such waker is alive, the request fails at once.
    Wait,
}

/// What follows an exchange.
#[derive(Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// The readback is told how it ended.
    Deliver,
    /// The readback hears nothing of it, and another exchange begins with [`Visit::on_start`]. Of a
    /// response that was [shown](Screening::show), this counts as `Deliver`.
    ///
    /// [`Timeouts::total`](crate::Timeouts::total) counts from the submission over all exchanges
    /// and the time between them, at the value of the request that is sent. When it has passed,
    /// nothing is sent any more: the readback is told [`Timeout`](crate::ErrorKind::Timeout), and
    /// the policy is not asked.
    Resend {
        /// What is sent: the same request, or one that was [edited](Request::edit) from it.
        request: Request,
        /// How long it waits before.
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

    /// What programs rely on, as far as the compiler can tell.
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
