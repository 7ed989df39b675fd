// A `Next` that is not returned has no effect.
use httpstream::{Context, Next, Reply};
use std::time::Duration;

fn on_poll(_: &mut (), reply: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    if reply.is_err() {
        Next::again().after(Duration::from_secs(5));
    }
    Next::again()
}

fn main() {}
