//! Counters of an engine, and of its origins.

use std::sync::Arc;

use crate::proto::Origin;
use crate::route::Route;

/// The state of an engine in numbers, returned by [`Engine::stats`](crate::Engine::stats). The
/// fields up to `paused` count what exists now; the others count since the engine was created.
///
/// ```
/// use httpstream::{Engine, Next, Request};
///
/// let mut engine = Engine::<()>::new()?;
/// engine.submit(Request::get("http://127.0.0.1:1/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// let stats = engine.stats();
/// assert_eq!((stats.submitted, stats.answered, stats.failed), (1, 0, 1));
/// assert_eq!((stats.in_flight, stats.queued, stats.delayed), (0, 0, 0));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Links (connections, and attempts to make one) that have a socket or are about to open one:
    /// dialing, busy and idle ones.
    pub links_open: usize,
    /// Idle links in the pool.
    pub links_idle: usize,
    /// Links in a lookup, a connect or a TLS handshake.
    pub links_dialing: usize,
    /// Requests on a link.
    pub in_flight: usize,
    /// Requests waiting for a link.
    pub queued: usize,
    /// Requests waiting for their delay to end, and calls that have not run yet.
    pub delayed: usize,
    /// Requests in flight whose readback returned [`Flow::Pause`](crate::Flow::Pause).
    pub paused: usize,
    /// Connections opened.
    pub opened: u64,
    /// Requests exchanged on a connection that had served another before. Pipelined requests count
    /// once they have reached the front.
    pub reused: u64,
    /// Chains submitted.
    pub submitted: u64,
    /// Exchanges that ended with a response, including one that a policy did not pass on, such as a
    /// redirect that was followed.
    pub answered: u64,
    /// Requests that ended with an error, cancellations included, and chains that were canceled
    /// while they waited after a request.
    pub failed: u64,
    /// Requests sent again, after a stale connection or because their pipeline ended before they
    /// were answered.
    pub retried: u64,
    /// Requests written behind one that was not answered yet.
    pub pipelined: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Turns made.
    pub turns: u64,
    /// Turns requested by another thread, or by a waker or a [`Local`](crate::Local) outside a
    /// turn.
    pub wakeups: u64,
}

/// What exists now for one origin as reached by one route, returned by
/// [`Engine::origins`](crate::Engine::origins).
///
/// An origin is listed as long as it has a connection, or a chain whose request is to it, in
/// flight, waiting or delayed. When nothing of it is left, the engine forgets it. For this reason
/// there are no totals here: a program that needs them counts in its readbacks.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.host("a.test", [[10, 0, 0, 1]]);
/// network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| Answer::ok("hello"));
///
/// let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
/// engine.submit(Request::get("http://a.test/").build()?, |_, _, _| Next::done());
/// engine.run(&mut ())?;
/// let origins = engine.origins();
/// assert_eq!(origins.len(), 1);
/// assert_eq!(origins[0].origin.to_string(), "http://a.test");
/// assert_eq!((origins[0].open, origins[0].idle), (1, 1));
/// assert_eq!((origins[0].in_flight, origins[0].queued), (0, 0));
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OriginStats {
    /// The origin.
    pub origin: Origin,
    /// The route by which its connections are made. The same origin has an entry for each route.
    pub route: Arc<Route>,
    /// Connections that are established, idle ones included.
    pub open: usize,
    /// Idle connections in the pool.
    pub idle: usize,
    /// Connections in a lookup, a connect or a TLS handshake.
    pub dialing: usize,
    /// Requests on a connection, including one that is being opened for them.
    pub in_flight: usize,
    /// Requests in the queue for a connection. Requests that a [policy](crate::policy) holds back
    /// are not in it.
    pub queued: usize,
}
