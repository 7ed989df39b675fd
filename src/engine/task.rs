//! Tasks: chains whose readback polls a future. A task sends no request of its own.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll, Waker};
use std::time::Duration;

use crate::engine::readback::{Action, Context, Next, Readback, Reply};

/// A future that is polled whenever its chain is due.
struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    /// Created at the first poll, because the chain has no id before that.
    waker: Option<Waker>,
}

impl<S> Next<S> {
    /// Continues the chain as a task: the future is polled inside turns, whenever it is woken, and
    /// the chain ends when the future completes. See [`Engine::spawn`](crate::Engine::spawn).
    ///
    /// With a delay, the future is first polled after the delay. A later [`read_by`](Self::read_by)
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

    /// The chain was canceled. The future is dropped when the chain ends.
    fn on_reply(&mut self, _: &mut S, _: Reply<'_>, _: &mut Context<'_, S>) -> Next<S> {
        Next::done()
    }
}
