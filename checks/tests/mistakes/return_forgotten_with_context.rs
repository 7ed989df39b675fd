// A `Next` that the readback does not return has no effect.
#![deny(unused_must_use)]

use httpstream::{Context, Next, Reply};
use std::time::Duration;

fn on_poll(_: &mut (), reply: Reply<'_>, cx: &mut Context<'_, ()>) -> Next<()> {
    if reply.is_err() {
        cx.again().after(Duration::from_secs(5));
    }
    cx.again()
}

fn main() {}
