//! A poller, and its test in virtual time. An hour with a server that fails now and then is
//! simulated in milliseconds, and the same seed always produces the same hour.
//!
//! In your own crate, make the test a `#[test]` function, and enable feature `sim` for httpstream
//! in `[dev-dependencies]`.

use std::time::Duration;

use httpstream::sim::{Answer, Fault, Faults, Incoming, Network};
use httpstream::{Config, Context, Engine, Error, Next, Reply, Request, Sim};

#[derive(Default)]
struct Poller {
    news: u32,
    failures: u32,
}

impl Poller {
    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status().is_success() => {
                self.news += 1;
                Next::again().after(Duration::from_secs(1))
            }
            _ => {
                self.failures += 1;
                // A status such as 404 is no failure to be retried, so the count may be 0.
                Next::again().after(Duration::from_secs(1 << cx.failures().clamp(1, 6)))
            }
        }
    }
}

/// Adds a server that answers each poll after 20 s, except during the ten minutes in which it is
/// down and answers 503 at once.
fn serve(network: &Network) {
    network.host("chat.test", [[10, 0, 0, 1]]);
    let down = Duration::from_secs(600)..Duration::from_secs(1200);
    network.serve(([10, 0, 0, 1], 80).into(), move |request: &Incoming| {
        if down.contains(&request.at) {
            Answer::status(503)
        } else {
            Answer::ok("news").after(Duration::from_secs(20))
        }
    });
    // Of 1000 connections 20 are refused; of 1000 requests 20 have their connection reset before
    // the response.
    network.set_faults(
        Faults::none()
            .with(Fault::Refused, 20)
            .with(Fault::ResetBefore, 20),
    );
}

fn main() -> Result<(), Error> {
    let network = Network::new(2013);
    serve(&network);
    let mut poller = Poller::default();
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default())?;
    let poll = Request::get("http://chat.test/poll").long_poll(Duration::from_secs(30));
    engine.submit(poll.build()?, Poller::on_poll);

    engine.advance(&mut poller, Duration::from_secs(3600))?;
    println!(
        "{} polls brought news, {} failed",
        poller.news, poller.failures
    );
    assert_eq!(
        engine.pending(),
        1,
        "the poller continues after every failure"
    );
    assert!(
        (100..=150).contains(&poller.news),
        "each poll takes 20 s, and the server is up for 50 minutes"
    );
    assert!(
        (12..=40).contains(&poller.failures),
        "while the server is down, attempts are up to 64 s apart"
    );
    Ok(())
}
