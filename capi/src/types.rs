//! The constants, handle types and structs of the header.
//!
//! cbindgen copies these doc comments into the header, so they address a C programmer.
#![expect(non_camel_case_types, reason = "C's names")]

use std::ffi::{c_char, c_void};

/// The version of the binary interface. It changes when programs built with an older header would
/// no longer work.
pub const HTTPSTREAM_ABI_VERSION: u32 = 1;

/// An engine: a number, never a pointer. It belongs to the thread that created it.
pub type httpstream_engine = u64;
/// The settings of an engine. A configuration belongs to no thread.
pub type httpstream_config = u64;
/// A request. It belongs to no thread.
pub type httpstream_request = u64;
/// A reply, or part of one, lent to a callback. It is valid on the callback's thread until the
/// callback returns.
pub type httpstream_reply = u64;
/// Identifies a chain within one engine: a submitted request and all requests that its callbacks
/// return, until HTTPSTREAM_DONE. An engine never uses an id twice, and treats another engine's id
/// as one of a chain that has ended. 0 identifies no chain.
pub type httpstream_id = u64;

/// The call succeeded.
pub const HTTPSTREAM_OK: i32 = 0;
// No error is -1, which httpstream_timeout_ms returns for "no timeout".
/// A pointer that must not be null is null.
pub const HTTPSTREAM_ERROR_NULL: i32 = -2;
/// The handle is not valid: it was never created, was freed, or is of another kind.
pub const HTTPSTREAM_ERROR_HANDLE: i32 = -3;
/// The engine or the reply belongs to another thread.
pub const HTTPSTREAM_ERROR_THREAD: i32 = -4;
/// This process is a fork of the one that created the engine. The engine goes on in the parent.
pub const HTTPSTREAM_ERROR_FORKED: i32 = -5;
/// httpstream_turn, httpstream_free or httpstream_get_stats was called inside a callback of the
/// same engine.
pub const HTTPSTREAM_ERROR_BUSY: i32 = -6;
/// A value cannot be used: a URL, a field, a number, a name, or text that is not UTF-8.
pub const HTTPSTREAM_ERROR_ARGUMENT: i32 = -7;
/// The operating system reported an error, such as too many open descriptors or no such file.
pub const HTTPSTREAM_ERROR_IO: i32 = -8;
/// Returned by httpstream_turn if a callback returned an invalid value. Its chain has ended;
/// everything else was done.
pub const HTTPSTREAM_ERROR_CALLBACK: i32 = -9;
/// A panic inside the library was caught. The engine remains usable.
pub const HTTPSTREAM_ERROR_PANIC: i32 = -10;

/// Ends the chain.
pub const HTTPSTREAM_DONE: i32 = 0;
/// Sends the chain's last request once more.
pub const HTTPSTREAM_AGAIN: i32 = 1;
/// Sends the request in httpstream_next.request.
pub const HTTPSTREAM_SEND: i32 = 2;

/// Collects the body; on_reply gets all of it. Returned by on_data, it means HTTPSTREAM_STREAM.
pub const HTTPSTREAM_BUFFER: i32 = 0;
/// Passes the body to on_data as it arrives. The total timeout limits it, pauses included.
pub const HTTPSTREAM_STREAM: i32 = 1;
/// Reads the body to its end and drops it, so that the connection can be reused.
pub const HTTPSTREAM_DISCARD: i32 = 2;
/// Passes on no more data until httpstream_resume, then continues as HTTPSTREAM_STREAM. Reading
/// from the socket soon stops as well. The piece that on_data has just been given counts as taken.
pub const HTTPSTREAM_PAUSE: i32 = 3;
/// Closes the connection. on_reply then reports HTTPSTREAM_KIND_ABORTED.
pub const HTTPSTREAM_ABORT: i32 = 4;

/// A response arrived, whatever its status.
pub const HTTPSTREAM_KIND_RESPONSE: i32 = 0;
/// The request cannot be sent as it was built.
pub const HTTPSTREAM_KIND_INVALID_REQUEST: i32 = 1;
/// The configuration cannot be used.
pub const HTTPSTREAM_KIND_INVALID_CONFIG: i32 = 2;
/// The host has no address, or the lookup failed.
pub const HTTPSTREAM_KIND_RESOLVE: i32 = 3;
/// Connecting failed for every address of the host.
pub const HTTPSTREAM_KIND_CONNECT: i32 = 4;
/// TLS failed, in the handshake or through a later record or alert.
pub const HTTPSTREAM_KIND_TLS: i32 = 5;
/// The connection ended before the first byte of the response.
pub const HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE: i32 = 6;
/// The connection ended inside the response. httpstream_reply_body returns what had arrived.
pub const HTTPSTREAM_KIND_TRUNCATED: i32 = 7;
/// Reading or writing failed.
pub const HTTPSTREAM_KIND_IO: i32 = 8;
/// The response breaks the protocol.
pub const HTTPSTREAM_KIND_MALFORMED: i32 = 9;
/// The response exceeds a limit.
pub const HTTPSTREAM_KIND_TOO_LARGE: i32 = 10;
/// A deadline passed. httpstream_reply_phase returns the phase.
pub const HTTPSTREAM_KIND_TIMEOUT: i32 = 11;
/// This machine ran out of file descriptors, ports or memory.
pub const HTTPSTREAM_KIND_EXHAUSTED: i32 = 12;
/// The chain was canceled.
pub const HTTPSTREAM_KIND_CANCELLED: i32 = 13;
/// A callback returned HTTPSTREAM_ABORT.
pub const HTTPSTREAM_KIND_ABORTED: i32 = 14;
/// The engine no longer exists.
pub const HTTPSTREAM_KIND_GONE: i32 = 15;
/// A kind for which this header has no number.
pub const HTTPSTREAM_KIND_OTHER: i32 = 99;

/// The request was being built.
pub const HTTPSTREAM_PHASE_BUILD: i32 = 1;
/// The request waits for its delay, a connection or a file descriptor.
pub const HTTPSTREAM_PHASE_QUEUE: i32 = 2;
/// Looking up the host.
pub const HTTPSTREAM_PHASE_RESOLVE: i32 = 3;
/// Connecting.
pub const HTTPSTREAM_PHASE_CONNECT: i32 = 4;
/// Performing the TLS handshake.
pub const HTTPSTREAM_PHASE_TLS: i32 = 5;
/// Writing the request.
pub const HTTPSTREAM_PHASE_WRITE: i32 = 6;
/// The request is written and no byte of the response has arrived.
pub const HTTPSTREAM_PHASE_FIRST_BYTE: i32 = 7;
/// Reading the header section.
pub const HTTPSTREAM_PHASE_HEAD: i32 = 8;
/// Reading the body.
pub const HTTPSTREAM_PHASE_BODY: i32 = 9;
/// A phase for which this header has no number.
pub const HTTPSTREAM_PHASE_OTHER: i32 = 99;

/// No byte of the request left this machine.
pub const HTTPSTREAM_SENT_NO: i32 = 0;
/// Some or all of the request was written and no response arrived: the peer may have processed it.
pub const HTTPSTREAM_SENT_MAYBE: i32 = 1;
/// The peer answered, so it has received the request.
pub const HTTPSTREAM_SENT_YES: i32 = 2;

/// What httpstream_turn did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct httpstream_turned {
    /// Events that poll reported.
    pub events: u64,
    /// Requests that ended, with a response or an error.
    pub answered: u64,
    /// Work is left that waits only for the next turn.
    pub more: bool,
    /// httpstream_stop was called.
    pub stopped: bool,
}

/// An engine's current state and its totals. The members up to `paused` count what exists now; the
/// others count since the engine was created.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct httpstream_stats {
    /// The caller sets it to sizeof(httpstream_stats). No more bytes than that are written.
    pub size: usize,
    /// Connections being established, busy or idle.
    pub links_open: u64,
    /// Idle connections.
    pub links_idle: u64,
    /// Connections not yet established: in the lookup of the host, connecting, or in the TLS
    /// handshake.
    pub links_dialing: u64,
    /// Requests that have a connection.
    pub in_flight: u64,
    /// Requests that wait for a connection.
    pub queued: u64,
    /// Requests that wait for their delay.
    pub delayed: u64,
    /// Requests in flight that a callback paused with HTTPSTREAM_PAUSE.
    pub paused: u64,
    /// Connections opened.
    pub opened: u64,
    /// Requests sent on a connection that had served another.
    pub reused: u64,
    /// Chains submitted.
    pub submitted: u64,
    /// Requests that got a response.
    pub answered: u64,
    /// Requests that failed, cancellations included.
    pub failed: u64,
    /// Requests sent again because a reused connection turned out to be closed.
    pub retried: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that another thread caused.
    pub wakeups: u64,
}

/// A `bool` that C writes. It holds any byte, because nothing keeps C from writing one that is not
/// 0 or 1, which would be undefined behavior in a Rust `bool`. The header has `bool` here.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bool(u8);

impl Bool {
    pub(crate) fn is_true(self) -> bool {
        self.0 != 0
    }
}

/// What a chain does after a reply. The callback gets it zeroed, which means HTTPSTREAM_DONE.
#[repr(C)]
#[derive(Debug)]
pub struct httpstream_next {
    /// HTTPSTREAM_DONE, HTTPSTREAM_AGAIN or HTTPSTREAM_SEND.
    pub action: i32,
    /// Whether to free `request` after the callback has returned, whatever the action is.
    pub frees_request: Bool,
    /// The request to send, for HTTPSTREAM_SEND.
    pub request: httpstream_request,
    /// Milliseconds to wait before sending the request. UINT64_MAX means forever, that is, until
    /// httpstream_cancel.
    pub delay_ms: u64,
    /// The callbacks for the rest of the chain; null keeps the current ones. The struct is copied
    /// after the callback has returned, whatever the action is, so it must be static or on the
    /// heap, not a local variable of the callback. The previous callbacks are then released.
    pub readback: *const httpstream_readback,
}

/// The callbacks of a chain, and their user pointer.
///
/// They run inside httpstream_turn only, on its thread, and must return: no longjmp, no C++
/// exception. They may call every function except httpstream_turn, httpstream_free and
/// httpstream_get_stats of the engine that calls them; other engines may even be turned. A child
/// process that is forked inside a callback must not return from it.
///
/// The struct is copied when it is passed in. Only `user` has to stay valid, until `release`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_readback {
    /// Called when the response is complete or the request has failed; writes to `next` what the
    /// chain does next. Called exactly once for each request of the chain as long as the engine
    /// exists. If null, the response is read to its end and dropped, and the chain ends.
    pub on_reply: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            reply: httpstream_reply,
            next: *mut httpstream_next,
        ),
    >,
    /// Called when the head has arrived. Returns HTTPSTREAM_BUFFER, HTTPSTREAM_STREAM,
    /// HTTPSTREAM_DISCARD, HTTPSTREAM_PAUSE (which streams the body after a resume) or
    /// HTTPSTREAM_ABORT. If null, the body is buffered if there is an on_reply, otherwise
    /// discarded.
    pub on_head: Option<unsafe extern "C" fn(user: *mut c_void, head: httpstream_reply) -> i32>,
    /// Called with a piece of a streamed body: `len` bytes, at least one. Where the body is split
    /// has no meaning. Returns HTTPSTREAM_STREAM to go on, or HTTPSTREAM_DISCARD, HTTPSTREAM_PAUSE
    /// or HTTPSTREAM_ABORT. Of `reply`, only the id, the method and the URL are available. If null,
    /// a streamed body is discarded.
    pub on_data: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            reply: httpstream_reply,
            data: *const u8,
            len: usize,
        ) -> i32,
    >,
    /// Called when this readback no longer needs `user`: exactly once, at the end of the
    /// httpstream_turn in which the chain ended or took another readback, or inside
    /// httpstream_free. It is never called on another thread or in another process than the
    /// engine's. May be null.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Passed to each callback; the library does not use it.
    pub user: *mut c_void,
}

/// One field line. The bytes are not NUL-terminated. They are valid as long as the reply.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_field {
    /// The name, as received.
    pub name: *const u8,
    /// Its length in bytes.
    pub name_len: usize,
    /// The value, as received but without surrounding whitespace: any bytes except CR, LF and NUL.
    pub value: *const u8,
    /// Its length in bytes.
    pub value_len: usize,
}

/// Everything about a reply that is available without further work, in one call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_view {
    /// The caller sets it to sizeof(httpstream_view). No more bytes than that are written.
    pub size: usize,
    /// httpstream_reply_kind.
    pub kind: i32,
    /// httpstream_reply_status.
    pub status: i32,
    /// httpstream_reply_body.
    pub body: *const u8,
    /// Its length in bytes.
    pub body_len: usize,
    /// httpstream_reply_id.
    pub id: httpstream_id,
    /// httpstream_reply_phase.
    pub phase: i32,
    /// httpstream_reply_request_sent.
    pub request_sent: i32,
    /// httpstream_reply_resend_is_safe.
    pub resend_is_safe: i32,
    /// httpstream_reply_attempts.
    pub attempts: i32,
    /// httpstream_reply_reused, 0 or 1.
    pub reused: i32,
    /// The minor version, as in HTTP/1.`minor`: 0 or 1; -1 without a head.
    pub minor: i32,
    /// httpstream_reply_reason.
    pub reason: *const c_char,
    /// Its length in bytes.
    pub reason_len: usize,
    /// httpstream_reply_header_count.
    pub header_count: usize,
    /// httpstream_reply_trailer_count.
    pub trailer_count: usize,
    /// httpstream_reply_elapsed_us.
    pub elapsed_us: u64,
    /// httpstream_reply_method.
    pub method: *const c_char,
    /// Its length in bytes.
    pub method_len: usize,
    /// The IP address that the response came from, in network byte order. httpstream_reply_peer
    /// returns it as text.
    pub peer_address: [u8; 16],
    /// The length of the address in bytes: 4 or 16; 0 if the peer is not known.
    pub peer_address_len: u32,
    /// The peer's port.
    pub peer_port: u32,
    /// When the lookup of the host ended, in microseconds since the submission or since the end of
    /// the delay. Here and below, UINT64_MAX means that the step did not occur, as on a reused
    /// connection, or that its time is not known, as after a failure.
    pub resolve_us: u64,
    /// When the connection was established.
    pub connect_us: u64,
    /// When the TLS handshake was complete.
    pub tls_us: u64,
    /// When the last byte of the request was written.
    pub sent_us: u64,
    /// When the first byte of the response was read.
    pub first_byte_us: u64,
    /// When the response was complete.
    pub done_us: u64,
}
