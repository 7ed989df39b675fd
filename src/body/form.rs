//! Forms with files: `multipart/form-data` (RFC 7578), read from their parts while they are sent.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::task::Waker;

use crate::body::reader::{at, check_regular};
use crate::body::{BodySource, Supply};
use crate::proto::field::value_fault;
use crate::proto::target::{Fault, UNDISPLAYABLE};

/// A form with files, for [`RequestBuilder::multipart`](crate::RequestBuilder::multipart): fields
/// with text, files and other content, in the order in which they are added (RFC 7578).
///
/// Files are read while the form is sent, so a form of any size takes little memory. If the length
/// of every part is known, the form is sent with a Content-Length, and in chunks otherwise.
///
/// In names and file names, `"`, CR and LF are escaped as browsers escape them, with `%22`, `%0D`
/// and `%0A`; other control characters make the form invalid. Text is sent as it is, in UTF-8.
///
/// ```
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Form, Next, Request, Sim};
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     let body = String::from_utf8_lossy(request.body());
///     assert!(body.contains("form-data; name=\"chat_id\"\r\n\r\n42\r\n"));
///     assert!(body.contains("form-data; name=\"photo\"; filename=\"a.gif\"\r\n"));
///     Answer::ok("sent")
/// });
/// let mut engine = Engine::<String, Sim>::on_network(&network, Config::default())?;
///
/// let form = Form::new()
///     .text("chat_id", 42)
///     .bytes("photo", "a.gif", "image/gif", "GIF89a");
/// let send = Request::post("http://10.0.0.1/sendPhoto").multipart(form).build()?;
/// engine.submit(send, |told: &mut String, reply, _| {
///     told.push_str(reply.unwrap().text().unwrap());
///     Next::done()
/// });
/// let mut told = String::new();
/// engine.run(&mut told)?;
/// assert_eq!(told, "sent");
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Default)]
#[must_use = "a form does nothing until it is given to a request"]
pub struct Form {
    parts: Vec<Part>,
    /// What is wrong with the first invalid part.
    fault: Option<FormFault>,
}

/// What is wrong with a part of a form, and the name of that part.
pub(crate) struct FormFault {
    pub(crate) fault: Fault,
    pub(crate) name: String,
}

struct Part {
    /// The fields of the part, each with its CRLF, and the empty line.
    head: Vec<u8>,
    content: Content,
}

enum Content {
    Bytes(Arc<[u8]>),
    File(Box<Path>),
    Source(Box<Make>),
}

type Make = dyn Fn() -> io::Result<Box<dyn BodySource>> + Send + Sync;

const CRLF: &[u8] = b"\r\n";

impl Form {
    /// Creates an empty form.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field with text.
    pub fn text(mut self, name: &str, value: impl fmt::Display) -> Self {
        let mut text = String::new();
        if write!(text, "{value}").is_err() {
            self.blame(name, Fault::whole(UNDISPLAYABLE));
        }
        let content = Content::Bytes(text.into_bytes().into());
        self.with(name, None, None, content)
    }

    /// Adds a field with a content type: a JSON document that describes the files beside it, for
    /// example. It has no file name.
    pub fn typed(self, name: &str, content_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        let content = Content::Bytes(bytes.into().into());
        self.with(name, None, Some(content_type), content)
    }

    /// Adds a file. It is sent under its own name, without the folders, and with the type that its
    /// extension stands for, or as `application/octet-stream`.
    ///
    /// The file is opened when its turn comes, and its length is read when the request begins. If
    /// it becomes shorter in between, the request fails; what is appended to it is left out.
    pub fn file(self, name: &str, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let content = Content::File(path.into());
        self.with(name, Some(&file_name), Some(type_of(path)), content)
    }

    /// Adds a file whose content is in memory.
    pub fn bytes(
        self,
        name: &str,
        file_name: &str,
        content_type: &str,
        bytes: impl Into<Vec<u8>>,
    ) -> Self {
        let content = Content::Bytes(bytes.into().into());
        self.with(name, Some(file_name), Some(content_type), content)
    }

    /// Adds a file whose content is read from a source. `make` is called once for each attempt, as
    /// in [`body_with`](crate::RequestBuilder::body_with).
    pub fn source<B: BodySource + 'static>(
        self,
        name: &str,
        file_name: &str,
        content_type: &str,
        make: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Self {
        let make = move || Ok(Box::new(make()?) as Box<dyn BodySource>);
        let content = Content::Source(Box::new(make));
        self.with(name, Some(file_name), Some(content_type), content)
    }

    fn with(
        mut self,
        name: &str,
        file_name: Option<&str>,
        content_type: Option<&str>,
        content: Content,
    ) -> Self {
        let mut head = b"Content-Disposition: form-data; name=\"".to_vec();
        escape(&mut head, name);
        if let Some(file_name) = file_name {
            head.extend_from_slice(b"\"; filename=\"");
            escape(&mut head, file_name);
        }
        head.extend_from_slice(b"\"");
        if let Some(fault) = value_fault(&head) {
            self.blame(name, Fault { at: None, ..fault });
        }
        if let Some(content_type) = content_type {
            if let Some(fault) = value_fault(content_type.as_bytes()) {
                self.blame(name, Fault { at: None, ..fault });
            }
            head.extend_from_slice(b"\r\nContent-Type: ");
            head.extend_from_slice(content_type.as_bytes());
        }
        head.extend_from_slice(b"\r\n\r\n");
        self.parts.push(Part { head, content });
        self
    }

    fn blame(&mut self, name: &str, fault: Fault) {
        let name = name.to_owned();
        self.fault.get_or_insert(FormFault { fault, name });
    }

    pub(super) fn take_fault(&mut self) -> Option<FormFault> {
        self.fault.take()
    }

    /// Returns the body of the form for one attempt.
    pub(super) fn open(&self, boundary: &str) -> io::Result<Multipart> {
        let mut segments = VecDeque::new();
        for part in &self.parts {
            let before = [b"--", boundary.as_bytes(), CRLF, &part.head].concat();
            segments.push_back(Segment::of_bytes(before.into()));
            segments.push_back(match &part.content {
                Content::Bytes(bytes) => Segment::of_bytes(Arc::clone(bytes)),
                Content::File(path) => Segment::of_file(path)?,
                Content::Source(make) => Segment::of_source(make()?),
            });
            segments.push_back(Segment::of_bytes(CRLF.into()));
        }
        let last = format!("--{boundary}--\r\n");
        segments.push_back(Segment::of_bytes(last.into_bytes().into()));
        let sizes = segments.iter().map(|segment| segment.left);
        let size = sizes.reduce(|sum, size| sum?.checked_add(size?)).flatten();
        Ok(Multipart { segments, size })
    }
}

/// Numbers and sizes only: what is sent may be secret.
impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Form")
            .field("parts", &self.parts.len())
            .finish_non_exhaustive()
    }
}

/// Returns an unpredictable boundary, so that no content can contain it on purpose (RFC
/// 2046 §5.1.1). The randomness is that which the standard library draws for its hash maps.
pub(super) fn boundary() -> String {
    let keys = RandomState::new();
    format!(
        "httpstream-{:016x}{:016x}",
        keys.hash_one(1),
        keys.hash_one(2)
    )
}

/// Escapes a name as the WHATWG's encoding of multipart forms does.
fn escape(head: &mut Vec<u8>, name: &str) {
    for byte in name.bytes() {
        match byte {
            b'"' => head.extend_from_slice(b"%22"),
            b'\r' => head.extend_from_slice(b"%0D"),
            b'\n' => head.extend_from_slice(b"%0A"),
            byte => head.push(byte),
        }
    }
}

/// Returns the content type of a file, by its extension.
fn type_of(path: &Path) -> &'static str {
    const TYPES: [(&str, &str); 16] = [
        ("gif", "image/gif"),
        ("jpg", "image/jpeg"),
        ("jpeg", "image/jpeg"),
        ("png", "image/png"),
        ("webp", "image/webp"),
        ("svg", "image/svg+xml"),
        ("mp4", "video/mp4"),
        ("mp3", "audio/mpeg"),
        ("ogg", "audio/ogg"),
        ("txt", "text/plain"),
        ("htm", "text/html"),
        ("html", "text/html"),
        ("json", "application/json"),
        ("pdf", "application/pdf"),
        ("xml", "application/xml"),
        ("zip", "application/zip"),
    ];
    let extension = path.extension().unwrap_or_default();
    TYPES
        .iter()
        .find(|(known, _)| extension.eq_ignore_ascii_case(known))
        .map_or("application/octet-stream", |(_, name)| name)
}

/// The body of a form.
pub(super) struct Multipart {
    segments: VecDeque<Segment>,
    size: Option<u64>,
}

struct Segment {
    content: Reading,
    /// The bytes that are still to come, if their number is known.
    left: Option<u64>,
}

enum Reading {
    Bytes { bytes: Arc<[u8]>, read: usize },
    Unopened(Box<Path>),
    File(File, Box<Path>),
    Source(Box<dyn BodySource>),
}

impl Segment {
    fn of_bytes(bytes: Arc<[u8]>) -> Self {
        Self {
            left: Some(bytes.len() as u64),
            content: Reading::Bytes { bytes, read: 0 },
        }
    }

    fn of_file(path: &Path) -> io::Result<Self> {
        let size = check_regular(path).map_err(|error| at(path, &error))?;
        Ok(Self {
            content: Reading::Unopened(path.into()),
            left: Some(size),
        })
    }

    fn of_source(source: Box<dyn BodySource>) -> Self {
        Self {
            left: source.size(),
            content: Reading::Source(source),
        }
    }

    /// Reads more, into `room`. A file or a source of known length is checked against it.
    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let supply = match &mut self.content {
            Reading::Bytes { bytes, read } => {
                let n = room.len().min(bytes.len() - *read);
                room[..n].copy_from_slice(&bytes[*read..*read + n]);
                *read += n;
                supply_of(n)
            }
            Reading::Unopened(path) => {
                let file = File::open(&**path).map_err(|error| at(path, &error))?;
                let path = std::mem::replace(path, Path::new("").into());
                self.content = Reading::File(file, path);
                return self.read(room, waker);
            }
            Reading::File(file, path) => {
                let left = usize::try_from(self.left.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
                let most = room.len().min(left);
                let read = read_from(file, &mut room[..most]);
                supply_of(read.map_err(|error| at(path, &error))?)
            }
            Reading::Source(source) => source.read(room, waker)?,
        };
        self.check(supply, room.len())
    }

    fn check(&mut self, supply: Supply, room: usize) -> io::Result<Supply> {
        match (supply, &mut self.left) {
            // Asked again and again, a source that yields nothing would block the loop.
            (Supply::Bytes(n), _) if n == 0 || n > room => {
                let why = format!("the source of a part said {n} bytes for a room of {room}");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            (Supply::Bytes(n), Some(left)) => match left.checked_sub(n as u64) {
                Some(rest) => *left = rest,
                None => {
                    let why = "a part of the form has more bytes than its source said";
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
            },
            (Supply::End, Some(1..)) => {
                let missing = self.left.unwrap_or_default();
                let what = match &self.content {
                    Reading::File(_, path) => format!("{} has become shorter", path.display()),
                    _ => "a part of the form is shorter than its source said".to_owned(),
                };
                let why = format!("{what}: {missing} bytes are missing");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
            }
            _ => {}
        }
        Ok(supply)
    }
}

fn supply_of(read: usize) -> Supply {
    match read {
        0 => Supply::End,
        n => Supply::Bytes(n),
    }
}

fn read_from(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

impl BodySource for Multipart {
    fn size(&self) -> Option<u64> {
        self.size
    }

    fn read(&mut self, room: &mut [u8], waker: &Waker) -> io::Result<Supply> {
        let mut filled = 0;
        // Short segments go out together.
        while filled < room.len()
            && let Some(segment) = self.segments.front_mut()
        {
            match segment.read(&mut room[filled..], waker)? {
                Supply::Bytes(n) => filled += n,
                Supply::End => drop(self.segments.pop_front()),
                // Asked again when what was read has been sent, and then waits.
                Supply::Wait if filled > 0 => break,
                Supply::Wait => return Ok(Supply::Wait),
            }
        }
        Ok(supply_of(filled))
    }
}
