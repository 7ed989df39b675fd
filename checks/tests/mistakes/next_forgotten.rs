// A readback must return what comes next, even if that is nothing.
use httpstream::{Engine, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit(request, |_, reply, _| {
        println!("{reply:?}");
    });
}
