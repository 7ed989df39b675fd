//! How a request carries its policies.
//!
//! `request` is in a layer below the traits of this module, so it stores [`Policies`] as an opaque
//! value; here the value is created and read.

use std::sync::Arc;

use crate::builder::RequestBuilder;
use crate::generation::Mark;
use crate::policy::both::BothVisits;
use crate::policy::{Moment, Policy, Visit};
use crate::request::{Carried, Request};

/// The policies of a request, kept apart so that an edit can replace one of them.
#[derive(Clone, Default)]
pub(crate) struct Policies {
    /// The policy of its session.
    outer: Option<Arc<dyn Policy>>,
    inner: Option<Arc<dyn Policy>>,
    /// The policy of what kind of request this is. It is nearest to the wire.
    nearest: Option<Arc<dyn Policy>>,
    /// The session runs no code of the caller.
    outer_is_brief: bool,
}

impl RequestBuilder {
    /// Sets the policy of this request: see [`policy`](crate::policy). It is nested inside
    /// [`Config::policy`](crate::Config::policy), and replaces a policy that was set before.
    ///
    /// A policy of a concrete type becomes an `Arc<dyn Policy>` when it is passed:
    /// `.policy(Arc::new(sign))`, or `.policy(sign.clone())` for an `Arc<Sign>`.
    pub fn policy(self, policy: Arc<dyn Policy>) -> Self {
        self.change_policies(|policies| policies.inner = Some(policy))
    }

    /// Makes the request belong to a session. The session's policy wraps around the request's own,
    /// and the request ends with the session's current generation. `session` is created by
    /// [`Policies::of_session`].
    pub(crate) fn in_session(self, session: &Carried, mark: Mark) -> Self {
        let carried = self.carry(|carried| {
            // Usually there is nothing else, and all requests of the session share one value.
            let own = carried.map(read).filter(|own| own.has_own());
            let Some(own) = own else {
                return Some(Arc::clone(session));
            };
            Some(Arc::new(Policies {
                inner: own.inner.clone(),
                nearest: own.nearest.clone(),
                ..read(session).clone()
            }))
        });
        carried.marked(mark)
    }

    /// Sets the policy of what kind of request this is, inside all others.
    #[cfg(feature = "websocket")]
    pub(crate) fn nearest_policy(self, policy: Arc<dyn Policy>) -> Self {
        self.change_policies(|policies| policies.nearest = Some(policy))
    }

    fn change_policies(self, change: impl FnOnce(&mut Policies)) -> Self {
        self.carry(|carried| {
            let mut policies = carried.map(read).cloned().unwrap_or_default();
            change(&mut policies);
            Some(Arc::new(policies))
        })
    }
}

fn read(carried: &Carried) -> &Policies {
    let policies = carried.downcast_ref();
    policies.expect("requests carry values created in this file")
}

impl Policies {
    /// Creates the value that all requests of a session carry. `is_brief` is whether the policy
    /// runs no code of the caller.
    pub(crate) fn of_session(policy: Arc<dyn Policy>, is_brief: bool) -> Carried {
        Arc::new(Self {
            outer: Some(policy),
            inner: None,
            nearest: None,
            outer_is_brief: is_brief,
        })
    }

    /// Whether the request has a policy besides that of its session.
    fn has_own(&self) -> bool {
        self.inner.is_some() || self.nearest.is_some()
    }

    /// Whether they run no code of the caller.
    pub(crate) fn are_brief(&self) -> bool {
        self.outer_is_brief && self.inner.is_none()
    }

    /// Returns the policies of `request`, nested inside `default`, which applies to requests
    /// without a session. If there are none, this costs one test of a pointer.
    #[inline]
    pub(crate) fn of(request: &Request, default: Option<&Arc<dyn Policy>>) -> Option<Self> {
        match (request.policies(), default) {
            (None, None) => None,
            (carried, default) => Some(Self::together(carried, default)),
        }
    }

    #[inline(never)]
    fn together(carried: Option<&Carried>, default: Option<&Arc<dyn Policy>>) -> Self {
        let mut policies = carried.map(read).cloned().unwrap_or_default();
        if policies.outer.is_none() {
            policies.outer = default.cloned();
        }
        policies
    }

    /// Begins a visit of all of them.
    pub(crate) fn visit(&self, request: &Request, at: &Moment<'_>) -> Option<Box<dyn Visit>> {
        let visit: Option<Box<dyn Visit>> = match (&self.outer, &self.inner) {
            (Some(outer), Some(inner)) => {
                let visits = BothVisits::begin(&**outer, &**inner, request, at);
                Some(Box::new(visits))
            }
            (Some(policy), None) | (None, Some(policy)) => Some(policy.visit(request, at)),
            (None, None) => None,
        };
        let Some(nearest) = &self.nearest else {
            return visit;
        };
        let nearest = nearest.visit(request, at);
        Some(match visit {
            Some(around) => Box::new(BothVisits::of(around, nearest)),
            None => nearest,
        })
    }

    /// Whether two requests carry the same policies, so that a visit of one serves the other.
    #[inline]
    pub(crate) fn are_same(one: &Request, other: &Request) -> bool {
        match (one.policies(), other.policies()) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other) || read(one).are(read(other)),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    #[inline(never)]
    fn are(&self, other: &Self) -> bool {
        let is_same =
            |one: &Option<Arc<dyn Policy>>, other: &Option<Arc<dyn Policy>>| match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
        is_same(&self.outer, &other.outer)
            && is_same(&self.inner, &other.inner)
            && is_same(&self.nearest, &other.nearest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::generation::Generation;
    use crate::policy::Fields;
    use crate::policy::moment::testing::at;

    #[derive(Clone)]
    struct Named(&'static str);

    impl Visit for Named {
        fn on_send(
            &mut self,
            _: &Request,
            fields: &mut Fields<'_>,
            _: &Moment<'_>,
        ) -> Result<(), Error> {
            fields.add(self.0, "")
        }
    }

    fn named(name: &'static str) -> Arc<dyn Policy> {
        Arc::new(Named(name))
    }

    /// Returns the names of the policies of `request`, in the order in which they are called.
    fn asked(request: &Request, default: Option<&Arc<dyn Policy>>) -> String {
        let Some(policies) = Policies::of(request, default) else {
            return String::new();
        };
        let mut block = Vec::new();
        at(1, |at| {
            let mut visit = policies.visit(request, at).expect("there are policies");
            let mut fields = Fields::new(&mut block, request);
            visit.on_send(request, &mut fields, at).unwrap();
        });
        String::from_utf8(block).unwrap().replace(": \r\n", " ")
    }

    #[test]
    fn a_session_is_around_the_requests_own_policy() {
        let get = || Request::get("http://a/");
        let mark = || Generation::new().mark();
        let (own, default) = (named("own"), named("default"));
        let session = &Policies::of_session(named("session"), false);
        #[rustfmt::skip]
        let rows = [
            ("none", get(), "", "default "),
            ("own", get().policy(own.clone()), "own ", "default own "),
            ("session", get().in_session(session, mark()), "session ", "session "),
            ("both", get().in_session(session, mark()).policy(own.clone()), "session own ", "session own "),
            ("both, in the other order", get().policy(own.clone()).in_session(session, mark()), "session own ", "session own "),
            ("a second one replaces the first", get().policy(named("x")).policy(own.clone()), "own ", "default own "),
        ];
        for (why, builder, alone, with_default) in rows {
            let request = builder.build().unwrap();
            assert_eq!(asked(&request, None), alone, "{why}");
            assert_eq!(asked(&request, Some(&default)), with_default, "{why}");
            let edited = request.edit().build().unwrap();
            assert_eq!(asked(&edited, None), alone, "{why}");
            assert_eq!(
                edited.generation().is_some(),
                request.generation().is_some()
            );
            let other = request.edit().policy(named("other")).build().unwrap();
            let expected = alone.replace("own ", "") + "other ";
            assert_eq!(asked(&other, None), expected, "{why}");
        }
    }

    #[test]
    fn the_same_policies_are_known_again() {
        let (policy, session) = (named("a"), Policies::of_session(named("b"), false));
        let mark = Generation::new().mark();
        let first = Request::get("http://a/")
            .policy(policy.clone())
            .build()
            .unwrap();
        let second = Request::get("http://b/")
            .policy(policy.clone())
            .build()
            .unwrap();
        let third = second.edit().in_session(&session, mark).build().unwrap();
        let fourth = Request::get("http://a/")
            .policy(named("a"))
            .build()
            .unwrap();
        let none = Request::get("http://a/").build().unwrap();
        let are_same = Policies::are_same;
        assert!(are_same(&first, &second) && are_same(&third, &third) && are_same(&none, &none));
        assert!(!are_same(&first, &third) && !are_same(&first, &fourth));
        assert!(!are_same(&first, &none) && !are_same(&none, &first));
    }

    #[test]
    fn requests_of_a_session_share_what_they_carry() {
        let session = Policies::of_session(named("session"), false);
        let requests = ["http://a/", "http://b/"].map(|url| {
            let mark = Generation::new().mark();
            let builder = Request::get(url).in_session(&session, mark);
            builder.build().unwrap().edit().build().unwrap()
        });
        for request in &requests {
            assert!(Arc::ptr_eq(request.policies().unwrap(), &session));
        }
    }
}
