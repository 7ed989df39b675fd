//! Talks to a WebSocket server from the terminal: each line that is typed is sent, and each message
//! is printed. `cargo run --features websocket --example ws -- wss://echo.example/`
//!
//! The end of the input closes the WebSocket. A connection that is lost is opened again.

use std::io::{Write as _, stdin, stdout};
use std::process::ExitCode;
use std::time::Duration;

use httpstream::{
    Context, Engine, Error, Flow, Message, Next, Reply, Request, WebSocket, WebSocketSender,
};

/// How often in a row opening is tried.
const ATTEMPTS: u32 = 5;

#[derive(Default)]
struct Terminal {
    failed: Option<Error>,
}

impl Terminal {
    fn on_message(&mut self, message: Message<'_>, _: &mut Context<'_, Self>) -> Flow {
        let mut out = stdout().lock();
        let written = match message {
            Message::Text(text) => writeln!(out, "{text}"),
            Message::Binary(bytes) => writeln!(out, "({} bytes)", bytes.len()),
            Message::Close(code, reason) => writeln!(out, "closed: {code} {reason}"),
            _ => Ok(()),
        };
        match written {
            Ok(()) => Flow::Stream,
            // Nobody reads what is printed.
            Err(_) => Flow::Finish,
        }
    }

    fn on_over(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        let error = match reply {
            Ok(response) if response.status() == 101 => return Next::done(),
            Ok(response) => Error::of_status(&response),
            Err(error) => error,
        };
        if cx.failures() < ATTEMPTS {
            eprintln!("{error:#}; trying again");
            return Next::again().after(Duration::from_secs(1 << cx.failures()));
        }
        self.failed = Some(error);
        Next::done()
    }
}

/// Sends what is typed. While the WebSocket is being opened again, lines are lost.
fn read_lines(sender: &WebSocketSender) {
    for line in stdin().lines().map_while(Result::ok) {
        if let Err(error) = sender.send(line) {
            eprintln!("not sent: {error}");
        }
    }
    sender.close(1000, "");
}

fn run(url: &str) -> Result<(), Error> {
    let mut engine = Engine::<Terminal>::new()?;
    let request = Request::websocket(url)
        // A server answers pings, so one that is silent for longer is gone.
        .timeouts(|t| t.idle = Some(Duration::from_secs(75)))
        .build()?;
    let socket = WebSocket::new(Terminal::on_message)
        .ping_every(Duration::from_secs(30))
        .then(Terminal::on_over);
    let sender = socket.sender();
    engine.submit_to(request, socket);
    std::thread::spawn(move || read_lines(&sender));
    let mut terminal = Terminal::default();
    engine.run(&mut terminal)?;
    terminal.failed.map_or(Ok(()), Err)
}

fn main() -> ExitCode {
    let Some(url) = std::env::args().nth(1) else {
        eprintln!("usage: ws URL");
        return ExitCode::FAILURE;
    };
    match run(&url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
