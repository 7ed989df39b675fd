//! The kind `exchange`: requests that are sent one after the other in sessions.
//!
//! A job has the members `timeout_ms` and `requests`. Each request has `method`, `url`, `headers`,
//! `body_b64`, `body_stream` (its length is not announced) and `options`:
//!
//! | option | meaning |
//! |---|---|
//! | `follow_redirects`, `max_redirects` | whether redirects are followed, and how many |
//! | `redirect_keep_post` | statuses after which POST stays POST |
//! | `auth` | `user`, `password` and `scheme` for the URL's origin |
//! | `auth_scheme` | the scheme for credentials in the URL |
//! | `cookie_store` | keep cookies, in a jar of the job |
//! | `initial_cookies` | a Cookie field of `headers` that is for the first host only |
//! | `resolve` | `[host, port, address, port]`: where to connect to instead |
//! | `max_body` | the most bytes of a body |
//! | `decompress` | decode content codings |
//! | `retry` | retry failures so many times, also responses that were cut short |
//!
//! A scheme is `basic`, `digest` or `any`, which is Digest if the server offers it, or else Basic.
//! The result has `results`, one for each request as in the kind `response`, without `interim`.

use std::net::{IpAddr, SocketAddr};
use std::vec;

use http::StatusCode;
use httpstream::session::Jar;
use httpstream::{Config, Context, Engine, Next, Reply, Request};
use serde_json::{Value, json};

use crate::in_session::{Prepared, Scheme, prepare};
use crate::{Unsupported, wire};

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
    "decompress",
    "retry",
];

pub(crate) fn run(job: &Value) -> Result<Value, Unsupported> {
    let requests = job["requests"].as_array().cloned().unwrap_or_default();
    requests.iter().try_for_each(check)?;
    let mut config = wire::config(job);
    resolve(&mut config, &requests)?;
    let mut engine = Engine::with_config(config).map_err(|error| Unsupported(error.to_string()))?;
    let mut exchange = Exchange {
        left: requests.into_iter(),
        jar: Jar::new(),
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
    let has_others = |request: &Value| request["options"]["resolve"] != *rules;
    if requests.iter().any(has_others) {
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
    jar: Jar,
    /// The request to send if Digest is not offered in response to the current one.
    or_basic: Option<Request>,
    results: Vec<Value>,
}

impl Exchange {
    fn next(&mut self) -> Next<Self> {
        for request in self.left.by_ref() {
            match prepare(&request, &self.jar) {
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
        self.results.push(wire::result(&reply));
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
