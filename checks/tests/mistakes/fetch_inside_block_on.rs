// `fetch` and `block_on` both borrow the engine. Use `fetch_blocking`, or two statements.
use httpstream::{Engine, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let _ = engine.block_on(engine.fetch(request));
}
