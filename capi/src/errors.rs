//! Errors of calls: a number to return, and a message for `httpstream_last_error`.
//!
//! Every function that C calls goes through [`guard`], so no panic crosses the boundary, and
//! messages are formatted only when a call fails.

use std::any::Any;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::types::*;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Null,
    Handle,
    Thread,
    Forked,
    Busy,
    Argument,
    Io,
    Callback,
    Panic,
}

impl Code {
    pub(crate) fn number(self) -> i32 {
        match self {
            Code::Null => HTTPSTREAM_ERROR_NULL,
            Code::Handle => HTTPSTREAM_ERROR_HANDLE,
            Code::Thread => HTTPSTREAM_ERROR_THREAD,
            Code::Forked => HTTPSTREAM_ERROR_FORKED,
            Code::Busy => HTTPSTREAM_ERROR_BUSY,
            Code::Argument => HTTPSTREAM_ERROR_ARGUMENT,
            Code::Io => HTTPSTREAM_ERROR_IO,
            Code::Callback => HTTPSTREAM_ERROR_CALLBACK,
            Code::Panic => HTTPSTREAM_ERROR_PANIC,
        }
    }
}

/// A failed call: its error code, and a message that names the argument and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: Code,
    pub(crate) words: String,
}

impl Fault {
    pub(crate) fn new(code: Code, words: impl Into<String>) -> Self {
        let words = words.into();
        Self { code, words }
    }

    pub(crate) fn argument(words: impl Into<String>) -> Self {
        Self::new(Code::Argument, words)
    }

    pub(crate) fn null(name: &str) -> Self {
        Self::new(Code::Null, format!("{name} is null"))
    }

    pub(crate) fn panic(payload: &(dyn Any + Send)) -> Self {
        let words = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let words = words.unwrap_or("no message");
        Self::new(Code::Panic, format!("panic inside the library: {words}"))
    }
}

/// The value that a failed function returns.
pub(crate) trait Answer {
    fn failed(code: Code) -> Self;
}

impl Answer for i32 {
    fn failed(code: Code) -> Self {
        code.number()
    }
}

impl Answer for i64 {
    fn failed(code: Code) -> Self {
        code.number().into()
    }
}

impl Answer for u64 {
    fn failed(_: Code) -> Self {
        0
    }
}

impl Answer for usize {
    fn failed(_: Code) -> Self {
        0
    }
}

impl Answer for bool {
    fn failed(_: Code) -> Self {
        false
    }
}

impl<T> Answer for *const T {
    fn failed(_: Code) -> Self {
        std::ptr::null()
    }
}

/// The last call that failed on this thread.
struct Last {
    number: i32,
    words: Option<CString>,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { number: HTTPSTREAM_OK, words: None }) };
}

/// Runs `run`, and turns a panic into a [`Fault`].
pub(crate) fn contain<T>(run: impl FnOnce() -> T) -> Result<T, Fault> {
    // Unwind safety: a panic can leave two things half changed. The engine handles that itself, and
    // the tables change in single steps.
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let fault = Fault::panic(&*payload);
        // Dropping the payload may panic as well.
        std::mem::forget(payload);
        fault
    })
}

/// Runs the body of an exported function; `function` is its name, for the message. Only a return
/// value crosses to C, never a panic.
pub(crate) fn guard<T: Answer>(function: &str, run: impl FnOnce() -> Result<T, Fault>) -> T {
    match contain(run).and_then(|result| result) {
        Ok(answer) => answer,
        Err(fault) => {
            remember(function, &fault);
            T::failed(fault.code)
        }
    }
}

fn remember(function: &str, fault: &Fault) {
    let mut words = format!("{function}: {}", fault.words).into_bytes();
    words.retain(|&byte| byte != 0);
    let last = Last {
        number: fault.code.number(),
        words: CString::new(words).ok(),
    };
    // This fails only on a thread that is ending, which will not ask for the error.
    let _ = LAST.try_with(|slot| slot.replace(last));
}

/// Returns the message of the last call that failed on this thread: the function, the argument, and
/// what is wrong with it. Returns "" if no call has failed, never null. The text is valid until the
/// next call that fails on this thread; calls that succeed do not change it.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_last_error() -> *const c_char {
    let words = LAST.try_with(|last| last.borrow().words.as_ref().map(|words| words.as_ptr()));
    words.ok().flatten().unwrap_or(c"".as_ptr())
}

/// Returns the error of the last call that failed on this thread, or HTTPSTREAM_OK if none has. Use
/// it after functions that return no error number. Like errno, it means nothing after a call that
/// succeeded.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_last_error_number() -> i32 {
    let number = LAST.try_with(|last| last.borrow().number);
    number.unwrap_or(HTTPSTREAM_OK)
}

/// Returns the name of an error, such as "HTTPSTREAM_ERROR_NULL"; "HTTPSTREAM_OK" for
/// HTTPSTREAM_OK, and "HTTPSTREAM_ERROR_UNKNOWN" for other numbers. The text is valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_error_name(error: i32) -> *const c_char {
    let name: &CStr = match error {
        HTTPSTREAM_OK => c"HTTPSTREAM_OK",
        HTTPSTREAM_ERROR_NULL => c"HTTPSTREAM_ERROR_NULL",
        HTTPSTREAM_ERROR_HANDLE => c"HTTPSTREAM_ERROR_HANDLE",
        HTTPSTREAM_ERROR_THREAD => c"HTTPSTREAM_ERROR_THREAD",
        HTTPSTREAM_ERROR_FORKED => c"HTTPSTREAM_ERROR_FORKED",
        HTTPSTREAM_ERROR_BUSY => c"HTTPSTREAM_ERROR_BUSY",
        HTTPSTREAM_ERROR_ARGUMENT => c"HTTPSTREAM_ERROR_ARGUMENT",
        HTTPSTREAM_ERROR_IO => c"HTTPSTREAM_ERROR_IO",
        HTTPSTREAM_ERROR_CALLBACK => c"HTTPSTREAM_ERROR_CALLBACK",
        HTTPSTREAM_ERROR_PANIC => c"HTTPSTREAM_ERROR_PANIC",
        _ => c"HTTPSTREAM_ERROR_UNKNOWN",
    };
    name.as_ptr()
}

/// Returns the version of the library, such as "0.1.0". The text is valid forever.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the version contains a NUL"),
        };
    VERSION.as_ptr()
}

/// Returns the HTTPSTREAM_ABI_VERSION that the library was built with. A program works with a
/// library if it equals the one in the program's header.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_abi_version() -> u32 {
    HTTPSTREAM_ABI_VERSION
}
