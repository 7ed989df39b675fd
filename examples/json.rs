//! Sends JSON and parses the JSON of the response (feature `json`).

use httpstream::{Engine, Request, ResponseExt};
use serde_json::{Value, json};

#[path = "support/demo.rs"]
mod demo;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = demo::serve(|asked| match serde_json::from_str::<Value>(&asked.body) {
        Ok(message) => demo::ok(json!({"echo": message["text"], "id": 7}).to_string()),
        Err(_) => ("400 Bad Request", String::new()),
    })?;

    let request = Request::post(format!("{server}/messages"))
        .json(&json!({"chat": 42, "text": "hello"}))
        .build()?;
    let response = Engine::new()?.fetch_blocking(request)?;
    // A response is `Ok` whatever its status; an `Err` means that no complete response arrived.
    let answer: Value = response.error_for_status()?.json()?;
    println!("{}", answer["echo"]);
    Ok(())
}
