//! Delayed requests: retries with backoff, and a heartbeat that does not drift. A request that
//! waits for its delay uses neither a thread nor a socket.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use httpstream::{Context, Engine, Error, Next, Reply, Request};

#[path = "support/demo.rs"]
mod demo;

const PERIOD: Duration = Duration::from_millis(50);

struct Bot {
    begin: Instant,
    next_beat: Option<Instant>,
    beats: u32,
}

impl Bot {
    /// Retries until the login succeeds. The delay doubles with each failure, from 20 ms to 5.12 s.
    fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status().is_success() => {
                println!("{:4} ms  logged in", self.begin.elapsed().as_millis());
                Next::done()
            }
            _ => {
                let delay = Duration::from_millis(10 << cx.failures().clamp(1, 9));
                println!(
                    "{:4} ms  login failed, next attempt in {delay:?} or a little more",
                    self.begin.elapsed().as_millis()
                );
                // Without jitter, all clients that a server has lost would return at once.
                let jitter = (cx.moment().random() % 1000) as f64 / 2000.0;
                Next::again().after(delay.mul_f64(1.0 + jitter))
            }
        }
    }

    /// Schedules the next beat for a fixed time, with `at`. With `after`, each period would begin
    /// only when the response has arrived, and the beats would drift.
    fn on_beat(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.beats += 1;
        println!(
            "{:4} ms  beat {}",
            self.begin.elapsed().as_millis(),
            self.beats
        );
        if self.beats == 5 {
            return Next::done();
        }
        let next_beat = self.next_beat.get_or_insert(cx.now());
        // Beats that are already overdue are skipped.
        while *next_beat <= cx.now() {
            *next_beat += PERIOD;
        }
        Next::again().at(*next_beat)
    }
}

fn main() -> Result<(), Error> {
    let attempts = AtomicU32::new(0);
    let server = demo::serve(move |asked| match &*asked.path {
        "/login" if attempts.fetch_add(1, Ordering::Relaxed) < 3 => {
            ("503 Service Unavailable", String::new())
        }
        _ => demo::ok(""),
    });
    let server = server.expect("a port on loopback");
    let (login, beat) = (format!("{server}/login"), format!("{server}/beat"));

    let mut bot = Bot {
        begin: Instant::now(),
        next_beat: None,
        beats: 0,
    };
    let mut engine = Engine::new()?;
    engine.submit(Request::post(login).build()?, Bot::on_login);
    engine.submit(Request::post(beat).build()?, Bot::on_beat);
    engine.run(&mut bot)
}
