//! Parser for challenges: WWW-Authenticate and Proxy-Authenticate (RFC 9110 §11.6.1, §11.7.1), and
//! the parameters of Authentication-Info (§11.6.3).
//!
//! A comma separates both challenges and the parameters of one challenge, so a field is cut into
//! list elements first. Each element then either starts a challenge or is a parameter of the one
//! before it. A challenge with a malformed element cannot be answered, but those after it can.

use std::borrow::Cow;

use crate::proto::field::{token_fault, trim};

/// The most parameters that a challenge may have. RFC 7616 §3.3 defines nine.
const MAX_PARAMETERS: usize = 32;

/// A challenge, or `None` in place of its parameters if they are malformed or a token68.
pub(super) struct Challenge<'a> {
    scheme: &'a [u8],
    parameters: Option<Parameters<'a>>,
}

impl<'a> Challenge<'a> {
    /// Returns the parameters if the challenge is of this scheme and can be answered.
    pub(super) fn parameters_of(&self, scheme: &str) -> Option<&Parameters<'a>> {
        if self.scheme.eq_ignore_ascii_case(scheme.as_bytes()) {
            self.parameters.as_ref()
        } else {
            None
        }
    }

    /// Adds the next list element of this challenge, or gives up the challenge if the element is
    /// malformed.
    fn add(&mut self, element: &'a [u8]) {
        let parameters = self.parameters.take();
        self.parameters = parameters.and_then(|parameters| parameters.with(element));
    }
}

/// The parameters of one challenge, each with a name of its own.
#[derive(Default)]
pub(super) struct Parameters<'a>(Vec<(&'a [u8], Value<'a>)>);

impl<'a> Parameters<'a> {
    /// Returns the value of a parameter; names are case-insensitive.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let is_it = |(other, _): &&(&[u8], _)| other.eq_ignore_ascii_case(name.as_bytes());
        self.0.iter().find(is_it).map(|(_, value)| *value)
    }

    /// Adds a parameter, in place of an earlier one with the same name. A challenge must not have
    /// two (RFC 9110 §11.2). If a server sends two nevertheless, the last one counts, as in other
    /// clients; a wrong choice only leads to another refusal.
    fn with(mut self, element: &'a [u8]) -> Option<Self> {
        let (name, value) = parameter(element)?;
        let mut names = self.0.iter().map(|(other, _)| other);
        match names.position(|other| other.eq_ignore_ascii_case(name)) {
            Some(at) => self.0[at].1 = value,
            None if self.0.len() == MAX_PARAMETERS => return None,
            None => self.0.push((name, value)),
        }
        Some(self)
    }
}

/// The value of a parameter as received, without quotes but with its backslashes.
///
/// As such it can be sent back byte for byte inside quotes, because a value without quotes contains
/// neither a quote nor a backslash.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(&'a [u8]);

impl<'a> Value<'a> {
    pub(super) fn raw(self) -> &'a [u8] {
        self.0
    }

    /// Returns what the value means; see [`unescaped`].
    pub(super) fn text(self) -> Cow<'a, [u8]> {
        unescaped(self.0)
    }

    /// Compares without regard to case.
    pub(super) fn is(self, text: &str) -> bool {
        self.text().eq_ignore_ascii_case(text.as_bytes())
    }

    /// Returns whether this list of tokens contains `token`. Commas separate them, or spaces, as
    /// some servers write.
    pub(super) fn lists(self, token: &str) -> bool {
        self.text()
            .split(|b| matches!(b, b',' | b' ' | b'\t'))
            .any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }
}

/// Replaces each quoted pair by its second byte (RFC 9110 §5.6.4).
pub(super) fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter();
    while let Some(&byte) = bytes.next() {
        let next = if byte == b'\\' { bytes.next() } else { None };
        text.push(*next.unwrap_or(&byte));
    }
    Cow::Owned(text)
}

/// Parses the value of one WWW-Authenticate or Proxy-Authenticate field line.
pub(super) fn challenges(field: &[u8]) -> Vec<Challenge<'_>> {
    let mut challenges: Vec<Challenge<'_>> = Vec::new();
    for element in elements(field) {
        match (start(element), challenges.last_mut()) {
            (Some(challenge), _) => challenges.push(challenge),
            (None, Some(current)) => current.add(element),
            // A parameter without a challenge.
            (None, None) => {}
        }
    }
    challenges
}

/// Parses the value of an Authentication-Info field line, which has parameters only.
pub(super) fn info(field: &[u8]) -> Option<Parameters<'_>> {
    elements(field).try_fold(Parameters::default(), Parameters::with)
}

/// Returns the challenge that begins with `element`: a scheme alone, or one that is followed by
/// white space and its first parameter. `None` if it is anything else, such as another parameter.
fn start(element: &[u8]) -> Option<Challenge<'_>> {
    let (scheme, rest) = token(element)?;
    let first = trim(rest);
    let follows = first.len() < rest.len() && !first.starts_with(b"=");
    let parameters = match first {
        [] => Some(Parameters::default()),
        _ if follows => Parameters::default().with(first),
        _ => return None,
    };
    Some(Challenge { scheme, parameters })
}

/// Parses `name = value`, with optional white space around the equals sign.
fn parameter(element: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let (name, rest) = token(element)?;
    let value = trim(trim(rest).strip_prefix(b"=")?);
    let raw = match value.strip_prefix(b"\"") {
        Some(quoted) => quoted_string(quoted)?,
        None => unquoted(value)?,
    };
    Some((name, Value(raw)))
}

/// Returns the content of a quoted string that ends with `rest` (RFC 9110 §5.6.4).
fn quoted_string(rest: &[u8]) -> Option<&[u8]> {
    let is_text = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    let end = end_of_quoted(rest)?;
    let raw = &rest[..end];
    (end + 1 == rest.len() && raw.iter().all(is_text)).then_some(raw)
}

/// Checks a value without quotes. The grammar allows a token only; servers also send base64,
/// addresses and paths this way, which browsers and curl accept.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let is_text = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b',');
    (!value.is_empty() && value.iter().all(is_text)).then_some(value)
}

/// Splits off the token at the start, which is not empty.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = token_fault(bytes)
        .and_then(|fault| fault.at)
        .unwrap_or(bytes.len());
    (end > 0).then(|| bytes.split_at(end))
}

/// Splits a list at its commas outside of quoted strings. Empty elements are skipped (RFC 9110
/// §5.6.1.2).
fn elements(field: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = field;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = end_of_element(rest);
        let element = trim(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
        Some(element)
    })
    .filter(|element| !element.is_empty())
}

/// Returns the index of the first comma outside of a quoted string, or the end. A quote that is not
/// closed extends to the end.
fn end_of_element(list: &[u8]) -> usize {
    let mut at = 0;
    while let Some(&byte) = list.get(at) {
        at += 1;
        match byte {
            b',' => return at - 1,
            b'"' => match end_of_quoted(&list[at..]) {
                Some(len) => at += len + 1,
                None => break,
            },
            _ => {}
        }
    }
    list.len()
}

/// Returns the index of the quote that closes a quoted string, given what follows the opening one.
fn end_of_quoted(rest: &[u8]) -> Option<usize> {
    let mut escaped = false;
    rest.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::testing::Random;

    /// Shows what was parsed as `scheme name=value; name=value | scheme !`, where `!` stands for
    /// parameters that cannot be used.
    fn shown(field: &[u8]) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let one = |challenge: &Challenge<'_>| {
            let parameters = match &challenge.parameters {
                Some(parameters) => parameters.shown(),
                None => "!".to_owned(),
            };
            let shown = format!("{} {parameters}", text(challenge.scheme));
            shown.trim_end().to_owned()
        };
        let all: Vec<_> = challenges(field).iter().map(one).collect();
        all.join(" | ")
    }

    impl Parameters<'_> {
        fn shown(&self) -> String {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let pair = |(name, value): &(&[u8], Value<'_>)| {
                format!("{}={}", text(name), text(&value.text()))
            };
            let pairs: Vec<_> = self.0.iter().map(pair).collect();
            pairs.join("; ")
        }
    }

    #[rustfmt::skip]
    const ROWS: &[(&str, &[u8], &str)] = &[
        // What the grammar allows.
        ("nothing", b"", ""),
        ("a scheme alone", b"Negotiate", "Negotiate"),
        ("one parameter", b"Basic realm=\"a\"", "Basic realm=a"),
        ("a token as value",
            b"Digest stale=true, algorithm=MD5", "Digest stale=true; algorithm=MD5"),
        ("several challenges in one field", b"Basic realm=\"a\", Digest realm=\"b\", nonce=\"c\"",
            "Basic realm=a | Digest realm=b; nonce=c"),
        ("a scheme alone between others",
            b"NTLM, Negotiate,Digest realm=a", "NTLM | Negotiate | Digest realm=a"),
        ("a comma inside quotes separates nothing", b"Digest qop=\"auth,auth-int\", realm=\"a, b\"",
            "Digest qop=auth,auth-int; realm=a, b"),
        ("a quote may be escaped",
            br#"Digest realm="a\"b, c", nonce=d"#, r#"Digest realm=a"b, c; nonce=d"#),
        ("so may a backslash before the closing quote", br#"Digest realm="a\\", nonce="b""#,
            r"Digest realm=a\; nonce=b"),
        ("and any other byte", br#"Digest realm="\a\b""#, "Digest realm=ab"),
        ("an empty quoted string is a value", b"Digest realm=\"\"", "Digest realm="),
        ("white space around the equals sign",
            b"Digest realm =\t\"a\" , nonce= b", "Digest realm=a; nonce=b"),
        ("several spaces after the scheme", b"Digest   realm=a", "Digest realm=a"),
        ("empty list elements", b", ,Digest realm=a,, ,nonce=b,", "Digest realm=a; nonce=b"),
        ("bytes that are not ASCII, inside quotes",
            b"Basic realm=\"\xe9\xff\"", "Basic realm=\u{fffd}\u{fffd}"),
        ("an equals sign inside quotes", b"Digest nonce=\"YQ==\"", "Digest nonce=YQ=="),
        ("a challenge that looks like a parameter name", b"Digest realm=a, nonce b=c",
            "Digest realm=a | nonce b=c"),

        // What servers send although the grammar does not allow it.
        ("base64 without quotes (Restlet)",
            b"Digest nonce=YWI/+w==, realm=a", "Digest nonce=YWI/+w==; realm=a"),
        ("a path without quotes",
            b"Digest domain=/a/b, realm=a@b", "Digest domain=/a/b; realm=a@b"),
        ("a tab after the scheme", b"Digest\trealm=a", "Digest realm=a"),
        ("of a name twice, the last one", b"Digest realm=a, nonce=b, realm=d, Basic realm=c",
            "Digest realm=d; nonce=b | Basic realm=c"),
        ("the same in another case", b"Digest realm=a, REALM=b", "Digest realm=b"),
        ("an unknown name twice", b"Digest x=a, x=b, x=c", "Digest x=c"),
        ("a name in two challenges",
            b"Digest realm=a, Digest realm=b", "Digest realm=a | Digest realm=b"),

        // What cannot be answered, without harm to what follows it.
        ("a token68", b"Negotiate YII/a+b==, Digest realm=a", "Negotiate ! | Digest realm=a"),
        ("a token68 that looks like a parameter",
            b"NTLM TlRM==, Digest realm=a", "NTLM TlRM== | Digest realm=a"),
        ("two challenges without a comma", b"Basic realm=\"a\" Digest realm=\"b\", nonce=c, NTLM",
            "Basic ! | NTLM"),
        ("parameters without a comma", b"Digest realm=\"a\" nonce=\"b\"", "Digest !"),
        ("no value", b"Digest realm=, nonce=a", "Digest !"),
        ("a name twice, once without a value", b"Digest realm=, realm=a", "Digest !"),
        ("a scheme before an equals sign is a parameter",
            b"Digest =a, Basic realm=b", "Basic realm=b"),
        ("a quote that is not closed takes in the rest",
            b"Digest realm=\"a, nonce=b, Basic realm=c", "Digest !"),
        ("a closing quote that is escaped", br#"Digest realm="a\", nonce=b"#, "Digest !"),
        ("text after the closing quote",
            b"Digest realm=\"a\"b, Basic realm=c", "Digest ! | Basic realm=c"),
        ("a quote inside a token",
            b"Digest realm=a\"b, c\", Basic realm=c", "Digest ! | Basic realm=c"),
        ("a backslash without quotes", br"Digest realm=a\b", "Digest !"),
        ("a space without quotes", b"Digest realm=a b", "Digest !"),
        ("a byte that is not ASCII, without quotes", b"Digest realm=\xe9", "Digest !"),
        ("a control byte", b"Digest realm=\"a\x01b\"", "Digest !"),
        ("a line break", b"Digest realm=\"a\r\nb\"", "Digest !"),
        ("single quotes do not quote",
            b"Digest realm='a, b', nonce=c", "Digest realm='a | b' nonce=c"),
        ("parameters without a scheme", b"realm=a, nonce=b, Basic realm=c", "Basic realm=c"),
        ("a scheme that is not a token", b"Dig(est) realm=a, Basic realm=c", "Basic realm=c"),
        ("only a quote", b"\"", ""),
    ];

    #[test]
    fn challenges_are_parsed_as_the_rows_say() {
        for (why, field, expected) in ROWS {
            assert_eq!(shown(field), *expected, "{why}");
        }
    }

    #[test]
    fn names_and_schemes_are_case_insensitive() {
        let challenges = challenges(b"dIGEST ReAlM=\"A\", QOP=\"Auth\"");
        let parameters = challenges[0].parameters_of("Digest").unwrap();
        assert_eq!(parameters.get("realm").unwrap().raw(), b"A");
        assert!(parameters.get("qop").unwrap().is("auth"));
        assert!(parameters.get("rea").is_none());
        assert!(challenges[0].parameters_of("Diges").is_none());
    }

    #[test]
    fn raw_values_keep_their_backslashes() {
        let challenges = challenges(br#"Digest realm="a\"\\\b""#);
        let realm = challenges[0].parameters_of("Digest").unwrap().get("realm");
        assert_eq!(realm.unwrap().raw(), br#"a\"\\\b"#);
        assert_eq!(*realm.unwrap().text(), *br#"a"\b"#);
    }

    #[test]
    fn lists_have_commas_or_spaces() {
        let rows: &[(&[u8], bool)] = &[
            (b"auth", true),
            (b"auth,auth-int", true),
            (b"auth-int, AUTH", true),
            (b"auth-int auth", true),
            (b",,auth,", true),
            (b"auth-int", false),
            (b"authority", false),
            (b"", false),
        ];
        for (list, expected) in rows {
            assert_eq!(Value(list).lists("auth"), *expected, "{list:?}");
        }
    }

    #[test]
    fn infos_have_parameters_only() {
        #[rustfmt::skip]
        let rows: &[(&str, &[u8], Option<&str>)] = &[
            ("nothing", b"", Some("")),
            ("parameters",
                b"nextnonce=\"a,b\", qop=auth,nc=00000001",
                Some("nextnonce=a,b; qop=auth; nc=00000001")),
            ("a scheme before them", b"Digest nextnonce=\"a\"", None),
            ("of a name twice, the last one",
                b"nextnonce=a, nextnonce=b", Some("nextnonce=b")),
            ("a quote that is not closed", b"nextnonce=\"a", None),
        ];
        for (why, field, expected) in rows {
            let shown = info(field).map(|parameters| parameters.shown());
            assert_eq!(shown.as_deref(), *expected, "{why}");
        }
    }

    #[test]
    fn the_number_of_parameters_is_limited() {
        let of = |n: usize| {
            let parameters: Vec<_> = (0..n).map(|i| format!("p{i}=v")).collect();
            format!("Digest {}, Basic realm=a", parameters.join(", "))
        };
        assert!(!shown(of(MAX_PARAMETERS).as_bytes()).contains('!'));
        assert_eq!(
            shown(of(MAX_PARAMETERS + 1).as_bytes()),
            "Digest ! | Basic realm=a"
        );
        let repeated = format!(
            "{}, p0=w",
            of(MAX_PARAMETERS).replace(", Basic realm=a", "")
        );
        assert!(
            shown(repeated.as_bytes()).starts_with("Digest p0=w; p1=v;"),
            "a name that comes again takes no room"
        );
    }

    /// Values that are accepted can be sent back inside quotes.
    #[test]
    fn any_input_is_parsed_or_ignored() {
        let mut random = Random::new(7);
        let mut accepted = 0;
        for _ in 0..200 {
            for (_, field, _) in ROWS.iter().filter(|(_, field, _)| !field.is_empty()) {
                let field = random.mutate(field);
                for challenge in challenges(&field) {
                    let parameters = challenge.parameters.iter().flat_map(|them| &them.0);
                    for (name, value) in parameters {
                        accepted += 1;
                        let sent = [name, &b"=\""[..], value.raw(), b"\""].concat();
                        let (_, again) = parameter(&sent).expect("a parameter");
                        assert_eq!(again.raw(), value.raw());
                    }
                }
                let _ = info(&field);
            }
        }
        assert!(accepted > 1000, "{accepted} accepted");
    }
}
