//! The parts of a request while it is being built, and the checks of each.
//!
//! Every check of a single part is made when the part is set, and every check that involves several
//! parts when the request is built. The lines that the builder itself appends are written last, so
//! that [`Draft::of`] can remove them again.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use http::Method;

use super::auth;
use crate::proto::field::{name_fault, offset_of_trimmed, token_fault, trim, value_fault};
use crate::proto::percent::{self, Place, percent_encode};
use crate::proto::target::{Fault, Target, UNDISPLAYABLE, Userinfo, check_host_value};
use crate::proto::{Invalid, InvalidPart, Scheme};
use crate::request::{
    CarriedBody, Checked, CheckedBody, MAX_PIPELINE, Rare, Request, field_bit, lines,
};
use crate::timeouts::TimeoutsEdit;

/// The longest accepted method in bytes. The longest in the IANA registry has 17.
const MAX_METHOD: usize = 255;

/// The line that [`RequestBuilder::close`](super::RequestBuilder::close) appends.
const CLOSE: &[u8] = b"Connection: close\r\n";

/// The line added to a request with an Upgrade field if the caller does not add one.
const UPGRADE: &[u8] = b"Connection: Upgrade\r\n";

/// The fields that belong to one origin, and are removed if a request is led to another.
const OF_THE_ORIGIN: [&str; 4] = ["Host", "Cookie", "Authorization", "Proxy-Authorization"];

/// Whether `https` can be sent. In the simulation it is sent without TLS; without feature `tls`, an
/// engine on the real network refuses such a request.
const fn has_tls() -> bool {
    cfg!(any(feature = "tls", feature = "sim"))
}

/// The parts of a request that is being built.
pub(super) struct Draft {
    pub(super) method: Method,
    pub(super) target: Target,
    /// The caller's field lines in their order, without Host and Content-Length.
    lines: Vec<u8>,
    /// The [`field_bit`]s of the names in `lines`.
    fields: u32,
    /// Number of calls of `header` so far.
    headers: usize,
    /// Number of path segments appended so far.
    segments: usize,
    host: Option<Box<[u8]>>,
    content_length: Option<u64>,
    /// Whether Content-Length is sent although the body is empty and the method does not require
    /// it.
    says_length: bool,
    has_content_type: bool,
    /// The position of the Expect line in `lines`.
    expect: Option<Range<usize>>,
    has_close: bool,
    /// Whether there is an `Upgrade` field, and a `Connection` field with the option `upgrade`.
    has_upgrade: bool,
    has_upgrade_option: bool,
    pub(super) close: bool,
    body: CheckedBody,
    /// The Content-Type that belongs to the body, and is sent unless the caller sets one.
    body_type: Option<Cow<'static, str>>,
    pub(super) timeouts: TimeoutsEdit,
    pub(super) idempotent: Option<bool>,
    pub(super) fresh: bool,
    /// The depth as given. The one in `rare` is set when the request is built.
    pub(super) pipeline: Option<usize>,
    pub(super) rare: Rare,
}

impl Draft {
    /// Begins a request. Userinfo in `url` becomes an Authorization field.
    pub(super) fn new(method: Method, url: &str) -> Result<Self, Invalid> {
        let invalid = |fault| InvalidPart::Url.is(fault);
        check_method(&method)?;
        let (target, userinfo) = Target::parse_with_userinfo(url).map_err(invalid)?;
        let mut draft = Self::bare(method, check_scheme(target).map_err(invalid)?);
        if let Some(Userinfo { user, password }) = userinfo {
            draft.authorize(&auth::basic(&user, &password).map_err(invalid)?);
        }
        Ok(draft)
    }

    fn bare(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            lines: Vec::new(),
            fields: 0,
            headers: 0,
            segments: 0,
            host: None,
            content_length: None,
            says_length: false,
            has_content_type: false,
            expect: None,
            has_close: false,
            has_upgrade: false,
            has_upgrade_option: false,
            close: false,
            body: CheckedBody::Bytes(Vec::new()),
            body_type: None,
            timeouts: TimeoutsEdit::NONE,
            idempotent: None,
            fresh: false,
            pipeline: None,
            rare: Rare::default(),
        }
    }

    /// Recovers the parts that `request` was built from. The lines that [`build`](Self::build)
    /// appended are removed in reverse order.
    pub(super) fn of(request: &Request) -> Self {
        let mut lines = request.lines();
        take_last(&mut lines, |line| line == UPGRADE);
        let close = request.wants_close() && take_last(&mut lines, |line| line == CLOSE);
        let has_length = take_last(&mut lines, |line| is_named(line, "Content-Length"));
        let body_type = match request.has_body_type() {
            true => take_type(&mut lines),
            false => None,
        };
        let mut rare = request.rare().cloned().unwrap_or_default();
        let body = match (rare.body.take(), request.wire_body()) {
            (Some(source), _) => CheckedBody::From(source),
            (None, []) => CheckedBody::Bytes(Vec::new()),
            (None, [..]) => CheckedBody::Of(request.clone()),
        };
        rare.mark = rare.mark.map(|mark| mark.renewed());
        let mut parts = Self {
            method: request.method().clone(),
            target: Target::restored(request.origin(), request.target()),
            lines: lines.to_vec(),
            fields: 0,
            headers: 0,
            segments: 0,
            host: request.own_host().map(Into::into),
            content_length: None,
            says_length: has_length && body.is_empty() && !awaits_body(request.method()),
            has_content_type: false,
            expect: None,
            has_close: false,
            has_upgrade: false,
            has_upgrade_option: false,
            close,
            body,
            body_type,
            timeouts: *request.timeouts(),
            idempotent: request.explicit_idempotence(),
            fresh: request.wants_fresh_connection(),
            pipeline: rare.pipeline.map(usize::from),
            rare,
        };
        parts.read_lines();
        if parts.close && parts.has_close {
            // The caller asked for it in both ways. Both lines are kept as they are; `close` alone
            // would append nothing, since there is a line already.
            parts.lines.extend_from_slice(CLOSE);
            parts.close = false;
        }
        parts
    }

    /// Derives everything else that is stored about the lines from the lines themselves.
    fn read_lines(&mut self) {
        (self.fields, self.expect) = (0, None);
        (self.has_content_type, self.has_close) = (false, false);
        (self.has_upgrade, self.has_upgrade_option) = (false, false);
        for line in lines(&self.lines) {
            self.fields |= field_bit(line.name);
            // Names were checked when their lines were pushed.
            match OwnField::of(str::from_utf8(line.name).unwrap_or_default()) {
                OwnField::ContentType => self.has_content_type = true,
                OwnField::Expect => self.expect = Some(line.place),
                OwnField::Connection => {
                    for option in options(line.value()) {
                        self.has_close |= is_close(option);
                        self.has_upgrade_option |= is_upgrade(option);
                    }
                }
                OwnField::Upgrade => self.has_upgrade = true,
                OwnField::Host
                | OwnField::ContentLength
                | OwnField::TransferEncoding
                | OwnField::Authorization
                | OwnField::Other => {}
            }
        }
    }

    /// Returns whether a field line of this name was added. Fields that are kept apart, such as
    /// Host, are not looked for.
    pub(super) fn has_header(&self, name: &str) -> bool {
        self.fields & field_bit(name.as_bytes()) != 0
            && lines(&self.lines).any(|line| line.is_named(name))
    }

    pub(super) fn without(&mut self, name: &str) {
        match OwnField::of(name) {
            OwnField::Host => self.host = None,
            OwnField::ContentLength => (self.content_length, self.says_length) = (None, false),
            OwnField::ContentType => self.body_type = None,
            OwnField::Connection => self.close = false,
            OwnField::TransferEncoding
            | OwnField::Upgrade
            | OwnField::Expect
            | OwnField::Authorization
            | OwnField::Other => {}
        }
        if self.fields & field_bit(name.as_bytes()) == 0 {
            return;
        }
        let mut kept = Vec::with_capacity(self.lines.len());
        for line in lines(&self.lines).filter(|line| !line.is_named(name)) {
            kept.extend_from_slice(&self.lines[line.place]);
        }
        self.lines = kept;
        self.read_lines();
    }

    /// Goes to `reference`, resolved against the URL.
    pub(super) fn resolve(&mut self, reference: &str) -> Result<(), Invalid> {
        let target = self.target.resolve(reference);
        self.lead(target)
    }

    /// Goes to where a Location field leads. Its userinfo is ignored, and bytes that are not UTF-8
    /// are percent-encoded.
    pub(super) fn follow(&mut self, location: &[u8]) -> Result<(), Invalid> {
        let location = match str::from_utf8(location) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                let mut text = String::with_capacity(2 * location.len());
                percent_encode(&mut text, location, |b| b.is_ascii());
                Cow::Owned(text)
            }
        };
        let target = self.target.follow(&location);
        self.lead(target)
    }

    fn lead(&mut self, target: Result<Target, Fault>) -> Result<(), Invalid> {
        let target = target.and_then(check_scheme);
        let target = target.map_err(|fault| InvalidPart::Reference.is(fault))?;
        if target.origin() != self.target.origin() {
            for name in OF_THE_ORIGIN {
                self.without(name);
            }
            self.rare.is_elsewhere = true;
            let route = self.rare.route.as_ref();
            if let Some(route) = route.and_then(|route| route.without_identity()) {
                self.rare.route = Some(route.into());
            }
        }
        self.target = target;
        Ok(())
    }

    pub(super) fn set_method(&mut self, method: Method) -> Result<(), Invalid> {
        check_method(&method)?;
        self.method = method;
        Ok(())
    }

    pub(super) fn push_query(
        &mut self,
        name: &str,
        value: impl fmt::Display,
    ) -> Result<(), Invalid> {
        let pushed = self.target.push_query(name, value);
        pushed.map_err(|fault| InvalidPart::Query.is(fault))
    }

    pub(super) fn push_segment(&mut self, segment: impl fmt::Display) -> Result<(), Invalid> {
        let index = self.segments;
        self.segments += 1;
        let pushed = self.target.push_segment(segment);
        pushed.map_err(|fault| InvalidPart::Segment { index }.is(fault))
    }

    /// Replaces the body and the Content-Type that came with it.
    pub(super) fn set_body(&mut self, bytes: Vec<u8>, body_type: Option<&'static str>) {
        self.body = CheckedBody::Bytes(bytes);
        self.body_type = body_type.map(Cow::Borrowed);
    }

    /// Replaces the body by one that is read while it is sent, and the Content-Type that came with
    /// the former one.
    pub(super) fn carry_body(&mut self, body: Arc<CarriedBody>, body_type: Option<String>) {
        self.body = CheckedBody::From(body);
        self.body_type = body_type.map(Cow::Owned);
    }

    pub(super) fn set_form(
        &mut self,
        pairs: impl IntoIterator<Item = (impl AsRef<str>, impl fmt::Display)>,
    ) -> Result<(), Invalid> {
        let mut form = String::new();
        for (name, value) in pairs {
            if !form.is_empty() {
                form.push('&');
            }
            let written = percent::encode(&mut form, Place::Form, name.as_ref());
            form.push('=');
            let written = written.and(percent::encode(&mut form, Place::Form, value));
            written.map_err(|_| InvalidPart::Body.is(Fault::whole(UNDISPLAYABLE)))?;
        }
        self.set_body(form.into_bytes(), Some("application/x-www-form-urlencoded"));
        Ok(())
    }

    #[cfg(feature = "json")]
    pub(super) fn set_json(
        &mut self,
        value: &(impl serde::Serialize + ?Sized),
    ) -> Result<(), Invalid> {
        let json = serde_json::to_vec(value).map_err(|error| {
            let why = match error.classify() {
                // Raised by the value's own `Serialize`, so it may contain anything.
                serde_json::error::Category::Data => "its Serialize implementation failed".into(),
                _ => error.to_string(),
            };
            let fault = Fault::whole("cannot be serialized");
            InvalidPart::Body.is(fault).with_text(&why)
        })?;
        self.set_body(json, Some("application/json"));
        Ok(())
    }

    /// Replaces the Authorization field. `value` is one that `auth` returned.
    pub(super) fn authorize(&mut self, value: &str) {
        const NAME: &str = "Authorization";
        self.without(NAME);
        self.push_line(NAME, value.as_bytes());
    }

    pub(super) fn header(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        let index = self.headers;
        self.headers += 1;
        if let Some(fault) = name_fault(name) {
            return Err(Invalid::header_name(index, name, fault));
        }
        if let Some(fault) = value_fault(value) {
            return Err(InvalidPart::value_of(name).is(fault));
        }
        let refused = |why| Err(InvalidPart::header(name).is(Fault::whole(why)));
        let trimmed = trim(value);
        match OwnField::of(name) {
            OwnField::Host if self.host.is_some() => return refused("given twice"),
            OwnField::Host => self.set_host(name, value)?,
            OwnField::ContentLength if self.content_length.is_some() => {
                return refused("given twice");
            }
            OwnField::ContentLength => self.set_content_length(name, trimmed)?,
            OwnField::TransferEncoding => {
                return refused("set by the engine, which knows whether the body has a length");
            }
            OwnField::Upgrade => {
                self.has_upgrade = true;
                self.push_line(name, trimmed);
            }
            OwnField::Connection => self.push_connection(name, trimmed)?,
            OwnField::Expect => self.push_expect(name, trimmed)?,
            // A request has one at most (RFC 9110 §11.6.2), and the last one set is the one meant.
            OwnField::Authorization => {
                self.without(name);
                self.push_line(name, trimmed);
            }
            OwnField::ContentType => {
                self.has_content_type = true;
                self.push_line(name, trimmed);
            }
            OwnField::Other => self.push_line(name, trimmed),
        }
        Ok(())
    }

    fn set_host(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        let trimmed = trim(value);
        check_host_value(trimmed).map_err(|fault| {
            let before = offset_of_trimmed(value);
            InvalidPart::value_of(name).is(Fault {
                at: fault.at.map(|at| before + at),
                ..fault
            })
        })?;
        self.host = Some(trimmed.into());
        Ok(())
    }

    fn set_content_length(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        self.content_length = decimal(value);
        match self.content_length {
            Some(_) => Ok(()),
            None => Err(InvalidPart::value_of(name).is(Fault::whole("not a decimal number"))),
        }
    }

    fn push_connection(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        for option in options(value) {
            self.has_upgrade_option |= is_upgrade(option);
            self.has_close |= is_close(option);
        }
        self.push_line(name, value);
        Ok(())
    }

    fn push_expect(&mut self, name: &str, value: &[u8]) -> Result<(), Invalid> {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            let fault = Fault::whole("100-continue is the only expectation defined");
            return Err(InvalidPart::value_of(name).is(fault));
        }
        // One line is enough, and a single line is easy to remove.
        if self.expect.is_none() {
            let start = self.lines.len();
            self.push_line(name, value);
            self.expect = Some(start..self.lines.len());
        }
        Ok(())
    }

    fn push_line(&mut self, name: &str, value: &[u8]) {
        for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.lines.extend_from_slice(piece);
        }
        self.fields |= field_bit(name.as_bytes());
    }

    pub(super) fn build(mut self) -> Result<Request, Invalid> {
        if self.method == Method::TRACE && !self.body.is_empty() {
            let fault = Fault::whole("a TRACE request has none");
            return Err(InvalidPart::Body.is(fault));
        }
        let length = self.body.len().map(|length| length as u64);
        if self
            .content_length
            .is_some_and(|given| Some(given) != length)
        {
            let fault = Fault::whole(match length {
                Some(_) => "not the length of the body",
                None => "the source of the body says how long it is",
            });
            return Err(InvalidPart::value_of("Content-Length").is(fault));
        }
        if self.body.is_empty()
            && let Some(line) = self.expect.take()
        {
            self.lines.drain(line);
            self.read_lines();
        }
        if self.expect.is_none() {
            self.rare.continue_wait = None;
        }
        let body_type = self.body_type.take().filter(|_| !self.has_content_type);
        if let Some(body_type) = &body_type {
            self.push_line("Content-Type", body_type.as_bytes());
        }
        let says_length = self.says_length || self.content_length.is_some();
        // The framing of a body that is read while it is sent is known only when it begins.
        if let Some(length) = length
            && (length > 0 || awaits_body(&self.method) || says_length)
        {
            self.push_line("Content-Length", length.to_string().as_bytes());
        }
        if self.close && !self.has_close {
            self.lines.extend_from_slice(CLOSE);
            self.fields |= field_bit(b"connection");
        }
        match (self.has_upgrade, self.has_upgrade_option) {
            // RFC 9110 §7.8: a sender of Upgrade also sends the connection option `upgrade`.
            (true, false) => {
                self.lines.extend_from_slice(UPGRADE);
                self.fields |= field_bit(b"connection");
            }
            (false, true) => {
                let fault = Fault::whole("there is no Upgrade field");
                return Err(InvalidPart::value_of("Connection").is(fault));
            }
            (true, true) | (false, false) => {}
        }
        let idempotent = self.idempotent.unwrap_or(matches!(
            self.method,
            Method::GET
                | Method::HEAD
                | Method::OPTIONS
                | Method::TRACE
                | Method::PUT
                | Method::DELETE
        ));

        self.rare.pipeline = match self.pipeline {
            Some(depth) => Some(self.check_pipeline(depth, idempotent)?),
            None => None,
        };

        Ok(Request::new(Checked {
            method: &self.method,
            target: &self.target,
            own_host: self.host.as_deref(),
            lines: &self.lines,
            fields: self.fields,
            body: self.body,
            is_idempotent: idempotent,
            idempotence_is_explicit: self.idempotent.is_some(),
            has_body_type: body_type.is_some(),
            wants_fresh_connection: self.fresh,
            wants_close: self.close || self.has_close,
            wants_upgrade: self.has_upgrade,
            expects_continue: self.expect.is_some(),
            timeouts: self.timeouts,
            rare: self.rare,
        }))
    }

    /// Checks the depth given to [`RequestBuilder::pipeline`] and returns it as a request stores
    /// it.
    fn check_pipeline(&self, depth: usize, idempotent: bool) -> Result<u16, Invalid> {
        let refused = |why| Err(InvalidPart::Pipeline.is(Fault::whole(why)));
        match u16::try_from(depth) {
            Ok(1) => Ok(1),
            Ok(2..=MAX_PIPELINE) if !idempotent => {
                refused("not idempotent, so it could not be sent again if the connection broke")
            }
            Ok(2..=MAX_PIPELINE) if self.close || self.has_close => {
                refused("it closes the connection")
            }
            Ok(2..=MAX_PIPELINE) if self.has_upgrade => {
                refused("the connection may switch to another protocol")
            }
            Ok(2..=MAX_PIPELINE) if self.fresh => refused("it uses a connection of its own"),
            Ok(2..=MAX_PIPELINE) if self.expect.is_some() => {
                refused("its body waits for an interim response (Expect)")
            }
            Ok(2..=MAX_PIPELINE) if self.body.len().is_none() => {
                refused("its body is read while it is sent, and may have to wait")
            }
            Ok(depth @ 2..=MAX_PIPELINE) => Ok(depth),
            Ok(0 | 1025..) | Err(_) => refused("the depth must be from 1 (off) to 1024"),
        }
    }
}

/// The fields that are not solely the caller's: those of message framing and of the connection, and
/// those that decide when something is sent.
#[derive(Clone, Copy)]
enum OwnField {
    Host,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Connection,
    Expect,
    ContentType,
    Authorization,
    Other,
}

impl OwnField {
    fn of(name: &str) -> Self {
        const NAMES: [(&str, OwnField); 8] = [
            ("host", OwnField::Host),
            ("content-length", OwnField::ContentLength),
            ("transfer-encoding", OwnField::TransferEncoding),
            ("upgrade", OwnField::Upgrade),
            ("connection", OwnField::Connection),
            ("expect", OwnField::Expect),
            ("content-type", OwnField::ContentType),
            ("authorization", OwnField::Authorization),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(OwnField::Other, |(_, known)| *known)
    }
}

fn check_scheme(target: Target) -> Result<Target, Fault> {
    match target.origin().scheme() {
        Scheme::Https if !has_tls() => Err(Fault::rule(0, "https needs the feature `tls`")),
        Scheme::Http | Scheme::Https => Ok(target),
    }
}

/// Whether a request of this method has a Content-Length even if its body is empty (RFC 9110 §8.6).
fn awaits_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Iterates over the options in the value of a Connection field (RFC 9110 §7.6.1).
fn options(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

fn is_upgrade(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"upgrade")
}

fn is_close(option: &[u8]) -> bool {
    option.eq_ignore_ascii_case(b"close")
}

fn is_named(line: &[u8], name: &str) -> bool {
    lines(line).any(|line| line.is_named(name))
}

/// Removes the last line if `is` holds for it, and returns whether it did.
fn take_last(lines: &mut &[u8], is: impl Fn(&[u8]) -> bool) -> bool {
    let before = lines.strip_suffix(b"\n").unwrap_or_default();
    let start = before.iter().rposition(|&b| b == b'\n');
    let (rest, last) = lines.split_at(start.map_or(0, |at| at + 1));
    let found = is(last);
    if found {
        *lines = rest;
    }
    found
}

/// Removes the last line, a Content-Type that the builder appended, and returns its value.
fn take_type(block: &mut &[u8]) -> Option<Cow<'static, str>> {
    let whole = *block;
    take_last(block, |line| is_named(line, "Content-Type"));
    let line = lines(&whole[block.len()..]).next()?;
    // It was written from a string.
    let value = str::from_utf8(line.value()).ok()?;
    Some(Cow::Owned(value.to_owned()))
}

fn check_method(method: &Method) -> Result<(), Invalid> {
    match method_fault(method) {
        Some(fault) => Err(InvalidPart::Method.is(fault)),
        None => Ok(()),
    }
}

fn method_fault(method: &Method) -> Option<Fault> {
    let bytes = method.as_str().as_bytes();
    if *method == Method::CONNECT {
        return Some(Fault::whole(
            "CONNECT asks for a tunnel, not for a response",
        ));
    }
    if bytes.len() > MAX_METHOD {
        return Some(Fault::rule(MAX_METHOD, "longer than 255 bytes"));
    }
    // `http` checks methods by its own table, which agrees with RFC 9110. An error in it would
    // allow request injection, so the method is checked here again.
    token_fault(bytes)
}

/// Parses `1*DIGIT`: no sign, which `str::parse` would accept.
fn decimal(bytes: &[u8]) -> Option<u64> {
    if !bytes.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(bytes).ok()?.parse().ok()
}
