// A struct that implements `Readback` is passed to `read_to`.
use httpstream::{Context, Next, Readback, Reply, Request};

struct Download;

impl Readback<()> for Download {
    fn on_reply(&mut self, _: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
        Next::done()
    }
}

fn on_login(_: &mut (), _: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    Next::send(request).read_by(Download)
}

fn main() {}
