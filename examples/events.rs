//! Follows an event stream. When the stream ends, `Events` opens it again, with the id of the last
//! event in Last-Event-ID, and the server goes on behind that event.

use httpstream::events::{Event, Events};
use httpstream::{Context, Engine, Error, Flow, Next, Reply, Request};

#[path = "support/demo.rs"]
mod demo;

/// Counts the events.
#[derive(Default)]
struct Reader {
    seen: u32,
}

impl Reader {
    fn on_event(&mut self, event: Event<'_>, _: &mut Context<'_, Self>) -> Flow {
        self.seen += 1;
        println!("event {}, {}: {}", event.id(), event.name(), event.data());
        Flow::Stream
    }

    /// Called when the stream is over for good.
    fn on_end(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) => println!("{}, after {} events", response.status(), self.seen),
            Err(error) => eprintln!("{error:#}"),
        }
        Next::done()
    }
}

fn main() -> Result<(), Error> {
    // `retry` is how long to wait before the stream is opened again, in milliseconds.
    let server = demo::serve(|asked| match &*asked.last_event_id {
        "" => demo::events("retry: 100\n\nid: 1\ndata: hello\n\nid: 2\nevent: join\ndata: bob\n\n"),
        "2" => demo::events("id: 3\ndata: bye\n\n"),
        _ => ("204 No Content", String::new()),
    });
    let news = Request::get(server.expect("a port on loopback")).build()?;

    let mut engine = Engine::new()?;
    engine.start(
        Events::new(Reader::on_event)
            .then(Reader::on_end)
            .open(news),
    );
    engine.run(&mut Reader::default())
}
