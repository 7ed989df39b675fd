//! Fetches one page and prints it: `cargo run --example hello -- http://example.com/`

use httpstream::{Engine, Request};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("usage: hello URL")?;
    let page = Engine::new()?.fetch_blocking(Request::get(url).build()?)?;
    println!("{}", page.status());
    println!("{}", String::from_utf8_lossy(page.body()));
    Ok(())
}
