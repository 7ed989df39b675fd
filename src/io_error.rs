//! Classifies an `io::Error`: either this machine has run out of a resource, or the peer has closed
//! the connection.

use std::io;

/// Whether `error` means that this machine has no file descriptor, port or memory left, rather than
/// something about the peer.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        105
    } else {
        55
    };
    let by_number = cfg!(unix) && matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS));
    let by_kind = matches!(
        error.kind(),
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory | io::ErrorKind::StorageFull
    );
    by_number || by_kind
}

/// Whether `error` means that the peer ended the connection.
pub(crate) fn is_reset(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
    )
}
