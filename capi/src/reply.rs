//! Replies: what callbacks are lent, found by handle while the callback runs.
//!
//! Lent replies form a stack, since a callback may turn another engine. A handle identifies its
//! thread and the order of lending, so a handle that is used after its callback has returned is
//! detected.

use std::cell::{Cell, OnceCell, RefCell};
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use httpstream::http::Version;
use httpstream::{Error, ErrorKind, Headers, Phase, Request, Response, Sent, Timings};

use crate::errors::{Code, Fault, guard};
use crate::handles::Kind;
use crate::raw;
use crate::types::*;

/// The part of an exchange that a reply shows.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    Head(&'a Response<'a>),
    Data,
    Response(&'a Response<'a>),
    Failure(&'a Error),
}

/// A reply that can be lent to a callback.
pub(crate) struct Shown<'a> {
    what: What<'a>,
    id: u64,
    request: &'a Request,
    elapsed: Option<Duration>,
    /// Computed on first use, like the next two.
    message: OnceCell<CString>,
    url: OnceCell<String>,
    peer: OnceCell<CString>,
}

/// A reply that is currently lent, with its number.
struct Lent(u64, NonNull<Shown<'static>>);

/// The number of low bits that hold the order of lending.
const ORDER_BITS: u32 = 36;
const MAX_ORDER: u64 = (1 << ORDER_BITS) - 1;

/// The number of bits above them, which hold the thread. With more threads than fit, the numbers
/// start over.
const THREAD_BITS: u32 = 24;

static THREADS: AtomicU64 = AtomicU64::new(1);

fn new_thread() -> u64 {
    THREADS.fetch_add(1, Ordering::Relaxed) & ((1 << THREAD_BITS) - 1)
}

thread_local! {
    static LENT: RefCell<Vec<Lent>> = const { RefCell::new(Vec::new()) };
    /// The number of the reply that was lent last: thread and order.
    static LAST: Cell<u64> = Cell::new(new_thread() << ORDER_BITS);
}

impl<'a> Shown<'a> {
    pub(crate) fn new(
        what: What<'a>,
        id: u64,
        request: &'a Request,
        elapsed: Option<Duration>,
    ) -> Self {
        Self {
            what,
            id,
            request,
            elapsed,
            message: OnceCell::new(),
            url: OnceCell::new(),
            peer: OnceCell::new(),
        }
    }

    /// Runs `callback` with a handle that refers to this reply until the callback returns.
    pub(crate) fn lend<R>(&self, callback: impl FnOnce(u64) -> R) -> R {
        /// Takes the reply back, whether `callback` returns or panics.
        struct Back;
        impl Drop for Back {
            fn drop(&mut self) {
                LENT.with(|lent| lent.borrow_mut().pop());
            }
        }
        let last = LAST.get();
        let number = last & !MAX_ORDER | (last + 1) & MAX_ORDER;
        LAST.set(number);
        let shown = NonNull::from(self).cast::<Shown<'static>>();
        LENT.with(|lent| lent.borrow_mut().push(Lent(number, shown)));
        let _back = Back;
        callback(Kind::Reply.handle(number))
    }

    fn response(&self) -> Option<&Response<'a>> {
        match self.what {
            What::Head(response) | What::Response(response) => Some(response),
            What::Data | What::Failure(_) => None,
        }
    }

    fn error(&self) -> Option<&Error> {
        match self.what {
            What::Failure(error) => Some(error),
            What::Head(_) | What::Response(_) | What::Data => None,
        }
    }

    fn kind(&self) -> i32 {
        self.error()
            .map_or(HTTPSTREAM_KIND_RESPONSE, |error| kind_number(error.kind()))
    }

    fn phase(&self) -> i32 {
        self.error().map_or(0, |error| phase_number(error.phase()))
    }

    fn status(&self) -> i32 {
        let status = match self.what {
            What::Head(response) | What::Response(response) => Some(response.status()),
            What::Failure(error) => error.status(),
            What::Data => None,
        };
        status.map_or(0, |status| status.as_u16().into())
    }

    fn request_sent(&self) -> i32 {
        match self.error().map(Error::request_sent) {
            None | Some(Sent::Yes) => HTTPSTREAM_SENT_YES,
            Some(Sent::Maybe) => HTTPSTREAM_SENT_MAYBE,
            Some(Sent::No) => HTTPSTREAM_SENT_NO,
        }
    }

    /// False for a response: the request has been processed.
    fn resend_is_safe(&self) -> bool {
        self.error().is_some_and(Error::resend_is_safe)
    }

    fn body(&self) -> &[u8] {
        match self.what {
            What::Head(response) | What::Response(response) => response.body(),
            What::Failure(error) => error.partial_body(),
            What::Data => &[],
        }
    }

    fn reason(&self) -> &[u8] {
        self.response().map_or(&[], |response| response.reason())
    }

    fn headers(&self) -> Option<Headers<'a>> {
        self.response().map(Response::headers)
    }

    fn trailers(&self) -> Option<Headers<'a>> {
        self.response().map(Response::trailers)
    }

    fn attempts(&self) -> i32 {
        let attempts = match self.what {
            What::Head(response) | What::Response(response) => response.info().attempts,
            What::Failure(error) => error.attempts(),
            What::Data => 0,
        };
        i32::try_from(attempts).unwrap_or(i32::MAX)
    }

    fn reused(&self) -> bool {
        match self.what {
            What::Head(response) | What::Response(response) => response.info().reused,
            What::Failure(error) => error.reused_connection(),
            What::Data => false,
        }
    }

    fn elapsed_us(&self) -> u64 {
        let exact = self
            .response()
            .and_then(|response| response.info().timings.done);
        let elapsed = exact.or(self.elapsed).unwrap_or_default();
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }

    fn minor(&self) -> i32 {
        match self.response().map(Response::version) {
            None => -1,
            Some(Version::HTTP_10) => 0,
            Some(_) => 1,
        }
    }

    fn message(&self) -> &CStr {
        let Some(error) = self.error() else {
            return c"";
        };
        self.message.get_or_init(|| {
            let mut words = format!("{error:#}").into_bytes();
            words.retain(|&byte| byte != 0);
            CString::new(words).unwrap_or_default()
        })
    }

    fn url(&self) -> &str {
        self.url.get_or_init(|| self.request.uri().to_string())
    }

    /// The address that the response came from. A Unix socket has none.
    fn peer(&self) -> Option<SocketAddr> {
        let peer = self.response()?.info().peer;
        (!peer.ip().is_unspecified() || peer.port() != 0).then_some(peer)
    }

    fn peer_text(&self) -> &CStr {
        let Some(peer) = self.peer() else {
            return c"";
        };
        let text = || CString::new(peer.to_string()).unwrap_or_default();
        self.peer.get_or_init(text)
    }

    fn timings(&self) -> Timings {
        let timings = self.response().map(|response| response.info().timings);
        timings.unwrap_or_default()
    }

    fn view(&self) -> httpstream_view {
        let (body, reason) = (self.body(), self.reason());
        let method = self.request.method().as_str();
        let (peer_address, peer_address_len) = octets(self.peer());
        let timings = self.timings();
        httpstream_view {
            size: size_of::<httpstream_view>(),
            kind: self.kind(),
            status: self.status(),
            body: body.as_ptr(),
            body_len: body.len(),
            id: self.id,
            phase: self.phase(),
            request_sent: self.request_sent(),
            resend_is_safe: self.resend_is_safe().into(),
            attempts: self.attempts(),
            reused: self.reused().into(),
            minor: self.minor(),
            reason: reason.as_ptr().cast(),
            reason_len: reason.len(),
            header_count: count(self.headers()),
            trailer_count: count(self.trailers()),
            elapsed_us: self.elapsed_us(),
            method: method.as_ptr().cast(),
            method_len: method.len(),
            peer_address,
            peer_address_len,
            peer_port: self.peer().map_or(0, |peer| peer.port().into()),
            resolve_us: step(timings.resolve),
            connect_us: step(timings.connect),
            tls_us: step(timings.tls),
            sent_us: step(timings.sent),
            first_byte_us: step(timings.first_byte),
            done_us: step(timings.done),
        }
    }
}

/// Returns an address in network byte order, and its length in bytes.
fn octets(peer: Option<SocketAddr>) -> ([u8; 16], u32) {
    let mut bytes = [0; 16];
    match peer.map(|peer| peer.ip()) {
        None => (bytes, 0),
        Some(IpAddr::V4(ip)) => {
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, 4)
        }
        Some(IpAddr::V6(ip)) => (ip.octets(), 16),
    }
}

/// Returns a step's time in microseconds, or `UINT64_MAX` if the step did not occur.
fn step(time: Option<Duration>) -> u64 {
    time.and_then(|time| u64::try_from(time.as_micros()).ok())
        .unwrap_or(u64::MAX)
}

fn count(fields: Option<Headers<'_>>) -> usize {
    fields.map_or(0, |fields| fields.len())
}

/// The status line and fields of a response, as text.
struct Head<'a>(&'a Response<'a>);

impl Head<'_> {
    fn for_each_piece(&self, mut piece: impl FnMut(&[u8])) {
        let status = self.0.status();
        piece(match self.0.version() {
            Version::HTTP_10 => b"HTTP/1.0 ",
            _ => b"HTTP/1.1 ",
        });
        piece(status.as_str().as_bytes());
        piece(b" ");
        piece(self.0.reason());
        piece(b"\r\n");
        for (name, value) in self.0.headers() {
            piece(name.as_bytes());
            piece(b": ");
            piece(value);
            piece(b"\r\n");
        }
    }

    /// Writes the head to the beginning of `out`, as far as whole pieces fit, and returns its full
    /// length.
    fn write(&self, out: &mut [MaybeUninit<u8>]) -> usize {
        let (mut len, mut rest) = (0, out);
        self.for_each_piece(|bytes| {
            len += bytes.len();
            // Once a piece does not fit, `rest` is empty, so later pieces are skipped too.
            if let Some((place, behind)) =
                std::mem::take(&mut rest).split_at_mut_checked(bytes.len())
            {
                // `write_copy_of_slice` needs a newer Rust than our oldest supported one.
                for (place, byte) in place.iter_mut().zip(bytes) {
                    place.write(*byte);
                }
                rest = behind;
            }
        });
        len
    }
}

fn kind_number(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::InvalidRequest => HTTPSTREAM_KIND_INVALID_REQUEST,
        ErrorKind::InvalidConfig => HTTPSTREAM_KIND_INVALID_CONFIG,
        ErrorKind::Resolve => HTTPSTREAM_KIND_RESOLVE,
        ErrorKind::Connect => HTTPSTREAM_KIND_CONNECT,
        ErrorKind::Tls => HTTPSTREAM_KIND_TLS,
        ErrorKind::ClosedBeforeResponse => HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE,
        ErrorKind::Truncated => HTTPSTREAM_KIND_TRUNCATED,
        ErrorKind::Io => HTTPSTREAM_KIND_IO,
        ErrorKind::Malformed => HTTPSTREAM_KIND_MALFORMED,
        ErrorKind::TooLarge => HTTPSTREAM_KIND_TOO_LARGE,
        ErrorKind::Timeout => HTTPSTREAM_KIND_TIMEOUT,
        ErrorKind::Exhausted => HTTPSTREAM_KIND_EXHAUSTED,
        ErrorKind::Cancelled => HTTPSTREAM_KIND_CANCELLED,
        ErrorKind::Aborted => HTTPSTREAM_KIND_ABORTED,
        ErrorKind::Gone => HTTPSTREAM_KIND_GONE,
        // The enum is `#[non_exhaustive]`.
        _ => HTTPSTREAM_KIND_OTHER,
    }
}

fn phase_number(phase: Phase) -> i32 {
    match phase {
        Phase::Build => HTTPSTREAM_PHASE_BUILD,
        Phase::Queue => HTTPSTREAM_PHASE_QUEUE,
        Phase::Resolve => HTTPSTREAM_PHASE_RESOLVE,
        Phase::Connect => HTTPSTREAM_PHASE_CONNECT,
        Phase::Tls => HTTPSTREAM_PHASE_TLS,
        Phase::Write => HTTPSTREAM_PHASE_WRITE,
        Phase::FirstByte => HTTPSTREAM_PHASE_FIRST_BYTE,
        Phase::Head => HTTPSTREAM_PHASE_HEAD,
        Phase::Body => HTTPSTREAM_PHASE_BODY,
        // The enum is `#[non_exhaustive]`.
        _ => HTTPSTREAM_PHASE_OTHER,
    }
}

/// Passes the reply that a handle refers to to `at`, if it is still lent.
fn look<R>(reply: u64, at: impl FnOnce(&Shown<'_>) -> Result<R, Fault>) -> Result<R, Fault> {
    let number = Kind::Reply.number(reply)?;
    let found = LENT.try_with(|lent| {
        let lent = lent.borrow();
        let mut from_the_top = lent.iter().rev();
        from_the_top
            .find(|Lent(lent, _)| *lent == number)
            .map(|Lent(_, shown)| *shown)
    });
    match found {
        // SAFETY: the pointer is on the stack as long as `Shown::lend` holds the borrow that it
        // came from. That is longer than this call, which comes from inside the callback. The reply
        // is only ever read, and `at` accepts any lifetime, so it can keep nothing but the pointers
        // that C gets.
        Ok(Some(shown)) => at(unsafe { shown.as_ref() }),
        Ok(None) | Err(_) => Err(why_not_lent(reply, number)),
    }
}

fn why_not_lent(reply: u64, number: u64) -> Fault {
    let last = LAST.try_with(Cell::get).unwrap_or_default();
    let (thread, order) = (number >> ORDER_BITS, number & MAX_ORDER);
    if thread != last >> ORDER_BITS {
        let threads = THREADS.load(Ordering::Relaxed);
        return match (1..threads).contains(&thread) && order > 0 {
            true => Fault::new(
                Code::Thread,
                Kind::Reply.words(reply, "was lent on another thread"),
            ),
            false => Kind::Reply.never_made(reply),
        };
    }
    match (1..=last & MAX_ORDER).contains(&order) {
        true => Kind::Reply.fault(reply, "is no longer lent: its callback has returned"),
        false => Kind::Reply.never_made(reply),
    }
}

/// Returns a pointer to `bytes` and writes their length.
fn slice(bytes: &[u8], len: Option<&mut MaybeUninit<usize>>) -> *const u8 {
    if let Some(len) = len {
        len.write(bytes.len());
    }
    bytes.as_ptr()
}

/// Runs `run`, which writes a length. If it fails, the length is 0.
fn with_len<T>(
    function: &str,
    mut len: Option<&mut MaybeUninit<usize>>,
    run: impl FnOnce(Option<&mut MaybeUninit<usize>>) -> Result<*const T, Fault>,
) -> *const T {
    if let Some(len) = &mut len {
        len.write(0);
    }
    guard(function, || run(len))
}

fn field((name, value): (&str, &[u8])) -> httpstream_field {
    httpstream_field {
        name: name.as_ptr(),
        name_len: name.len(),
        value: value.as_ptr(),
        value_len: value.len(),
    }
}

/// The places to which C wants the parts of a field written; null parts are skipped. They are
/// pointers rather than references because C may pass the same variable for several parts that it
/// does not need.
struct FieldPlaces {
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
}

impl FieldPlaces {
    /// # Safety
    /// Each must be null or point to a variable of its type.
    unsafe fn take(self, fields: Option<Headers<'_>>, index: usize) -> Result<i32, Fault> {
        let there = count(fields.clone());
        let Some(found) = fields.and_then(|mut fields| fields.nth(index)).map(field) else {
            return Err(Fault::argument(format!(
                "index is {index}, but there are {there}"
            )));
        };
        // SAFETY: the caller promises it.
        unsafe {
            raw::put(self.name, found.name);
            raw::put(self.name_len, found.name_len);
            raw::put(self.value, found.value);
            raw::put(self.value_len, found.value_len);
        }
        Ok(HTTPSTREAM_OK)
    }
}

/// Writes up to `room` fields to `out`, and returns how many fields there are.
///
/// # Safety
/// `out` must be null or point to `room` structs that nothing else uses meanwhile.
unsafe fn copy_fields(
    fields: Option<Headers<'_>>,
    out: *mut httpstream_field,
    room: usize,
) -> Result<usize, Fault> {
    let there = count(fields.clone());
    if out.is_null() {
        return match room {
            0 => Ok(there),
            _ => Err(Fault::null("out")),
        };
    }
    for (i, pair) in fields.into_iter().flatten().take(room).enumerate() {
        // SAFETY: the caller promises it, and `i` is less than `room`.
        unsafe { out.add(i).write(field(pair)) };
    }
    Ok(there)
}

/// Writes everything about a reply that is available without further work to `out`; set `out->size`
/// first. One call in place of a dozen, for language bindings.
///
/// HTTPSTREAM_ERROR_ARGUMENT: `size` is not set.
///
/// This function and those below are for use inside callbacks, with the reply passed to the
/// callback, on the engine's thread. For a reply that is not lent to a running callback they return
/// HTTPSTREAM_ERROR_HANDLE or HTTPSTREAM_ERROR_THREAD. Functions that return no error number then
/// return 0, false or null, and httpstream_last_error_number returns the error. Returned pointers
/// are valid until the callback returns, and null only where this is stated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_view(
    reply: httpstream_reply,
    out: *mut httpstream_view,
) -> i32 {
    guard("httpstream_reply_view", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        look(reply, |shown| unsafe {
            raw::fill("out", out, &shown.view())
        })?;
        Ok(HTTPSTREAM_OK)
    })
}

/// Returns the id of the chain that the reply belongs to, or 0 if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_id(reply: httpstream_reply) -> httpstream_id {
    guard("httpstream_reply_id", || look(reply, |shown| Ok(shown.id)))
}

/// Returns HTTPSTREAM_KIND_RESPONSE (0) for a response, its head or a piece of it. For a failure,
/// returns its cause, another HTTPSTREAM_KIND_*. A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_kind(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_kind", || {
        look(reply, |shown| Ok(shown.kind()))
    })
}

/// Returns the name of a HTTPSTREAM_KIND_*, such as "Truncated"; "Response" for 0, and "Other" for
/// unknown numbers. The text is valid forever. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_kind_name(kind: i32) -> *const c_char {
    let name: &CStr = match kind {
        HTTPSTREAM_KIND_RESPONSE => c"Response",
        HTTPSTREAM_KIND_INVALID_REQUEST => c"InvalidRequest",
        HTTPSTREAM_KIND_INVALID_CONFIG => c"InvalidConfig",
        HTTPSTREAM_KIND_RESOLVE => c"Resolve",
        HTTPSTREAM_KIND_CONNECT => c"Connect",
        HTTPSTREAM_KIND_TLS => c"Tls",
        HTTPSTREAM_KIND_CLOSED_BEFORE_RESPONSE => c"ClosedBeforeResponse",
        HTTPSTREAM_KIND_TRUNCATED => c"Truncated",
        HTTPSTREAM_KIND_IO => c"Io",
        HTTPSTREAM_KIND_MALFORMED => c"Malformed",
        HTTPSTREAM_KIND_TOO_LARGE => c"TooLarge",
        HTTPSTREAM_KIND_TIMEOUT => c"Timeout",
        HTTPSTREAM_KIND_EXHAUSTED => c"Exhausted",
        HTTPSTREAM_KIND_CANCELLED => c"Cancelled",
        HTTPSTREAM_KIND_ABORTED => c"Aborted",
        HTTPSTREAM_KIND_GONE => c"Gone",
        _ => c"Other",
    };
    name.as_ptr()
}

/// Returns what failed, where and why, as NUL-terminated UTF-8 text; "" for a response. The text
/// contains no path, query or field value. Returns null if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_message(reply: httpstream_reply) -> *const c_char {
    guard("httpstream_reply_message", || {
        look(reply, |shown| Ok(shown.message().as_ptr()))
    })
}

/// Returns the phase in which the request failed, a HTTPSTREAM_PHASE_*; 0 for a response. A
/// negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_phase(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_phase", || {
        look(reply, |shown| Ok(shown.phase()))
    })
}

/// Returns the name of a HTTPSTREAM_PHASE_*, such as "FirstByte"; "None" for 0, and "Other" for
/// unknown numbers. The text is valid forever. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_phase_name(phase: i32) -> *const c_char {
    let name: &CStr = match phase {
        0 => c"None",
        HTTPSTREAM_PHASE_BUILD => c"Build",
        HTTPSTREAM_PHASE_QUEUE => c"Queue",
        HTTPSTREAM_PHASE_RESOLVE => c"Resolve",
        HTTPSTREAM_PHASE_CONNECT => c"Connect",
        HTTPSTREAM_PHASE_TLS => c"Tls",
        HTTPSTREAM_PHASE_WRITE => c"Write",
        HTTPSTREAM_PHASE_FIRST_BYTE => c"FirstByte",
        HTTPSTREAM_PHASE_HEAD => c"Head",
        HTTPSTREAM_PHASE_BODY => c"Body",
        _ => c"Other",
    };
    name.as_ptr()
}

/// Returns whether the request left this machine: HTTPSTREAM_SENT_NO, HTTPSTREAM_SENT_MAYBE or
/// HTTPSTREAM_SENT_YES; always the last for a response. A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_request_sent(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_request_sent", || {
        look(reply, |shown| Ok(shown.request_sent()))
    })
}

/// Returns 1 if sending the request again can do no harm, because it never left this machine or is
/// idempotent. Returns 0 if it can, and for a response. A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_resend_is_safe(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_resend_is_safe", || {
        look(reply, |shown| Ok(shown.resend_is_safe().into()))
    })
}

/// Returns the status code, 100 to 999, also for a failure after the head; 0 if none was received.
/// A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_status(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_status", || {
        look(reply, |shown| Ok(shown.status()))
    })
}

/// Returns the reason phrase, which is often empty. It is not NUL-terminated. Its length is written
/// to `len`, which may be null. Returns null if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_reason(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    with_len("httpstream_reply_reason", len, |len| {
        look(reply, |shown| Ok(slice(shown.reason(), len).cast()))
    })
}

/// Returns the body, with the transfer coding removed. For a failure it is what had been collected;
/// it is empty if the body was streamed or discarded. Its length is written to `len`, which may be
/// null. Returns null if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_body(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const u8 {
    with_len("httpstream_reply_body", len, |len| {
        look(reply, |shown| Ok(slice(shown.body(), len)))
    })
}

/// Returns the value of the first field with this name, in any case. It is not NUL-terminated. Its
/// length is written to `len`, which may be null. A `name_len` of SIZE_MAX means that `name` is
/// NUL-terminated. Returns null if there is no such field or this is not a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_header(
    reply: httpstream_reply,
    name: *const c_char,
    name_len: usize,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const u8 {
    with_len("httpstream_reply_header", len, |len| {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let name = unsafe { raw::text("name", name, name_len) }?;
        look(reply, |shown| {
            let value = shown.response().and_then(|response| response.header(name));
            Ok(value.map_or(std::ptr::null(), |value| slice(value, len)))
        })
    })
}

/// Returns the number of fields; several of the same name count each. 0 for a failure.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_header_count(reply: httpstream_reply) -> usize {
    guard("httpstream_reply_header_count", || {
        look(reply, |shown| Ok(count(shown.headers())))
    })
}

/// Writes the field at `index` to the four places, each of which may be null. Fields are in the
/// order received, and indexes start at 0.
///
/// HTTPSTREAM_ERROR_ARGUMENT: `index` is not less than the number of fields.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_header_at(
    reply: httpstream_reply,
    index: usize,
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
) -> i32 {
    let places = FieldPlaces {
        name,
        name_len,
        value,
        value_len,
    };
    guard("httpstream_reply_header_at", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        look(reply, |shown| unsafe {
            places.take(shown.headers(), index)
        })
    })
}

/// Writes up to `room` fields to `out`, in the order received. Returns the total number of fields,
/// which may exceed `room`. `out` may be null if `room` is 0. One call in place of many, for
/// language bindings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_headers(
    reply: httpstream_reply,
    out: *mut httpstream_field,
    room: usize,
) -> usize {
    guard("httpstream_reply_headers", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        look(reply, |shown| unsafe {
            copy_fields(shown.headers(), out, room)
        })
    })
}

/// Writes the head as text to `out`, which has room for `room` bytes: the status line, then each
/// field line as "name: value" in the order received, all terminated by CR LF. Returns the full
/// length; 0 for a failure or if this is not a reply. If the length exceeds `room`, only a part of
/// the beginning was written, possibly nothing. `out` may be null if `room` is 0. One copy in place
/// of many, for language bindings that read fields later or never.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_head(
    reply: httpstream_reply,
    out: *mut c_char,
    room: usize,
) -> usize {
    guard("httpstream_reply_head", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let out = unsafe { raw::room("out", out, room) }?;
        look(reply, |shown| {
            Ok(shown
                .response()
                .map_or(0, |response| Head(response).write(out)))
        })
    })
}

/// Returns the number of trailer fields; 0 until the response is complete.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_trailer_count(reply: httpstream_reply) -> usize {
    guard("httpstream_reply_trailer_count", || {
        look(reply, |shown| Ok(count(shown.trailers())))
    })
}

/// Writes the trailer field at `index` to the four places, like httpstream_reply_header_at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_trailer_at(
    reply: httpstream_reply,
    index: usize,
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
) -> i32 {
    let places = FieldPlaces {
        name,
        name_len,
        value,
        value_len,
    };
    guard("httpstream_reply_trailer_at", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        look(reply, |shown| unsafe {
            places.take(shown.trailers(), index)
        })
    })
}

/// Returns the method of the request, also for a failure. It is not NUL-terminated. Its length is
/// written to `len`, which may be null. Returns null if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_method(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    with_len("httpstream_reply_method", len, |len| {
        look(reply, |shown| {
            Ok(slice(shown.request.method().as_str().as_bytes(), len).cast())
        })
    })
}

/// Returns the URL of the request, also for a failure: percent-encoded as it was sent, without a
/// fragment. It may contain secrets, so do not log it. It is not NUL-terminated. Its length is
/// written to `len`, which may be null. Returns null if this is not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_url(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    with_len("httpstream_reply_url", len, |len| {
        look(reply, |shown| Ok(slice(shown.url().as_bytes(), len).cast()))
    })
}

/// Returns how many times the request was sent: 2 after a retry on a fresh connection. For a
/// failure, returns how many times it was assigned a connection, established or not: 0 if it never
/// left the queue. A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_attempts(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_attempts", || {
        look(reply, |shown| Ok(shown.attempts()))
    })
}

/// Returns the address that the response came from, such as "127.0.0.1:80" or "[::1]:80", as
/// NUL-terminated text; "" if it is not known, as for a failure. Returns null if this is not a
/// reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_peer(reply: httpstream_reply) -> *const c_char {
    guard("httpstream_reply_peer", || {
        look(reply, |shown| Ok(shown.peer_text().as_ptr()))
    })
}

/// Returns whether the connection had served another request before.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_reused(reply: httpstream_reply) -> bool {
    guard("httpstream_reply_reused", || {
        look(reply, |shown| Ok(shown.reused()))
    })
}

/// Returns the time in microseconds from the submission, or the end of the delay, to the end of the
/// response, or to now if the response is not complete or the request failed.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_elapsed_us(reply: httpstream_reply) -> u64 {
    guard("httpstream_reply_elapsed_us", || {
        look(reply, |shown| Ok(shown.elapsed_us()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_found_on_the_last_of_many_threads() {
        THREADS.store((1 << THREAD_BITS) - 1, Ordering::Relaxed);
        for _ in 0..3 {
            let thread = std::thread::spawn(|| {
                let request = Request::get("http://127.0.0.1:1/").build().unwrap();
                let shown = Shown::new(What::Data, 7, &request, None);
                shown.lend(|reply| httpstream_reply_id(reply))
            });
            assert_eq!(thread.join().unwrap(), 7);
        }
    }
}
