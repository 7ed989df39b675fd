// `submit_to` does not infer the types of a closure's parameters. `submit` does.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<u32>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit_to(request, |count, _, _| {
        *count += 1;
        Next::done()
    });
}
