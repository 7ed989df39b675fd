//! What stands in the header beside functions: names of handles, numbers, and the structs that
//! cross.
//!
//! cbindgen turns this into C, comments included: they are written for the reader of the header.
#![expect(non_camel_case_types, reason = "C's names")]

use std::ffi::{c_char, c_void};

/// Changes when a program built with an older header would no longer work.
pub const HTTPSTREAM_ABI_VERSION: u32 = 1;

/// An engine: a number, never a pointer. It belongs to the thread that made it.
pub type httpstream_engine = u64;
/// What engines are made with. Belongs to no thread.
pub type httpstream_config = u64;
/// A request. Belongs to no thread.
pub type httpstream_request = u64;
/// A reply, or a part of one, lent to a callback: valid until the callback returns, and on its
/// thread.
pub type httpstream_reply = u64;
/// Names a chain of one engine: a request and everything that its readback answers, until
/// HTTPSTREAM_DONE. Never used twice by one engine; another takes it for one that is over. 0 names
/// none.
pub type httpstream_id = u64;

/// The call did what it says.
pub const HTTPSTREAM_OK: i32 = 0;
// The numbers are below -1, so that none looks like "no timeout".
/// A pointer is null that must not be.
pub const HTTPSTREAM_ERROR_NULL: i32 = -2;
/// No such handle: never made, freed, or of another kind.
pub const HTTPSTREAM_ERROR_HANDLE: i32 = -3;
/// The engine or the reply belongs to another thread.
pub const HTTPSTREAM_ERROR_THREAD: i32 = -4;
/// This process was forked off the one that made the engine, which goes on there.
pub const HTTPSTREAM_ERROR_FORKED: i32 = -5;
/// Not while this engine turns: httpstream_turn, httpstream_free, httpstream_get_stats.
pub const HTTPSTREAM_ERROR_BUSY: i32 = -6;
/// A value that cannot be used: a URL, a field, a number, a name, text that is not UTF-8.
pub const HTTPSTREAM_ERROR_ARGUMENT: i32 = -7;
/// The operating system refused: no poll, no descriptor, no such file.
pub const HTTPSTREAM_ERROR_IO: i32 = -8;
/// From httpstream_turn: a callback answered garbage. Its chain is over, everything else went on.
pub const HTTPSTREAM_ERROR_CALLBACK: i32 = -9;
/// A fault inside the library, kept from crossing. The engine can be used on, and freed.
pub const HTTPSTREAM_ERROR_PANIC: i32 = -10;

/// The chain is over.
pub const HTTPSTREAM_DONE: i32 = 0;
/// The request that this chain sent last, once more.
pub const HTTPSTREAM_AGAIN: i32 = 1;
/// httpstream_next.request.
pub const HTTPSTREAM_SEND: i32 = 2;

/// The body is collected, and whole in on_reply. From on_data it counts as HTTPSTREAM_STREAM.
pub const HTTPSTREAM_BUFFER: i32 = 0;
/// The body is handed to on_data as it comes. The total timeout bounds it, pauses included.
pub const HTTPSTREAM_STREAM: i32 = 1;
/// The body is read to its end unseen, so that the connection can be used again.
pub const HTTPSTREAM_DISCARD: i32 = 2;
/// Nothing is handed out, and soon nothing read, until httpstream_resume; then as
/// HTTPSTREAM_STREAM. The piece just handed out counts as taken.
pub const HTTPSTREAM_PAUSE: i32 = 3;
/// The connection is closed, and on_reply told HTTPSTREAM_KIND_ABORTED.
pub const HTTPSTREAM_ABORT: i32 = 4;

/// There is a response, whatever its status.
pub const HTTPSTREAM_KIND_RESPONSE: i32 = 0;
/// The request cannot be sent as it was built.
pub const HTTPSTREAM_KIND_INVALID_REQUEST: i32 = 1;
/// The configuration cannot be used.
pub const HTTPSTREAM_KIND_INVALID_CONFIG: i32 = 2;
/// The host has no address, or asking for it failed.
pub const HTTPSTREAM_KIND_RESOLVE: i32 = 3;
/// No address of the host could be connected to.
pub const HTTPSTREAM_KIND_CONNECT: i32 = 4;
/// TLS failed: the handshake, or later a record or an alert.
pub const HTTPSTREAM_KIND_TLS: i32 = 5;
/// The connection ended before the first byte of the response.
pub const HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE: i32 = 6;
/// The connection ended inside the response; httpstream_reply_body has what came.
pub const HTTPSTREAM_KIND_TRUNCATED: i32 = 7;
/// Reading or writing failed.
pub const HTTPSTREAM_KIND_IO: i32 = 8;
/// The response breaks the protocol.
pub const HTTPSTREAM_KIND_MALFORMED: i32 = 9;
/// The response passes a limit.
pub const HTTPSTREAM_KIND_TOO_LARGE: i32 = 10;
/// A deadline passed; httpstream_reply_phase says in which phase.
pub const HTTPSTREAM_KIND_TIMEOUT: i32 = 11;
/// This machine ran out of file descriptors, ports or memory.
pub const HTTPSTREAM_KIND_EXHAUSTED: i32 = 12;
/// The chain was cancelled.
pub const HTTPSTREAM_KIND_CANCELLED: i32 = 13;
/// A callback answered HTTPSTREAM_ABORT.
pub const HTTPSTREAM_KIND_ABORTED: i32 = 14;
/// The engine is gone.
pub const HTTPSTREAM_KIND_GONE: i32 = 15;
/// A kind that this header has no number for.
pub const HTTPSTREAM_KIND_OTHER: i32 = 99;

/// The request was being built.
pub const HTTPSTREAM_PHASE_BUILD: i32 = 1;
/// Waiting: for its delay, a connection or a file descriptor.
pub const HTTPSTREAM_PHASE_QUEUE: i32 = 2;
/// Looking up the host.
pub const HTTPSTREAM_PHASE_RESOLVE: i32 = 3;
/// Connecting.
pub const HTTPSTREAM_PHASE_CONNECT: i32 = 4;
/// In the TLS handshake.
pub const HTTPSTREAM_PHASE_TLS: i32 = 5;
/// Writing the request.
pub const HTTPSTREAM_PHASE_WRITE: i32 = 6;
/// The request is written, no byte of the response has come.
pub const HTTPSTREAM_PHASE_FIRST_BYTE: i32 = 7;
/// Reading the header section.
pub const HTTPSTREAM_PHASE_HEAD: i32 = 8;
/// Reading the body.
pub const HTTPSTREAM_PHASE_BODY: i32 = 9;
/// A phase that this header has no number for.
pub const HTTPSTREAM_PHASE_OTHER: i32 = 99;

/// Not one byte of the request left this machine.
pub const HTTPSTREAM_SENT_NO: i32 = 0;
/// Some or all of it was written, and nothing came back: the peer may have processed it.
pub const HTTPSTREAM_SENT_MAYBE: i32 = 1;
/// The peer answered: it has seen the request.
pub const HTTPSTREAM_SENT_YES: i32 = 2;

/// What httpstream_turn did.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct httpstream_turned {
    /// Events that the poll told.
    pub events: u64,
    /// Requests answered, by a response or an error.
    pub answered: u64,
    /// Something is left that waits for nothing but the next turn.
    pub more: bool,
    /// httpstream_stop was called.
    pub stopped: bool,
}

/// How an engine stands, and what it has done. Up to `paused` it counts what is there now, the rest
/// since the start.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct httpstream_stats {
    /// Set by the caller: sizeof(httpstream_stats). No more than that is written.
    pub size: usize,
    /// Connections that are there or about to be: being made, busy and idle ones.
    pub links_open: u64,
    /// Idle connections.
    pub links_idle: u64,
    /// Connections whose host is being looked up, that are connecting or in the TLS handshake.
    pub links_dialing: u64,
    /// Requests on a connection.
    pub in_flight: u64,
    /// Requests that wait for a connection.
    pub queued: u64,
    /// Requests that wait for their delay.
    pub delayed: u64,
    /// Requests in flight of which a callback answered HTTPSTREAM_PAUSE.
    pub paused: u64,
    /// Connections opened.
    pub opened: u64,
    /// Requests sent on a connection that had served another.
    pub reused: u64,
    /// Chains submitted.
    pub submitted: u64,
    /// Requests answered by a response.
    pub answered: u64,
    /// Requests answered by an error, cancellations included.
    pub failed: u64,
    /// Requests sent again after a stale connection.
    pub retried: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Turns.
    pub turns: u64,
    /// Turns that another thread asked for.
    pub wakeups: u64,
}

/// C's `bool` where C writes it: any byte, since nothing keeps C from writing one. (The header says
/// bool.)
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Bool(u8);

impl Bool {
    pub(crate) fn is_true(self) -> bool {
        self.0 != 0
    }
}

/// What a reply leads to. All zero before the callback is called, which is HTTPSTREAM_DONE.
#[repr(C)]
#[derive(Debug)]
pub struct httpstream_next {
    /// HTTPSTREAM_DONE, HTTPSTREAM_AGAIN or HTTPSTREAM_SEND.
    pub action: i32,
    /// Free `request` when the callback has returned, whatever the action is.
    pub frees_request: Bool,
    /// For HTTPSTREAM_SEND.
    pub request: httpstream_request,
    /// Wait so many milliseconds before the request. UINT64_MAX: for ever, that is until
    /// httpstream_cancel.
    pub delay_ms: u64,
    /// Who reads from here on; null: the same goes on. It is copied and taken over when the
    /// callback has returned, whatever the action is, and the former one released. So it must still
    /// be there then: static, or on the heap, not a variable of the callback.
    pub readback: *const httpstream_readback,
}

/// The callbacks that read for a chain, and what they are called with.
///
/// They run inside httpstream_turn only, on its thread, and must return: no longjmp, no exception.
/// They may call everything but httpstream_turn, httpstream_free and httpstream_get_stats of the
/// engine that calls them; another engine may even be turned. A child process that is forked inside
/// a callback must not return from it.
///
/// The struct is copied when it is handed over; only `user` has to live on, until `release`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_readback {
    /// The response is complete, or there will be none; `next` says what follows. Called exactly
    /// once for each request of the chain, as long as the engine lives. Null: what comes is read to
    /// the end and thrown away, and the chain is over.
    pub on_reply: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            reply: httpstream_reply,
            next: *mut httpstream_next,
        ),
    >,
    /// The head has come: HTTPSTREAM_BUFFER, HTTPSTREAM_STREAM, HTTPSTREAM_DISCARD,
    /// HTTPSTREAM_PAUSE (stream it after a resume) or HTTPSTREAM_ABORT. Null: HTTPSTREAM_BUFFER, or
    /// without an on_reply HTTPSTREAM_DISCARD.
    pub on_head: Option<unsafe extern "C" fn(user: *mut c_void, head: httpstream_reply) -> i32>,
    /// A piece of a streamed body has come, `len` bytes, at least one; pieces carry no meaning of
    /// their own. Answers HTTPSTREAM_STREAM to go on, or one of the other three. Of `reply` only id
    /// and URL are known. Null: what is streamed is passed over.
    pub on_data: Option<
        unsafe extern "C" fn(
            user: *mut c_void,
            reply: httpstream_reply,
            data: *const u8,
            len: usize,
        ) -> i32,
    >,
    /// `user` is no longer needed by this readback. Called exactly once, at the end of the
    /// httpstream_turn in which the chain ended or took another readback, or inside
    /// httpstream_free; never on a thread or in a process that is not the engine's. Null: nothing
    /// is called.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void)>,
    /// Handed to each of them, not looked at.
    pub user: *mut c_void,
}

/// One field line. The bytes are not NUL-terminated, and valid as long as the reply.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_field {
    /// The name as received.
    pub name: *const u8,
    /// Its length in bytes.
    pub name_len: usize,
    /// The value as received, without white space around it; any bytes but CR, LF and NUL.
    pub value: *const u8,
    /// Its length in bytes.
    pub value_len: usize,
}

/// Everything about a reply that is there without further work, in one call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct httpstream_view {
    /// Set by the caller: sizeof(httpstream_view). No more than that is written.
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
    /// HTTP/1.`minor`: 0 or 1; -1 without a head.
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
    /// The IP address that the response came from, in network byte order; httpstream_reply_peer has
    /// it as text.
    pub peer_address: [u8; 16],
    /// How many bytes of it there are: 4 or 16; 0 where the peer is not known.
    pub peer_address_len: u32,
    /// Its port.
    pub peer_port: u32,
    /// When the host's addresses were known: in microseconds since the submission, or since the end
    /// of the delay. UINT64_MAX here and below: the step was not taken, as on a connection that was
    /// there already, or it is not known, as of a failure.
    pub resolve_us: u64,
    /// When the connection was established.
    pub connect_us: u64,
    /// When the TLS handshake was over.
    pub tls_us: u64,
    /// When the last byte of the request was written.
    pub sent_us: u64,
    /// When the first byte of the response was read.
    pub first_byte_us: u64,
    /// When the response was complete.
    pub done_us: u64,
}
