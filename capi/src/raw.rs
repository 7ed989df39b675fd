//! From C's pointers to slices and options, checked for null.
//!
//! That a pointer which is not null leads to so many bytes is what C promises by calling; nothing
//! here can check it. Results of out-parameters go through `Option<&mut MaybeUninit<_>>` in the
//! signatures, which is C's pointer and needs nothing of this.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::errors::Fault;

/// The length that says: up to the NUL.
const NUL_TERMINATED: usize = usize::MAX;

/// The bytes at `data`. A null pointer is fine where `len` is 0.
///
/// # Safety
/// `data` is null or leads to `len` bytes, or with a `len` of `SIZE_MAX` to a NUL-terminated
/// string, that nobody writes for `'a`.
pub(crate) unsafe fn bytes<'a>(
    name: &str,
    data: *const c_void,
    len: usize,
) -> Result<&'a [u8], Fault> {
    match (data.is_null(), len) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Fault::null(name)),
        // SAFETY: the caller's promise.
        (false, NUL_TERMINATED) => Ok(unsafe { CStr::from_ptr(data.cast()) }.to_bytes()),
        (false, len) if len > isize::MAX as usize => Err(Fault::argument(format!(
            "{name} is {len} bytes long, more than there can be"
        ))),
        // SAFETY: the caller's promise.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) }),
    }
}

/// The text at `data`.
///
/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn text<'a>(
    name: &str,
    data: *const c_char,
    len: usize,
) -> Result<&'a str, Fault> {
    if data.is_null() {
        return Err(Fault::null(name));
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(name, data.cast(), len) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Fault::argument(format!(
            "{name} is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

/// The NUL-terminated text at `data`.
///
/// # Safety
/// `data` is null or leads to a NUL-terminated string that nobody writes for `'a`.
pub(crate) unsafe fn c_text<'a>(name: &str, data: *const c_char) -> Result<&'a str, Fault> {
    // SAFETY: the caller's promise.
    unsafe { text(name, data, NUL_TERMINATED) }
}

/// The path at `data`: any bytes, as files may be called.
///
/// # Safety
/// As [`c_text`].
pub(crate) unsafe fn c_path<'a>(name: &str, data: *const c_char) -> Result<&'a Path, Fault> {
    if data.is_null() {
        return Err(Fault::null(name));
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes(name, data.cast(), NUL_TERMINATED) }?;
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// The `room` bytes at `place`, to be written. A null pointer is fine where there is no room.
///
/// # Safety
/// `place` is null or leads to so many bytes that nobody else uses for `'a`.
pub(crate) unsafe fn room<'a>(
    name: &str,
    place: *mut c_char,
    room: usize,
) -> Result<&'a mut [MaybeUninit<u8>], Fault> {
    match (place.is_null(), room) {
        (true, 0) => Ok(&mut []),
        (true, _) => Err(Fault::null(name)),
        (false, room) if room > isize::MAX as usize => Err(Fault::argument(format!(
            "{name} has room for {room} bytes, more than there can be"
        ))),
        // SAFETY: the caller's promise.
        (false, room) => Ok(unsafe { std::slice::from_raw_parts_mut(place.cast(), room) }),
    }
}

/// Writes a result, unless `place` is null.
///
/// # Safety
/// `place` is null or leads to a `T`. Two places may be one.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller's promise.
        unsafe { place.write(value) };
    }
}

/// Where a result goes that the caller must take.
pub(crate) fn out<'a, T>(
    name: &str,
    place: Option<&'a mut MaybeUninit<T>>,
) -> Result<&'a mut MaybeUninit<T>, Fault> {
    place.ok_or_else(|| Fault::null(name))
}

/// Writes as much of `value` as the caller's struct has room for. Its first member is its size in
/// bytes, which stays as it was.
///
/// # Safety
/// `place` is null or leads to so many bytes as the `size_t` at its beginning says, and `T` is
/// `repr(C)` and begins with a `size_t`.
pub(crate) unsafe fn fill<T: Copy>(name: &str, place: *mut T, value: &T) -> Result<(), Fault> {
    if place.is_null() {
        return Err(Fault::null(name));
    }
    const HEAD: usize = size_of::<usize>();
    // SAFETY: the caller's promise: there is a size_t at least.
    let size = unsafe { place.cast::<usize>().read() };
    if size < 2 * HEAD {
        return Err(Fault::argument(format!(
            "{name}->size is {size}: set it to sizeof of the struct"
        )));
    }
    let rest = size.min(size_of::<T>()) - HEAD;
    let from = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: both are `rest` bytes long behind the size, and do not overlap: `value` is ours.
    unsafe { std::ptr::copy_nonoverlapping(from.add(HEAD), place.cast::<u8>().add(HEAD), rest) };
    Ok(())
}
