//! What a session does for each of its requests, and what it counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::proto::Origin;
use crate::request::Request;
use crate::session::auth::Auth;
use crate::session::decode::Codings;
use crate::session::jar::Jar;
use crate::session::pacing::Pacing;
use crate::session::redirects::Redirects;
use crate::session::retry::Retry;

/// The settings of a session, as its builder has checked them. `Debug` prints no values.
#[derive(Default)]
pub(super) struct Rules {
    /// The origin that the headers and the credentials are for. Without one, they are for the
    /// origin at which a visit begins.
    pub(super) base: Option<Origin>,
    pub(super) user_agent: Option<Box<str>>,
    pub(super) headers: Vec<(Box<str>, Box<[u8]>)>,
    pub(super) redirects: Option<Redirects>,
    pub(super) jar: Option<Jar>,
    pub(super) codings: Option<Codings>,
    pub(super) auth: Option<Auth>,
    pub(super) retry: Option<Retry>,
    pub(super) pacing: Option<Arc<Pacing>>,
    pub(super) total: Option<Duration>,
    pub(super) error_for_status: bool,
    pub(super) counts: Counts,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Rules")
            .field("base", &self.base)
            .field("user_agent", &self.user_agent)
            .field("headers", &headers)
            .field("redirects", &self.redirects)
            .field("jar", &self.jar)
            .field("codings", &self.codings)
            .field("auth", &self.auth)
            .field("retry", &self.retry)
            .field("pacing", &self.pacing)
            .field("total", &self.total)
            .field("error_for_status", &self.error_for_status)
            .finish()
    }
}

impl Rules {
    /// Whether code of the caller is among the rules.
    pub(super) fn runs_code(&self) -> bool {
        self.redirects.as_ref().is_some_and(Redirects::runs_code)
            || self.retry.as_ref().is_some_and(Retry::reads_bodies)
    }

    /// Returns the headers for a request of a visit that has not left the origin at which it began.
    pub(super) fn headers_for(&self, request: &Request) -> impl Iterator<Item = (&str, &[u8])> {
        let is_home = self.base.as_ref().is_none_or(|base| request.goes_to(base));
        let headers = if is_home { &self.headers[..] } else { &[] };
        headers.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Returns the credentials for a request of a visit that has not left the origin at which it
    /// began.
    pub(super) fn auth_for(&self, request: &Request) -> Option<&Auth> {
        let auth = self.auth.as_ref()?;
        let origin = auth.origin()?;
        request.goes_to(origin).then_some(auth)
    }
}

/// Counts events of a session, on all its threads.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) attempts: Count,
    pub(super) ended: Count,
    pub(super) failed: Count,
    pub(super) redirected: Count,
    pub(super) challenged: Count,
    pub(super) retried: Count,
}

#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(super) fn add_one(&self) {
        // Nothing is ordered by these counts.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
