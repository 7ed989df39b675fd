//! Tasks: chains that wait without a request, and whose readback polls a future when they are due.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use crate::engine::readback::{Action, Context, Next, Readback, Reply};

/// A future, polled whenever its chain is due.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// Made at the first poll, because the chain has no id before.
    waker: Option<Waker>,
}

impl<S> Next<S> {
    /// Continues as a task: the future runs inside turns, whenever it is woken, and the chain ends
    /// with it. See [`Engine::spawn`](crate::Engine::spawn).
    ///
    /// With a delay, the first poll comes after the delay. A [`read_by`](Self::read_by) behind it
    /// replaces the task.
    pub fn task(future: impl Future<Output = ()> + 'static) -> Self {
        Self::wait().read_to(Task {
            future: Box::pin(future),
            waker: None,
        })
    }
}

impl<S> Readback<S> for Task {
    fn on_due(&mut self, _: &mut S, cx: &mut Context<'_, S>) -> Next<S> {
        let waker = self.waker.get_or_insert_with(|| cx.moment().waker());
        let mut polled_by = task::Context::from_waker(waker);
        match self.future.as_mut().poll(&mut polled_by) {
            Poll::Ready(()) => Next::done(),
            Poll::Pending => Next::of(Action::Pend).after(Duration::MAX),
        }
    }

    /// The chain was canceled, and drops the future when it ends.
    fn on_reply(&mut self, _: &mut S, _: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        Next::done()
    }
}
