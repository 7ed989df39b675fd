//! Two policies as one.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::error::Error;
use crate::policy::{Fields, Moment, Policy, Screening, Start, Verdict, Visit};
use crate::proto::Headers;
use crate::request::Request;
use crate::response::{Reply, Response};

/// Combines two policies into one. `outer` is called first on the way out, `inner` first on the way
/// back. If `outer` retries and `inner` signs, each attempt is signed anew.
///
/// - Once `outer` has let an exchange begin, it is not called again while `inner` waits, since it
///   may have taken a token.
/// - `outer` adds its fields first; `inner` sees them through [`Fields::has`].
/// - A response is held back from the readback as far as either policy asks. `inner`, which is
///   nearer to the wire, decodes first.
/// - `outer` learns how an exchange ended, unless `inner` has the request sent again. If `inner`
///   fails, `outer` receives its error.
pub fn both(outer: Arc<dyn Policy>, inner: Arc<dyn Policy>) -> Arc<dyn Policy> {
    Arc::new(Both { outer, inner })
}

struct Both {
    outer: Arc<dyn Policy>,
    inner: Arc<dyn Policy>,
}

impl Policy for Both {
    fn visit(&self, request: &Request, at: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(BothVisits::begin(&*self.outer, &*self.inner, request, at))
    }
}

pub(crate) struct BothVisits {
    outer: Box<dyn Visit>,
    inner: Box<dyn Visit>,
    /// Whether `outer` has let the next exchange begin, and `inner` has not yet.
    outer_is_through: bool,
    /// Whether the readback sees the current response as it arrives.
    is_shown: bool,
}

impl BothVisits {
    pub(crate) fn begin(
        outer: &dyn Policy,
        inner: &dyn Policy,
        request: &Request,
        at: &Moment<'_>,
    ) -> Self {
        Self::of(outer.visit(request, at), inner.visit(request, at))
    }

    /// Combines two visits that have begun.
    pub(crate) fn of(outer: Box<dyn Visit>, inner: Box<dyn Visit>) -> Self {
        Self {
            outer,
            inner,
            outer_is_through: false,
            is_shown: false,
        }
    }
}

impl Visit for BothVisits {
    fn total(&self) -> Option<Duration> {
        let (outer, inner) = (self.outer.total(), self.inner.total());
        match (outer, inner) {
            (Some(outer), Some(inner)) => Some(outer.min(inner)),
            (outer, inner) => outer.or(inner),
        }
    }

    fn holds_back(&self) -> bool {
        self.outer.holds_back() || self.inner.holds_back()
    }

    fn reads_head(&self, status: StatusCode, fields: &Headers<'_>) -> bool {
        self.outer.reads_head(status, fields) || self.inner.reads_head(status, fields)
    }

    fn reads_shown(&self) -> bool {
        self.outer.reads_shown() || self.inner.reads_shown()
    }

    fn on_start(&mut self, request: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        self.is_shown = false;
        if !self.outer_is_through {
            let start = self.outer.on_start(request, at)?;
            if start != Start::Now {
                return Ok(start);
            }
            self.outer_is_through = true;
        }
        let start = self.inner.on_start(request, at)?;
        if start == Start::Now {
            // Both are asked again before another exchange. A policy around these two may have it
            // begin without calling `on_end` here.
            self.outer_is_through = false;
        }
        Ok(start)
    }

    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        self.outer.on_send(request, fields, at)?;
        self.inner.on_send(request, fields, at)
    }

    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        at: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let inner = self.inner.on_head(request, head, at)?;
        let screening = inner.then(self.outer.on_head(request, head, at)?);
        self.is_shown = screening.shows(head);
        Ok(screening)
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        at: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        let stands = self.is_shown && (reply.is_ok() || at.is_shown());
        match self.inner.on_end(request, reply, at) {
            Ok(Verdict::Resend { .. }) if stands => self.outer.on_end(request, reply, at),
            Ok(Verdict::Deliver) => self.outer.on_end(request, reply, at),
            Ok(resend) => Ok(resend),
            Err(error) => {
                let failed: Reply<'_> = Err(error);
                match (self.outer.on_end(request, &failed, at)?, failed) {
                    (verdict @ Verdict::Resend { .. }, _) if !stands => Ok(verdict),
                    (_, Err(error)) => Err(error),
                    (_, Ok(_)) => unreachable!("inner has failed"),
                }
            }
        }
    }

    fn reset(&mut self) -> bool {
        self.outer_is_through = false;
        // Both are reset, whatever the first one returns.
        self.outer.reset() & self.inner.reset()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;
    use crate::error::ErrorKind;
    use crate::policy::moment::testing::at;
    use crate::policy::screening::Shown;
    use crate::policy::visiting::Visiting;
    use crate::response::testing::lend;

    type End = fn(&Request) -> Result<Verdict, Error>;
    type Log = Arc<Mutex<Vec<&'static str>>>;

    /// A visit that records its calls and takes its results from a list.
    #[derive(Clone)]
    struct Noted {
        names: [&'static str; 5],
        log: Log,
        starts: VecDeque<Start>,
        ends: VecDeque<End>,
        screening: fn() -> Screening,
    }

    impl Noted {
        fn new(names: [&'static str; 5], log: &Log) -> Self {
            Self {
                names,
                log: Arc::clone(log),
                starts: VecDeque::new(),
                ends: VecDeque::new(),
                screening: Screening::show,
            }
        }

        fn note(&self, step: usize) {
            self.log.lock().unwrap().push(self.names[step]);
        }
    }

    impl Visit for Noted {
        fn on_start(&mut self, _: &Request, _: &Moment<'_>) -> Result<Start, Error> {
            self.note(0);
            Ok(self.starts.pop_front().unwrap_or(Start::Now))
        }
        fn on_send(
            &mut self,
            _: &Request,
            fields: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            self.note(1);
            if fields.has("X-First") {
                fields.add("X-Second", self.names[1])
            } else {
                fields.add("X-First", self.names[1])
            }
        }
        fn on_head(
            &mut self,
            _: &Request,
            _: &Response<'_>,
            _: &Moment<'_>,
        ) -> Result<Screening, Error> {
            self.note(2);
            Ok((self.screening)())
        }
        fn on_end(
            &mut self,
            request: &Request,
            _: &Reply<'_>,
            _: &Moment<'_>,
        ) -> Result<Verdict, Error> {
            self.note(3);
            let end = self.ends.pop_front();
            end.map_or(Ok(Verdict::Deliver), |end| end(request))
        }
        fn reset(&mut self) -> bool {
            self.note(4);
            true
        }
    }

    const OUTER: [&str; 5] = [
        "outer start",
        "outer send",
        "outer head",
        "outer end",
        "outer reset",
    ];
    const INNER: [&str; 5] = [
        "inner start",
        "inner send",
        "inner head",
        "inner end",
        "inner reset",
    ];

    fn request() -> Request {
        Request::get("http://a/").build().unwrap()
    }

    fn resend(request: &Request) -> Result<Verdict, Error> {
        Ok(Verdict::Resend {
            request: request.clone(),
            after: Duration::ZERO,
        })
    }

    fn fail(_: &Request) -> Result<Verdict, Error> {
        Err(Error::policy("inner"))
    }

    #[test]
    fn outer_goes_first_on_the_way_out_and_last_on_the_way_back() {
        let log = Log::default();
        let policy = both(
            Arc::new(Noted::new(OUTER, &log)),
            Arc::new(Noted::new(INNER, &log)),
        );
        let request = request();
        at(1, |at| {
            let mut visit = policy.visit(&request, at);
            assert_eq!(visit.on_start(&request, at).unwrap(), Start::Now);
            let mut block = Vec::new();
            let mut fields = Fields::new(&mut block, &request);
            visit.on_send(&request, &mut fields, at).unwrap();
            assert_eq!(block, b"X-First: outer send\r\nX-Second: inner send\r\n");
            lend(&request, "HTTP/1.1 200 OK\r\n\r\n", b"", |response| {
                let _ = visit.on_head(&request, &response, at).unwrap();
                let verdict = visit.on_end(&request, &Ok(response), at).unwrap();
                assert!(matches!(verdict, Verdict::Deliver));
            });
            assert!(visit.reset());
        });
        #[rustfmt::skip]
        let expected = [
            "outer start", "inner start", "outer send", "inner send", "inner head", "outer head",
            "inner end", "outer end", "outer reset", "inner reset",
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn outer_is_asked_to_start_once_an_exchange() {
        let log = Log::default();
        let (mut outer, mut inner) = (Noted::new(OUTER, &log), Noted::new(INNER, &log));
        let pause = Start::After(Duration::from_secs(1));
        outer.starts = [pause, Start::Now].into();
        inner.starts = [Start::Wait, pause, Start::Now].into();
        inner.ends = VecDeque::from([resend as End]);
        let request = request();
        at(1, |at| {
            let mut visit = BothVisits::begin(&outer, &inner, &request, at);
            let mut starts = || visit.on_start(&request, at).unwrap();
            assert_eq!(
                [starts(), starts(), starts(), starts()],
                [pause, Start::Wait, pause, Start::Now]
            );
            let verdict = visit.on_end(&request, &Err(Error::policy("x")), at);
            assert!(matches!(verdict, Ok(Verdict::Resend { .. })));
            assert_eq!(visit.on_start(&request, at).unwrap(), Start::Now);
        });
        #[rustfmt::skip]
        let expected = [
            "outer start", "outer start", "inner start", "inner start", "inner start", "inner end",
            "outer start", "inner start",
        ];
        assert_eq!(*log.lock().unwrap(), expected);
    }

    #[test]
    fn outer_hears_of_an_error_of_inner_and_may_have_it_sent_again() {
        let request = request();
        let log = Log::default();
        let mut inner = Noted::new(INNER, &log);
        inner.ends = VecDeque::from([fail as End]);
        let mut outer = Noted::new(OUTER, &log);
        at(1, |at| {
            let gone = || Err(crate::error::Gone.into());
            let mut visit = BothVisits::begin(&outer, &inner, &request, at);
            let told = visit
                .on_end(&request, &gone(), at)
                .expect_err("inner fails");
            assert_eq!(told.kind(), ErrorKind::Policy);
            outer.ends = VecDeque::from([resend as End]);
            let mut visit = BothVisits::begin(&outer, &inner, &request, at);
            let verdict = visit.on_end(&request, &gone(), at);
            assert!(matches!(verdict, Ok(Verdict::Resend { .. })));
        });
    }

    #[test]
    fn what_the_readback_has_seen_stands_and_outer_hears_of_it() {
        let request = request();
        // What inner returns, what outer returns, and whether the result is an error.
        let rows: [(End, End, bool); 3] = [
            (resend, |_| Ok(Verdict::Deliver), false),
            (resend, resend, false),
            (fail, resend, true),
        ];
        for status in ["200 OK", "101 Switching Protocols"] {
            for (inner_says, outer_says, fails) in rows {
                let log = Log::default();
                let (mut outer, mut inner) = (Noted::new(OUTER, &log), Noted::new(INNER, &log));
                if status.starts_with("101") {
                    outer.screening = Screening::collect;
                }
                inner.ends = VecDeque::from([inner_says]);
                outer.ends = VecDeque::from([outer_says]);
                at(1, |at| {
                    let visit = BothVisits::begin(&outer, &inner, &request, at);
                    let mut visit = Visiting::of(Box::new(visit));
                    visit.start(&request, at).unwrap();
                    let wire = format!("HTTP/1.1 {status}\r\n\r\n");
                    lend(&request, &wire, b"", |response| {
                        visit.head(&request, &response, at).unwrap();
                        let verdict = visit.end(&request, &Ok(response), at);
                        assert_eq!(verdict.is_err(), fails);
                        assert!(!matches!(verdict, Ok(Verdict::Resend { .. })));
                    });
                });
                let ends = log
                    .lock()
                    .unwrap()
                    .iter()
                    .filter(|it| it.ends_with("end"))
                    .count();
                assert_eq!(ends, 2, "{status}");
            }
        }
    }

    #[test]
    fn a_policy_around_two_has_both_of_them_begin_anew() {
        let log = Log::default();
        let around: Arc<dyn Policy> = {
            let outer = Arc::new(Noted::new(OUTER, &log));
            let inner = Arc::new(Noted::new(INNER, &log));
            both(outer, inner)
        };
        let mut nearest = Noted::new(["-"; 5], &log);
        nearest.ends.push_back(|request| {
            Ok(Verdict::Resend {
                request: request.clone(),
                after: Duration::ZERO,
            })
        });
        let (request, nearest) = (request(), Arc::new(nearest));
        at(1, |at| {
            let mut visit = both(around, nearest).visit(&request, at);
            for _ in 0..2 {
                assert_eq!(visit.on_start(&request, at).unwrap(), Start::Now);
                let failed: Reply<'_> = Err(Error::policy("failed"));
                // The first time, `nearest` has it sent again, and the others learn nothing.
                let _ = visit.on_end(&request, &failed, at).unwrap();
            }
        });
        let starts = log.lock().unwrap();
        let starts = starts.iter().filter(|step| step.ends_with("start"));
        assert_eq!(starts.count(), 4);
    }

    #[test]
    fn a_response_is_kept_back_as_far_as_either_says() {
        let request = request();
        let all: [(fn() -> Screening, Shown); 3] = [
            (Screening::show, Shown::AtOnce),
            (Screening::collect, Shown::AtTheEnd),
            (Screening::discard, Shown::WithoutBody),
        ];
        let log = Log::default();
        for (outer_says, outer_shown) in all {
            for (inner_says, inner_shown) in all {
                let (mut outer, mut inner) = (Noted::new(OUTER, &log), Noted::new(INNER, &log));
                (outer.screening, inner.screening) = (outer_says, inner_says);
                let found = at(1, |at| {
                    let mut visit = BothVisits::begin(&outer, &inner, &request, at);
                    lend(&request, "HTTP/1.1 200 OK\r\n\r\n", b"", |response| {
                        visit
                            .on_head(&request, &response, at)
                            .unwrap()
                            .into_parts()
                            .0
                    })
                });
                assert_eq!(found, outer_shown.max(inner_shown));
            }
        }
    }
}
