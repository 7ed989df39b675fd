//! Sends JSON and parses the JSON of the response, with `serde_json`. httpstream itself has no JSON
//! support.

use httpstream::{Engine, Request, http::StatusCode};
use serde_json::{Value, json};

#[path = "support/demo.rs"]
mod demo;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::serve(|asked| match serde_json::from_str::<Value>(&asked.body) {
        Ok(message) => demo::ok(json!({"echo": message["text"], "id": 7}).to_string()),
        Err(_) => ("400 Bad Request", String::new()),
    })?;

    let message = json!({"chat": 42, "text": "hello"});
    let request = Request::post(format!("{server}/messages"))
        .header("Content-Type", "application/json")
        .body(message.to_string());
    println!("{}", send(request.build()?)?["echo"]);
    Ok(())
}

/// Sends `request`, and returns the body of its response, parsed as JSON.
fn send(request: Request) -> Result<Value, Box<dyn std::error::Error>> {
    let response = Engine::new()?.fetch_blocking(request)?;
    // A response is `Ok` whatever its status; an `Err` means that no complete response arrived.
    if response.status() != StatusCode::OK {
        return Err(format!("status {}", response.status()).into());
    }
    Ok(serde_json::from_slice(response.body())?)
}
