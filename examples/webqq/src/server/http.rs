//! The front-end: runs a [`Server`], the brain, on hyper and tokio, in a thread of its own.
//!
//! It listens for http, and optionally for https. Each connection is a task; another task keeps the
//! time and passes on the wishes. All of them, and [`HttpServer::with`], change the brain through
//! [`Shared::change`], which lets the director see the result of each change and sends the answers
//! that have become ready.

pub(crate) mod tls;
pub(crate) mod travel;

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use log::{debug, warn};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;

use super::{Answer, Call, Direct, Director, HoldId, Manner, Reaction, Server, Wish};
use tls::Identity;
use travel::Carrier;

/// Bots may all connect at once.
const BACKLOG: i32 = 4096;

/// The pause after a failed `accept`, for example for lack of a file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// How long a poll waits before it is checked while another one is held, because the close of the
/// other's connection may be in flight.
const CLOSE_UNDER_WAY: Duration = Duration::from_millis(30);

/// The timer's resolution. Even a wake-up that is overdue must leave time to the connections.
const TICK: Duration = Duration::from_millis(1);

/// The listeners.
pub(crate) struct Doors {
    http: TcpListener,
    https: Option<(TcpListener, Identity)>,
}

/// http only.
impl From<TcpListener> for Doors {
    fn from(http: TcpListener) -> Self {
        Self { http, https: None }
    }
}

impl Doors {
    /// Adds https.
    pub(crate) fn with_https(self, https: TcpListener, identity: Identity) -> Self {
        Self {
            https: Some((https, identity)),
            ..self
        }
    }
}

/// A brain that serves over TCP. Dropping it is like calling [`HttpServer::stop`].
pub(crate) struct HttpServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// The thread, and the sender that ends it when dropped.
    thread: Option<(JoinHandle<()>, oneshot::Sender<Infallible>)>,
}

impl HttpServer {
    /// Starts serving on the listeners that [`listen`] returned. `wishes` is called on the server's
    /// thread, and may use [`HttpServer::with`].
    ///
    /// # Errors
    /// If the thread or its poll cannot be created.
    pub(crate) fn start(
        doors: impl Into<Doors>,
        brain: Server,
        director: Box<dyn Director>,
        wishes: impl Fn(Wish) + Send + 'static,
    ) -> io::Result<Self> {
        let Doors { http, https } = doors.into();
        let addr = http.local_addr()?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(brain, director)),
            over: Condvar::new(),
            changed: Notify::new(),
            began: Instant::now(),
        });
        let (stop, stopped) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let serving = Serving(Arc::clone(&shared));
        let thread = thread::Builder::new().name("server".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(http, |stream| welcome(&serving.0, stream, serving.0.now())) => {}
                    () = accept_tls(&serving.0, https) => {}
                    () = keep_time(&serving.0, wishes) => {}
                    _ = stopped => {}
                }
            });
            // The runtime is about to drop all connections. That must not look as if the clients
            // had gone.
            serving.0.lock().holds.clear();
        })?;
        Ok(Self {
            addr,
            shared,
            thread: Some((thread, stop)),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs `f` with the brain and its time, and sends the answers that become ready.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Server, Duration) -> R) -> R {
        self.shared.change(|state, now| f(&mut state.brain, now))
    }

    /// Whether the director is done.
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().is_over
    }

    /// Waits until the director is done, for at most `timeout`. Returns [`HttpServer::is_over`].
    pub(crate) fn wait_over(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while !state.is_over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.shared.over.wait_timeout(state, left);
            state = woken.expect(UNBROKEN).0;
        }
        true
    }

    /// Closes all connections, and returns the brain.
    pub(crate) fn stop(mut self) -> Server {
        self.end().expect("the server's thread has not panicked");
        let shared = Arc::clone(&self.shared);
        drop(self);
        let shared = Arc::into_inner(shared).expect("the server's tasks are gone");
        shared.state.into_inner().expect(UNBROKEN).brain
    }

    fn end(&mut self) -> thread::Result<()> {
        let Some((thread, stop)) = self.thread.take() else {
            return Ok(());
        };
        drop(stop);
        thread.join()
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // A panic of the thread has been printed already.
        let _ = self.end();
    }
}

/// Listens at `addr`, where port 0 stands for any.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // A server that was killed leaves connections in TIME_WAIT.
    socket.set_reuse_address(true)?;
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{addr}: {error}"));
    socket.bind(&addr.into()).map_err(named)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// For `expect` on the lock: the state is unusable after a panic.
const UNBROKEN: &str = "the brain has not panicked";

struct Shared {
    state: Mutex<State>,
    /// Notified when the director is done, and when the thread ends.
    over: Condvar,
    /// Makes [`keep_time`] compute its next wake-up again.
    changed: Notify,
    began: Instant,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNBROKEN)
    }

    /// Returns the brain's time.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn change<R>(&self, f: impl FnOnce(&mut State, Duration) -> R) -> R {
        self.change_locked(self.lock(), f)
    }

    fn change_locked<R>(
        &self,
        mut state: MutexGuard<'_, State>,
        f: impl FnOnce(&mut State, Duration) -> R,
    ) -> R {
        // Notified first, so that the thread also learns of a panic below, and ends.
        self.changed.notify_one();
        // Read under the lock, so that time never goes backwards.
        let now = self.now();
        state.catch_up(now);
        let result = f(&mut state, now);
        state.settle(now);
        if state.is_over {
            self.over.notify_all();
        }
        result
    }

    /// Returns the wishes, and how long there is nothing to do.
    fn turn(&self) -> (Vec<Wish>, Option<Duration>) {
        let mut state = self.lock();
        let now = self.now();
        if state.next_wake().is_some_and(|at| at <= now) {
            state.catch_up(now);
            state.settle(now);
            if state.is_over {
                self.over.notify_all();
            }
        }
        let wake = state.next_wake();
        let wait = wake.map(|at| at.saturating_sub(now).max(TICK));
        (state.brain.take_wishes(), wait)
    }
}

struct State {
    brain: Server,
    director: Box<dyn Director>,
    /// When the director wants to be called.
    direct_at: Option<Duration>,
    is_over: bool,
    /// The receivers of held calls' answers.
    holds: HashMap<HoldId, oneshot::Sender<Answer>>,
}

impl State {
    fn new(brain: Server, director: Box<dyn Director>) -> Self {
        Self {
            brain,
            director,
            direct_at: Some(Duration::ZERO),
            is_over: false,
            holds: HashMap::new(),
        }
    }

    fn next_wake(&self) -> Option<Duration> {
        let wakes = [self.brain.next_wake(), self.direct_at];
        wakes.into_iter().flatten().min()
    }

    /// Handles everything that is due by now, before the next change.
    fn catch_up(&mut self, now: Duration) {
        if self.brain.next_wake().is_some_and(|at| at <= now) {
            self.brain.on_time(now);
        }
    }

    /// Lets the director see what has changed, and sends the answers that are ready.
    fn settle(&mut self, now: Duration) {
        if !self.is_over {
            match self.director.direct(&mut self.brain, now) {
                Direct::Wait(at) => self.direct_at = at,
                Direct::Over => (self.is_over, self.direct_at) = (true, None),
            }
        }
        for (hold, answer) in self.brain.take_ready() {
            if let Some(client) = self.holds.remove(&hold) {
                // The client may be gone, just as it may go while the answer travels.
                let _ = client.send(answer);
            }
        }
    }
}

/// Wakes the threads that wait for the server's end, however the thread ends.
struct Serving(Arc<Shared>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.over.notify_all();
    }
}

async fn accept_tls(shared: &Arc<Shared>, door: Option<(TcpListener, Identity)>) {
    let Some((listener, identity)) = door else {
        return pending().await;
    };
    let welcome = |stream| {
        let (shared, identity) = (Arc::clone(shared), identity.clone());
        let opened = shared.now();
        tokio::spawn(async move {
            match identity.accept(stream).await {
                Ok(stream) => welcome(&shared, stream, opened),
                Err(error) => debug!("TLS handshake failed: {error}"),
            }
        });
    };
    accept(listener, welcome).await;
}

/// Serves a connection in a task of its own.
fn welcome<C: Carrier + Send + 'static>(shared: &Arc<Shared>, stream: C, opened: Duration) {
    let number = shared.lock().brain.on_connection(C::SCHEME);
    let shared = Arc::clone(shared);
    let is_used = Arc::new(AtomicBool::new(false));
    let reply = move |mut call: Call| {
        let is_first = !is_used.swap(true, Ordering::Relaxed);
        call.opened = is_first.then_some(opened);
        reply(Arc::clone(&shared), call)
    };
    tokio::spawn(travel::serve(stream, number, reply));
}

async fn accept(listener: TcpListener, welcome: impl Fn(TcpStream)) {
    let listener = Listener::from_std(listener).expect("the listener is non-blocking");
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("accept failed ({error}); next in {ACCEPT_AGAIN:?}");
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        // Answers are usually written at once. If not, their pieces must arrive separately.
        let _ = stream.set_nodelay(true);
        welcome(stream);
    }
}

async fn keep_time(shared: &Shared, wishes: impl Fn(Wish)) {
    loop {
        let (wished, wait) = shared.turn();
        wished.into_iter().for_each(&wishes);
        let wake = async {
            match wait {
                Some(wait) => sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = shared.changed.notified() => {}
            () = wake => {}
        }
    }
}

async fn reply(shared: Arc<Shared>, call: Call) -> Answer {
    let is_second = shared.lock().brain.is_polled(&call);
    if is_second {
        sleep(CLOSE_UNDER_WAY).await;
    }
    let (sender, answer) = oneshot::channel();
    let reaction = shared.change(|state, now| {
        let reaction = state.brain.on_call(now, &call);
        if let Reaction::Hold(hold) = reaction {
            state.holds.insert(hold, sender);
        }
        reaction
    });
    match reaction {
        Reaction::Answer(answer) => answer,
        Reaction::Hold(hold) => {
            let held = Held {
                shared,
                hold,
                answer,
            };
            held.answer().await
        }
    }
}

/// A held call. If it is dropped before its answer is ready, the client is gone.
struct Held {
    shared: Arc<Shared>,
    hold: HoldId,
    answer: oneshot::Receiver<Answer>,
}

impl Held {
    async fn answer(mut self) -> Answer {
        let answer = (&mut self.answer).await;
        answer.unwrap_or(Answer {
            status: 500,
            headers: Vec::new(),
            body: Vec::new(),
            manner: Manner::NoByte,
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Ok(mut state) = self.shared.state.lock() else {
            return;
        };
        if state.holds.remove(&self.hold).is_some() {
            let hold = self.hold;
            let gone = |state: &mut State, now| state.brain.on_gone(now, hold);
            self.shared.change_locked(state, gone);
        }
    }
}
