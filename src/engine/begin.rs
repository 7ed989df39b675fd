//! Begins the steps of a chain: a request, a delay or a wait. A request first passes its policy,
//! and is then placed on a link or in a queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use http::StatusCode;

use crate::engine::agenda::Completion;
use crate::engine::chain::{ChainKey, Marks, Stage, When};
use crate::engine::clock::Since;
use crate::engine::core::Core;
use crate::engine::visits::PolicyPanicked;
use crate::error::{Error, ErrorKind};
use crate::net::Net;
use crate::net::pool::OriginRef;
use crate::net::slots::MaybeKey;
use crate::policy::{Moment, Policies, Start, Visiting, Waits};
use crate::request::Request;
use crate::response::Hop;

impl<N: Net> Core<N> {
    /// Stamps a chain's next step with the current time. The readback may have run for a long time.
    #[inline]
    pub(super) fn restart(&mut self, key: ChainKey) {
        self.read_clock();
        self.chains[key].submitted = self.clock.micros();
    }

    /// Sends the chain's request for the first time.
    pub(super) fn begin(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        chain.attempts = 0;
        // The mark outlasts an exchange only with timeouts that the readback has changed.
        let is_retimed = chain.marks.has(Marks::METERED);
        chain.marks.clear(Marks::OF_ONE_SUBMISSION);
        if is_retimed {
            self.chains.forget_retimed(key);
        }
        if self.chains.has_terms() && !self.ends_delay(key) {
            return;
        }
        if self.wants_visit(key) {
            self.begin_visit(key)
        } else {
            self.enter_and_place(key)
        }
    }

    /// Releases the key of a chain whose delay is over. Returns false if the deadline of the chain
    /// has passed; the chain is then ended instead of sending its request.
    #[inline(never)]
    fn ends_delay(&mut self, key: ChainKey) -> bool {
        self.chains.keys.release(key);
        let is_over = self.chain_is_over(key);
        if is_over {
            self.fail_unlinked(key, ErrorKind::Timeout);
        }
        !is_over
    }

    /// Ends a chain whose generation has ended, before it sends anything.
    #[cold]
    fn end_with_generation(&mut self, key: ChainKey) {
        self.chains[key].marks.set(Marks::CANCELLED);
        self.fail_unlinked(key, ErrorKind::Cancelled);
    }

    /// Enters the origin of a chain's request in the pool, then places the request on a link or in
    /// the origin's queue.
    #[inline]
    pub(super) fn enter_and_place(&mut self, key: ChainKey) {
        let chain = &mut self.chains[key];
        if !chain.marks.has(Marks::ORIGIN_ENTERED) {
            let request = chain
                .request
                .as_ref()
                .expect("a chain that sends has a request");
            let parts = OriginRef {
                scheme: request.scheme(),
                host: request.host(),
                port: request.port(),
                route: self.settings.route_of(request),
            };
            chain.origin = self.pool.enter(chain.origin.get(), parts).into();
            chain.marks.set(Marks::ORIGIN_ENTERED);
        }
        self.place(key);
    }

    /// Starts the delay of a chain's request. A relative delay counts from the chain's submission.
    pub(super) fn delay(&mut self, key: ChainKey, when: When) {
        self.chains[key].stage = Stage::Delayed;
        if self.chain_is_over(key) {
            return self.fail_unlinked(key, ErrorKind::Timeout);
        }
        self.arm_delay(key, when);
    }

    /// Starts a wait without a request. A relative delay counts from the chain's submission. When
    /// the wait ends, `call` runs; without one, the readback's `on_due` is called.
    pub(super) fn wait(&mut self, key: ChainKey, call: MaybeKey, when: When) {
        self.chains[key].stage = Stage::Waiting { call };
        if self.chain_is_over(key) {
            return self.fail_wait(key, call, ErrorKind::Timeout);
        }
        if when.is_now(self.clock.now()) {
            self.disarm(key);
            self.fall_due(key, call);
        } else {
            self.arm_delay(key, when);
        }
    }

    /// Continues a woken chain, if it is waiting for its waker.
    pub(super) fn wake_chain(&mut self, key: ChainKey, waits: Waits) {
        match (self.chains[key].stage, waits) {
            (
                Stage::Waiting {
                    call: MaybeKey::NONE,
                },
                Waits::WithoutRequest,
            ) => {
                self.disarm(key);
                self.fall_due(key, MaybeKey::NONE);
            }
            (Stage::HeldBack { until_woken: true }, Waits::InVisit) => {
                self.disarm(key);
                self.ask_start(key);
            }
            (Stage::Running { .. }, Waits::ForBody) => {
                if let Some(link) = self.on_supply_woken(key) {
                    self.flush(link);
                }
            }
            (Stage::Running { link }, Waits::InTunnel) => {
                if let Some(outbox) = self.chains.outbox(key) {
                    outbox.wake();
                    self.flush(link);
                }
            }
            // The waker belongs to an earlier wait. It does not cut a delay short.
            _ => {}
        }
    }

    /// Queues a chain whose wait has ended.
    pub(super) fn fall_due(&mut self, key: ChainKey, call: MaybeKey) {
        self.chains[key].stage = Stage::Due { call };
        self.agenda.completions.push_back((key, Completion::Due));
    }

    /// Begins the visit of a chain's request, if the request has a policy, and then places the
    /// request.
    #[inline(never)]
    pub(super) fn begin_visit(&mut self, key: ChainKey) {
        if self.is_visited(key) {
            // The visit of the chain's last request serves this one too.
            return self.ask_start(key);
        }
        if self.chains.is_request_over(key) {
            return self.end_with_generation(key);
        }
        let at = Moment::new(
            self.clock.present(),
            &self.wakeups,
            Some(self.chains.id(key)),
        );
        let (request, default) = (self.chains[key].request(), self.settings.policy.as_ref());
        let begun = catch_unwind(AssertUnwindSafe(|| Visiting::begin(request, default, &at)));
        self.clock.since = Since::UserCode;
        match begun {
            Ok(Some(visiting)) => {
                self.keep_visit(key, visiting);
                self.ask_start(key);
            }
            Ok(None) => self.enter_and_place(key),
            Err(panic) => {
                self.panic.get_or_insert(panic);
                self.complete(key, Completion::Over);
            }
        }
    }

    /// Calls the policy, which decides when the exchange may begin.
    pub(super) fn ask_start(&mut self, key: ChainKey) {
        if self.chains.is_request_over(key) {
            return self.end_with_generation(key);
        }
        let now = self.clock.micros();
        let visit = self.visit(key);
        if visit.rare_mut().is_some() {
            let decoding = visit.clear_response();
            if let Some(since) = visit.rare().held_back_at.take() {
                let waited = Duration::from_micros(now.saturating_sub(since));
                visit.way_mut().waited += waited;
            }
            self.discard(decoding);
        }
        let visiting = &mut self.visit(key).visiting;
        if !visiting.holds_back() {
            visiting.begin_unasked();
            return self.enter_and_place(key);
        }
        let start = self.ask(key, |visiting, request, at| visiting.start(request, at));
        self.catch_up();
        match start {
            Ok(Ok(Start::Now)) => self.enter_and_place(key),
            Ok(Ok(Start::After(delay))) => self.hold_back(key, Some(delay)),
            Ok(Ok(Start::Wait)) => self.hold_back(key, None),
            Ok(Err(error)) => self.refuse(key, error),
            Err(PolicyPanicked) => self.complete(key, Completion::Over),
        }
    }

    /// Holds the request back until `delay` is over or, without one, until the chain is woken. The
    /// policy is then called again.
    fn hold_back(&mut self, key: ChainKey, delay: Option<Duration>) {
        let now = self.clock.micros();
        self.visit(key).rare().held_back_at = Some(now);
        let until_woken = delay.is_none();
        self.chains[key].stage = Stage::HeldBack { until_woken };
        let millis = delay.map(|delay| delay.as_nanos().div_ceil(1_000_000));
        match millis.map(u64::try_from) {
            // A delay that no clock will ever complete means never.
            Some(Ok(millis)) if millis >> 50 == 0 => {
                let due = self.clock.tick_from_now() + millis;
                self.arm_at(key, due);
            }
            Some(_) | None => self.arm(key, None),
        }
    }

    /// Ends a chain's exchange because its policy refused to begin it. The policy is not called for
    /// this error.
    fn refuse(&mut self, key: ChainKey, error: Error) {
        self.disarm(key);
        let error = error.placed_at(self.circumstances_unlinked(key));
        self.complete(key, Completion::Final(error));
    }

    /// Ends a chain whose total deadline passed before an exchange or between two. The policy is
    /// not called: one that always retries would never let the chain end.
    pub(super) fn end_in_visit(&mut self, key: ChainKey) {
        let error = self.end_unlinked(key, ErrorKind::Timeout);
        self.complete(key, Completion::Final(error));
    }

    /// Sends `request` as a replacement for the one whose exchange has ended, with a response of
    /// this `status` or without a response. The visit, the generation and the total deadline
    /// continue.
    pub(super) fn resend(
        &mut self,
        key: ChainKey,
        request: Request,
        after: Duration,
        status: Option<StatusCode>,
    ) {
        if self.chains.is_request_over(key) {
            return self.end_with_generation(key);
        }
        if self.total_is_over(key) {
            return self.end_in_visit(key);
        }
        self.chains.keep_generation(key, &request);
        self.chains.forget_retimed(key);
        let attempts = self.chains[key].attempts;
        let next = request.clone();
        let former = self.chains[key].replace_request(request);
        // A policy that sends the request itself again has not followed a redirect.
        let status = status.filter(|_| !next.is_clone_of(&former));
        let hop = status.and_then(|status| Hop::between(&former, status, &next));
        let visit = self.visit(key);
        let rare = visit.rare();
        rare.is_foreign |= !Policies::are_same(&former, &next);
        rare.first.get_or_insert(former);
        let way = visit.way_mut();
        way.attempts += u32::from(attempts);
        if let Some(hop) = hop {
            // Another URL was asked, for the first time.
            way.attempts = 0;
            way.hops.push(hop);
        }
        self.catch_up();
        match after {
            Duration::ZERO => self.ask_start(key),
            after => self.hold_back(key, Some(after)),
        }
    }
}
