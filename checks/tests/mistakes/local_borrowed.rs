// A readback lives as long as the engine, so it must count in the engine's state.
use httpstream::{Engine, Next, Request};

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let mut count = 0;
    engine.submit(request, |_, _, _| {
        count += 1;
        Next::done()
    });
    engine.run(&mut ()).unwrap();
    println!("{count}");
}
