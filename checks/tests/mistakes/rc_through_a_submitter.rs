// What a `Submitter` submits must be `Send`.
use httpstream::{Context, Engine, Next, Reply, Request};
use std::rc::Rc;

fn main() {
    let engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let shared = Rc::new(1);
    let _ = engine.submitter().submit(request, move |_: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>| {
        println!("{shared}");
        Next::done()
    });
}
