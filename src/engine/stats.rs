//! What an engine tells of itself in figures.

/// How an engine stands, and what it has done. The first group counts what is there now, the second
/// since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Links that hold a socket or are about to: dialling, busy and idle ones.
    pub links_open: usize,
    /// Links in the pool.
    pub links_idle: usize,
    /// Links whose host is being looked up, that are connecting or in the TLS handshake.
    pub links_dialing: usize,
    /// Requests on a link.
    pub in_flight: usize,
    /// Requests that wait for a link.
    pub queued: usize,
    /// Requests that wait for their delay, and calls that have not been made.
    pub delayed: usize,
    /// Requests in flight whose readback answered `Pause`.
    pub paused: usize,
    /// Connections opened.
    pub opened: u64,
    /// Requests exchanged on a connection that had served another; of a pipeline, those whose turn
    /// came.
    pub reused: u64,
    /// Chains submitted.
    pub submitted: u64,
    /// Requests answered by a response.
    pub answered: u64,
    /// Requests answered by an error, cancellations included; also of chains that waited to go on
    /// after a request.
    pub failed: u64,
    /// Requests sent again: after a stale connection, or since their pipeline ended before they
    /// were answered.
    pub retried: u64,
    /// Requests written behind one that was not answered yet.
    pub pipelined: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that another thread asked for.
    pub wakeups: u64,
}
