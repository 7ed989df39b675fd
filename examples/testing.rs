//! A poller, and its test in virtual time: an hour with a server that fails now and then takes
//! milliseconds, and the same seed gives the same hour again.
//!
//! In a crate of your own the test stands in `#[test]`, with feature `sim` in the dev-dependencies.

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
                Next::again()
            }
            _ => {
                self.failures += 1;
                Next::again().after(Duration::from_secs(1 << cx.failures().min(6)))
            }
        }
    }
}

/// Answers a poll after 20 s, but for ten minutes in which it is down.
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
    // Of a thousand connections or responses.
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
    println!("{} polls answered, {} failed", poller.news, poller.failures);
    assert_eq!(engine.pending(), 1, "it goes on, whatever happened");
    assert!(
        (100..=150).contains(&poller.news),
        "20 s each, for 50 minutes"
    );
    assert!(
        (12..=40).contains(&poller.failures),
        "at most every 64 s while the server is down"
    );
    Ok(())
}
