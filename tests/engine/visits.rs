//! Policies for tests that are about one call of a visit.

use std::sync::Arc;

use httpstream::policy::{Fields, Screening, Verdict, Visit};
use httpstream::{Error, Moment, Policy, Reply, Request, Response};

/// Returns a policy that calls `add` when the head of a request is written. Each request has a
/// clone of `add`.
pub(crate) fn on_send(
    add: impl FnMut(&Request, &mut Fields<'_>) -> Result<(), Error> + Clone + Send + Sync + 'static,
) -> Arc<dyn Policy> {
    Arc::new(OnSend(add))
}

#[derive(Clone)]
struct OnSend<F>(F);

impl<F: FnMut(&Request, &mut Fields<'_>) -> Result<(), Error>> Visit for OnSend<F> {
    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        _: &Moment<'_>,
    ) -> Result<(), Error> {
        self.0(request, fields)
    }
}

/// Returns a policy that collects every response, and calls `decide` at its end. Each request has a
/// clone of `decide`.
pub(crate) fn at_end(
    decide: impl FnMut(&Request, &Reply<'_>) -> Result<Verdict, Error> + Clone + Send + Sync + 'static,
) -> Arc<dyn Policy> {
    Arc::new(AtEnd(decide))
}

#[derive(Clone)]
struct AtEnd<F>(F);

impl<F: FnMut(&Request, &Reply<'_>) -> Result<Verdict, Error>> Visit for AtEnd<F> {
    fn on_head(
        &mut self,
        _: &Request,
        _: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        Ok(Screening::collect())
    }

    fn on_end(
        &mut self,
        request: &Request,
        reply: &Reply<'_>,
        _: &Moment<'_>,
    ) -> Result<Verdict, Error> {
        self.0(request, reply)
    }
}
