//! Fetches one page and prints it: `cargo run --example hello -- http://example.com/`

use httpstream::{Engine, Error, Request};

fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("usage: hello URL");
    let request = Request::get(url).build()?;
    let page = Engine::new()?.fetch_blocking(request)?;
    println!("{}", page.status());
    println!("{}", String::from_utf8_lossy(page.body()));
    Ok(())
}
