//! Converts C's pointers to slices and options, and checks them for null.
//!
//! By calling, C promises that a pointer which is not null points to the stated number of bytes;
//! nothing here can check that. Out-parameters use `Option<&mut MaybeUninit<_>>` in the signatures,
//! which has the layout of a C pointer and needs no conversion.

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::errors::Fault;

/// The length that means "NUL-terminated".
const NUL_TERMINATED: usize = usize::MAX;

/// Returns the bytes at `data`. A null pointer is accepted if `len` is 0.
///
/// # Safety
/// `data` must be null or point to `len` bytes, or, if `len` is `SIZE_MAX`, to a NUL-terminated
/// string. Nothing may write to them during `'a`.
pub(crate) unsafe fn bytes<'a>(
    name: &str,
    data: *const c_void,
    len: usize,
) -> Result<&'a [u8], Fault> {
    match (data.is_null(), len) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Fault::null(name)),
        // SAFETY: the caller promises it.
        (false, NUL_TERMINATED) => Ok(unsafe { CStr::from_ptr(data.cast()) }.to_bytes()),
        (false, len) if len > isize::MAX as usize => Err(Fault::argument(format!(
            "{name} is {len} bytes long, which no object can be"
        ))),
        // SAFETY: the caller promises it.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), len) }),
    }
}

/// Returns the text at `data`.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn text<'a>(
    name: &str,
    data: *const c_char,
    len: usize,
) -> Result<&'a str, Fault> {
    if data.is_null() {
        return Err(Fault::null(name));
    }
    // SAFETY: the caller promises it.
    let bytes = unsafe { bytes(name, data.cast(), len) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Fault::argument(format!(
            "{name} is not UTF-8 at byte {}",
            error.valid_up_to()
        ))
    })
}

/// Returns the NUL-terminated text at `data`.
///
/// # Safety
/// `data` must be null or point to a NUL-terminated string that nothing writes to during `'a`.
pub(crate) unsafe fn c_text<'a>(name: &str, data: *const c_char) -> Result<&'a str, Fault> {
    // SAFETY: the caller promises it.
    unsafe { text(name, data, NUL_TERMINATED) }
}

/// Returns the NUL-terminated path at `data`. It need not be UTF-8, since file names are arbitrary
/// bytes.
///
/// # Safety
/// As for [`c_text`].
pub(crate) unsafe fn c_path<'a>(name: &str, data: *const c_char) -> Result<&'a Path, Fault> {
    if data.is_null() {
        return Err(Fault::null(name));
    }
    // SAFETY: the caller promises it.
    let bytes = unsafe { bytes(name, data.cast(), NUL_TERMINATED) }?;
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

/// Returns the `room` bytes at `place` for writing. A null pointer is accepted if `room` is 0.
///
/// # Safety
/// `place` must be null or point to `room` bytes that nothing else uses during `'a`.
pub(crate) unsafe fn room<'a>(
    name: &str,
    place: *mut c_char,
    room: usize,
) -> Result<&'a mut [MaybeUninit<u8>], Fault> {
    match (place.is_null(), room) {
        (true, 0) => Ok(&mut []),
        (true, _) => Err(Fault::null(name)),
        (false, room) if room > isize::MAX as usize => Err(Fault::argument(format!(
            "{name} has room for {room} bytes, which no object can have"
        ))),
        // SAFETY: the caller promises it.
        (false, room) => Ok(unsafe { std::slice::from_raw_parts_mut(place.cast(), room) }),
    }
}

/// Writes a result, unless `place` is null.
///
/// # Safety
/// `place` must be null or point to a `T`. Two results may have the same place.
pub(crate) unsafe fn put<T>(place: *mut T, value: T) {
    if !place.is_null() {
        // SAFETY: the caller promises it.
        unsafe { place.write(value) };
    }
}

/// Returns the place of a mandatory result, or a fault if it is null.
pub(crate) fn out<'a, T>(
    name: &str,
    place: Option<&'a mut MaybeUninit<T>>,
) -> Result<&'a mut MaybeUninit<T>, Fault> {
    place.ok_or_else(|| Fault::null(name))
}

/// Writes as much of `value` as fits into the caller's struct. The struct's first member is its
/// size in bytes, which is not overwritten.
///
/// # Safety
/// `place` must be null or point to as many bytes as the `size_t` at its beginning says. `T` must
/// be `repr(C)` and begin with a `size_t`.
pub(crate) unsafe fn fill<T: Copy>(name: &str, place: *mut T, value: &T) -> Result<(), Fault> {
    if place.is_null() {
        return Err(Fault::null(name));
    }
    const HEAD: usize = size_of::<usize>();
    // SAFETY: the caller promises that there is a size_t at least.
    let size = unsafe { place.cast::<usize>().read() };
    if size < 2 * HEAD {
        return Err(Fault::argument(format!(
            "{name}->size is {size}: set it to the sizeof of the struct"
        )));
    }
    let rest = size.min(size_of::<T>()) - HEAD;
    let from = std::ptr::from_ref(value).cast::<u8>();
    // SAFETY: both have `rest` bytes after the size, and do not overlap because `value` is ours.
    unsafe { std::ptr::copy_nonoverlapping(from.add(HEAD), place.cast::<u8>().add(HEAD), rest) };
    Ok(())
}
