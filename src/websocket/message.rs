//! Messages, as they are received and sent.

use std::borrow::Cow;

/// A message of a WebSocket, lent or owned.
///
/// A message that is received is lent: from the buffer that it was read into, if it arrived whole
/// and unfragmented. [`into_owned`](Self::into_owned) keeps it.
///
/// ```
/// use httpstream::Message;
///
/// assert_eq!(Message::from("hello"), Message::Text("hello".into()));
/// assert_eq!(Message::from(vec![1, 2]).into_owned(), Message::from(&[1, 2]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message<'a> {
    /// Text.
    Text(Cow<'a, str>),
    /// Bytes.
    Binary(Cow<'a, [u8]>),
    /// The end of the connection, with a code (RFC 6455 §7.4) and a reason, which may be empty.
    ///
    /// The code 1005 means that the server has sent none. A Close frame is answered by itself, and
    /// ends the WebSocket.
    Close(u16, Cow<'a, str>),
}

impl Message<'_> {
    /// Copies what is lent.
    pub fn into_owned(self) -> Message<'static> {
        match self {
            Self::Text(text) => Message::Text(text.into_owned().into()),
            Self::Binary(bytes) => Message::Binary(bytes.into_owned().into()),
            Self::Close(code, reason) => Message::Close(code, reason.into_owned().into()),
        }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message<'static> {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes.into())
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Binary(bytes[..].into())
    }
}

impl From<Vec<u8>> for Message<'static> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}
