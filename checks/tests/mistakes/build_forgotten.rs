// A builder is not a request: the call of `build` is missing.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    engine.submit(Request::get("http://127.0.0.1:1/"), |_, _, _| Next::done());
}
