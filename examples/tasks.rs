//! Tasks: conversations written with `async` and `await`. The engine polls them itself, so no async
//! runtime is needed.

use std::time::Duration;

use httpstream::{Engine, Error, Local, Request, ResponseExt};

#[path = "support/demo.rs"]
mod demo;

/// Logs in, then polls three times. One thread can run any number of these tasks.
async fn converse(http: Local<()>, server: String, user: u32) -> Result<(), Error> {
    let login = Request::post(format!("{server}/login")).form([("user", user)]);
    let login = http.fetch(login.build()?).await?.error_for_status()?;
    let poll = Request::get(format!("{server}/poll")).param("token", login.text()?);
    let poll = poll.build()?;
    for _ in 0..3 {
        let news = http.fetch(poll.clone()).await?.error_for_status()?;
        println!("user {user}: {}", news.text()?);
        http.sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let server = demo::serve(|asked| match &*asked.path {
        "/login" => demo::ok(format!("token-of-{}", asked.body.replace("user=", ""))),
        path => demo::ok(format!("news at {path}")),
    });
    let server = server.expect("a port on loopback");

    let mut engine = Engine::<()>::new()?;
    for user in 1..=3 {
        let conversation = converse(engine.local(), server.clone(), user);
        engine.spawn(async move {
            if let Err(error) = conversation.await {
                eprintln!("user {user}: {error:#}");
            }
        });
    }
    engine.run(&mut ())
}
