// `submit_to` requires a type that implements `Readback`.
use httpstream::{Engine, Request};

struct Download;

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit_to(request, Download);
}
