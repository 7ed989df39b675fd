//! The opening handshake (RFC 6455 §4.1): a policy adds a key to each attempt and checks what the
//! server makes of it.

use std::sync::{Arc, LazyLock};

use http::{Method, StatusCode};
use sha1::{Digest, Sha1};

use crate::builder::RequestBuilder;
use crate::builder::url::IntoUrl;
use crate::error::Error;
use crate::policy::{Fields, Moment, Policy, Screening, Visit};
use crate::proto::{Headers, base64};
use crate::request::Request;
use crate::response::Response;
use crate::session::Session;
use crate::websocket::Violation;

/// The field with the subprotocols that a request offers, or that a server has chosen.
pub(super) const PROTOCOL: &str = "Sec-WebSocket-Protocol";
const KEY: &str = "Sec-WebSocket-Key";

/// What a server appends to the key (RFC 6455 §1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

impl Request {
    /// Begins the request that opens a WebSocket (RFC 6455 §4.1), to be read by a
    /// [`WebSocket`](crate::WebSocket).
    ///
    /// `url` has the scheme `ws` or, with feature `tls`, `wss`; `http` and `https` mean the same.
    /// For the rest of it see [`get`](Self::get). The fields of the handshake are added, with a new
    /// key for each attempt, and the response to it is checked, whatever reads it.
    ///
    /// The timeouts `idle` and `total` are lifted, since an open WebSocket may be silent for any
    /// length of time. [`timeouts`](RequestBuilder::timeouts) sets them again:
    /// [`idle`](crate::Timeouts::idle) ends a WebSocket on which nothing has arrived for so long,
    /// which goes well with [`ping_every`](crate::WebSocket::ping_every).
    ///
    /// ```
    /// use httpstream::Request;
    ///
    /// let request = Request::websocket("ws://chat.example/socket").build()?;
    /// assert_eq!(request.uri(), "http://chat.example/socket");
    /// assert_eq!(request.header_str("Upgrade"), Some("websocket"));
    /// # Ok::<(), httpstream::Error>(())
    /// ```
    pub fn websocket<Form>(url: impl IntoUrl<Form>) -> RequestBuilder {
        opening(Self::get(over_http(&url.text())))
    }
}

impl Session {
    /// Begins the request that opens a WebSocket in the session; see [`Request::websocket`], and
    /// for relative URLs [`get`](Self::get). Its handshake has the session's fields, cookies and
    /// credentials, and redirects and challenges are followed.
    pub fn websocket(&self, url: impl AsRef<str>) -> RequestBuilder {
        opening(self.request(Method::GET, over_http(url.as_ref())))
    }
}

/// Returns the URL with the scheme that a WebSocket's begins as (RFC 6455 §3).
fn over_http(url: &str) -> String {
    for (scheme, http) in [("ws:", "http:"), ("wss:", "https:")] {
        if let Some((begin, rest)) = url.split_at_checked(scheme.len())
            && begin.eq_ignore_ascii_case(scheme)
        {
            return format!("{http}{rest}");
        }
    }
    url.to_owned()
}

fn opening(request: RequestBuilder) -> RequestBuilder {
    static HANDSHAKE: LazyLock<Arc<dyn Policy>> = LazyLock::new(|| Arc::new(Handshake));
    request
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .timeouts(|t| (t.idle, t.total) = (None, None))
        .nearest_policy(Arc::clone(&HANDSHAKE))
}

/// Adds a key to each attempt, and checks the response.
struct Handshake;

impl Policy for Handshake {
    fn visit(&self, _: &Request, _: &Moment<'_>) -> Box<dyn Visit> {
        Box::new(Keyed { key: [0; 16] })
    }
}

struct Keyed {
    key: [u8; 16],
}

impl Visit for Keyed {
    fn holds_back(&self) -> bool {
        false
    }

    fn reads_head(&self, status: StatusCode, _: &Headers<'_>) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS
    }

    fn reads_shown(&self) -> bool {
        false
    }

    fn on_send(
        &mut self,
        request: &Request,
        fields: &mut Fields<'_>,
        at: &Moment<'_>,
    ) -> Result<(), Error> {
        if request.header(KEY).is_some() {
            return Ok(());
        }
        self.key[..8].copy_from_slice(&at.random().to_be_bytes());
        self.key[8..].copy_from_slice(&at.random().to_be_bytes());
        fields.add(KEY, encoded(&self.key))
    }

    fn on_head(
        &mut self,
        request: &Request,
        head: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        if head.status() == StatusCode::SWITCHING_PROTOCOLS {
            let key = match request.header(KEY) {
                Some(own) => own.to_vec(),
                None => encoded(&self.key).into_bytes(),
            };
            check(request, head, &key)
                .map_err(|violation| Error::unusable(violation.kind(), violation))?;
        }
        Ok(Screening::show())
    }

    fn reset(&mut self) -> bool {
        true
    }
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    base64::encode(&mut text, bytes).expect("a string accepts everything");
    text
}

/// Returns what a server answers to a key (RFC 6455 §4.2.2, step 5.4).
fn accept(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(GUID);
    encoded(&hash.finalize())
}

/// Checks the 101 that answers `request`, which was sent with `key` (RFC 6455 §4.1, the list after
/// "validate the server's response").
pub(super) fn check(request: &Request, head: &Response<'_>, key: &[u8]) -> Result<(), Violation> {
    let has = |name: &str, option: &[u8]| {
        let mut options = head.header_all(name).flat_map(options);
        options.any(|it| it.eq_ignore_ascii_case(option))
    };
    if !has("Upgrade", b"websocket") {
        return Err(Violation::Upgrade);
    }
    if !has("Connection", b"upgrade") {
        return Err(Violation::Connection);
    }
    let mut accepted = head.header_all("Sec-WebSocket-Accept");
    let is_accepted = accepted.next().map(<[u8]>::trim_ascii) == Some(accept(key).as_bytes());
    if !is_accepted || accepted.next().is_some() {
        return Err(Violation::Accept);
    }
    let mut extensions = head
        .header_all("Sec-WebSocket-Extensions")
        .flat_map(options);
    if let Some(extension) = extensions.next() {
        return Err(Violation::Extension(lossy(extension)));
    }
    let mut chosen = head.header_all(PROTOCOL);
    if let Some(protocol) = chosen.next() {
        let offered = request
            .headers()
            .filter(|(name, _)| name.eq_ignore_ascii_case(PROTOCOL));
        let mut offered = offered.flat_map(|(_, value)| options(value));
        if !offered.any(|it| it == protocol) || chosen.next().is_some() {
            return Err(Violation::Protocol(lossy(protocol)));
        }
    }
    Ok(())
}

/// Returns the members of a list (RFC 9110 §5.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::response::testing::lend;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 6455 §1.3.
        let key = encoded(b"the sample nonce");
        assert_eq!(key, "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept(key.as_bytes()), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn schemes_are_those_of_http() {
        for (url, expected) in [
            ("ws://a/b", "http://a/b"),
            ("WSS://a:1/", "https://a:1/"),
            ("http://a/", "http://a/"),
            ("wsx://a/", "wsx://a/"),
            ("path", "path"),
            ("ä", "ä"),
            ("", ""),
        ] {
            assert_eq!(over_http(url), expected);
        }
        let error = Request::websocket("wsx://a/").build().unwrap_err();
        assert!(error.to_string().contains("scheme"), "{error}");
    }

    #[test]
    fn the_answer_has_to_match() {
        const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
        let with = |fields: &str| format!("{UPGRADE}{ACCEPT}{fields}");
        let protocol = |name: &str| Err(Violation::Protocol(name.to_owned()));
        let rows = [
            ("right", with(""), Ok(())),
            (
                "in any case, and in lists",
                format!("upgrade: x, WebSocket\r\nconnection: keep-alive, UPGRADE\r\n{ACCEPT}"),
                Ok(()),
            ),
            (
                "no Upgrade",
                format!("Connection: Upgrade\r\n{ACCEPT}"),
                Err(Violation::Upgrade),
            ),
            (
                "another protocol",
                format!("Upgrade: websocket2\r\nConnection: Upgrade\r\n{ACCEPT}"),
                Err(Violation::Upgrade),
            ),
            (
                "no Connection",
                format!("Upgrade: websocket\r\n{ACCEPT}"),
                Err(Violation::Connection),
            ),
            ("no Accept", UPGRADE.to_owned(), Err(Violation::Accept)),
            (
                "that of another key",
                format!("{UPGRADE}Sec-WebSocket-Accept: t3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
                Err(Violation::Accept),
            ),
            ("twice", with(ACCEPT), Err(Violation::Accept)),
            (
                "an extension",
                with("Sec-WebSocket-Extensions: permessage-deflate\r\n"),
                Err(Violation::Extension("permessage-deflate".to_owned())),
            ),
            (
                "no extension",
                with("Sec-WebSocket-Extensions: \r\n"),
                Ok(()),
            ),
            (
                "an offered protocol",
                with("Sec-WebSocket-Protocol: b.v2\r\n"),
                Ok(()),
            ),
            (
                "a protocol that was not offered",
                with("Sec-WebSocket-Protocol: d\r\n"),
                protocol("d"),
            ),
            (
                "in another case",
                with("Sec-WebSocket-Protocol: B.V2\r\n"),
                protocol("B.V2"),
            ),
            (
                "two protocols",
                with("Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: c\r\n"),
                protocol("a"),
            ),
        ];
        let request = Request::websocket("ws://a/").header(PROTOCOL, "a, b.v2,c");
        let request = request.build().unwrap();
        for (why, fields, expected) in rows {
            let head = format!("HTTP/1.1 101 \r\n{fields}\r\n");
            lend(&request, &head, b"", |head| {
                let checked = check(&request, &head, b"dGhlIHNhbXBsZSBub25jZQ==");
                assert_eq!(checked, expected, "{why}");
            });
        }
    }
}
