//! `IntoUrl`, the types that callers may pass as a URL; and parsing of an `Origin` from a URL.

use std::borrow::Cow;
use std::str::FromStr;

use crate::proto::target::{Fault, Target};
use crate::proto::{Invalid, InvalidPart, Origin};

/// A type that can be passed as a URL: one that implements `AsRef<str>`, such as `&str`, `String`
/// and `Cow<str>`, or an [`http::Uri`].
///
/// The parameter `Form` distinguishes the two cases and is always inferred.
///
/// ```
/// use httpstream::Request;
/// use httpstream::http::Uri;
///
/// let uri: Uri = "http://example.com/a".parse()?;
/// let host = "example.com";
/// assert_eq!(
///     Request::get(&uri).build()?.uri(),
///     Request::get(format!("http://{host}/a")).build()?.uri(),
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a URL",
    label = "expected a URL",
    note = "a URL is anything that is `AsRef<str>` (`&str`, `String`, …) or an `http::Uri`"
)]
pub trait IntoUrl<Form> {
    /// Returns the URL.
    fn text(&self) -> Cow<'_, str>;
}

mod form {
    /// The form of types that implement `AsRef<str>`.
    #[derive(Debug)]
    pub enum Text {}

    /// The form of an [`http::Uri`], which does not implement `AsRef<str>`. Rust accepts the two
    /// implementations only if they differ in their form, because `http` might add that one.
    #[derive(Debug)]
    pub enum Parsed {}
}

#[diagnostic::do_not_recommend]
impl<T: AsRef<str>> IntoUrl<form::Text> for T {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.as_ref())
    }
}

impl IntoUrl<form::Parsed> for http::Uri {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(self.to_string())
    }
}

impl IntoUrl<form::Parsed> for &http::Uri {
    fn text(&self) -> Cow<'_, str> {
        Cow::Owned(self.to_string())
    }
}

/// Parses an origin from a URL without a path or query, such as `https://example.com` or
/// `http://[::1]:8080`. A trailing slash is accepted.
///
/// ```
/// let origin: httpstream::Origin = "HTTP://Example.com:80".parse()?;
/// assert_eq!(origin.to_string(), "http://example.com");
/// # Ok::<(), httpstream::Invalid>(())
/// ```
///
/// # Errors
/// If the URL would not be valid for a request, or if it has a path, a query or a fragment.
impl FromStr for Origin {
    type Err = Invalid;

    fn from_str(url: &str) -> Result<Self, Invalid> {
        let invalid = |fault| InvalidPart::Url.is(fault);
        let target = Target::parse(url).map_err(invalid)?;
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url[authority..]
            .find(['/', '?', '#'])
            .map_or(url.len(), |at| authority + at);
        match &url[end..] {
            "" | "/" => Ok(target.origin().clone()),
            _ => Err(invalid(Fault::rule(
                end,
                "an origin has no path, query or fragment",
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    #[test]
    fn urls_and_names_come_in_any_form() {
        let text = "http://a.test/b?c";
        let (owned, uri): (String, http::Uri) = (text.to_owned(), text.parse().unwrap());
        let requests = [
            Request::get(text),
            Request::get(text.to_owned()),
            Request::get(&owned),
            Request::get(Cow::Borrowed(text)),
            Request::get(&uri),
            Request::get(uri),
            Request::get("http://a.test/x")
                .build()
                .unwrap()
                .resolve("/b?c"),
        ];
        for request in requests {
            let name = http::header::ACCEPT;
            let request = request.header(&name, "x").header(String::from("X-B"), "y");
            let request = request.build().unwrap();
            assert_eq!(request.uri(), text);
            assert_eq!(request.header_str(name), Some("x"));
            assert_eq!(request.header_str("x-b"), Some("y"));
        }
    }

    #[test]
    fn a_uri_that_is_not_absolute_is_refused() {
        let uri: http::Uri = "/b?c".parse().unwrap();
        let error = Request::get(&uri).build().unwrap_err();
        assert!(error.to_string().contains("not an absolute URL"), "{error}");
    }

    #[test]
    fn an_origin_is_read_from_its_url() {
        const ROWS: &[(&str, Result<&str, usize>)] = &[
            ("http://a.test", Ok("http://a.test")),
            ("http://A.test:80/", Ok("http://a.test")),
            ("https://a.test:8443", Ok("https://a.test:8443")),
            ("http://[::1]:8080/", Ok("http://[::1]:8080")),
            ("http://[fe80::1%25eth0]", Ok("http://[fe80::1%25eth0]")),
            ("http://a.test/b", Err(13)),
            ("http://a.test//", Err(13)),
            ("http://a.test?b", Err(13)),
            ("http://a.test/?", Err(13)),
            ("http://a.test#", Err(13)),
            ("a.test", Err(0)),
            ("", Err(0)),
            ("ftp://a.test", Err(0)),
            ("http://u@a.test", Err(8)),
        ];
        for (url, expected) in ROWS {
            let origin = url.parse::<Origin>();
            let found = origin.map(|origin| origin.to_string());
            let found = found.map_err(|invalid| invalid.offset().unwrap());
            assert_eq!(found.as_deref().map_err(|at| *at), *expected, "{url}");
        }
    }

    #[test]
    fn an_origin_reads_what_it_prints() {
        for url in [
            "http://a.test:81/x",
            "https://[::1]/",
            "http://[fe80::1%25eth0]:8080/",
        ] {
            let origin = Request::get(url).build().unwrap().origin();
            assert_eq!(origin.to_string().parse(), Ok(origin));
        }
    }
}
