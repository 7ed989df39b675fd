//! The kind `exchange`: requests that are sent one after the other in sessions.
//!
//! A job has the members `timeout_ms` and `requests`. Each request has `method`, `url`, `headers`,
//! `body_b64` and `options`:
//!
//! | option | meaning |
//! |---|---|
//! | `follow_redirects`, `max_redirects` | whether redirects are followed, and how many |
//! | `redirect_keep_post` | statuses after which POST stays POST |
//! | `auth` | `user` and `password` for the URL's origin, and a `scheme`: `basic`, `digest`, `any` |
//! | `auth_scheme` | the scheme for credentials in the URL |
//! | `cookie_store` | keep cookies, in a jar of the job |
//! | `initial_cookies` | a Cookie field of `headers` that is for the first host only |
//! | `resolve` | `[host, port, address, port]`: where to connect to instead |
//! | `max_body` | the most bytes of a body |
//!
//! Its result has `results`, one for each request as in the kind `response`. With the scheme `any`,
//! Digest is used if the server offers it, or else Basic.

use std::net::{IpAddr, SocketAddr};
use std::vec;

use http::{Method, StatusCode};
use httpstream::session::{Auth, Jar, Redirects, Session};
use httpstream::{Config, Context, Engine, Next, Reply, Request};
use serde_json::{Value, json};

use crate::Unsupported;
use crate::wire::{self, Failure};

/// The options that the client has a setting for.
const OPTIONS: &[&str] = &[
    "follow_redirects",
    "max_redirects",
    "redirect_keep_post",
    "auth",
    "auth_scheme",
    "cookie_store",
    "initial_cookies",
    "resolve",
    "max_body",
];

/// The redirects that are followed if a request does not say how many: as many as curl follows.
const MAX_REDIRECTS: usize = 50;

pub(crate) fn run(job: &Value) -> Result<Value, Unsupported> {
    let requests = job["requests"].as_array().cloned().unwrap_or_default();
    requests.iter().try_for_each(check)?;
    let mut config = wire::config(job);
    resolve(&mut config, &requests)?;
    let mut engine = Engine::with_config(config).map_err(|error| Unsupported(error.to_string()))?;
    let mut exchange = Exchange {
        left: requests.into_iter(),
        client: Client::default(),
        or_basic: None,
        results: Vec::new(),
    };
    engine.start(Next::call(|exchange: &mut Exchange, _| exchange.next()));
    engine
        .run(&mut exchange)
        .map_err(|error| Unsupported(error.to_string()))?;
    Ok(json!({"results": exchange.results}))
}

/// Refuses a request with an option that the client has no setting for.
fn check(request: &Value) -> Result<(), Unsupported> {
    if request["body_stream"] == true {
        return Err("a body of unknown length".into());
    }
    let is_set = |value: &Value| !value.is_null() && value != false;
    let options = request["options"].as_object().into_iter().flatten();
    for (name, value) in options {
        if is_set(value) && !OPTIONS.contains(&&**name) {
            return Err(Unsupported(format!("the option {name}")));
        }
    }
    let options = &request["options"];
    for scheme in [&options["auth"]["scheme"], &options["auth_scheme"]] {
        if is_set(scheme) && Scheme::parse(scheme).is_none() {
            return Err(Unsupported(format!("the scheme {scheme}")));
        }
    }
    Ok(())
}

/// Sets where to connect to. An engine connects all requests by the same rules.
fn resolve(config: &mut Config, requests: &[Value]) -> Result<(), Unsupported> {
    let rules = requests
        .first()
        .map_or(&Value::Null, |request| &request["options"]["resolve"]);
    if requests
        .iter()
        .any(|request| request["options"]["resolve"] != *rules)
    {
        return Err("requests with different addresses for a host".into());
    }
    for rule in rules.as_array().into_iter().flatten() {
        let word = |index: usize| rule[index].as_str().unwrap_or_default();
        let (host, port, new_port) = (word(0), word(1), word(3));
        let Ok(addr) = word(2).parse::<IpAddr>() else {
            return Err("a name in place of an address".into());
        };
        match (port, new_port.parse()) {
            ("*", Ok(new_port)) => config.resolve_to(host, SocketAddr::new(addr, new_port)),
            // The same port: an address needs one, so it is that of each URL.
            ("*", Err(_)) => {
                for request in requests {
                    let request = Request::get(wire::text(request, "url")?).build();
                    let port = request.map_or(0, |request| request.port());
                    config.resolve_to(&at_port(host, port), SocketAddr::new(addr, port));
                }
            }
            (port, new_port) => {
                let port = port.parse().map_err(|_| Unsupported::from("a port"))?;
                let new = SocketAddr::new(addr, new_port.unwrap_or(port));
                config.resolve_to(&at_port(host, port), new);
            }
        }
    }
    Ok(())
}

/// Returns a pattern for a host at one port.
fn at_port(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// What is left of a job, and what has come of it.
struct Exchange {
    left: vec::IntoIter<Value>,
    client: Client,
    /// The request to send if Digest is not offered in response to the current one.
    or_basic: Option<Request>,
    results: Vec<Value>,
}

impl Exchange {
    fn next(&mut self) -> Next<Self> {
        while let Some(request) = self.left.next() {
            match self.client.prepare(&request) {
                Ok(Prepared { request, or_basic }) => {
                    self.or_basic = or_basic;
                    return Next::send(request).read_by(Self::on_reply);
                }
                Err(failure) => self.results.push(wire::refused(&failure)),
            }
        }
        Next::done()
    }

    fn on_reply(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        if let Some(basic) = self.or_basic.take()
            && offers_only_basic(&reply)
        {
            return Next::send(basic);
        }
        self.results.push(wire::result(&reply, &[]));
        self.next()
    }
}

fn offers_only_basic(reply: &Reply<'_>) -> bool {
    let Ok(response) = reply else {
        return false;
    };
    let offers = |scheme: &str| {
        let mut fields = response.header_all("WWW-Authenticate");
        fields.any(|field| {
            let words = field.split(|&b| b == b',').map(<[u8]>::trim_ascii);
            let mut names = words.filter_map(|word| word.split(|&b| b == b' ').next());
            names.any(|name| name.eq_ignore_ascii_case(scheme.as_bytes()))
        })
    };
    response.status() == StatusCode::UNAUTHORIZED && offers("Basic") && !offers("Digest")
}

/// What the requests of a job share. Each has a session of its own, since options may differ.
#[derive(Default)]
struct Client {
    jar: Jar,
    /// Credentials for Digest remember what a server has sent, for all who share them.
    digests: Vec<(Login, Auth)>,
}

struct Prepared {
    request: Request,
    or_basic: Option<Request>,
}

impl Client {
    fn prepare(&mut self, asked: &Value) -> Result<Prepared, Failure> {
        let options = &asked["options"];
        let mut request = self.build(asked)?;
        let login = match Login::of_options(options, &request) {
            Some(login) => Some(login),
            None => match Login::of_url(options, &request) {
                Some(login) => {
                    request = request.edit().without("Authorization").build()?;
                    Some(login)
                }
                None => None,
            },
        };
        let (auth, or_basic) = match login {
            None => (None, None),
            Some((Scheme::Basic, login)) => (Some(login.basic()), None),
            Some((Scheme::Digest, login)) => (Some(self.digest(login)), None),
            Some((Scheme::Any, login)) => {
                let basic = login.basic();
                (Some(self.digest(login)), Some(basic))
            }
        };
        let or_basic = match or_basic {
            Some(basic) => Some(self.in_session(&request, options, Some(basic))?),
            None => None,
        };
        let request = self.in_session(&request, options, auth)?;
        Ok(Prepared { request, or_basic })
    }

    /// Builds a request as it is without a session.
    fn build(&self, asked: &Value) -> Result<Request, Failure> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (options, url) = (&asked["options"], text(&asked["url"]));
        let method = Method::from_bytes(text(&asked["method"]).as_bytes())?;
        let mut request = Request::builder(method, &url);
        for header in asked["headers"].as_array().into_iter().flatten() {
            let (name, value) = (text(&header[0]), text(&header[1]));
            // A Cookie field of its own would keep a request from sending those of the jar.
            let is_stored = options["cookie_store"] == true
                && options["initial_cookies"] == value
                && name.eq_ignore_ascii_case("Cookie");
            if is_stored {
                for cookie in value.split(';') {
                    self.jar.set(&url, &format!("{cookie}; Path=/"))?;
                }
            } else {
                request = request.header(name, wire::bytes(&value));
            }
        }
        if let Some(body) = asked["body_b64"].as_str() {
            request = request.body(wire::from_base64(body)?);
        }
        if let Some(most) = options["max_body"].as_u64() {
            request = request.limits(|limits| limits.max_body_bytes = most);
        }
        Ok(request.build()?)
    }

    fn in_session(
        &self,
        request: &Request,
        options: &Value,
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
            session = session.cookies(self.jar.clone());
        }
        if let Some(auth) = auth {
            session = session.auth(auth);
        }
        Ok(request.edit().session(&session.build()?).build()?)
    }

    fn digest(&mut self, login: Login) -> Auth {
        if let Some((_, auth)) = self.digests.iter().find(|(known, _)| *known == login) {
            return auth.clone();
        }
        let auth = Auth::digest(&login.user, &login.password).at(&login.origin);
        self.digests.push((login, auth.clone()));
        auth
    }
}

#[derive(Clone, Copy)]
enum Scheme {
    Basic,
    Digest,
    Any,
}

impl Scheme {
    fn parse(value: &Value) -> Option<Self> {
        match value.as_str()? {
            "basic" => Some(Self::Basic),
            "digest" => Some(Self::Digest),
            "any" => Some(Self::Any),
            _ => None,
        }
    }
}

#[derive(PartialEq)]
struct Login {
    user: String,
    password: String,
    origin: String,
}

impl Login {
    fn of_options(options: &Value, request: &Request) -> Option<(Scheme, Self)> {
        let auth = &options["auth"];
        let text = |key: &str| auth[key].as_str().unwrap_or_default().to_owned();
        let login = Self {
            user: text("user"),
            password: text("password"),
            origin: request.origin().to_string(),
        };
        Some((Scheme::parse(&auth["scheme"])?, login))
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
}
