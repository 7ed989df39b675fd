//! Inside a tokio program: ten URLs at once, and a body in pieces.

use httpstream::tokio::Client;
use httpstream::{Config, Context, Error, Flow, Next, Readback, Reply, Request, Response};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

#[path = "support/demo.rs"]
mod demo;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = demo::serve(|asked| demo::ok(asked.path.repeat(10_000)));
    let server = server.expect("a port on loopback");
    // The engine runs on a thread of its own. Clones of the client share it.
    let client = Client::on_thread(Config::default())?;

    let mut pages = JoinSet::new();
    for page in 0..10 {
        let request = Request::get(format!("{server}/{page}")).build()?;
        pages.spawn(client.fetch(request)); // dropping the future cancels the request
    }
    while let Some(page) = pages.join_next().await {
        match page.expect("no fetch panics") {
            Ok(page) => println!("{}, {} bytes", page.status(), page.body().len()),
            Err(error) => eprintln!("{error:#}"),
        }
    }

    let (sender, mut pieces) = unbounded_channel();
    let request = Request::get(format!("{server}/pieces")).build()?;
    client.submitter().submit_to(request, Pieces(sender))?;
    let mut bytes = 0;
    while let Some(piece) = pieces.recv().await {
        match piece {
            Ok(piece) => bytes += piece.len(),
            Err(error) => eprintln!("after {bytes} bytes: {error:#}"),
        }
    }
    println!("{bytes} bytes in pieces");
    Ok(())
}

/// Passes the pieces of a body to a task, and an error if the body is not complete.
struct Pieces(UnboundedSender<Result<Vec<u8>, Error>>);

impl Readback<()> for Pieces {
    fn on_head(&mut self, _: &mut (), head: &Response<'_>, _: &mut Context<'_, ()>) -> Flow {
        if head.status().is_success() {
            Flow::Stream
        } else {
            Flow::Buffer // for the error
        }
    }

    fn on_data(&mut self, _: &mut (), data: &[u8], _: &mut Context<'_, ()>) -> Flow {
        match self.0.send(Ok(data.to_vec())) {
            Ok(()) => Flow::Stream,
            Err(_) => Flow::Abort, // the receiver has been dropped
        }
    }

    fn on_reply(&mut self, _: &mut (), reply: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
        let failure = match reply {
            Ok(response) if response.status().is_success() => return Next::done(),
            Ok(response) => Error::of_status(&response),
            Err(error) => error,
        };
        let _ = self.0.send(Err(failure));
        Next::done()
    }
}
