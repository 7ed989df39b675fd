//! Fetches fifty URLs, eight at a time. All requests are submitted at once; those for which there
//! is no connection yet wait in the engine's queue.

use std::time::Duration;

use httpstream::{Config, Engine, Error, Next, Request};

#[path = "support/demo.rs"]
mod demo;

#[derive(Default)]
struct Summary {
    pages: usize,
    bytes: usize,
    failures: Vec<String>,
}

fn main() -> Result<(), Error> {
    let server = demo::serve(|asked| demo::ok(asked.path.repeat(100)));
    let server = server.expect("a port on loopback");

    let mut config = Config::default();
    config.max_connections = 8; // each carries one request at a time
    // Neither of these two includes the time in the queue, as `total` does.
    config.timeouts.first_byte = Some(Duration::from_secs(2));
    config.timeouts.idle = Some(Duration::from_secs(2));
    let mut engine = Engine::with_config(config)?;
    for page in 0..50 {
        let url = format!("{server}/page/{page}");
        engine.submit(
            Request::get(&url).build()?,
            move |all: &mut Summary, reply, _| {
                match reply {
                    Ok(page) if page.status().is_success() => {
                        all.pages += 1;
                        all.bytes += page.body().len();
                    }
                    Ok(page) => all.failures.push(format!("{url}: {}", page.status())),
                    Err(error) => all.failures.push(format!("{url}: {error:#}")),
                }
                Next::done()
            },
        );
    }
    let mut all = Summary::default();
    engine.run(&mut all)?;

    let opened = engine.stats().opened;
    println!(
        "{} pages, {} bytes, {opened} connections",
        all.pages, all.bytes
    );
    all.failures
        .iter()
        .for_each(|failure| eprintln!("{failure}"));
    Ok(())
}
