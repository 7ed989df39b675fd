// A struct that implements `Readback` is passed to `submit_to`.
use httpstream::{Context, Engine, Next, Readback, Reply, Request};

struct Download;

impl Readback<()> for Download {
    fn on_reply(&mut self, _: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
        Next::done()
    }
}

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit(request, Download);
}
