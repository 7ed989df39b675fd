//! Streams a response body to a file. A type that implements `Readback` receives the head and then
//! each piece of the body as it arrives, so the body is never in memory as a whole.

use std::fs::File;
use std::io::{self, Write};

use httpstream::{Context, Engine, Error, Flow, Next, Readback, Reply, Request, Response};

#[path = "support/demo.rs"]
mod demo;

struct Download {
    file: File,
    /// Why writing to the file failed, which ends the download.
    failure: Option<io::Error>,
}

impl Readback<()> for Download {
    fn on_head(&mut self, _: &mut (), head: &Response<'_>, _: &mut Context<'_, ()>) -> Flow {
        if head.status().is_success() {
            Flow::Stream
        } else {
            Flow::Discard // the body is an error page
        }
    }

    fn on_data(&mut self, _: &mut (), data: &[u8], _: &mut Context<'_, ()>) -> Flow {
        match self.file.write_all(data) {
            Ok(()) => Flow::Stream,
            Err(error) => {
                self.failure = Some(error);
                Flow::Abort
            }
        }
    }

    fn on_reply(&mut self, _: &mut (), reply: Reply<'_>, _: &mut Context<'_, ()>) -> Next<()> {
        match (reply, self.failure.take()) {
            (_, Some(error)) => eprintln!("cannot write the file: {error}"),
            (Ok(response), None) => println!("{}", response.status()),
            (Err(error), None) => eprintln!("{error:#}"),
        }
        Next::done()
    }
}

fn main() -> Result<(), Error> {
    let server = demo::serve(|_| demo::ok("0123456789".repeat(1 << 20)));
    let server = server.expect("a port on loopback");
    let path = std::env::temp_dir().join(format!("httpstream-download-{}", std::process::id()));

    let mut engine = Engine::new()?;
    let request = Request::get(server)
        // The total timeout covers the body, too, and would cut a long download short. The idle
        // timeout still ends a download that stalls.
        .timeouts(|timeouts| timeouts.total = None)
        .build()?;
    let file = File::create(&path).expect("the temporary directory is writable");
    let failure = None;
    engine.submit_to(request, Download { file, failure });
    engine.run(&mut ())?;

    println!(
        "{} bytes",
        std::fs::metadata(&path).map_or(0, |file| file.len())
    );
    let _ = std::fs::remove_file(&path);
    Ok(())
}
