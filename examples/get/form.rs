//! The parts of -F and --form-string: a form with files.
//!
//! Files are read while they are sent. Stdin and other pipes are read to their end before anything
//! is sent, as with curl: most servers want to know the length of a form.

use std::fs;
use std::path::{Path, PathBuf};

use httpstream::Form;

use crate::upload::Opened;
use crate::values::Value;

/// Of files whose name says nothing.
const UNKNOWN: &str = "application/octet-stream";

/// The content types that curl knows, by the end of a file name.
const TYPES: &[(&str, &str)] = &[
    (".gif", "image/gif"),
    (".htm", "text/html"),
    (".html", "text/html"),
    (".jpeg", "image/jpeg"),
    (".jpg", "image/jpeg"),
    (".pdf", "application/pdf"),
    (".png", "image/png"),
    (".svg", "image/svg+xml"),
    (".txt", "text/plain"),
    (".xml", "application/xml"),
];

#[derive(Default)]
pub(crate) struct Parts(Vec<Part>);

struct Part {
    name: String,
    content: Content,
}

enum Content {
    Text(String),
    Typed {
        content_type: String,
        bytes: Vec<u8>,
    },
    Bytes {
        file: Named,
        bytes: Vec<u8>,
    },
    /// A regular file, of this length when the command line was read.
    File(PathBuf, u64),
    /// The same, with another name or type than its own.
    Renamed {
        file: Named,
        path: PathBuf,
        length: u64,
    },
}

/// What is said of a file.
struct Named {
    file_name: String,
    content_type: String,
}

/// The parameters of a part.
#[derive(Default)]
struct Terms {
    file_name: Option<String>,
    content_type: Option<String>,
}

impl Parts {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the length of all contents.
    pub(crate) fn len(&self) -> u64 {
        let lengths = self.0.iter().map(|part| part.content.len());
        lengths.fold(0, u64::saturating_add)
    }

    /// Adds the value of --form-string: `NAME=TEXT`.
    pub(crate) fn add_text(&mut self, value: &Value) -> Result<(), String> {
        let (name, text) = named(value)?;
        self.push(name, Content::Text(text.to_owned()));
        Ok(())
    }

    /// Adds the value of -F: `NAME=TEXT`, `NAME=@FILE` or `NAME=<FILE`, with parameters.
    pub(crate) fn add(&mut self, value: &Value) -> Result<(), String> {
        let (name, text) = named(value)?;
        let content = if let Some(rest) = text.strip_prefix('@') {
            let (file, terms) = Words::new(value, rest, &[';', ',']).read()?;
            Content::of_file(value, file.as_ref(), terms)?
        } else if let Some(rest) = text.strip_prefix('<') {
            let (file, terms) = Words::new(value, rest, &[';']).read()?;
            Content::of_bytes(value, value.read(file.as_ref())?, terms)?
        } else if text.starts_with('(') {
            return Err(
                value.wrong("forms in forms are not supported; for text, see --form-string")
            );
        } else {
            let (text, terms) = Words::new(value, text, &[';']).read()?;
            Content::of_bytes(value, text.into(), terms)?
        };
        self.push(name, content);
        Ok(())
    }

    fn push(&mut self, name: &str, content: Content) {
        let name = name.to_owned();
        self.0.push(Part { name, content });
    }

    pub(crate) fn form(&self) -> Form {
        let parts = self.0.iter();
        parts.fold(Form::new(), |form, part| part.add_to(form))
    }
}

impl Part {
    fn add_to(&self, form: Form) -> Form {
        let name = &self.name;
        match &self.content {
            Content::Text(text) => form.text(name, text),
            Content::Typed {
                content_type,
                bytes,
            } => form.typed(name, content_type, &**bytes),
            Content::Bytes { file, bytes } => {
                form.bytes(name, &file.file_name, &file.content_type, &**bytes)
            }
            Content::File(path, _) => form.file(name, path),
            Content::Renamed { file, path, .. } => {
                let path = path.clone();
                let open = move || Opened::new(&path);
                form.source(name, &file.file_name, &file.content_type, open)
            }
        }
    }
}

impl Content {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Typed { bytes, .. } | Self::Bytes { bytes, .. } => bytes.len() as u64,
            Self::File(_, length) | Self::Renamed { length, .. } => *length,
        }
    }

    fn of_bytes(value: &Value, bytes: Vec<u8>, terms: Terms) -> Result<Self, String> {
        match (terms.file_name, terms.content_type) {
            (Some(name), its_type) => Ok(Self::Bytes {
                file: Named::new(name, its_type),
                bytes,
            }),
            (None, Some(content_type)) => Ok(Self::Typed {
                content_type,
                bytes,
            }),
            (None, None) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Self::Text(text)),
                Err(_) => Err(value.wrong("a text that is not UTF-8 requires a type (\";type=\")")),
            },
        }
    }

    fn of_file(value: &Value, path: &Path, terms: Terms) -> Result<Self, String> {
        let own_name = || {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let length = match fs::metadata(path) {
            Ok(found) if found.is_file() => found.len(),
            // Stdin, a pipe, or nothing; the error tells which.
            _ => {
                let bytes = value.read(path.as_ref())?;
                let file_name = Some(terms.file_name.unwrap_or_else(own_name));
                return Self::of_bytes(value, bytes, Terms { file_name, ..terms });
            }
        };
        Ok(match terms {
            Terms {
                file_name: None,
                content_type: None,
            } => Self::File(path.to_owned(), length),
            Terms {
                file_name,
                content_type,
            } => Self::Renamed {
                file: Named::new(file_name.unwrap_or_else(own_name), content_type),
                path: path.to_owned(),
                length,
            },
        })
    }
}

impl Named {
    fn new(file_name: String, content_type: Option<String>) -> Self {
        let content_type = content_type.unwrap_or_else(|| {
            let lower = file_name.to_ascii_lowercase();
            let known = TYPES.iter().find(|(end, _)| lower.ends_with(end));
            known.map_or(UNKNOWN, |(_, name)| name).to_owned()
        });
        Self {
            file_name,
            content_type,
        }
    }
}

/// Splits `NAME=CONTENT`.
fn named(value: &Value) -> Result<(&str, &str), String> {
    match value.text()?.split_once('=') {
        Some((name, content)) if !name.is_empty() => Ok((name, content)),
        _ => Err(value.wrong("not NAME=CONTENT")),
    }
}

/// The content of a part and its parameters, as curl reads them: `WORD;type=TYPE;filename=WORD`. A
/// word ends before one of `ends`, unless it is quoted.
struct Words<'a> {
    value: &'a Value,
    rest: &'a str,
    ends: &'static [char],
}

impl<'a> Words<'a> {
    fn new(value: &'a Value, rest: &'a str, ends: &'static [char]) -> Self {
        Self { value, rest, ends }
    }

    fn read(mut self) -> Result<(String, Terms), String> {
        let first = self.word()?;
        let mut terms = Terms::default();
        while let Some(rest) = self.rest.strip_prefix(';') {
            self.rest = rest.trim_start();
            if let Some(rest) = self.rest.strip_prefix("type=") {
                self.rest = rest.trim_start();
                terms.content_type = Some(self.content_type()?);
            } else if let Some(rest) = self.rest.strip_prefix("filename=") {
                self.rest = rest;
                terms.file_name = Some(self.word()?);
            } else {
                let known = "\";\" begins \"type=\" or \"filename=\"; for text, see --form-string";
                return Err(self.value.wrong(known));
            }
        }
        match self.rest {
            "" => Ok((first, terms)),
            _ => Err(self
                .value
                .wrong("one file for each option; quote a name with a comma")),
        }
    }

    /// Returns the next word, without its quotes.
    fn word(&mut self) -> Result<String, String> {
        self.rest = self.rest.trim_start();
        let Some((word, rest)) = self.rest.strip_prefix('"').and_then(quoted) else {
            return Ok(self.until_end().trim_end().to_owned());
        };
        self.rest = rest;
        match self.until_end().trim() {
            "" => Ok(word),
            _ => Err(self.value.wrong("characters after a quoted word")),
        }
    }

    /// Returns a content type with its parameters, which end where those of the part go on.
    fn content_type(&mut self) -> Result<String, String> {
        let mut content_type = self.until_end().to_owned();
        while let Some(rest) = self.rest.strip_prefix(';')
            && !rest.trim_start().starts_with("filename=")
        {
            self.rest = rest;
            content_type = content_type + ";" + self.until_end();
        }
        match content_type.contains('/') {
            true => Ok(content_type.trim_end().to_owned()),
            false => Err(self.value.wrong("no content type after \"type=\"")),
        }
    }

    fn until_end(&mut self) -> &'a str {
        let end = self.rest.find(self.ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
}

/// Returns a quoted word and what follows its closing quote, if there is one. A backslash may stand
/// before a quote or another backslash.
fn quoted(text: &str) -> Option<(String, &str)> {
    let (mut word, mut chars) = (String::new(), text.chars());
    loop {
        match chars.next()? {
            '"' => return Some((word, chars.as_str())),
            '\\' if chars.as_str().starts_with(['"', '\\']) => word.extend(chars.next()),
            other => word.push(other),
        }
    }
}
