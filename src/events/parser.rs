//! Parser for event streams (WHATWG HTML, [§9.2.5 and §9.2.6]).
//!
//! Input may end at any byte, and the result does not depend on where. Events come out one by one,
//! so whoever reads them may stop in the middle of a piece and go on later. Nothing is refused
//! except an event that is too large: bytes that are not UTF-8 are replaced (§9.2.6 has the stream
//! decoded), and fields that are unknown or have no valid value are ignored.
//!
//! [§9.2.5 and §9.2.6]: https://html.spec.whatwg.org/multipage/server-sent-events.html

use super::Event;

/// A byte order mark, of which one is skipped at the beginning of a stream.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// What follows in the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The input is used up.
    NeedsInput,
    /// An [event](Parser::event), which is lent until [`Parser::clear_event`].
    Event,
    /// The server sets the time to wait before the stream is opened again, in milliseconds.
    /// Numbers that do not fit are the largest.
    Retry { millis: u32 },
    /// An event exceeds the limit. Its part so far has this many bytes.
    TooLarge { seen: usize },
}

/// The state between two pieces of a stream. Its buffers exist only within an event, since ten
/// thousand streams may be idle at once.
#[derive(Debug, Default)]
pub(super) struct Parser {
    parts: Option<Box<Parts>>,
    /// The id of the last event. It outlives the stream. `None` if the server has never set one.
    last_id: Option<Box<str>>,
    /// The first line, before which a byte order mark may stand, is over.
    is_begun: bool,
    /// The last line ended with a CR. If an LF follows, it belongs to the same line end.
    ends_with_cr: bool,
}

/// What has come of an event.
#[derive(Debug, Default)]
struct Parts {
    /// The part of a line that earlier pieces contained.
    line: Vec<u8>,
    name: Vec<u8>,
    /// The lines of data, each with an LF.
    data: Vec<u8>,
    /// An id that becomes the last one at the end of the event.
    id: Option<Box<str>>,
}

impl Parts {
    fn is_empty(&self) -> bool {
        let Self {
            line,
            name,
            data,
            id,
        } = self;
        line.is_empty() && name.is_empty() && data.is_empty() && id.is_none()
    }

    /// Returns the bytes of the event besides its current line.
    fn held(&self) -> usize {
        self.name.len() + self.data.len()
    }
}

impl Parser {
    /// Begins a new stream. The last id stays.
    pub(super) fn begin(&mut self) {
        self.parts = None;
        (self.is_begun, self.ends_with_cr) = (false, false);
    }

    /// Returns the id of the last event, or `None` if no server has ever set one.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    pub(super) fn set_last_id(&mut self, id: impl Into<Box<str>>) {
        self.last_id = Some(id.into());
    }

    /// Consumes input up to the next step. `most` is the limit on the name, the data and the
    /// current line of an event together.
    pub(super) fn next(&mut self, input: &mut &[u8], most: usize) -> Step {
        loop {
            if self.ends_with_cr
                && let Some(first) = input.first()
            {
                if *first == b'\n' {
                    *input = &input[1..];
                }
                self.ends_with_cr = false;
            }
            if input.is_empty() {
                return Step::NeedsInput;
            }
            let end = input.iter().position(|&b| b == b'\n' || b == b'\r');
            let (piece, after) = input.split_at(end.unwrap_or(input.len()));
            let parts = self.parts.get_or_insert_default();
            let seen = parts.held() + parts.line.len() + piece.len();
            if seen > most {
                return Step::TooLarge { seen };
            }
            let Some((end, after)) = after.split_first() else {
                parts.line.extend_from_slice(piece);
                *input = after;
                return Step::NeedsInput;
            };
            self.ends_with_cr = *end == b'\r';
            *input = after;
            let step = if parts.line.is_empty() {
                self.on_line(piece)
            } else {
                parts.line.extend_from_slice(piece);
                let mut line = std::mem::take(&mut parts.line);
                let step = self.on_line(&line);
                line.clear();
                self.parts.get_or_insert_default().line = line;
                step
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    fn on_line(&mut self, line: &[u8]) -> Option<Step> {
        let line = match std::mem::replace(&mut self.is_begun, true) {
            true => line,
            false => line.strip_prefix(BOM).unwrap_or(line),
        };
        if line.is_empty() {
            return self.on_blank();
        }
        let (name, value) = match line.iter().position(|&b| b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let parts = self.parts.get_or_insert_default();
        match name {
            b"data" => {
                parts.data.extend_from_slice(value);
                parts.data.push(b'\n');
            }
            b"event" => {
                parts.name.clear();
                parts.name.extend_from_slice(value);
            }
            // NUL cannot be sent back in a field.
            b"id" if !value.contains(&0) => {
                parts.id = Some(String::from_utf8_lossy(value).into());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                let millis = str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok());
                let millis = millis.unwrap_or(u32::MAX);
                return Some(Step::Retry { millis });
            }
            // A comment, whose name is empty, or a field that has no meaning.
            _ => {}
        }
        None
    }

    /// Ends an event. One without data is none, but its id counts.
    fn on_blank(&mut self) -> Option<Step> {
        let parts = self.parts.as_mut()?;
        if let Some(id) = parts.id.take() {
            self.last_id = Some(id);
        }
        if parts.data.is_empty() {
            parts.name.clear();
            return None;
        }
        Some(Step::Event)
    }

    /// Returns the event that [`next`](Self::next) has reported.
    pub(super) fn event(&self) -> Event<'_> {
        let (name, data) = match &self.parts {
            Some(parts) => (&parts.name[..], &parts.data[..]),
            None => (&b""[..], &b""[..]),
        };
        let name = match name {
            [] => "message".into(),
            [..] => String::from_utf8_lossy(name),
        };
        Event {
            id: self.last_id().unwrap_or_default().into(),
            name,
            data: String::from_utf8_lossy(data.strip_suffix(b"\n").unwrap_or(data)),
        }
    }

    /// Makes room for the next event.
    pub(super) fn clear_event(&mut self) {
        if let Some(parts) = &mut self.parts {
            parts.name.clear();
            parts.data.clear();
        }
    }

    /// Frees the buffers if they are empty.
    pub(super) fn free(&mut self) {
        if self.parts.as_ref().is_some_and(|parts| parts.is_empty()) {
            self.parts = None;
        }
    }

    #[cfg(test)]
    pub(super) fn has_no_buffers(&self) -> bool {
        self.parts.is_none()
    }
}
