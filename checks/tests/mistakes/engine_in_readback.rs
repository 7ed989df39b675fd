// A readback cannot use the engine itself, but submits through its context.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let next = request.clone();
    engine.submit(request, move |_, _, _| {
        engine.submit(next.clone(), |_, _, _| Next::done());
        Next::done()
    });
}
