//! A policy that notes what a readback is not shown: the exchanges that a session answers by
//! itself, such as redirects, and the length of a body before it was decoded.
//!
//! It is the policy of the request, so it is nested inside the session and sees each exchange.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use http::{StatusCode, Uri, Version};
use httpstream::policy::{Decoder, Fields, Progress, Screening, Start, Visit};
use httpstream::{Error, Moment, Request, Response};

/// Shared by the policy of a request and its readback.
#[derive(Clone)]
pub(crate) struct Tap {
    keeps: Keeps,
    noted: Arc<Mutex<Noted>>,
}

/// What is kept besides what costs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeps {
    /// All header sections, as text.
    pub(crate) heads: bool,
    /// The fields of the last response.
    pub(crate) fields: bool,
    /// How long a coded body is before the session decodes it.
    pub(crate) coded: bool,
}

/// What has been noted of one request.
#[derive(Default)]
pub(crate) struct Noted {
    pub(crate) began: Option<Instant>,
    /// The URL of the last exchange.
    pub(crate) url: Option<Uri>,
    /// The number of redirects that were followed.
    pub(crate) redirects: usize,
    /// The status of the last exchange, once its head has arrived.
    pub(crate) status: Option<StatusCode>,
    pub(crate) version: Option<Version>,
    pub(crate) heads: Vec<u8>,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// The Content-Length of the last response.
    pub(crate) length: Option<u64>,
    /// The bytes of the last body before it was decoded; `None` if it is not coded.
    pub(crate) coded: Option<u64>,
}

impl Tap {
    pub(crate) fn new(keeps: Keeps) -> Self {
        let noted = Arc::default();
        Self { keeps, noted }
    }

    pub(crate) fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_heads(&self) -> bool {
        !self.noted().heads.is_empty()
    }

    /// Returns the heads since the last call.
    pub(crate) fn take_heads(&self) -> Vec<u8> {
        mem::take(&mut self.noted().heads)
    }

    /// Forgets what was noted, before the request is sent again.
    pub(crate) fn reset(&self) {
        *self.noted() = Noted::default();
    }

    /// Notes a head, if heads are kept.
    pub(crate) fn keep_head(&self, head: &Response<'_>) {
        if self.keeps.heads {
            // Writing to a vector does not fail.
            let _ = write_head(&mut self.noted().heads, head);
        }
    }
}

impl Visit for Tap {
    fn reads_shown(&self) -> bool {
        false
    }

    fn on_start(&mut self, _: &Request, at: &Moment<'_>) -> Result<Start, Error> {
        self.noted().began.get_or_insert(at.now());
        Ok(Start::Now)
    }

    fn on_send(
        &mut self,
        request: &Request,
        _: &mut Fields<'_>,
        _: &Moment<'_>,
    ) -> Result<(), Error> {
        let mut noted = self.noted();
        let before = noted.status.take();
        noted.redirects += usize::from(before.is_some_and(|status| status.is_redirection()));
        noted.url = Some(request.uri().clone());
        Ok(())
    }

    fn on_head(
        &mut self,
        _: &Request,
        head: &Response<'_>,
        _: &Moment<'_>,
    ) -> Result<Screening, Error> {
        let is_coded = self.keeps.coded && head.header("Content-Encoding").is_some();
        self.keep_head(head);
        let mut noted = self.noted();
        noted.status = Some(head.status());
        noted.version = Some(head.version());
        noted.length = head.content_length();
        noted.coded = is_coded.then_some(0);
        if self.keeps.fields {
            let fields = head.headers();
            noted.fields = fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        }
        let screening = Screening::show();
        Ok(match is_coded {
            true => screening.decode(Count(self.clone())),
            false => screening,
        })
    }
}

/// A decoder that passes a body on as it is, and counts its bytes.
struct Count(Tap);

impl Decoder for Count {
    fn decode(&mut self, input: &[u8], room: &mut [u8]) -> io::Result<Progress> {
        let n = input.len().min(room.len());
        room[..n].copy_from_slice(&input[..n]);
        *self.0.noted().coded.get_or_insert_default() += n as u64;
        Ok(Progress {
            consumed: n,
            produced: n,
        })
    }
}

/// Writes a header section as it was received.
fn write_head(out: &mut dyn Write, head: &Response<'_>) -> io::Result<()> {
    write!(out, "{:?} {} ", head.version(), head.status().as_u16())?;
    out.write_all(head.reason())?;
    for (name, value) in head.headers() {
        write!(out, "\r\n{name}: ")?;
        out.write_all(value)?;
    }
    out.write_all(b"\r\n\r\n")
}
