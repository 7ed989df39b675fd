//! Field lines: ordered, names case-insensitive (RFC 9110 §5).

/// Field lines as received, in order.
#[derive(Clone, Debug)]
pub struct Headers<'a>(&'a [u8]);
