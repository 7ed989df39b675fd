//! Resolves URL references against a base (RFC 3986 §5.2 and §5.3).
//!
//! Strings in, a string out. Nothing is validated or encoded here: the result goes through
//! `proto::target`, the one URL parser, like any other URL. The strict reading of §5.2.2 applies: a
//! reference that has a scheme is absolute, even if it is the scheme of the base. A percent-encoded
//! dot segment is an ordinary segment, and is left to the server.

use std::fmt::Write;

/// A URL or a reference, split at its delimiters (RFC 3986 appendix B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference<'a> {
    pub(crate) scheme: Option<&'a str>,
    pub(crate) authority: Option<&'a str>,
    path: &'a str,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

impl<'a> Reference<'a> {
    /// Splits `text`. Every text is a reference. The part before a colon is a scheme only if it is
    /// a valid one, so `1:2` is a path (by appendix B alone, `1` would be a scheme).
    pub(crate) fn split(text: &'a str) -> Self {
        let (scheme, rest) = match text.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
            _ => (None, text),
        };
        let (rest, fragment) = split_once(rest, '#');
        let (rest, query) = split_once(rest, '?');
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority), path)
            }
            None => (None, rest),
        };
        Self {
            scheme,
            authority,
            path,
            query,
            fragment,
        }
    }

    /// Returns the URL that `self` refers to, relative to `base`, which must be an absolute URL
    /// (§5.2.2).
    pub(crate) fn against(self, base: Reference<'_>) -> String {
        let (path, query) = match (self.scheme, self.authority, self.path) {
            (None, None, "") => (base.path.to_owned(), self.query.or(base.query)),
            (None, None, path) if !path.starts_with('/') => {
                (remove_dot_segments(&merge(base, path)), self.query)
            }
            (_, _, path) => (remove_dot_segments(path), self.query),
        };
        let authority = match (self.scheme, self.authority) {
            (None, None) => base.authority,
            (_, own) => own,
        };
        let mut url = String::with_capacity(path.len() + 64);
        // §5.3.
        if let Some(scheme) = self.scheme.or(base.scheme) {
            let _ = write!(url, "{scheme}:");
        }
        if let Some(authority) = authority {
            let _ = write!(url, "//{authority}");
        }
        url.push_str(&path);
        if let Some(query) = query {
            let _ = write!(url, "?{query}");
        }
        if let Some(fragment) = self.fragment {
            let _ = write!(url, "#{fragment}");
        }
        url
    }
}

/// Whether a reference has a scheme, and is therefore not relative.
pub(crate) fn has_scheme(reference: &str) -> bool {
    Reference::split(reference).scheme.is_some()
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Splits `text` at the first `delimiter`, if there is one.
fn split_once(text: &str, delimiter: char) -> (&str, Option<&str>) {
    match text.split_once(delimiter) {
        Some((before, behind)) => (before, Some(behind)),
        None => (text, None),
    }
}

/// Replaces the last segment of the base's path with `path` (RFC 3986 §5.2.3).
fn merge(base: Reference<'_>, path: &str) -> String {
    let folder = match base.path.rfind('/') {
        Some(last) => &base.path[..=last],
        None if base.authority.is_some() => "/",
        None => "",
    };
    [folder, path].concat()
}

/// RFC 3986 §5.2.4. The comments are the letters of its steps.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut input = path;
    while !input.is_empty() {
        if let Some(rest) = input.strip_prefix("../").or(input.strip_prefix("./")) {
            // A.
            input = rest;
        } else if input.starts_with("/./") {
            // B.
            input = &input[2..];
        } else if input == "/." {
            input = "/";
        } else if input.starts_with("/../") {
            // C.
            input = &input[3..];
            out.truncate(out.rfind('/').unwrap_or(0));
        } else if input == "/.." {
            input = "/";
            out.truncate(out.rfind('/').unwrap_or(0));
        } else if input == "." || input == ".." {
            // D.
            input = "";
        } else {
            // E.
            let slashes = usize::from(input.starts_with('/'));
            let end = input[slashes..].find('/').map(|at| slashes + at);
            let (segment, rest) = input.split_at(end.unwrap_or(input.len()));
            out.push_str(segment);
            input = rest;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    fn resolve(base: &str, reference: &str) -> String {
        Reference::split(reference).against(Reference::split(base))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        const BASE: &str = "http://a/b/c/d;p?q";
        #[rustfmt::skip]
        const ROWS: &[(&str, &str)] = &[
            // §5.4.1.
            ("g:h", "g:h"),
            ("g", "http://a/b/c/g"),
            ("./g", "http://a/b/c/g"),
            ("g/", "http://a/b/c/g/"),
            ("/g", "http://a/g"),
            ("//g", "http://g"),
            ("?y", "http://a/b/c/d;p?y"),
            ("g?y", "http://a/b/c/g?y"),
            ("#s", "http://a/b/c/d;p?q#s"),
            ("g#s", "http://a/b/c/g#s"),
            ("g?y#s", "http://a/b/c/g?y#s"),
            (";x", "http://a/b/c/;x"),
            ("g;x", "http://a/b/c/g;x"),
            ("g;x?y#s", "http://a/b/c/g;x?y#s"),
            ("", "http://a/b/c/d;p?q"),
            (".", "http://a/b/c/"),
            ("./", "http://a/b/c/"),
            ("..", "http://a/b/"),
            ("../", "http://a/b/"),
            ("../g", "http://a/b/g"),
            ("../..", "http://a/"),
            ("../../", "http://a/"),
            ("../../g", "http://a/g"),
            // §5.4.2.
            ("../../../g", "http://a/g"),
            ("../../../../g", "http://a/g"),
            ("/./g", "http://a/g"),
            ("/../g", "http://a/g"),
            ("g.", "http://a/b/c/g."),
            (".g", "http://a/b/c/.g"),
            ("g..", "http://a/b/c/g.."),
            ("..g", "http://a/b/c/..g"),
            ("./../g", "http://a/b/g"),
            ("./g/.", "http://a/b/c/g/"),
            ("g/./h", "http://a/b/c/g/h"),
            ("g/../h", "http://a/b/c/h"),
            ("g;x=1/./y", "http://a/b/c/g;x=1/y"),
            ("g;x=1/../y", "http://a/b/c/y"),
            ("g?y/./x", "http://a/b/c/g?y/./x"),
            ("g?y/../x", "http://a/b/c/g?y/../x"),
            ("g#s/./x", "http://a/b/c/g#s/./x"),
            ("g#s/../x", "http://a/b/c/g#s/../x"),
            ("http:g", "http:g"),
        ];
        for (reference, expected) in ROWS {
            assert_eq!(resolve(BASE, reference), *expected, "{reference}");
        }
    }

    #[test]
    fn what_the_examples_leave_out() {
        #[rustfmt::skip]
        const ROWS: &[(&str, &str, &str, &str)] = &[
            ("base without path", "http://a", "g", "http://a/g"),
            ("base without path, a query", "http://a", "?y", "http://a?y"),
            ("base without path, the same document", "http://a?q", "#s", "http://a?q#s"),
            ("dot segments of the base stay if its path is kept", "http://a/b/../c?q", "?y", "http://a/b/../c?y"),
            ("and are removed if its path is merged", "http://a/b/../c", "g", "http://a/g"),
            ("dot segments of an absolute URL", "http://a/b", "https://c/d/../e", "https://c/e"),
            ("authority with a port and dots", "https://a/", "//g:81/../h", "https://g:81/h"),
            ("empty query", "http://a/b?q", "?", "http://a/b?"),
            ("question mark in the base's query", "http://a/b?c/d?e", "g", "http://a/g"),
            ("slashes in the path", "http://a/b//c", "..", "http://a/b/"),
            ("colon after a slash", "http://a/b", "./c:d", "http://a/c:d"),
            ("number before a colon", "http://a/b", "12:30", "http://a/12:30"),
            ("colon in the query", "http://a/b", "?c:d", "http://a/b?c:d"),
            ("colon alone", "http://a/b", ":c", "http://a/:c"),
            ("scheme in any case", "http://a/b", "HTTP://g", "HTTP://g"),
            ("encoded dots are no dot segment", "http://a/b/c", "%2e%2e/g", "http://a/b/%2e%2e/g"),
            ("not ASCII", "http://a/é/b", "ü?ß", "http://a/é/ü?ß"),
        ];
        for (why, base, reference, expected) in ROWS {
            assert_eq!(resolve(base, reference), *expected, "{why}");
        }
    }

    #[test]
    fn an_absolute_url_stays_itself_and_no_text_panics() {
        const PIECES: &[&str] = &[
            "a", ":", "/", "?", "#", ".", "..", "/.", "/..", "//", "é", "%2e", "http:", "@", "[",
        ];
        let mut random = Random::new(17);
        for _ in 0..20_000 {
            let count = random.below(9);
            let text: String = (0..count)
                .map(|_| PIECES[random.below(PIECES.len())])
                .collect();
            let url = resolve("http://b/c/d?e", &text);
            // Resolved again, against any base, the URL stays the same.
            assert_eq!(resolve("https://other/x/y", &url), url, "{text}");
            let parts = Reference::split(&url);
            assert!(parts.scheme.is_some(), "{text}");
            let segments = parts.path.split('/').filter(|s| matches!(*s, "." | ".."));
            assert_eq!(segments.count(), 0, "{text}: {url}");
        }
    }
}
