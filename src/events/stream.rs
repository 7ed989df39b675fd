//! Event streams for tasks.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;

use super::{Event, Events, Reader, is_stream};
use crate::backlog::{Taker, queue};
use crate::engine::{Context, Local, Next};
use crate::error::Error;
use crate::request::Request;
use crate::response::Reply;
use crate::session::Retry;

/// An event stream for a task. It is opened again when it ends, by the rules of the
/// [module](super).
///
/// The events that the task has not taken wait in a queue. When it is full, the stream is read no
/// further until the task has taken them, so a slow task slows the server down. Dropping the
/// `Stream` ends the chain that reads it.
///
/// ```
/// use httpstream::events::Stream;
/// use httpstream::sim::{Answer, Incoming, Network};
/// use httpstream::{Config, Engine, Local, Request, Sim};
///
/// async fn follow(http: Local<Vec<String>>) {
///     let news = Request::get("http://10.0.0.1/news").build().unwrap();
///     let mut stream = Stream::open(&http, news);
///     while let Some(event) = stream.next().await {
///         match event {
///             Ok(event) => {
///                 let data = event.data().to_owned();
///                 let _ = http.with(move |seen, _| seen.push(data)).await;
///             }
///             Err(error) => eprintln!("the stream is over: {error:#}"),
///         }
///     }
/// }
///
/// let network = Network::new(1);
/// network.serve("10.0.0.1:80".parse().unwrap(), |request: &Incoming| {
///     match request.header("Last-Event-ID") {
///         None => Answer::status(200)
///             .header("Content-Type", "text/event-stream")
///             .chunked(["id: 1\ndata: hello\n\n", "id: 2\ndata: bye\n\n"]),
///         Some(_) => Answer::status(204),
///     }
/// });
/// let mut engine = Engine::<Vec<String>, Sim>::on_network(&network, Config::default())?;
/// engine.spawn(follow(engine.local()));
/// let mut seen = Vec::new();
/// engine.run(&mut seen)?;
/// assert_eq!(seen, ["hello", "bye"]);
/// # Ok::<(), httpstream::Error>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping the stream ends it"]
pub struct Stream {
    events: Taker<Event<'static>>,
}

impl Stream {
    /// Opens a stream: sends `request`, with what
    /// [`accept_events`](crate::RequestBuilder::accept_events) sets.
    pub fn open<S: 'static>(local: &Local<S>, request: Request) -> Self {
        Self::builder().open(local, request)
    }

    /// Begins a stream with other settings than the defaults.
    pub fn builder() -> StreamBuilder {
        StreamBuilder {
            reader: Reader::default(),
        }
    }

    /// Waits for the next event. Returns `None` when the stream is over for good because the server
    /// says so, by a 204 (No Content), or because it has ended and may not be opened again. If it
    /// is over for another reason, an error comes first. No event is lost if the future is dropped.
    ///
    /// # Errors
    /// - Those of the exchange, once the attempts are used up or if they are not retried;
    ///   [`Cancelled`](crate::ErrorKind::Cancelled) if the chain was canceled.
    /// - [`Status`](crate::ErrorKind::Status) if the response has a status that no event stream
    ///   has, and [`Malformed`](crate::ErrorKind::Malformed) if it has another content type.
    /// - [`TooLarge`](crate::ErrorKind::TooLarge) if an event exceeds
    ///   [`max_event_bytes`](StreamBuilder::max_event_bytes).
    /// - [`Gone`](crate::ErrorKind::Gone) if the engine has been dropped.
    pub async fn next(&mut self) -> Option<Result<Event<'static>, Error>> {
        self.events.next().await
    }
}

/// The settings of a [`Stream`]. They are those of [`Events`].
///
/// ```
/// use std::time::Duration;
///
/// use httpstream::events::Stream;
/// use httpstream::{Local, Request, Retry};
///
/// /// Follows the news from a stored position, and gives up after an hour or so of failures.
/// fn follow(http: &Local<()>, news: Request, last_id: &str) -> Stream {
///     Stream::builder()
///         .last_event_id(last_id)
///         .retry(Retry::attempts(120))
///         .silence(Duration::from_secs(60))
///         .open(http, news)
/// }
/// ```
#[must_use = "a stream is opened by `open`"]
pub struct StreamBuilder {
    reader: Reader,
}

impl StreamBuilder {
    /// Sets when and how often the stream is opened again; see [`Events::retry`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.reader.retry = Some(Box::new(retry));
        self
    }

    /// Sets the longest silence within the stream; see [`Events::silence`].
    pub fn silence(mut self, most: Duration) -> Self {
        self.reader.silence = most;
        self
    }

    /// Sets the id of the last event, after which the stream goes on.
    pub fn last_event_id(mut self, id: impl Into<String>) -> Self {
        self.reader.parser.set_last_id(id.into());
        self
    }

    /// Sets the most bytes that an event may have; see [`Events::max_event_bytes`].
    pub fn max_event_bytes(mut self, most: usize) -> Self {
        self.reader.max_event_bytes = most;
        self
    }

    /// Opens the stream; see [`Stream::open`].
    pub fn open<S: 'static>(self, local: &Local<S>, request: Request) -> Stream {
        let events = queue(local, |feeder| {
            let feeder = Rc::new(feeder);
            let end = Rc::clone(&feeder);
            let on_event = move |_: &mut S, event: Event<'_>, _: &mut Context<'_, S>| {
                let event = event.into_owned();
                let bytes = event.id.len() + event.name.len() + event.data.len();
                feeder.push(event, bytes)
            };
            let then = move |_: &mut S, reply: Reply<'_>, _: &mut Context<'_, S>| {
                end.end(why(reply));
                Next::done()
            };
            let mut events = Events::new(on_event).then(then);
            events.reader = self.reader;
            local.start(events.open(request))
        });
        Stream { events }
    }
}

impl fmt::Debug for StreamBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamBuilder").field(&self.reader).finish()
    }
}

/// Returns why a stream is over, unless it has ended as it should.
fn why(reply: Reply<'_>) -> Option<Error> {
    let response = match reply {
        Ok(response) => response,
        Err(error) => return Some(error),
    };
    match response.status() {
        StatusCode::NO_CONTENT => None,
        StatusCode::OK if is_stream(&response) => None,
        StatusCode::OK => {
            let error = Error::malformed("the content type is not text/event-stream".into());
            Some(error.placed_at(response.circumstances()))
        }
        _ => Some(Error::of_status(&response)),
    }
}
