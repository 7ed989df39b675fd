//! A visit as the engine holds it, with the state that its rules need between calls.
//!
//! The rules are enforced here, so that the engine cannot get them wrong:
//!
//! - [`Start::Wait`] fails at once if no waker is alive that could end the wait.
//! - If adding fields fails, none of them is sent.
//! - The number of decoding layers is limited.
//! - A response that was shown is delivered: `Resend` counts as `Deliver`. If it has broken off
//!   before the readback has seen anything of it, it is not delivered.
//! - A 101 is always shown, and the bytes after it are not decoded.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::error::{Circumstances, Error};
use crate::policy::carried::Policies;
use crate::policy::decoding::{Decoding, Undecodable};
use crate::policy::fields::Fields;
use crate::policy::moment::Moment;
use crate::policy::screening::Shown;
use crate::policy::{Policy, Start, Verdict, Visit};
use crate::proto::Headers;
use crate::request::Request;
use crate::response::{Reply, Response};
use crate::timeouts::{Ms, milliseconds};

/// One request's visit.
pub(crate) struct Visiting {
    visit: Box<dyn Visit>,
    total: Option<Ms>,
    presented: Presented,
    /// It runs no code of the caller, and takes no noticeable time.
    is_brief: bool,
    /// [`Visit::holds_back`].
    holds_back: bool,
    /// [`Visit::reads_shown`].
    reads_shown: bool,
}

/// How the response to the current exchange is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presented {
    /// Its head has not arrived.
    Not,
    As(Shown),
    /// At once, and the readback has been called with the head.
    Seen,
}

/// What happens to a response, as decided by [`Visiting::head`].
#[derive(Debug)]
pub(crate) struct Screened {
    pub(crate) shown: Shown,
    /// The decoder of the body. Content-Encoding and Content-Length no longer apply then, and must
    /// be removed from the head before the readback sees it.
    pub(crate) decoding: Option<Box<Decoding>>,
}

/// Why a response is given up when its head has arrived.
#[derive(Debug)]
pub(crate) enum Unscreened {
    /// The visit returned an error.
    Failed(Error),
    /// The visit asked for a decoding that is not possible.
    Undecodable(Undecodable),
}

impl Unscreened {
    /// Converts it to the error for the readback.
    pub(crate) fn into_error(self, at: Circumstances) -> Error {
        match self {
            Unscreened::Failed(error) => error.placed_at(at),
            Unscreened::Undecodable(why) => why.into_error(at),
        }
    }
}

impl Visiting {
    /// Begins the visit of `request`, if it carries a policy or there is a `default`: the
    /// configuration's, for requests without a session.
    #[inline]
    pub(crate) fn begin(
        request: &Request,
        default: Option<&Arc<dyn Policy>>,
        at: &Moment<'_>,
    ) -> Option<Self> {
        let policies = Policies::of(request, default)?;
        let visit = policies.visit(request, at)?;
        Some(Self {
            total: milliseconds(visit.total()),
            is_brief: policies.are_brief(),
            ..Self::of(visit)
        })
    }

    pub(crate) fn of(visit: Box<dyn Visit>) -> Self {
        Self {
            total: None,
            presented: Presented::Not,
            is_brief: false,
            holds_back: visit.holds_back(),
            reads_shown: visit.reads_shown(),
            visit,
        }
    }

    /// Whether its methods run no code of the caller and take no noticeable time, so that the clock
    /// need not be read after them.
    #[inline]
    pub(crate) fn is_brief(&self) -> bool {
        self.is_brief
    }

    /// Returns [`Visit::total`] in milliseconds.
    #[inline]
    pub(crate) fn total(&self) -> Option<Ms> {
        self.total
    }

    /// Notes that the readback is called with the head of the response.
    #[inline]
    pub(crate) fn note_seen(&mut self) {
        self.presented = Presented::Seen;
    }

    /// Whether the readback has been called with the head of the response.
    #[inline]
    pub(crate) fn is_seen(&self) -> bool {
        self.presented == Presented::Seen
    }

    /// Returns how the response to the current exchange is presented.
    #[inline]
    pub(crate) fn shown(&self) -> Shown {
        match self.presented {
            Presented::As(shown) => shown,
            Presented::Not | Presented::Seen => Shown::AtOnce,
        }
    }

    /// Whether [`start`](Self::start) is to be called.
    #[inline]
    pub(crate) fn holds_back(&self) -> bool {
        self.holds_back
    }

    /// Whether [`head`](Self::head) is to be called for this response. If not, it is shown.
    #[inline]
    pub(crate) fn reads_head(&mut self, status: StatusCode, fields: &Headers<'_>) -> bool {
        let reads = self.visit.reads_head(status, fields);
        if !reads {
            self.presented = presented(status, Shown::AtOnce);
        }
        reads
    }

    /// Whether [`end`](Self::end) is to be called for a complete response.
    #[inline]
    pub(crate) fn reads_end(&self) -> bool {
        let is_shown = matches!(
            self.presented,
            Presented::As(Shown::AtOnce) | Presented::Seen
        );
        self.reads_shown || !is_shown
    }

    /// Called when an exchange begins of which the visit holds nothing back.
    #[inline]
    pub(crate) fn begin_unasked(&mut self) {
        self.presented = Presented::Not;
    }

    /// Called before an exchange, and again after each wait.
    #[inline]
    pub(crate) fn start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        self.presented = Presented::Not;
        let start = self.visit.on_start(request, at)?;
        if start == Start::Wait && at.wants_waker() {
            let why = "it waits, but holds no waker that could end the wait";
            return Err(Error::policy(why));
        }
        Ok(start)
    }

    /// Called when an attempt has its connection. Writes the lines that follow the request's own to
    /// `block`, replacing its content.
    pub(crate) fn send(
        &mut self,
        request: &Request,
        block: &mut Vec<u8>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        block.clear();
        let mut fields = Fields::new(block, request);
        let sent = self.visit.on_send(request, &mut fields, at);
        if sent.is_err() {
            block.clear();
        }
        sent
    }

    /// Called when the final head has arrived.
    pub(crate) fn head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screened, Unscreened> {
        let screening = self
            .visit
            .on_head(request, head, at)
            .map_err(Unscreened::Failed)?;
        let (shown, decoders, max_bytes) = match head.status() {
            StatusCode::SWITCHING_PROTOCOLS => (Shown::AtOnce, Vec::new(), u64::MAX),
            _ => screening.into_parts(),
        };
        self.presented = presented(head.status(), shown);
        let decoding = match (shown, decoders.is_empty()) {
            (Shown::WithoutBody, _) | (_, true) => None,
            (Shown::AtOnce | Shown::AtTheEnd, false) => {
                let decoding = Decoding::new(decoders, max_bytes);
                Some(Box::new(decoding.map_err(Unscreened::Undecodable)?))
            }
        };
        Ok(Screened { shown, decoding })
    }

    /// Called when the exchange is over.
    pub(crate) fn end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let stands = match self.presented {
            Presented::Seen => true,
            Presented::As(Shown::AtOnce) => reply.is_ok(),
            Presented::As(Shown::AtTheEnd | Shown::WithoutBody) | Presented::Not => false,
        };
        match self.visit.on_end(request, reply, at)? {
            Verdict::Resend { .. } if stands => Ok(Verdict::Deliver),
            verdict => Ok(verdict),
        }
    }

    /// Called when the visit is over. Returns whether it can serve the chain's next request, if
    /// that [carries the same policies](Policies::are_same).
    #[inline]
    pub(crate) fn reset(&mut self) -> bool {
        self.presented = Presented::Not;
        self.visit.reset()
    }
}

/// After a switch of protocols the response stands, whoever reads it.
#[inline]
fn presented(status: StatusCode, shown: Shown) -> Presented {
    match status {
        StatusCode::SWITCHING_PROTOCOLS => Presented::Seen,
        _ => Presented::As(shown),
    }
}

impl fmt::Debug for Visiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visiting")
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::error::{Earlier, ErrorKind, Phase, Sent};
    use crate::policy::moment::Held;
    use crate::policy::moment::testing::at;
    use crate::policy::{Decoder, Progress, Screening};
    use crate::response::testing::lend;

    fn get() -> crate::RequestBuilder {
        Request::get("http://a/")
    }

    fn begun(policy: impl Policy + 'static, at: &Moment<'_>) -> (Request, Visiting) {
        let request = get().policy(Arc::new(policy)).build().unwrap();
        let visiting = Visiting::begin(&request, None, at).expect("it has a policy");
        (request, visiting)
    }

    #[test]
    fn a_request_without_a_policy_has_no_visit() {
        #[derive(Clone)]
        struct Nothing;
        impl Visit for Nothing {}
        at(1, |at| {
            let plain = get().lane("x").build().unwrap();
            assert!(Visiting::begin(&plain, None, at).is_none());
            let default: Arc<dyn Policy> = Arc::new(Nothing);
            assert!(Visiting::begin(&plain, Some(&default), at).is_some());
            // The default methods let everything pass.
            let (request, mut visiting) = begun(Nothing, at);
            assert_eq!(visiting.start(&request, at).unwrap(), Start::Now);
            let mut block = b"left: over\r\n".to_vec();
            visiting.send(&request, &mut block, at).unwrap();
            assert!(block.is_empty());
            lend(&request, "HTTP/1.1 500 \r\n\r\n", b"", |response| {
                let screened = visiting.head(&request, &response, at).unwrap();
                assert_eq!(screened.shown, Shown::AtOnce);
                assert!(screened.decoding.is_none());
                let verdict = visiting.end(&request, &Ok(response), at).unwrap();
                assert!(matches!(verdict, Verdict::Deliver));
            });
            assert!(!visiting.reset());
        });
    }

    #[test]
    fn a_wait_that_nobody_can_end_fails_at_once() {
        #[derive(Clone, Default)]
        struct Waits {
            takes: bool,
            keeps: Option<Waker>,
        }
        impl Visit for Waits {
            fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
                let waker = self.takes.then(|| at.waker());
                if self.keeps.is_some() {
                    self.keeps = waker;
                }
                Ok(Start::Wait)
            }
        }
        at(1, |at| {
            let start = |visit: Waits| {
                let (request, mut visiting) = begun(visit, at);
                let held = Held::default();
                let at = &at.noting(&held);
                visiting.start(&request, at).map_err(|error| error.kind())
            };
            assert_eq!(start(Waits::default()), Err(ErrorKind::Policy));
            let takes = Waits {
                takes: true,
                keeps: None,
            };
            assert_eq!(start(takes.clone()), Err(ErrorKind::Policy), "dropped");
            let keeps = Waits {
                keeps: Some(Waker::noop().clone()),
                ..takes
            };
            assert_eq!(start(keeps), Ok(Start::Wait));
        });
    }

    #[test]
    fn what_is_held_from_an_earlier_question_can_end_the_wait() {
        /// Takes a waker on the first call only.
        #[derive(Clone)]
        struct Once(Option<Waker>);
        impl Visit for Once {
            fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
                self.0.get_or_insert_with(|| at.waker());
                Ok(Start::Wait)
            }
            fn reset(&mut self) -> bool {
                true
            }
        }
        at(1, |at| {
            let (request, mut visiting) = begun(Once(None), at);
            let held = Held::default();
            for _ in 0..3 {
                let at = &at.noting(&held);
                assert_eq!(visiting.start(&request, at).unwrap(), Start::Wait);
            }
            // A waker that an earlier visit took does not count.
            assert!(visiting.reset());
            let held = Held::default();
            assert!(visiting.start(&request, &at.noting(&held)).is_err());
        });
    }

    #[test]
    fn fields_of_a_visit_that_fails_are_not_sent() {
        #[derive(Clone)]
        struct Halfway;
        impl Visit for Halfway {
            fn on_send(
                &mut self,
                _: &Request,
                fields: &mut Fields<'_>,
                _: &Moment<'_>,
            ) -> Result<(), Error> {
                fields.add("X-A", "b")?;
                fields.add("Host", "c")
            }
        }
        at(1, |at| {
            let (request, mut visiting) = begun(Halfway, at);
            let mut block = Vec::new();
            assert!(visiting.send(&request, &mut block, at).is_err());
            assert!(block.is_empty());
        });
    }

    struct Same;
    impl Decoder for Same {
        fn decode(&mut self, _: &[u8], _: &mut [u8]) -> io::Result<Progress> {
            Ok(Progress::default())
        }
    }

    /// Screens as told, and has every request sent again.
    #[derive(Clone)]
    struct Screens(fn() -> Screening);
    impl Visit for Screens {
        fn on_head(
            &mut self,
            _: &Request,
            _: &Response<'_>,
            _: &Moment<'_>,
        ) -> Result<Screening, Error> {
            Ok((self.0)())
        }
        fn on_end(
            &mut self,
            request: &Request,
            _: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<Verdict, Error> {
            Ok(Verdict::Resend {
                request: request.clone(),
                after: Duration::from_secs(1),
            })
        }
    }

    #[test]
    fn what_was_shown_is_delivered() {
        // Whether the readback has seen the head, whether the response is complete, and whether the
        // request is sent again.
        type Row = (fn() -> Screening, bool, bool, bool);
        let rows: [Row; 8] = [
            (Screening::show, true, true, false),
            (Screening::show, true, false, false),
            (Screening::show, false, true, false),
            (Screening::show, false, false, true),
            (Screening::collect, false, true, true),
            (Screening::collect, false, false, true),
            (Screening::discard, false, true, true),
            (Screening::discard, false, false, true),
        ];
        let failed = || Err(Error::policy("cut"));
        at(1, |at| {
            for (screening, is_seen, is_complete, is_sent_again) in rows {
                let (request, mut visiting) = begun(Screens(screening), at);
                visiting.start(&request, at).unwrap();
                lend(&request, "HTTP/1.1 503 \r\n\r\n", b"", |response| {
                    visiting.head(&request, &response, at).unwrap();
                    if is_seen {
                        visiting.note_seen();
                    }
                    let reply = if is_complete { Ok(response) } else { failed() };
                    let verdict = visiting.end(&request, &reply, at).unwrap();
                    let is_resend = matches!(verdict, Verdict::Resend { .. });
                    assert_eq!(is_resend, is_sent_again);
                });
                // In the visit's next exchange nothing has been shown yet.
                visiting.start(&request, at).unwrap();
                let verdict = visiting.end(&request, &failed(), at).unwrap();
                assert!(matches!(verdict, Verdict::Resend { .. }));
            }
        });
    }

    #[test]
    fn a_101_is_shown_as_it_is() {
        at(1, |at| {
            let screening = || Screening::collect().decode(Same);
            let (request, mut visiting) = begun(Screens(screening), at);
            visiting.start(&request, at).unwrap();
            lend(&request, "HTTP/1.1 101 \r\n\r\n", b"", |response| {
                let screened = visiting.head(&request, &response, at).unwrap();
                assert_eq!(screened.shown, Shown::AtOnce);
                assert!(screened.decoding.is_none());
            });
            let verdict = visiting.end(&request, &Err(Error::policy("cut")), at);
            assert!(matches!(verdict, Ok(Verdict::Deliver)));
        });
    }

    #[test]
    fn a_body_that_is_not_kept_is_not_decoded() {
        let rows: [(fn() -> Screening, bool); 4] = [
            (|| Screening::show().decode(Same), true),
            (|| Screening::collect().decode(Same), true),
            (|| Screening::discard().decode(Same), false),
            (Screening::collect, false),
        ];
        at(1, |at| {
            for (screening, decodes) in rows {
                let (request, mut visiting) = begun(Screens(screening), at);
                lend(&request, "HTTP/1.1 200 \r\n\r\n", b"", |response| {
                    let screened = visiting.head(&request, &response, at).unwrap();
                    assert_eq!(screened.decoding.is_some(), decodes);
                });
            }
            let many = || (0..6).fold(Screening::show(), |it, _| it.decode(Same));
            let (request, mut visiting) = begun(Screens(many), at);
            lend(&request, "HTTP/1.1 200 \r\n\r\n", b"", |response| {
                let why = visiting.head(&request, &response, at).unwrap_err();
                let expected = Unscreened::Undecodable(Undecodable::TooManyLayers(6));
                assert_eq!(format!("{why:?}"), format!("{expected:?}"));
            });
        });
    }

    #[test]
    fn errors_of_a_visit_say_where_the_exchange_was() {
        let request = get().build().unwrap();
        let at = || Circumstances {
            phase: Phase::Body,
            sent: Sent::Yes,
            resend_is_safe: false,
            reused: true,
            attempts: 2,
            origin: Some(request.origin()),
            request: Some(request.clone()),
            status: Some(http::StatusCode::OK),
            partial_body: Vec::new(),
        };
        let failed = Unscreened::Failed(Error::policy("no")).into_error(at());
        assert_eq!(failed.kind(), ErrorKind::Policy);
        assert_eq!(
            (failed.phase(), failed.request_sent()),
            (Phase::Body, Sent::Yes)
        );
        assert!(failed.request().is_some() && !failed.resend_is_safe());
        let expected = "http://a: stopped by its policy: no (sent 2 times)";
        assert_eq!(format!("{failed:#}"), expected);
        // An error of another exchange keeps its circumstances, but hides nothing of this one.
        let unsent = Earlier {
            sent: Sent::No,
            resend_is_safe: true,
        };
        let gone = Error::gone(get().lane("other").build().unwrap(), unsent);
        assert_eq!(
            (gone.request_sent(), gone.resend_is_safe()),
            (Sent::No, true)
        );
        let kept = Unscreened::Failed(gone).into_error(at());
        assert_eq!(kept.request().and_then(Request::lane), Some("other"));
        assert_eq!(kept.attempts(), 0);
        assert_eq!(
            (kept.request_sent(), kept.resend_is_safe()),
            (Sent::Yes, false)
        );
        let layers = Unscreened::Undecodable(Undecodable::TooManyLayers(7)).into_error(at());
        assert_eq!(layers.kind(), ErrorKind::Malformed);
        let expected = "the body has 7 layers of coding, more than 5";
        assert!(format!("{layers:#}").contains(expected), "{layers:#}");
    }
}
