//! Requests: values, put together call by call and fixed when they are sent first.
//!
//! The call that makes a mistake reports it. After that the request cannot be sent, and each
//! further call says the same: one that lacks a field because somebody did not look at an answer
//! may be worse than none.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;

use httpstream::http::Method;
use httpstream::{Request, RequestBuilder};

use crate::errors::{Fault, guard};
use crate::knobs::{self, Clock, Limit};
use crate::raw;
use crate::shared::shared;
use crate::types::*;

/// A request as far as it is written.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "slots of a table, used again: a box would be an allocation more for each field"
)]
pub(crate) enum Written {
    Open(RequestBuilder),
    /// Sent, or about to be.
    Sealed(Request),
    /// A mistake was made: these words told it.
    Spoiled(String),
}

/// Seen only where a fault inside the library left it so.
const MIDWAY: &str = "request is unfinished";

impl Written {
    /// Does `step`, and reports the mistake in it.
    fn change(&mut self, step: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<(), Fault> {
        match std::mem::replace(self, Self::Spoiled(MIDWAY.to_owned())) {
            Self::Open(builder) => {
                *self = Self::of(step(builder));
                self.check()
            }
            Self::Sealed(request) => {
                *self = Self::Sealed(request);
                let why = "request was sent already: what is to differ has to be another request";
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

    /// Fixes it, if it can be sent.
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

/// The request that a handle names, as it is sent.
pub(crate) fn sendable(request: u64) -> Result<Request, Fault> {
    shared().requests.get_mut(request)?.seal()
}

/// Frees a request; answers what was wrong with the handle.
pub(crate) fn free(request: u64) -> Result<(), Fault> {
    let written = shared().requests.remove(request)?;
    // Not under the lock: a body may be long.
    drop(written);
    Ok(())
}

fn change(request: u64, step: impl FnOnce(RequestBuilder) -> RequestBuilder) -> Result<i32, Fault> {
    let mut shared = shared();
    shared.requests.get_mut(request)?.change(step)?;
    Ok(HTTPSTREAM_OK)
}

/// A number of a request's that was set, checked.
enum Setting {
    Idempotent(bool),
    FreshConnection(bool),
    Close(bool),
    Timeout(Clock, u64),
    Limit(Limit),
}

impl Setting {
    fn of(name: &str, value: u64) -> Result<Self, Fault> {
        Ok(match name {
            "idempotent" => Setting::Idempotent(knobs::yes(name, value)?),
            "fresh_connection" => Setting::FreshConnection(knobs::yes(name, value)?),
            "close" => Setting::Close(knobs::yes(name, value)?),
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
            // As it is unless it was set, and then it stays.
            Setting::FreshConnection(false) | Setting::Close(false) => builder,
            Setting::Timeout(clock, ms) => builder.timeouts(|timeouts| clock.set(timeouts, ms)),
            Setting::Limit(limit) => builder.limits(|limits| limit.set(limits)),
        }
    }
}

/// Makes a request, and writes it to `out`. Free it with httpstream_request_free. Lengths are in
/// bytes, SIZE_MAX: NUL-terminated.
///
/// `url` is absolute, http or https, its host in ASCII or an IP address. Path and query may be
/// encoded or not; a fragment is dropped, credentials are refused. `method` is any but CONNECT.
///
/// A request is a value: it can be sent any number of times, by any engine of any thread. It is
/// fixed when it is sent first; what is set after that is refused. A call that fails on account of
/// what it was given spoils it: each further call, and sending it, fails with the same words.
///
/// HTTPSTREAM_ERROR_ARGUMENT: it cannot be sent; the words say which byte of what is wrong. Any
/// thread.
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
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let (method, url) = unsafe {
            let method = raw::text("method", method, method_len)?;
            (method, raw::text("url", url, url_len)?)
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Fault::argument("method: no token (RFC 9110 §9.1)"))?;
        let written = Written::of(Request::builder(method, url));
        written.check()?;
        out.write(shared().requests.insert(written)?);
        Ok(HTTPSTREAM_OK)
    })
}

/// Frees a request. Chains that send it go on. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_free(request: httpstream_request) -> i32 {
    guard("httpstream_request_free", || {
        free(request).map(|()| HTTPSTREAM_OK)
    })
}

/// Adds a field; several of one name stay several lines. Lengths are in bytes, SIZE_MAX:
/// NUL-terminated. White space around the value is taken off. "Host" replaces the one of the URL;
/// "Content-Length" must be the body's.
///
/// HTTPSTREAM_ERROR_ARGUMENT: a name that is no token, a control byte in a value, a second Host or
/// Content-Length, Transfer-Encoding, an Expect other than 100-continue; Upgrade, since there is no
/// way to write behind a 101 from here: that does not spoil the request. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_header(
    request: httpstream_request,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
) -> i32 {
    guard("httpstream_request_header", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let (name, value) = unsafe {
            let name = raw::text("name", name, name_len)?;
            (
                name,
                raw::bytes("value", value.cast::<c_void>(), value_len)?,
            )
        };
        if name.eq_ignore_ascii_case("Upgrade") {
            // What follows the switch could be heard, and not answered.
            let why = "Upgrade: a connection that switches to another protocol cannot be written to from here";
            return Err(Fault::argument(why));
        }
        change(request, |builder| builder.header(name, value))
    })
}

/// Sets the body, `len` bytes, which are copied; SIZE_MAX: NUL-terminated. Its length goes out as
/// Content-Length. Null with a `len` of 0 is an empty one. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_body(
    request: httpstream_request,
    body: *const c_void,
    len: usize,
) -> i32 {
    guard("httpstream_request_body", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let body = unsafe { raw::bytes("body", body, len) }?;
        change(request, |builder| builder.body(body))
    })
}

/// Sets the total deadline in milliseconds, from the submission, time in the queue included, to the
/// end of the body, but without a delay. UINT64_MAX: none. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_timeout_ms(request: httpstream_request, ms: u64) -> i32 {
    guard("httpstream_request_timeout_ms", || {
        change(request, |builder| {
            Setting::Timeout(Clock::Total, ms).set(builder)
        })
    })
}

/// Makes it a long poll: the server may be silent for so many milliseconds. The deadlines of first
/// byte and idle become that and 10 s, the total is lifted to that and 40 s where it is shorter. A
/// later httpstream_request_timeout_ms wins. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_request_long_poll_ms(request: httpstream_request, ms: u64) -> i32 {
    guard("httpstream_request_long_poll_ms", || {
        change(request, |builder| builder.long_poll(knobs::delay(ms)))
    })
}

/// Sets a number by its name, which is NUL-terminated.
///
/// - "idempotent" (by the method): 1: it may be sent again after the server may have processed it;
///   0: it may not
/// - "fresh_connection" (0): 1: on a connection of its own making; "close" (0): 1: its connection
///   serves no request after it. 0 takes neither back.
/// - "timeout_resolve_ms" and its kin, "max_body_bytes" and its kin (with or without "limit_"
///   before it): as in httpstream_config_set, for this request
///
/// HTTPSTREAM_ERROR_ARGUMENT: no such name, or a number that cannot be used; this does not spoil
/// the request. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_request_option(
    request: httpstream_request,
    name: *const c_char,
    value: u64,
) -> i32 {
    guard("httpstream_request_option", || {
        // SAFETY: the caller's promise about its pointers, see `raw`.
        let name = unsafe { raw::c_text("name", name) }?;
        let setting = Setting::of(name, value)?;
        change(request, |builder| setting.set(builder))
    })
}
