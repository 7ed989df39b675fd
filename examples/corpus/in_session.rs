//! Builds the requests of an exchange, each in a session with the request's options.

use std::io::{self, Cursor, Read as _};
use std::task::Waker;
use std::time::Duration;

use http::Method;
use httpstream::session::{Auth, Decode, Jar, Redirects, Retry, Session};
use httpstream::{BodySource, Request, Supply};
use serde_json::Value;

use crate::wire::{self, Failure};

/// The redirects that are followed if a request does not say how many: as many as curl follows.
const MAX_REDIRECTS: usize = 50;

pub(crate) struct Prepared {
    pub(crate) request: Request,
    /// The request to send if the server turns out to accept nothing but Basic.
    pub(crate) or_basic: Option<Request>,
}

/// Builds a request. The jar is that of its job. Sessions are not shared, since options may differ:
/// each request learns for itself which credentials its server wants.
pub(crate) fn prepare(asked: &Value, jar: &Jar) -> Result<Prepared, Failure> {
    let options = &asked["options"];
    let request = build(asked, jar)?;
    let (request, login) = match Login::of_options(options, &request) {
        Some(login) => (request, Some(login)),
        None => match Login::of_url(options, &request) {
            Some(login) => (
                request.edit().without("Authorization").build()?,
                Some(login),
            ),
            None => (request, None),
        },
    };
    let with = |auth| in_session(&request, options, jar, auth);
    let (request, or_basic) = match login {
        None => (with(None)?, None),
        Some((Scheme::Basic, login)) => (with(Some(login.basic()))?, None),
        Some((Scheme::Digest, login)) => (with(Some(login.digest()))?, None),
        Some((Scheme::Any, login)) => (
            with(Some(login.digest()))?,
            Some(with(Some(login.basic()))?),
        ),
    };
    Ok(Prepared { request, or_basic })
}

/// Builds a request as it is without a session, and stores its initial cookies.
fn build(asked: &Value, jar: &Jar) -> Result<Request, Failure> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (options, url) = (&asked["options"], text(&asked["url"]));
    let method = Method::from_bytes(text(&asked["method"]).as_bytes())?;
    let mut request = Request::builder(method, &url);
    for header in asked["headers"].as_array().into_iter().flatten() {
        let (name, value) = (text(&header[0]), text(&header[1]));
        // Beside a Cookie field of its own, a request sends no cookies of the jar.
        let is_stored = options["cookie_store"] == true
            && options["initial_cookies"] == value
            && name.eq_ignore_ascii_case("Cookie");
        if is_stored {
            for cookie in value.split(';') {
                jar.set(&url, &format!("{cookie}; Path=/"))?;
            }
        } else {
            request = request.header(name, wire::bytes(&value));
        }
    }
    let body = asked["body_b64"].as_str().map(wire::from_base64);
    match body.transpose()? {
        body if asked["body_stream"] == true => {
            let bytes = body.unwrap_or_default();
            request = request.body_with(move || Ok(Streamed(Cursor::new(bytes.clone()))));
        }
        Some(bytes) => request = request.body(bytes),
        None => {}
    }
    if let Some(most) = options["max_body"].as_u64() {
        request = request.limits(|limits| limits.max_body_bytes = most);
    }
    Ok(request.build()?)
}

/// A body whose length is not announced.
struct Streamed(Cursor<Vec<u8>>);

impl BodySource for Streamed {
    fn size(&self) -> Option<u64> {
        None
    }

    fn read(&mut self, room: &mut [u8], _: &Waker) -> io::Result<Supply> {
        Ok(match self.0.read(room)? {
            0 => Supply::End,
            n => Supply::Bytes(n),
        })
    }
}

fn in_session(
    request: &Request,
    options: &Value,
    jar: &Jar,
    auth: Option<Auth>,
) -> Result<Request, Failure> {
    let mut session = Session::builder();
    if options["follow_redirects"] == true {
        let most = options["max_redirects"].as_u64();
        let most = most.map_or(Ok(MAX_REDIRECTS), usize::try_from)?;
        let keep = options["redirect_keep_post"]
            .as_array()
            .into_iter()
            .flatten();
        let keep = keep.filter_map(|status| u16::try_from(status.as_u64()?).ok());
        session = session.redirects(Redirects::limited(most).keep_method(keep));
    }
    if options["cookie_store"] == true {
        session = session.cookies(jar.clone());
    }
    if let Some(most) = options["retry"]["max"].as_u64() {
        let attempts = u32::try_from(most)?.saturating_add(1);
        let brief = (Duration::from_millis(10), Duration::from_secs(2));
        session = session.retry(Retry::attempts(attempts).backoff(brief.0, brief.1));
    }
    if options["decompress"] == true {
        session = session.decode(Decode::all());
    }
    if let Some(auth) = auth {
        session = session.auth(auth);
    }
    Ok(request.edit().session(&session.build()?).build()?)
}

#[derive(Clone, Copy)]
pub(crate) enum Scheme {
    Basic,
    Digest,
    /// Digest if the server offers it, or else Basic.
    Any,
}

impl Scheme {
    pub(crate) fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "basic" => Some(Self::Basic),
            "digest" => Some(Self::Digest),
            "any" => Some(Self::Any),
            _ => None,
        }
    }
}

struct Login {
    user: String,
    password: String,
    origin: String,
}

impl Login {
    fn of_options(options: &Value, request: &Request) -> Option<(Scheme, Self)> {
        let auth = &options["auth"];
        let scheme = Scheme::parse(&auth["scheme"])?;
        let text = |key: &str| auth[key].as_str().unwrap_or_default().to_owned();
        let login = Self {
            user: text("user"),
            password: text("password"),
            origin: request.origin().to_string(),
        };
        Some((scheme, login))
    }

    /// Returns the credentials of the URL, of which the request has made an Authorization field.
    fn of_url(options: &Value, request: &Request) -> Option<(Scheme, Self)> {
        let scheme = Scheme::parse(&options["auth_scheme"])?;
        let value = request
            .header_str("Authorization")?
            .strip_prefix("Basic ")?;
        let value = String::from_utf8(wire::from_base64(value).ok()?).ok()?;
        let (user, password) = value.split_once(':')?;
        let login = Self {
            user: user.to_owned(),
            password: password.to_owned(),
            origin: request.origin().to_string(),
        };
        Some((scheme, login))
    }

    fn basic(&self) -> Auth {
        Auth::basic(&self.user, &self.password).at(&self.origin)
    }

    fn digest(&self) -> Auth {
        Auth::digest(&self.user, &self.password).at(&self.origin)
    }
}
