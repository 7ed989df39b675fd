//! WebSockets (RFC 6455), with tungstenite's server, scripted servers and simulated ones.

mod closing;
mod frames;
mod handshakes;
mod messages;
mod peers;
mod simulated;
mod streams;

use httpstream::{Context, Flow, Message, Next, Reply, WebSocket};

use crate::common::Log;

type OnMessage = fn(&mut Log, Message<'_>, &mut Context<'_, Log>) -> Flow;
type OnEnd = fn(&mut Log, Reply<'_>, &mut Context<'_, Log>) -> Next<Log>;

/// A WebSocket that records its messages and its end.
fn recorded() -> WebSocket<OnMessage, OnEnd> {
    WebSocket::<OnMessage>::new(record).then_to(note_end)
}

fn record(log: &mut Log, message: Message<'_>, _: &mut Context<'_, Log>) -> Flow {
    log.notes.push(format!("{message:?}"));
    Flow::Stream
}

fn note_end(log: &mut Log, reply: Reply<'_>, _: &mut Context<'_, Log>) -> Next<Log> {
    log.notes.push(match &reply {
        Ok(response) => format!("over {}", response.status().as_u16()),
        Err(error) => {
            let why = std::error::Error::source(error);
            let why = why.map_or_else(|| error.to_string(), ToString::to_string);
            format!("{:?}: {why}", error.kind())
        }
    });
    log.replies.push(reply.map(crate::common::Got::of));
    Next::done()
}
