//! Tasks: conversations written with `async` and `await`. The engine polls them itself, so no async
//! runtime is needed.

use std::time::Duration;

use httpstream::{Engine, Error, Local, Request};

#[path = "support/demo.rs"]
mod demo;

/// Logs in, then polls three times. One thread can run any number of these tasks.
async fn converse(http: Local<()>, server: String, user: u32) -> Result<(), Error> {
    let login = Request::post(format!("{server}/login")).form([("user", user.to_string())]);
    let login = http.fetch(login.build()?).await?;
    if !login.status().is_success() {
        return Err(Error::policy(format!("login: {}", login.status())));
    }
    let token = String::from_utf8_lossy(login.body()).into_owned();
    let poll = Request::get(format!("{server}/poll")).query([("token", &token)]);
    let poll = poll.build()?;
    for _ in 0..3 {
        let news = http.fetch(poll.clone()).await?;
        println!("user {user}: {}", String::from_utf8_lossy(news.body()));
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
