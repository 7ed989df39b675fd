//! What the requests have in common, and the request of each URL.

use std::time::Duration;

use http::Method;
use httpstream::session::Jar;
use httpstream::{Error, Request, RequestBuilder};

use crate::body::Body;
use crate::fields::Fields;
use crate::form::Parts;
use crate::options::Conduct;
use crate::upload::Upload;

/// A body that is longer than this, or whose length is not known, waits for the server's consent.
const WORTH_ASKING: u64 = 1024 * 1024;

/// How long such a body waits, as with curl.
const CONSENT: Duration = Duration::from_secs(1);

/// What all requests have in common.
pub(crate) struct Template {
    pub(crate) method: Option<Method>,
    pub(crate) fields: Fields,
    pub(crate) body: Body,
    /// The body becomes the query (-G).
    pub(crate) body_is_query: bool,
    pub(crate) form: Parts,
    /// In the order of the URLs.
    pub(crate) uploads: Vec<Upload>,
    /// How long a large body waits for the server's consent.
    pub(crate) consent: Duration,
    pub(crate) only_head: bool,
    /// In bytes a second; 0 is no limit.
    pub(crate) limit_rate: u64,
    pub(crate) close: bool,
}

/// The body of a request.
enum Content<'a> {
    None,
    Bytes(&'a [u8]),
    Form(&'a Parts),
    Upload(&'a Upload),
}

impl Content<'_> {
    /// Returns the length, if it is known; that of a form without what separates its parts.
    fn len(&self) -> Option<u64> {
        match self {
            Content::None => Some(0),
            Content::Bytes(bytes) => Some(bytes.len() as u64),
            Content::Form(parts) => Some(parts.len()),
            Content::Upload(upload) => upload.len(),
        }
    }
}

impl Template {
    pub(crate) fn new() -> Self {
        Self {
            method: None,
            fields: Fields::default(),
            body: Body::default(),
            body_is_query: false,
            form: Parts::default(),
            uploads: Vec::new(),
            consent: CONSENT,
            only_head: false,
            limit_rate: 0,
            close: false,
        }
    }

    /// Returns the request for the URL of this number, without its session.
    pub(crate) fn request(
        &self,
        number: usize,
        url: &str,
        conduct: &Conduct,
        jar: Option<&Jar>,
    ) -> Result<Request, Error> {
        let fields = &self.fields;
        let content = self.content(number);
        let mut request = Request::builder(self.method(&content), self.url(url));
        for (name, value) in fields.iter() {
            request = request.header(name, value);
        }
        request = self.with_content(request, &content);
        // A jar contains them as well, and adds others.
        if jar.is_none()
            && !fields.has("Cookie")
            && let Some(line) = conduct.cookies.line()
        {
            request = request.header("Cookie", line);
        }
        if !fields.wants("Authorization") {
            request = request.without("Authorization");
        }
        if self.close {
            request = request.close();
        }
        request = request
            .download_rate(self.limit_rate)
            .upload_rate(self.limit_rate);
        let mut request = request.build()?;
        // Like curl and browsers, removes `.` and `..` from the path (RFC 3986 §5.2.4).
        if request.uri().path().contains("/.") {
            request = request.resolve(request.uri().to_string()).build()?;
        }
        match content {
            Content::Upload(upload) => upload.name(&request),
            _ => Ok(request),
        }
    }

    /// Returns what the request of this number carries. Options that contradict each other have
    /// been refused.
    fn content(&self, number: usize) -> Content<'_> {
        if let Some(upload) = self.uploads.get(number) {
            return Content::Upload(upload);
        }
        match self.body.bytes() {
            Some(bytes) if !self.body_is_query => Content::Bytes(bytes),
            _ if self.form.is_empty() => Content::None,
            _ => Content::Form(&self.form),
        }
    }

    fn with_content(&self, request: RequestBuilder, content: &Content<'_>) -> RequestBuilder {
        let fields = &self.fields;
        let mut request = match content {
            Content::None => return request,
            Content::Bytes(bytes) => {
                let of_body = self.body.fields().iter();
                let unset = of_body.filter(|(name, _)| !fields.has(name) && fields.wants(name));
                let request = unset.fold(request, |it, (name, value)| it.header(name, value));
                request.body(*bytes)
            }
            Content::Form(parts) => request.multipart(parts.form()),
            Content::Upload(upload) => upload.send_by(request),
        };
        let is_large = content.len().is_none_or(|length| length > WORTH_ASKING);
        if fields.has("Expect") || is_large && fields.wants("Expect") {
            request = request.expect_continue(self.consent);
        }
        request
    }

    fn method(&self, content: &Content<'_>) -> Method {
        match (&self.method, content) {
            (Some(method), _) => method.clone(),
            (None, _) if self.only_head => Method::HEAD,
            (None, Content::Upload(_)) => Method::PUT,
            (None, Content::Bytes(_) | Content::Form(_)) => Method::POST,
            (None, Content::None) => Method::GET,
        }
    }

    /// Returns the URL with its scheme, and with the query of -G.
    fn url(&self, text: &str) -> String {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        let mut url = match scheme {
            Some(scheme) if !scheme.contains([':', '/', '?', '#']) => text.to_owned(),
            Some(_) | None => format!("http://{text}"),
        };
        if let Some(query) = self.body.as_query().filter(|_| self.body_is_query) {
            url.truncate(url.find('#').unwrap_or(url.len()));
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&query);
        }
        url
    }
}
