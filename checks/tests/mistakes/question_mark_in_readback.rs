// A readback returns `Next`, not `Result`, so `?` cannot be used in it.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit(request, |_, reply, _| {
        let response = reply?;
        println!("{}", response.status());
        Next::done()
    });
}
