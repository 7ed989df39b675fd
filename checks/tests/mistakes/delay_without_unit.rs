// A delay is a `Duration`, not a number.
use httpstream::{Context, Next, Reply};

fn on_beat(_: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    Next::again().after(60)
}

fn main() {}
