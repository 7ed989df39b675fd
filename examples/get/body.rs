//! The body of the requests, put together from the options -d, --data-* and --json.

use crate::values::Value;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

#[derive(Default)]
pub(crate) struct Body {
    bytes: Option<Vec<u8>>,
    is_json: bool,
}

impl Body {
    /// Adds the value of -d.
    pub(crate) fn add_data(&mut self, value: &Value) -> Result<(), String> {
        self.add(&value.content()?.without_line_ends(), b"&");
        Ok(())
    }

    /// Adds the value of --data-raw, in which `@` has no meaning.
    pub(crate) fn add_raw(&mut self, value: &Value) {
        self.add(value.raw().as_encoded_bytes(), b"&");
    }

    /// Adds the value of --data-binary.
    pub(crate) fn add_binary(&mut self, value: &Value) -> Result<(), String> {
        self.add(&value.content()?.into_bytes(), b"&");
        Ok(())
    }

    /// Adds the value of --json. Several make one document, so nothing is put between them.
    pub(crate) fn add_json(&mut self, value: &Value) -> Result<(), String> {
        self.is_json = true;
        self.add(&value.content()?.into_bytes(), b"");
        Ok(())
    }

    /// Adds the value of --data-urlencode: `content`, `=content`, `name=content`, `@file` or
    /// `name@file`.
    pub(crate) fn add_urlencoded(&mut self, value: &Value) -> Result<(), String> {
        let text = value.text()?;
        let (name, content) = match (text.split_once('='), text.split_once('@')) {
            (Some((name, content)), _) => (name, content.as_bytes().to_vec()),
            (None, Some((name, file))) => (name, value.read(file.as_ref())?),
            (None, None) => ("", text.as_bytes().to_vec()),
        };
        let mut piece = name.to_owned();
        if !name.is_empty() {
            piece.push('=');
        }
        piece.push_str(&percent_encode(&content).replace("%20", "+"));
        self.add(piece.as_bytes(), b"&");
        Ok(())
    }

    fn add(&mut self, piece: &[u8], joint: &[u8]) {
        match &mut self.bytes {
            Some(bytes) => bytes.extend_from_slice(&[joint, piece].concat()),
            None => self.bytes = Some(piece.to_owned()),
        }
    }

    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        self.bytes.as_deref()
    }

    /// Returns the fields that describe the body.
    pub(crate) fn fields(&self) -> &'static [(&'static str, &'static str)] {
        match (&self.bytes, self.is_json) {
            (None, _) => &[],
            (Some(_), false) => &[("Content-Type", FORM)],
            (Some(_), true) => &[("Content-Type", JSON), ("Accept", JSON)],
        }
    }

    /// Returns the body as the query of a URL (-G). Bytes that would end the query or that are not
    /// ASCII are percent-encoded; the request encodes what else a query cannot contain.
    pub(crate) fn as_query(&self) -> Option<String> {
        let mut query = String::new();
        for &byte in self.bytes.as_deref()? {
            match byte {
                b'#' => query.push_str("%23"),
                0x21..=0x7e => query.push(byte.into()),
                _ => query.push_str(&format!("%{byte:02X}")),
            }
        }
        Some(query)
    }
}

/// Encodes what is not an unreserved character (RFC 3986 §2.3).
pub(crate) fn percent_encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'-' | b'.' | b'_' | b'~' => text.push(byte.into()),
            _ if byte.is_ascii_alphanumeric() => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
