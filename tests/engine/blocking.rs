//! One future, or one request, with the engine run for as long as it takes.

use crate::common;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{Server, ok};
use httpstream::{Engine, ErrorKind, Next, Request};

fn echoing() -> Server {
    Server::start(|peer| {
        while let Some(seen) = peer.request() {
            peer.send(&ok(&seen.path));
        }
    })
}

#[test]
fn fetch_blocking_returns_the_response_and_keeps_the_connection() {
    let server = echoing();
    let mut engine = Engine::new().unwrap();
    for path in ["/a", "/b", "/c"] {
        let page = engine.fetch_blocking(server.get(path)).unwrap();
        assert_eq!(page.body(), path.as_bytes());
        assert!(page.extensions().get::<httpstream::Info>().is_some());
    }
    assert_eq!(engine.stats().opened, 1);
    assert_eq!(engine.pending(), 0);
}

#[test]
fn fetch_blocking_returns_the_error_of_the_exchange() {
    let mut engine = Engine::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let error = engine.fetch_blocking(request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.request().is_some());
}

#[test]
fn requests_of_a_blocking_future_go_out_together() {
    // Each is answered only once both are there.
    let gate = std::sync::Arc::new(std::sync::Barrier::new(2));
    let server = Server::start(move |peer| {
        while let Some(seen) = peer.request() {
            gate.wait();
            peer.send(&ok(&seen.path));
        }
    });
    let mut engine = Engine::new().unwrap();
    let http = engine.submitter();
    let (a, b) = engine
        .block_on(async {
            let (a, b) = (http.fetch(server.get("/a")), http.fetch(server.get("/b")));
            let (mut a, mut b) = (pin!(a), pin!(b));
            let (mut first, mut second) = (None, None);
            poll_fn(|cx| {
                if first.is_none()
                    && let Poll::Ready(page) = a.as_mut().poll(cx)
                {
                    first = Some(page);
                }
                if second.is_none()
                    && let Poll::Ready(page) = b.as_mut().poll(cx)
                {
                    second = Some(page);
                }
                match (first.take(), second.take()) {
                    (Some(a), Some(b)) => Poll::Ready((a, b)),
                    (a, b) => {
                        (first, second) = (a, b);
                        Poll::Pending
                    }
                }
            })
            .await
        })
        .unwrap();
    assert_eq!(a.unwrap().body(), b"/a");
    assert_eq!(b.unwrap().body(), b"/b");
}

#[test]
fn a_blocking_future_may_be_woken_by_another_thread() {
    let mut engine = Engine::new().unwrap();
    let (wakers, waker) = mpsc::channel();
    thread::spawn(move || {
        let (waker, ready): (std::task::Waker, mpsc::Sender<u32>) = waker.recv().unwrap();
        // Long enough for the engine to sleep in its poll.
        thread::sleep(Duration::from_millis(20));
        ready.send(7).unwrap();
        waker.wake();
    });
    let (ready, is_ready) = mpsc::channel();
    let mut asked = false;
    let value = engine.block_on(poll_fn(|cx| {
        if !std::mem::replace(&mut asked, true) {
            wakers.send((cx.waker().clone(), ready.clone())).unwrap();
        }
        is_ready.try_recv().map_or(Poll::Pending, Poll::Ready)
    }));
    assert_eq!(value.unwrap(), 7);
}

#[test]
fn a_blocking_future_that_wakes_itself_is_polled_once_a_turn() {
    let mut engine = Engine::new().unwrap();
    let mut polls = 0;
    let turns = engine.stats().turns;
    engine
        .block_on(poll_fn(|cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls == 100 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        }))
        .unwrap();
    assert_eq!(engine.stats().turns - turns, 99);
}

#[test]
fn other_chains_go_on_meanwhile_and_stop_does_not_end_the_wait() {
    let server = echoing();
    let mut engine = Engine::new().unwrap();
    let others = std::rc::Rc::new(Cell::new(0));
    let count = std::rc::Rc::clone(&others);
    engine.submit(server.get("/other"), move |_, _, cx| {
        count.set(count.get() + 1);
        cx.stop();
        if count.get() < 5 {
            Next::again()
        } else {
            Next::again().after(Duration::from_secs(3600))
        }
    });
    let http = engine.local();
    let slept = engine.block_on(async {
        while others.get() < 5 {
            http.sleep(Duration::from_millis(1)).await;
        }
        "done"
    });
    assert_eq!(slept.unwrap(), "done");
    assert_eq!(engine.pending(), 1, "the delayed one is still pending");
}

#[test]
fn a_panic_in_a_blocking_future_leaves_the_engine_usable() {
    let server = echoing();
    let mut engine = Engine::new().unwrap();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        engine.block_on(async { panic!("on purpose") })
    }));
    assert!(outcome.is_err());
    let page = engine.fetch_blocking(server.get("/after")).unwrap();
    assert_eq!(page.body(), b"/after");
}
