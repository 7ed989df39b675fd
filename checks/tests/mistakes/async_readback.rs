// A readback cannot be an `async` block. For futures there are `spawn` and `Next::task`.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit(request, |_, _, _| async { Next::done() });
}
