//! A client for the conformance tests of the Autobahn suite: it runs each case that the fuzzing
//! server has, sends back what it gets, and asks for the report.
//! `cargo run --release --features websocket --example autobahn -- ws://127.0.0.1:9001`

use std::process::ExitCode;

use httpstream::websocket::Stream;
use httpstream::{Engine, Error, Local, Message, Request};

/// Returns the number of cases, which the server sends as text.
async fn count(http: &Local<()>, server: &str) -> Result<u32, Error> {
    let request = Request::websocket(format!("{server}/getCaseCount")).build()?;
    let (_sender, mut messages) = Stream::open(http, request).await?;
    let mut count = 0;
    while let Some(message) = messages.next().await {
        if let Message::Text(text) = message? {
            count = text.parse().unwrap_or_default();
        }
    }
    Ok(count)
}

/// Sends back all messages of one case.
async fn echo(http: &Local<()>, url: &str) -> Result<(), Error> {
    let request = Request::websocket(url).build()?;
    let (sender, mut messages) = Stream::open(http, request).await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Message::Close(..) = message {
            continue;
        }
        if sender.room().await.is_err() || sender.send(message).is_err() {
            break;
        }
    }
    Ok(())
}

async fn run(http: &Local<()>, server: &str) -> Result<(), Error> {
    let cases = count(http, server).await?;
    for case in 1..=cases {
        // Many cases break the protocol on purpose.
        match echo(
            http,
            &format!("{server}/runCase?case={case}&agent=httpstream"),
        )
        .await
        {
            Ok(()) => println!("{case} of {cases}: ended"),
            Err(error) => println!("{case} of {cases}: {error:#}"),
        }
    }
    let report = format!("{server}/updateReports?agent=httpstream");
    echo(http, &report).await
}

fn main() -> ExitCode {
    let Some(server) = std::env::args().nth(1) else {
        eprintln!("usage: autobahn URL");
        return ExitCode::FAILURE;
    };
    let ran = Engine::new().and_then(|mut engine| {
        let http = engine.local();
        engine.block_on(async move { run(&http, &server).await })?
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
