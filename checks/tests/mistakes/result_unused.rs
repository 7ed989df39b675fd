// Without its result, each of these calls is useless.
#![deny(unused_must_use)]

use httpstream::{Engine, Request};
use std::time::Duration;

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.fetch(request);
    engine.submitter().sleep(Duration::from_secs(1));
    engine.pending();
    engine.next_deadline();
    engine.submitter().keep_alive();
    Request::get("http://127.0.0.1:1/");
}
