// The reference types of parameters are not inferred for a closure in a variable.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let readback = |_, reply, _| {
        println!("{reply:?}");
        Next::done()
    };
    engine.submit(request, readback);
}
