//! The `sent` part of errors, for requests that a policy or the engine has sent more than once.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use httpstream::http::Method;
use httpstream::policy::{Policy, Verdict};
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{
    Config, Context, Engine, Error, ErrorKind, Flow, Next, Readback, Reply, Request, Response,
    Sent, Sim,
};

use crate::visits::at_end;

/// Kind, whether the request was sent, whether it may be sent again.
type Told = Vec<(ErrorKind, Sent, bool)>;

fn simulated<S>(server: impl Fn(&Incoming) -> Answer + 'static) -> (Network, Engine<S, Sim>) {
    let network = Network::new(1);
    let addr: SocketAddr = "192.0.2.1:80".parse().unwrap();
    network.serve(addr, move |incoming: &Incoming| server(incoming));
    let engine = Engine::on_network(&network, Config::default()).unwrap();
    (network, engine)
}

fn facts(error: &Error) -> (ErrorKind, Sent, bool) {
    (error.kind(), error.request_sent(), error.resend_is_safe())
}

fn collects() -> Arc<dyn Policy> {
    turns(0, Method::GET)
}

/// Returns a policy that resends a request with the method `to`, `left` times.
fn turns(mut left: u32, to: Method) -> Arc<dyn Policy> {
    at_end(move |request, _| {
        if left == 0 {
            return Ok(Verdict::Deliver);
        }
        left -= 1;
        Ok(Verdict::Resend {
            request: request.edit().method(to.clone()).build()?,
            after: Duration::ZERO,
        })
    })
}

/// How a readback ends its chain or fails.
#[derive(Clone, Copy, Debug)]
enum Way {
    AbortsAtTheHead,
    CancelsAtTheHead,
    CancelsAtTheBody,
    CancelsAtTheEnd,
    FailsTheText,
}

struct Ends(Way);

impl Readback<Told> for Ends {
    fn on_head(&mut self, _: &mut Told, _: &Response<'_>, cx: &mut Context<'_, Told>) -> Flow {
        match self.0 {
            Way::AbortsAtTheHead => return Flow::Abort,
            Way::CancelsAtTheHead => assert!(cx.cancel(cx.id())),
            Way::CancelsAtTheBody => return Flow::Stream,
            Way::CancelsAtTheEnd | Way::FailsTheText => {}
        }
        Flow::Buffer
    }

    fn on_data(&mut self, _: &mut Told, _: &[u8], cx: &mut Context<'_, Told>) -> Flow {
        assert!(cx.cancel(cx.id()));
        Flow::Stream
    }

    fn on_reply(
        &mut self,
        told: &mut Told,
        reply: Reply<'_>,
        cx: &mut Context<'_, Told>,
    ) -> Next<Told> {
        match reply {
            Err(error) => told.push(facts(&error)),
            Ok(response) => match self.0 {
                Way::CancelsAtTheEnd => assert!(cx.cancel(cx.id())),
                _ => told.push(facts(&response.text().unwrap_err())),
            },
        }
        Next::done()
    }
}

#[test]
fn whichever_way_an_answered_request_ends_it_was_sent() {
    use ErrorKind::{Aborted, Cancelled, Malformed};
    let ways = [
        (Way::AbortsAtTheHead, Aborted),
        (Way::CancelsAtTheHead, Cancelled),
        (Way::CancelsAtTheBody, Cancelled),
        (Way::CancelsAtTheEnd, Cancelled),
        (Way::FailsTheText, Malformed),
    ];
    // Method, policy, whether all requests sent are idempotent.
    let sends = [
        (Method::POST, None, false),
        (Method::POST, Some(collects()), false),
        (Method::GET, Some(collects()), true),
        (Method::POST, Some(turns(1, Method::GET)), false),
        (Method::GET, Some(turns(1, Method::POST)), false),
    ];
    for (way, kind) in ways {
        for (method, policy, is_safe) in sends.clone() {
            let (network, mut engine) = simulated(|_| Answer::ok(b"\xff".to_vec()));
            let mut request = Request::builder(method.clone(), "http://192.0.2.1/");
            if let Some(policy) = policy {
                request = request.policy(policy);
            }
            engine.submit_to(request.build().unwrap(), Ends(way));
            let mut told = Told::new();
            engine.run(&mut told).unwrap();
            assert_eq!(told, [(kind, Sent::Yes, is_safe)], "{way:?} {method}");
            assert!(network.misuses().is_empty());
        }
    }
}

#[test]
fn what_was_never_sent_is_not_said_to_be_by_what_was_before_it() {
    let (_network, mut engine) = simulated(|_| Answer::ok("a"));
    let post = Request::post("http://192.0.2.1/").build().unwrap();
    let (again, mut left) = (post.clone(), 2);
    let id = engine.submit(post, move |told: &mut Told, reply, _| {
        left -= 1;
        match reply {
            Ok(_) if left == 1 => Next::again(),
            Ok(_) => Next::send(again.clone()).after(Duration::from_secs(100)),
            Err(error) => {
                told.push(facts(&error));
                Next::done()
            }
        }
    });
    let mut told = Told::new();
    engine.advance(&mut told, Duration::from_secs(50)).unwrap();
    assert!(engine.cancel(id));
    engine.run(&mut told).unwrap();
    assert_eq!(told, [(ErrorKind::Cancelled, Sent::No, true)]);
}

#[test]
fn of_what_a_policy_has_sent_the_future_of_an_engine_that_is_gone_knows_nothing() {
    // The policy, and whether the request that it sends in place of a GET may be sent again.
    let rows = [(None, true), (Some(turns(1, Method::POST)), false)];
    for (policy, is_safe) in rows {
        let (_network, mut engine) = simulated::<()>(|seen| match seen.path() {
            "/held" => Answer::held(),
            _ => Answer::ok("a"),
        });
        let mut request = Request::get("http://192.0.2.1/held");
        if let Some(policy) = policy {
            request = request.policy(policy);
        }
        let mut page = pin!(engine.fetch(request.build().unwrap()));
        engine.advance(&mut (), Duration::from_secs(1)).unwrap();
        drop(engine);
        let mut cx = TaskContext::from_waker(Waker::noop());
        let Poll::Ready(Err(error)) = page.as_mut().poll(&mut cx) else {
            panic!("expected the engine to be gone");
        };
        assert_eq!(facts(&error), (ErrorKind::Gone, Sent::Maybe, is_safe));
    }
}
