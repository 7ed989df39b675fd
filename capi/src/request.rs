//! Requests: values built call by call, and fixed when they are first sent.
//!
//! The call that makes a mistake fails. After that the request cannot be sent, and each further
//! call fails with the same message. Otherwise a program that ignores a result could send a request
//! without one of its fields, which may be worse than sending none.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use httpstream::http::Method;
use httpstream::{Request, RequestBuilder};

use crate::errors::{Fault, guard};
use crate::knobs::{self, Clock, Limit};
use crate::raw;
use crate::shared::shared;
use crate::types::*;

/// A request being built, or a finished one.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "slots of a table are reused, and a box would cost one more allocation per field"
)]
pub(crate) enum Written {
    Open(RequestBuilder),
    /// Sent, or about to be sent.
    Sealed(Request),
    /// A call made a mistake; this is its message.
    Spoiled(String),
}

/// The message of a request that a panic inside the library left incomplete.
const MIDWAY: &str = "request is unfinished";

impl Written {
    /// Applies `step`. Returns a fault if it made a mistake, or an earlier step did.
    fn change(&mut self, step: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<(), Fault> {
        match std::mem::replace(self, Self::Spoiled(MIDWAY.to_owned())) {
            Self::Open(builder) => {
                *self = Self::of(step(builder));
                self.check()
            }
            Self::Sealed(request) => {
                *self = Self::Sealed(request);
                let why = "request was sent already and cannot change: create another one";
                Err(Fault::argument(why))
            }
            Self::Spoiled(words) => {
                *self = Self::Spoiled(words);
                self.check()
            }
        }
    }

    fn of(builder: RequestBuilder) -> Self {
        match builder.mistake() {
            None => Self::Open(builder),
            Some(invalid) => Self::Spoiled(invalid.to_string()),
        }
    }

    fn check(&self) -> Result<(), Fault> {
        match self {
            Self::Open(_) | Self::Sealed(_) => Ok(()),
            Self::Spoiled(words) => Err(Fault::argument(words.as_str())),
        }
    }

    /// Fixes the request if it can be sent.
    fn seal(&mut self) -> Result<Request, Fault> {
        match std::mem::replace(self, Self::Spoiled(MIDWAY.to_owned())) {
            Self::Open(builder) => match builder.build() {
                Ok(request) => *self = Self::Sealed(request),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    *self = Self::Spoiled(cause.unwrap_or_else(|| error.to_string()));
                }
            },
            other => *self = other,
        }
        match self {
            Self::Sealed(request) => Ok(request.clone()),
            Self::Spoiled(words) => Err(Fault::argument(words.as_str())),
            Self::Open(_) => Err(Fault::argument(MIDWAY)),
        }
    }
}

/// Returns the request that a handle refers to, fixed and ready to be sent.
pub(crate) fn sendable(request: u64) -> Result<Request, Fault> {
    shared().requests.get_mut(request)?.seal()
}

/// Frees a request. Fails if the handle is invalid.
pub(crate) fn free(request: u64) -> Result<(), Fault> {
    let written = shared().requests.remove(request)?;
    // Dropped outside the lock, since its body may be large.
    drop(written);
    Ok(())
}

fn change(request: u64, step: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<i32, Fault> {
    let mut shared = shared();
    shared.requests.get_mut(request)?.change(step)?;
    Ok(HTTPSTREAM_OK)
}

/// A numeric setting of a request, converted to its type.
enum Setting {
    Idempotent(bool),
    FreshConnection(bool),
    Close(bool),
    DownloadRate(u64),
    UploadRate(u64),
    Timeout(Clock, u64),
    Limit(Limit),
}

impl Setting {
    fn of(name: &str, value: u64) -> Result<Self, Fault> {
        Ok(match name {
            "idempotent" => Setting::Idempotent(knobs::yes(name, value)?),
            "fresh_connection" => Setting::FreshConnection(knobs::yes(name, value)?),
            "close" => Setting::Close(knobs::yes(name, value)?),
            "download_rate" => Setting::DownloadRate(value),
            "upload_rate" => Setting::UploadRate(value),
            _ => match (Clock::of(name), Limit::of(name, value)) {
                (Some(clock), _) => Setting::Timeout(clock, value),
                (None, Some(limit)) => Setting::Limit(limit?),
                (None, None) => return Err(knobs::unknown(name)),
            },
        })
    }

    fn set(self, builder: RequestBuilder) -> RequestBuilder {
        match self {
            Setting::Idempotent(yes) => builder.idempotent(yes),
            Setting::FreshConnection(true) => builder.fresh_connection(),
            Setting::Close(true) => builder.close(),
            // 0 is the default, and does not undo an earlier 1.
            Setting::FreshConnection(false) | Setting::Close(false) => builder,
            Setting::DownloadRate(bytes) => builder.download_rate(bytes),
            Setting::UploadRate(bytes) => builder.upload_rate(bytes),
            Setting::Timeout(clock, ms) => builder.timeouts(|timeouts| clock.set(timeouts, ms)),
            Setting::Limit(limit) => builder.limits(|limits| limit.set(limits)),
        }
    }
}

/// Creates a request and writes it to `out`. Free it with httpstream_request_free. Lengths are in
/// bytes; SIZE_MAX means NUL-terminated.
///
/// `url` is an absolute http or https URL whose host is ASCII or an IP address. Path and query may
/// be percent-encoded or not; a fragment is dropped. Credentials are removed and sent as Basic
/// authentication. `method` is any method except CONNECT.
///
/// A request is a value: any engine on any thread can send it, any number of times. It is fixed
/// when it is first sent; later changes fail. A call that fails because of its arguments
/// invalidates the request: all further calls, and sending it, fail with the same message.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the request cannot be sent; the message says which byte of which part
/// is invalid. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_new(
    method: *const c_char,
    method_len: usize,
    url: *const c_char,
    url_len: usize,
    out: Option<&mut MaybeUninit<httpstream_request>>,
) -> i32 {
    guard("httpstream_request_new", || {
        let out = raw::out("out", out)?;
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let (method, url) = unsafe {
            let method = raw::text("method", method, method_len)?;
            (method, raw::text("url", url, url_len)?)
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Fault::argument("method: not a token (RFC 9110 §9.1)"))?;
        let written = Written::of(Request::builder(method, url));
        written.check()?;
        out.write(shared().requests.insert(written)?);
        Ok(HTTPSTREAM_OK)
    })
}

/// Frees a request. Chains that send it go on. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_free(request: httpstream_request) -> i32 {
    guard("httpstream_request_free", || {
        free(request).map(|()| HTTPSTREAM_OK)
    })
}

/// Adds a field. Fields of the same name stay separate lines. Lengths are in bytes; SIZE_MAX means
/// NUL-terminated. Whitespace around the value is removed. "Host" replaces the host of the URL;
/// "Content-Length" must match the body.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the name is not a token, the value contains a control byte, or it is
/// a second Host or Content-Length, a Transfer-Encoding, or an Expect other than 100-continue.
/// Upgrade fails too, since this interface cannot write after a 101 response; that error does not
/// invalidate the request. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_header(
    request: httpstream_request,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
) -> i32 {
    guard("httpstream_request_header", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let (name, value) = unsafe {
            let name = raw::text("name", name, name_len)?;
            (
                name,
                raw::bytes("value", value.cast::<c_void>(), value_len)?,
            )
        };
        if name.eq_ignore_ascii_case("Upgrade") {
            // After the switch, data could be received but not sent.
            let why = "Upgrade: this interface cannot write to a connection that switches to another protocol";
            return Err(Fault::argument(why));
        }
        change(request, |builder| builder.header(name, value))
    })
}

/// Sets the body to a copy of `len` bytes; SIZE_MAX means NUL-terminated. The length is sent as
/// Content-Length. Null with a `len` of 0 is an empty body. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_body(
    request: httpstream_request,
    body: *const c_void,
    len: usize,
) -> i32 {
    guard("httpstream_request_body", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let body = unsafe { raw::bytes("body", body, len) }?;
        change(request, |builder| builder.body(body))
    })
}

/// Sets the total timeout in milliseconds. It runs from the submission, or from the end of a delay,
/// to the end of the response's body, and includes the time in the queue. UINT64_MAX means none.
/// Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_timeout_ms(request: httpstream_request, ms: u64) -> i32 {
    guard("httpstream_request_timeout_ms", || {
        change(request, |builder| {
            Setting::Timeout(Clock::Total, ms).set(builder)
        })
    })
}

/// Makes the request a long poll: the server may be silent for `ms` milliseconds. The first-byte
/// and idle timeouts become `ms` plus 10 s. A total timeout shorter than `ms` plus 40 s is raised
/// to that; a later httpstream_request_timeout_ms overrides it. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_long_poll_ms(request: httpstream_request, ms: u64) -> i32 {
    guard("httpstream_request_long_poll_ms", || {
        change(request, |builder| builder.long_poll(knobs::delay(ms)))
    })
}

/// Fails the request if, on average over a window of `window_ms` milliseconds, fewer than
/// `bytes_per_second` bytes are transferred; see httpstream_config_low_speed, which this overrides.
/// 0 bytes, or a window longer than 24 days, turns the check off. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_low_speed(
    request: httpstream_request,
    bytes_per_second: u64,
    window_ms: u64,
) -> i32 {
    guard("httpstream_request_low_speed", || {
        let window = knobs::delay(window_ms);
        change(request, |builder| {
            builder.low_speed(bytes_per_second, window)
        })
    })
}

/// Sets a numeric setting of the request. `name` is NUL-terminated; defaults are in parentheses.
///
/// - "idempotent" (depends on the method): whether the request may be sent again after the server
///   may have processed it, 1 or 0
/// - "fresh_connection" (0): 1 sends the request on a new connection. "close" (0): 1 closes the
///   connection after the response. 0 undoes neither.
/// - "download_rate", "upload_rate" (0): the most bytes a second at which the response is read, and
///   the request written; 0 means no limit. An eighth of a second's worth may go at once, but at
///   least 1024 bytes. Meanwhile the idle and write timeouts are suspended, but not the total one.
/// - "timeout_resolve_ms" and the other timeouts, "max_body_bytes" and the other limits (with or
///   without the prefix "limit_"): as in httpstream_config_set, for this request
///
/// HTTPSTREAM_ERROR_ARGUMENT: there is no such setting, or its value is invalid; this does not
/// invalidate the request. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_option(
    request: httpstream_request,
    name: *const c_char,
    value: u64,
) -> i32 {
    guard("httpstream_request_option", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let name = unsafe { raw::c_text("name", name) }?;
        let setting = Setting::of(name, value)?;
        change(request, |builder| setting.set(builder))
    })
}
