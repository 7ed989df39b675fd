//! Responses for tasks that read the body as it arrives.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::body::{BodyStream, Control, StreamPipe};
use crate::engine::future::{Awaited, Promise, awaited, promise};
use crate::engine::local::Local;
use crate::engine::readback::{Context, Flow, Next, Readback, Reply};
use crate::engine::submitter::{Order, Remote, Submitter};
use crate::error::{Earlier, Error, Sent};
use crate::id::ChainId;
use crate::request::Request;
use crate::response::{Info, Response};

/// The result of opening a response.
type Opened = Result<http::Response<BodyStream>, Error>;

impl<S: 'static> Submitter<S> {
    /// Sends `request` and completes when the head of the response has arrived. The body is a
    /// [`BodyStream`], which the task reads as it arrives. Dropping the future cancels the request,
    /// and so does dropping the body.
    ///
    /// The response carries its [`Info`] in its extensions.
    /// [`Timeouts::total`](crate::Timeouts::total), five minutes by default, covers the whole body:
    /// lift it for a large one, and rely on the idle timeout.
    ///
    /// # Errors
    /// Those of the exchange until then; [`ErrorKind::Gone`](crate::ErrorKind::Gone) if the engine
    /// is dropped first, or if the request's policy panics.
    #[must_use = "dropping the future cancels the request"]
    pub fn open(&self, request: Request) -> impl Future<Output = Opened> + Send + use<S> {
        let (promise, slot) = promise();
        let id = self.new_id();
        let order = Order::Submit {
            id,
            request: request.clone(),
            readback: Box::new(Feed::new(promise, self.remote(), id, request.clone())),
            delay: Duration::ZERO,
        };
        awaited(request, Awaited::begin(self.remote(), id, order, slot))
    }
}

impl<S: 'static> Local<S> {
    /// Sends `request` and completes when the head of the response has arrived; see
    /// [`Submitter::open`](crate::Submitter::open).
    ///
    /// # Errors
    /// As [`Submitter::open`](crate::Submitter::open).
    #[must_use = "dropping the future cancels the request"]
    pub fn open(&self, request: Request) -> impl Future<Output = Opened> + use<S> {
        let (promise, slot) = promise();
        let remote = Arc::clone(self.remote());
        let id = remote.new_id();
        let feed = Feed::new(promise, Arc::clone(&remote), id, request.clone());
        self.start_as(id, Next::send(request.clone()).read_to(feed));
        awaited(request, Awaited::of(remote, id, slot))
    }
}

/// Reaches a chain of an engine.
struct Chain<S> {
    remote: Arc<Remote<S>>,
    id: ChainId,
}

impl<S> Control for Chain<S> {
    fn resume(&self) {
        // An error means that the engine has been dropped, and the chain with it.
        let _ = self.remote.order(Order::Resume(self.id));
    }

    fn cancel(&self) {
        let _ = self.remote.order(Order::Cancel(self.id));
    }
}

/// Passes a response to the task that has opened it.
struct Feed<S> {
    promise: Option<Promise<Opened>>,
    pipe: Arc<StreamPipe>,
    remote: Arc<Remote<S>>,
    id: ChainId,
    request: Request,
}

impl<S: 'static> Feed<S> {
    fn new(
        promise: Promise<Opened>,
        remote: Arc<Remote<S>>,
        id: ChainId,
        request: Request,
    ) -> Self {
        Self {
            promise: Some(promise),
            pipe: Arc::default(),
            remote,
            id,
            request,
        }
    }

    /// Gives the task the head.
    fn open(&mut self, response: &Response<'_>) {
        let Some(promise) = self.promise.take() else {
            return;
        };
        let info: Info = response.info().clone();
        let chain = Chain {
            remote: Arc::clone(&self.remote),
            id: self.id,
        };
        let body = BodyStream::new(Arc::clone(&self.pipe), Box::new(chain));
        let mut opened = response.head_to_http().map(|()| body);
        opened.extensions_mut().insert(info);
        let _: Next<S> = promise.keep(Ok(opened));
    }
}

impl<S: 'static> Readback<S> for Feed<S> {
    fn on_head(&mut self, _: &mut S, head: &Response<'_>, _: &mut Context<'_, S>) -> Flow {
        self.open(head);
        Flow::Stream
    }

    fn on_data(&mut self, _: &mut S, data: &[u8], _: &mut Context<'_, S>) -> Flow {
        match self.pipe.push(data) {
            true => Flow::Stream,
            false => Flow::Pause,
        }
    }

    fn on_reply(&mut self, _: &mut S, reply: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        match reply {
            Ok(response) => {
                self.open(&response);
                if !response.body().is_empty() {
                    self.pipe.push(response.body());
                }
                self.pipe.end(Ok(trailers_of(&response)));
            }
            Err(error) => match self.promise.take() {
                Some(promise) => return promise.keep(Err(error)),
                None => self.pipe.end(Err(error)),
            },
        }
        Next::done()
    }
}

impl<S> Drop for Feed<S> {
    fn drop(&mut self) {
        // Has no effect after `on_reply`. Otherwise the engine is gone, or the policy has panicked.
        let earlier = Earlier {
            sent: Sent::Yes,
            resend_is_safe: self.request.is_idempotent(),
        };
        let gone = Error::gone(self.request.clone(), earlier);
        self.pipe.end(Err(gone));
    }
}

fn trailers_of(response: &Response<'_>) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for (name, value) in response.trailers() {
        let name = http::HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, http::HeaderValue::from_bytes(value)) {
            let _ = trailers.try_append(name, value);
        }
    }
    trailers
}
