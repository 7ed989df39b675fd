//! C's callbacks as a readback of the engine. The one place that calls them.

use std::rc::Rc;
use std::time::Instant;

use httpstream::{Context, Flow, Next, Readback, Reply, Request, Response};

use crate::engine::Desk;
use crate::errors::Fault;
use crate::knobs;
use crate::reply::{Shown, What};
use crate::request;
use crate::types::*;

/// A readback of C's that was taken over. It is to be released once: by [`release`](Self::release),
/// and not by being dropped, since it is dropped inside the engine, where C must not be called.
pub(crate) struct Taken(httpstream_readback);

impl Taken {
    pub(crate) fn of(readback: &httpstream_readback) -> Self {
        Self(*readback)
    }

    /// Nothing to call, nothing to release.
    fn none() -> Self {
        Self(httpstream_readback {
            on_reply: None,
            on_head: None,
            on_data: None,
            release: None,
            user: std::ptr::null_mut(),
        })
    }

    pub(crate) fn wants_release(&self) -> bool {
        self.0.release.is_some()
    }

    pub(crate) fn release(self) {
        if let Some(release) = self.0.release {
            // SAFETY: what C handed over, for this.
            unsafe { release(self.0.user) }
        }
    }

    fn on_reply(&self, reply: u64, next: &mut httpstream_next) {
        if let Some(on_reply) = self.0.on_reply {
            // SAFETY: what C handed over, for this; not released yet, and `next` is ours.
            unsafe { on_reply(self.0.user, reply, next) }
        }
    }

    fn on_head(&self, head: u64) -> i32 {
        match (self.0.on_head, self.0.on_reply) {
            // SAFETY: what C handed over, for this; not released yet.
            (Some(on_head), _) => unsafe { on_head(self.0.user, head) },
            (None, Some(_)) => HTTPSTREAM_BUFFER,
            (None, None) => HTTPSTREAM_DISCARD,
        }
    }

    fn on_data(&self, reply: u64, data: &[u8]) -> i32 {
        match self.0.on_data {
            // SAFETY: what C handed over, for this; not released yet, and `data` outlives the call.
            Some(on_data) => unsafe { on_data(self.0.user, reply, data.as_ptr(), data.len()) },
            None => HTTPSTREAM_DISCARD,
        }
    }
}

/// A chain of C's.
pub(crate) struct CReadback {
    desk: Rc<Desk>,
    by: Taken,
    /// The one sent last.
    request: Request,
    /// When it was submitted, or its delay was over. `None`: that is never.
    due: Option<Instant>,
}

impl CReadback {
    pub(crate) fn new(desk: &Rc<Desk>, by: Taken, request: Request, due: Option<Instant>) -> Self {
        desk.begin_chain();
        Self {
            desk: Rc::clone(desk),
            by,
            request,
            due,
        }
    }

    /// Calls back with a part of a reply.
    fn show<R>(
        &self,
        what: What<'_>,
        cx: &mut Context<'_, ()>,
        callback: impl FnOnce(&Taken, u64) -> R,
    ) -> R {
        let elapsed = self.due.map(|due| cx.now().saturating_duration_since(due));
        let id = self.desk.ids.to_c(cx.id());
        let shown = Shown::new(what, id, &self.request, elapsed);
        self.desk
            .lend(cx, || shown.lend(|reply| callback(&self.by, reply)))
    }

    fn flow(&self, callback: &str, id: u64, answer: i32) -> Flow {
        match answer {
            HTTPSTREAM_BUFFER => Flow::Buffer,
            HTTPSTREAM_STREAM => Flow::Stream,
            HTTPSTREAM_DISCARD => Flow::Discard,
            HTTPSTREAM_PAUSE => Flow::Pause,
            HTTPSTREAM_ABORT => Flow::Abort,
            _ => {
                self.desk.tell_garbage(|| {
                    format!("{callback} of chain {id} answered {answer}, which is no flow")
                });
                Flow::Abort
            }
        }
    }

    /// What `next` says, with all that it hands over taken over.
    fn follow(&mut self, id: u64, next: &httpstream_next, cx: &Context<'_, ()>) -> Next<()> {
        let action = self.action(next);
        if next.frees_request.is_true() && next.request != 0 && request::free(next.request).is_err()
        {
            // Of SEND it was said already.
            if next.action != HTTPSTREAM_SEND {
                self.desk.tell_garbage(|| {
                    let request = next.request;
                    format!("on_reply of chain {id} frees request {request:#x}, which is none")
                });
            }
        }
        // SAFETY: C's promise about `next`: null, or a readback.
        if let Some(readback) = unsafe { next.readback.as_ref() } {
            let former = std::mem::replace(&mut self.by, Taken::of(readback));
            self.desk.retire(former);
        }
        let delay = knobs::delay(next.delay_ms);
        self.due = cx.now().checked_add(delay);
        match action {
            Ok(action) => action.after(delay),
            Err(fault) => {
                self.desk
                    .tell_garbage(|| format!("on_reply of chain {id} answered {}", fault.words));
                Next::done()
            }
        }
    }

    fn action(&mut self, next: &httpstream_next) -> Result<Next<()>, Fault> {
        match next.action {
            HTTPSTREAM_DONE => Ok(Next::done()),
            HTTPSTREAM_AGAIN => Ok(Next::again()),
            HTTPSTREAM_SEND => {
                let request = request::sendable(next.request).map_err(|fault| {
                    Fault::argument(format!("HTTPSTREAM_SEND: {}", fault.words))
                })?;
                self.request = request.clone();
                Ok(Next::send(request))
            }
            action => Err(Fault::argument(format!("{action}, which is no action"))),
        }
    }
}

impl Readback<()> for CReadback {
    fn on_head(&mut self, (): &mut (), head: &Response<'_>, cx: &mut Context<'_, ()>) -> Flow {
        let answer = self.show(What::Head(head), cx, Taken::on_head);
        self.flow("on_head", self.desk.ids.to_c(cx.id()), answer)
    }

    fn on_data(&mut self, (): &mut (), data: &[u8], cx: &mut Context<'_, ()>) -> Flow {
        let answer = self.show(What::Data, cx, |by, reply| by.on_data(reply, data));
        self.flow("on_data", self.desk.ids.to_c(cx.id()), answer)
    }

    fn on_reply(&mut self, (): &mut (), reply: Reply<'_>, cx: &mut Context<'_, ()>) -> Next<()> {
        let mut next = httpstream_next {
            action: HTTPSTREAM_DONE,
            frees_request: Bool::default(),
            request: 0,
            delay_ms: 0,
            readback: std::ptr::null(),
        };
        let what = match &reply {
            Ok(response) => What::Response(response),
            Err(error) => What::Failure(error),
        };
        self.show(what, cx, |by, reply| by.on_reply(reply, &mut next));
        self.follow(self.desk.ids.to_c(cx.id()), &next, cx)
    }
}

/// The chain is over.
impl Drop for CReadback {
    fn drop(&mut self) {
        self.desk.end_chain();
        self.desk
            .retire(std::mem::replace(&mut self.by, Taken::none()));
    }
}
