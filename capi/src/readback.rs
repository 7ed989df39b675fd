//! C callbacks as a readback of the engine. No other module calls `on_reply`, `on_head`, `on_data`
//! or `release`.

use std::rc::Rc;
use std::time::Instant;

use httpstream::{Context, Flow, Next, Readback, Reply, Request, Response};

use crate::engine::Desk;
use crate::errors::Fault;
use crate::knobs;
use crate::reply::{Shown, What};
use crate::request;
use crate::types::*;

/// A C readback that the engine has taken over. It must be released exactly once, by
/// [`release`](Self::release). Dropping it does not release it, because it is dropped inside the
/// engine, where C must not be called.
pub(crate) struct Taken(httpstream_readback);

impl Taken {
    pub(crate) fn of(readback: &httpstream_readback) -> Self {
        Self(*readback)
    }

    /// Returns a readback without callbacks, and with nothing to release.
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
            // SAFETY: C passed this function to be called so.
            unsafe { release(self.0.user) }
        }
    }

    fn on_reply(&self, reply: u64, next: &mut httpstream_next) {
        if let Some(on_reply) = self.0.on_reply {
            // SAFETY: C passed this function to be called so. It is not released yet, and `next`
            // is ours.
            unsafe { on_reply(self.0.user, reply, next) }
        }
    }

    fn on_head(&self, head: u64) -> i32 {
        match (self.0.on_head, self.0.on_reply) {
            // SAFETY: C passed this function to be called so, and it is not released yet.
            (Some(on_head), _) => unsafe { on_head(self.0.user, head) },
            (None, Some(_)) => HTTPSTREAM_BUFFER,
            (None, None) => HTTPSTREAM_DISCARD,
        }
    }

    fn on_data(&self, reply: u64, data: &[u8]) -> i32 {
        match self.0.on_data {
            // SAFETY: as in `on_reply`, and `data` outlives the call.
            Some(on_data) => unsafe { on_data(self.0.user, reply, data.as_ptr(), data.len()) },
            None => HTTPSTREAM_DISCARD,
        }
    }
}

/// A chain that C submitted.
pub(crate) struct CReadback {
    desk: Rc<Desk>,
    by: Taken,
    /// The request that was sent last.
    request: Request,
    /// When the request was submitted, or its delay ended. `None` means never.
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

    /// Runs `callback` with a handle of a reply or of a part of one.
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
                    format!("{callback} of chain {id} returned {answer}, which is not a valid flow")
                });
                Flow::Abort
            }
        }
    }

    /// Does what `next` asks for: frees the request, takes over the readback, and returns the
    /// action.
    fn follow(&mut self, id: u64, next: &httpstream_next, cx: &Context<'_, ()>) -> Next<()> {
        let action = self.action(next);
        if next.frees_request.is_true() && next.request != 0 && request::free(next.request).is_err()
        {
            // For HTTPSTREAM_SEND, `action` reports the invalid handle.
            if next.action != HTTPSTREAM_SEND {
                self.desk.tell_garbage(|| {
                    let request = next.request;
                    format!("on_reply of chain {id} frees {request:#x}, which is not a request")
                });
            }
        }
        // SAFETY: C promises that this is null or points to a readback.
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
                    .tell_garbage(|| format!("on_reply of chain {id} returned {}", fault.words));
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
            action => Err(Fault::argument(format!(
                "{action}, which is not a valid action"
            ))),
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

/// Ends the chain.
impl Drop for CReadback {
    fn drop(&mut self) {
        self.desk.end_chain();
        self.desk
            .retire(std::mem::replace(&mut self.by, Taken::none()));
    }
}
