// `build` returns a `Result`.
use httpstream::{Engine, Error, Next, Request};

fn main() -> Result<(), Error> {
    let mut engine = Engine::<()>::new()?;
    engine.submit(Request::get("http://127.0.0.1:1/").build(), |_, _, _| Next::done());
    Ok(())
}
