// The closure's parameters are not inferred by `submit_to`: that is what `submit` is for.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<u32>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit_to(request, |count, _, _| {
        *count += 1;
        Next::done()
    });
}
