//! The kind `cookies`: what a response sets, and which of it another request carries.
//!
//! A job has the members `received`, the values of the response's Set-Cookie fields,
//! `received_from` and `sent_to`. Its result has `cookie`, the value of the Cookie field, which is
//! empty without one. Both requests are sent in one session over a simulated network, so any host
//! can be named, and https needs no certificates.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use httpstream::session::{Jar, Session};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, Next, Request, Sim};
use serde_json::{Value, json};

use crate::{Unsupported, wire};

/// The address of every host that is given by name.
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

pub(crate) fn run(job: &Value) -> Result<Value, Unsupported> {
    let received = job["received"].as_array().into_iter().flatten();
    let received: Vec<_> = received
        .filter_map(Value::as_str)
        .map(wire::bytes)
        .collect();
    let urls = [
        wire::text(job, "received_from")?,
        wire::text(job, "sent_to")?,
    ];
    let cookie = exchange(received, urls).map_err(|error| Unsupported(error.to_string()))?;
    Ok(json!({"cookie": wire::latin1(&cookie)}))
}

/// Answers a request to the first URL with these cookies, and returns the Cookie field of a request
/// to the second.
fn exchange(received: Vec<Vec<u8>>, urls: [&str; 2]) -> Result<Vec<u8>, Error> {
    let session = Session::builder().cookies(Jar::new()).build()?;
    let [from, to] = urls.map(|url| session.get(url).build());
    let (from, to) = (from?, to?);

    let network = Network::new(0);
    let mut unset = Some(received);
    network.serve(place(&network, &from), move |_: &Incoming| {
        let cookies = unset.take().unwrap_or_default();
        let answer = Answer::ok("");
        cookies
            .iter()
            .fold(answer, |answer, cookie| answer.header("Set-Cookie", cookie))
    });
    if place(&network, &to) != place(&network, &from) {
        network.serve(place(&network, &to), |_: &Incoming| Answer::ok(""));
    }

    let mut engine = Engine::<(), Sim>::on_network(&network, Config::default())?;
    for request in [from, to] {
        engine.submit(request, |(), _, _| Next::done());
        engine.run(&mut ())?;
    }
    let ledger = network.ledger();
    let sent = ledger
        .requests()
        .nth(1)
        .and_then(|sent| sent.header("Cookie"));
    Ok(sent.unwrap_or_default().to_vec())
}

/// Returns where a request goes, and makes its host known to the network.
fn place(network: &Network, request: &Request) -> SocketAddr {
    let host = request.host();
    let addr = host.parse().unwrap_or_else(|_| {
        network.host(host, [SERVER]);
        SERVER
    });
    SocketAddr::new(addr, request.port())
}
