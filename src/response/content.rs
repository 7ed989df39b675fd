//! Bodies as text and as JSON, and why they are not.
//!
//! The errors contain nothing of the body but the position of the mistake.

/// The most characters of a content coding that an error shows. A coding is usually a short token,
/// but a peer may send anything.
const MAX_CODING: usize = 32;

/// Reads a body as UTF-8. `coding` is the value of Content-Encoding.
///
/// # Errors
/// Why it is not, with the position of the first invalid byte.
pub(super) fn text<'a>(body: &'a [u8], coding: Option<&str>) -> Result<&'a str, String> {
    str::from_utf8(body).map_err(|error| {
        let why = format!("body is not UTF-8 at byte {}", error.valid_up_to());
        with_coding(why, coding)
    })
}

/// Reads a body as JSON. `coding` is the value of Content-Encoding.
///
/// # Errors
/// Why it is not, with line and column.
#[cfg(feature = "json")]
pub(super) fn json<T: serde::de::DeserializeOwned>(
    body: &[u8],
    coding: Option<&str>,
) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| with_coding(json::describe(&error), coding))
}

/// Names the content coding, which is the likely reason if there is one.
fn with_coding(mut why: String, coding: Option<&str>) -> String {
    if let Some(coding) = coding {
        let coding: String = coding.chars().take(MAX_CODING).collect();
        why += &format!(", and has the content coding {coding:?}");
    }
    why
}

#[cfg(feature = "json")]
mod json {
    use serde_json::error::{Category, Error};

    /// How the messages begin that contain only names and types of the program.
    const OF_THE_PROGRAM: [&str; 3] = [
        "missing field ",
        "duplicate field ",
        "data did not match any variant of ",
    ];

    /// How the messages begin that quote the body, and then may tell what was expected.
    const QUOTING: [&str; 5] = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
        "unknown field",
    ];

    /// Tells what is wrong and where, without the values that serde quotes from the body.
    pub(super) fn describe(error: &Error) -> String {
        let whole = error.to_string();
        let (line, column) = (error.line(), error.column());
        let place = format!(" at line {line} column {column}");
        let why = whole.strip_suffix(&*place).unwrap_or(&whole);
        match error.classify() {
            Category::Data => format!("body is JSON of another shape: {}{place}", unquoted(why)),
            // These are serde_json's own and fixed texts.
            Category::Syntax | Category::Eof | Category::Io => {
                format!("body is not JSON: {why}{place}")
            }
        }
    }

    /// Removes what `why` quotes from the body.
    fn unquoted(why: &str) -> String {
        if OF_THE_PROGRAM.iter().any(|start| why.starts_with(start)) {
            return why.to_owned();
        }
        let Some(kind) = QUOTING.iter().find(|start| why.starts_with(**start)) else {
            // A message of the type's own `Deserialize` may contain anything.
            return "refused by the type's Deserialize implementation".to_owned();
        };
        // What is quoted precedes the last of these words, even if it contains them itself.
        match why.rsplit_once(", expected ") {
            Some((_, expected)) => format!("{kind}, expected {expected}"),
            None => (*kind).to_owned(),
        }
    }

    #[cfg(test)]
    mod tests {
        use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny};

        use super::*;

        /// A type whose `Deserialize` fails with the text that the JSON contains.
        #[derive(Debug)]
        struct Fails;

        impl<'de> Deserialize<'de> for Fails {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Err(D::Error::custom(String::deserialize(from)?))
            }
        }

        #[test]
        fn messages_keep_what_the_program_says_and_lose_what_the_body_says() {
            // Message of serde, what is left of it.
            #[rustfmt::skip]
            const ROWS: &[(&str, &str)] = &[
                ("missing field `id`", "missing field `id`"),
                ("duplicate field `id`", "duplicate field `id`"),
                ("data did not match any variant of untagged enum Event", "data did not match any variant of untagged enum Event"),
                ("invalid type: integer `7`, expected a string", "invalid type, expected a string"),
                ("invalid type: null, expected u8", "invalid type, expected u8"),
                ("invalid type: string ', expected s3cret', expected u8", "invalid type, expected u8"),
                ("invalid value: integer `300`, expected u8", "invalid value, expected u8"),
                ("invalid length 3, expected a tuple of size 2", "invalid length, expected a tuple of size 2"),
                ("unknown variant `s3cret`, expected one of `a`, `b`", "unknown variant, expected one of `a`, `b`"),
                ("unknown field `s3cret`, there are no fields", "unknown field"),
                ("s3cret is not a color", "refused by the type's Deserialize implementation"),
                ("", "refused by the type's Deserialize implementation"),
            ];
            for (message, expected) in ROWS {
                let json = serde_json::to_string(message).unwrap();
                let error = serde_json::from_str::<Fails>(&json).unwrap_err();
                let place = format!(" at line {} column {}", error.line(), error.column());
                let expected = format!("body is JSON of another shape: {expected}{place}");
                assert_eq!(describe(&error), expected);
            }
        }

        #[test]
        fn text_that_is_not_json_is_described_without_it() {
            for text in [
                "s3cret",
                "[s3cret]",
                "{\"a\" s3cret}",
                "\"s3cret",
                "\"\\s3cret\"",
                "7s3cret",
            ] {
                let error = serde_json::from_str::<IgnoredAny>(text).unwrap_err();
                let described = describe(&error);
                assert!(described.starts_with("body is not JSON: "), "{described}");
                assert!(described.contains(" at line 1 column "), "{described}");
                assert!(!described.contains("s3cret"), "{described}");
            }
        }
    }
}
