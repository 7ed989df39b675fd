//! Replies: what a callback is lent, found again by its handle for as long as the callback runs.
//!
//! They are lent in a stack, since a callback may turn another engine. A handle names its thread
//! and its place in the order of lending, so that one that is kept is recognised.

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

/// What there is to be seen.
#[derive(Clone, Copy)]
pub(crate) enum What<'a> {
    Head(&'a Response<'a>),
    Data,
    Response(&'a Response<'a>),
    Failure(&'a Error),
}

/// A reply that is lent.
pub(crate) struct Shown<'a> {
    what: What<'a>,
    id: u64,
    request: &'a Request,
    elapsed: Option<Duration>,
    /// Made when they are first asked for.
    message: OnceCell<CString>,
    url: OnceCell<String>,
    peer: OnceCell<CString>,
}

/// One that is lent now, with its number.
struct Lent(u64, NonNull<Shown<'static>>);

/// The bits of a number that say which of the thread's replies it is.
const ORDER_BITS: u32 = 36;
const MAX_ORDER: u64 = (1 << ORDER_BITS) - 1;

/// The bits above them, which say which thread; of more threads than that the numbers begin again.
const THREAD_BITS: u32 = 24;

static THREADS: AtomicU64 = AtomicU64::new(1);

fn new_thread() -> u64 {
    THREADS.fetch_add(1, Ordering::Relaxed) & ((1 << THREAD_BITS) - 1)
}

thread_local! {
    static LENT: RefCell<Vec<Lent>> = const { RefCell::new(Vec::new()) };
    /// Of the reply lent last: the thread, and the order.
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

    /// Runs `callback` with a handle that leads here until it returns.
    pub(crate) fn lend<R>(&self, callback: impl FnOnce(u64) -> R) -> R {
        /// Takes it back, whatever happens.
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

    /// Of a response nobody asks; it was processed, so no.
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

    /// The address that the response came from, of which a unix socket has none.
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

/// An address in network byte order, and how many bytes it has.
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

/// A step's time in microseconds, `UINT64_MAX` if it was not taken.
fn step(time: Option<Duration>) -> u64 {
    time.and_then(|time| u64::try_from(time.as_micros()).ok())
        .unwrap_or(u64::MAX)
}

fn count(fields: Option<Headers<'_>>) -> usize {
    fields.map_or(0, |fields| fields.len())
}

/// Status line and fields of a response, as text.
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

    /// Writes it to the beginning of `out`, as far as whole pieces of it fit; answers its length.
    fn write(&self, out: &mut [MaybeUninit<u8>]) -> usize {
        let (mut len, mut rest) = (0, out);
        self.for_each_piece(|bytes| {
            len += bytes.len();
            // Once one did not fit there is no room left for those behind it.
            if let Some((place, behind)) =
                std::mem::take(&mut rest).split_at_mut_checked(bytes.len())
            {
                // `write_copy_of_slice` is younger than the oldest Rust we build with.
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
        // The enum may grow.
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
        // The enum may grow.
        _ => HTTPSTREAM_PHASE_OTHER,
    }
}

/// Looks at the reply that a handle names, if it is still lent.
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
        // SAFETY: on the stack as long as `Shown::lend` holds the borrow that it came from, which
        // is longer than this call: it comes from inside the callback. It is only ever read, and
        // `at` takes it for any lifetime, so that what it keeps of it are C's pointers only.
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

/// Answers a pointer, and writes its length.
fn slice(bytes: &[u8], len: Option<&mut MaybeUninit<usize>>) -> *const u8 {
    if let Some(len) = len {
        len.write(bytes.len());
    }
    bytes.as_ptr()
}

/// Runs `run`, which writes a length; where it fails the length is 0.
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

/// Where C wants the parts of a field; what is null is not wanted. No references: one variable may
/// be given for several that do not matter.
struct FieldPlaces {
    name: *mut *const u8,
    name_len: *mut usize,
    value: *mut *const u8,
    value_len: *mut usize,
}

impl FieldPlaces {
    /// # Safety
    /// Each is null or leads to such a variable.
    unsafe fn take(self, fields: Option<Headers<'_>>, index: usize) -> Result<i32, Fault> {
        let there = count(fields.clone());
        let Some(found) = fields.and_then(|mut fields| fields.nth(index)).map(field) else {
            return Err(Fault::argument(format!(
                "index is {index}: there are {there}"
            )));
        };
        // SAFETY: the caller's promise.
        unsafe {
            raw::put(self.name, found.name);
            raw::put(self.name_len, found.name_len);
            raw::put(self.value, found.value);
            raw::put(self.value_len, found.value_len);
        }
        Ok(HTTPSTREAM_OK)
    }
}

/// Writes the fields to `out`, which has room for so many; answers how many there are.
///
/// # Safety
/// `out` is null, or leads to `room` structs that nobody else uses meanwhile.
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
        // SAFETY: the caller's promise; `i` is less than `room`.
        unsafe { out.add(i).write(field(pair)) };
    }
    Ok(there)
}

/// Writes all about a reply that is there without further work to `out`, whose `size` is set: one
/// call in place of a dozen, for bindings. HTTPSTREAM_ERROR_ARGUMENT: `size` is not set.
///
/// This and what follows are for callbacks, with the reply they were given, on the engine's thread.
/// A reply that is not lent to a running callback answers HTTPSTREAM_ERROR_HANDLE or
/// HTTPSTREAM_ERROR_THREAD, or where no number is answered 0, false or null; what it was is then in
/// httpstream_last_error_number. Pointers are valid until the callback returns, and not null but
/// where this is said.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_view(
    reply: httpstream_reply,
    out: *mut httpstream_view,
) -> i32 {
    guard("httpstream_reply_view", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        look(reply, |shown| unsafe {
            raw::fill("out", out, &shown.view())
        })?;
        Ok(HTTPSTREAM_OK)
    })
}

/// The chain that the reply belongs to. 0: not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_id(reply: httpstream_reply) -> httpstream_id {
    guard("httpstream_reply_id", || look(reply, |shown| Ok(shown.id)))
}

/// HTTPSTREAM_KIND_RESPONSE (0): there is a response, or its head, or a piece of it. Else why there
/// is none, or not all of it: another HTTPSTREAM_KIND_*. Negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_kind(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_kind", || {
        look(reply, |shown| Ok(shown.kind()))
    })
}

/// The name of a HTTPSTREAM_KIND_*: "Truncated"; "Response" of 0, "Other" of numbers without a
/// name. Valid for ever. Any thread.
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

/// What failed, where and why, in words; "" of a response. NUL-terminated, UTF-8. Shows no path,
/// query or field value. Null: not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_message(reply: httpstream_reply) -> *const c_char {
    guard("httpstream_reply_message", || {
        look(reply, |shown| Ok(shown.message().as_ptr()))
    })
}

/// In which phase it failed, a HTTPSTREAM_PHASE_*; 0 of a response. Negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_phase(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_phase", || {
        look(reply, |shown| Ok(shown.phase()))
    })
}

/// The name of a HTTPSTREAM_PHASE_*: "FirstByte"; "None" of 0, "Other" of numbers without a name.
/// Valid for ever. Any thread.
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

/// Whether the request left this machine: HTTPSTREAM_SENT_NO, HTTPSTREAM_SENT_MAYBE or
/// HTTPSTREAM_SENT_YES, as of a response. Negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_request_sent(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_request_sent", || {
        look(reply, |shown| Ok(shown.request_sent()))
    })
}

/// 1: sending the request again can do no harm: it never left, or it is idempotent. 0: it can, or
/// there is a response. Negative: an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_resend_is_safe(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_resend_is_safe", || {
        look(reply, |shown| Ok(shown.resend_is_safe().into()))
    })
}

/// The status code, 100 to 999, also of a failure after the head; 0: none was received. Negative:
/// an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_status(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_status", || {
        look(reply, |shown| Ok(shown.status()))
    })
}

/// The reason phrase, `len` bytes, often 0, not NUL-terminated. `len` may be null. Null: not a
/// reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_reason(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    with_len("httpstream_reply_reason", len, |len| {
        look(reply, |shown| Ok(slice(shown.reason(), len).cast()))
    })
}

/// The body, `len` bytes, its transfer coding removed; of a failure what had been collected of it;
/// empty if it was streamed or discarded. `len` may be null. Null: not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_body(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const u8 {
    with_len("httpstream_reply_body", len, |len| {
        look(reply, |shown| Ok(slice(shown.body(), len)))
    })
}

/// The value of the first field of that name, in any case, `len` bytes, not NUL-terminated. A
/// `name_len` of SIZE_MAX: NUL-terminated. `len` may be null. Null: there is none, or not a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_header(
    reply: httpstream_reply,
    name: *const c_char,
    name_len: usize,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const u8 {
    with_len("httpstream_reply_header", len, |len| {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let name = unsafe { raw::text("name", name, name_len) }?;
        look(reply, |shown| {
            let value = shown.response().and_then(|response| response.header(name));
            Ok(value.map_or(std::ptr::null(), |value| slice(value, len)))
        })
    })
}

/// How many fields there are, several of one name counted each; 0 of a failure.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_header_count(reply: httpstream_reply) -> usize {
    guard("httpstream_reply_header_count", || {
        look(reply, |shown| Ok(count(shown.headers())))
    })
}

/// The field at `index`, in the order received, from 0. Each of the four places may be null.
/// HTTPSTREAM_ERROR_ARGUMENT: there are not so many.
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
        // SAFETY: the caller's promise about its pointers, see `raw`.
        look(reply, |shown| unsafe {
            places.take(shown.headers(), index)
        })
    })
}

/// Writes the fields in the order received to `out`, which has room for `room` of them; answers how
/// many there are, which may be more. `out` may be null where `room` is 0. One call in place of
/// many, for bindings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_headers(
    reply: httpstream_reply,
    out: *mut httpstream_field,
    room: usize,
) -> usize {
    guard("httpstream_reply_headers", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        look(reply, |shown| unsafe {
            copy_fields(shown.headers(), out, room)
        })
    })
}

/// Writes the head as text to `out`, which has room for `room` bytes: the status line and each
/// field line, each with CR LF at its end, a field as "name: value", in the order received. Answers
/// its length; where that is more than `room`, what was written is the beginning of it, if that. 0:
/// of a failure, or not a reply. `out` may be null where `room` is 0. One copy in place of many,
/// for bindings that look at fields later or never.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_reply_head(
    reply: httpstream_reply,
    out: *mut c_char,
    room: usize,
) -> usize {
    guard("httpstream_reply_head", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let out = unsafe { raw::room("out", out, room) }?;
        look(reply, |shown| {
            Ok(shown
                .response()
                .map_or(0, |response| Head(response).write(out)))
        })
    })
}

/// How many trailer fields there are; 0 before the response is complete.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_trailer_count(reply: httpstream_reply) -> usize {
    guard("httpstream_reply_trailer_count", || {
        look(reply, |shown| Ok(count(shown.trailers())))
    })
}

/// The trailer field at `index`, as httpstream_reply_header_at.
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
        // SAFETY: the caller's promise about its pointers, see `raw`.
        look(reply, |shown| unsafe {
            places.take(shown.trailers(), index)
        })
    })
}

/// The method of the request, `len` bytes, not NUL-terminated; of failures too. `len` may be null.
/// Null: not a reply.
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

/// The URL that was asked for, of failures too, `len` bytes, not NUL-terminated, encoded as it went
/// out, without fragment. It may hold secrets: do not log it. `len` may be null. Null: not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_url(
    reply: httpstream_reply,
    len: Option<&mut MaybeUninit<usize>>,
) -> *const c_char {
    with_len("httpstream_reply_url", len, |len| {
        look(reply, |shown| Ok(slice(shown.url().as_bytes(), len).cast()))
    })
}

/// How often the request was sent: 2 after a retry on a fresh connection. Of a failure, how often
/// it was given a connection or the making of one: 0 if it never left its queue. Negative: an
/// error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_attempts(reply: httpstream_reply) -> i32 {
    guard("httpstream_reply_attempts", || {
        look(reply, |shown| Ok(shown.attempts()))
    })
}

/// The address that the response came from: "127.0.0.1:80", "[::1]:80". NUL-terminated; "" where it
/// is not known, as of a failure. Null: not a reply.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_peer(reply: httpstream_reply) -> *const c_char {
    guard("httpstream_reply_peer", || {
        look(reply, |shown| Ok(shown.peer_text().as_ptr()))
    })
}

/// Whether the connection had served another request before.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_reply_reused(reply: httpstream_reply) -> bool {
    guard("httpstream_reply_reused", || {
        look(reply, |shown| Ok(shown.reused()))
    })
}

/// Microseconds from the submission, or the end of the delay, to the end of the response, or to now
/// where it has not ended well.
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
