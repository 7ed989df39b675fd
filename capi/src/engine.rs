//! Engines: each in a table of its thread, where C finds it by a number.
//!
//! When a function is called, an engine is in one of three states. *At rest*, the call goes to the
//! engine. *Inside a callback*, the call goes to the [`Context`] that the engine lent for it.
//! Otherwise the engine is doing internal work, and no call can arrive.

use std::cell::{Cell, RefCell};
use std::io::Write;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::{Duration, Instant};

use httpstream::{ChainId, Config, Context, Engine, ErrorKind, Stats};

use crate::errors::{Code, Fault, contain, guard};
use crate::handles::Kind;
use crate::ids::Ids;
use crate::knobs;
use crate::raw;
use crate::readback::{CReadback, Taken};
use crate::request::sendable;
use crate::shared::{self, Birth, forked, shared};
use crate::types::*;

/// An engine of this thread.
pub(crate) struct Host {
    number: u64,
    fd: i32,
    engine: RefCell<Engine<()>>,
    desk: Rc<Desk>,
}

/// The state that an engine's chains share with calls made inside their callbacks.
pub(crate) struct Desk {
    born: Birth,
    pub(crate) ids: Ids,
    is_turning: Cell<bool>,
    /// The context lent to the running callback.
    context: Cell<Option<NonNull<Context<'static, ()>>>>,
    /// The number of chains that have not ended.
    chains: Cell<i64>,
    /// Readbacks that are no longer needed but not released yet.
    over: RefCell<Vec<Taken>>,
    garbage: RefCell<Garbage>,
    /// Whether to close idle connections at the end of the turn.
    closes_idle: Cell<bool>,
    /// Whether to handle a change of the network at the end of the turn.
    network_changed: Cell<bool>,
}

/// Invalid values that callbacks returned in this turn.
#[derive(Default)]
struct Garbage {
    first: Option<String>,
    more: usize,
}

/// The engines of a thread, ordered by their numbers, which only increase.
struct Hosts(ManuallyDrop<Vec<Rc<Host>>>);

thread_local! {
    static HOSTS: RefCell<Hosts> = const { RefCell::new(Hosts(ManuallyDrop::new(Vec::new()))) };
}

impl Hosts {
    fn find(&self, number: u64) -> Result<usize, usize> {
        // Most threads have one engine.
        match self.0.last() {
            Some(last) if last.number == number => Ok(self.0.len() - 1),
            _ => self.0.binary_search_by_key(&number, |host| host.number),
        }
    }
}

/// Runs when the thread or its process ends. Engines that have not been freed are leaked on
/// purpose: in a child process they are not ours to close, and the host, which may be gone already,
/// no longer expects releases.
impl Drop for Hosts {
    fn drop(&mut self) {
        if self.0.is_empty() {
            *self.0 = Vec::new();
        }
    }
}

impl Desk {
    fn new(number: u64) -> Self {
        Self {
            born: Birth::now(),
            ids: Ids::of_engine(number),
            is_turning: Cell::new(false),
            context: Cell::new(None),
            chains: Cell::new(0),
            over: RefCell::default(),
            garbage: RefCell::default(),
            closes_idle: Cell::new(false),
            network_changed: Cell::new(false),
        }
    }

    /// Runs a callback, which can reach `cx` through its engine's handle.
    pub(crate) fn lend<R>(&self, cx: &mut Context<'_, ()>, callback: impl FnOnce() -> R) -> R {
        /// Clears the context, whether `callback` returns or panics.
        struct Back<'a>(&'a Desk);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.context.set(None);
            }
        }
        let back = Back(self);
        // An engine never turns inside its own turn, so no other context is lent.
        let lent = NonNull::from(cx).cast::<Context<'static, ()>>();
        self.context.set(Some(lent));
        let answer = callback();
        drop(back);
        self.stay_in_this_process();
        answer
    }

    /// Aborts a child process that was forked in the callback that has just returned: it would go
    /// on using sockets and an epoll that belong to its parent as well.
    fn stay_in_this_process(&self) {
        if !self.born.is_here() {
            let words = b"httpstream: a process forked inside a callback must not return from it\n";
            let _ = std::io::stderr().write_all(words);
            std::process::abort();
        }
    }

    /// Passes the context lent to the running callback to `ask`. Returns `None` if no context is
    /// lent.
    fn with_context<R>(&self, ask: impl FnOnce(&mut Context<'_, ()>) -> R) -> Option<R> {
        /// Puts the context back, even if `ask` panics.
        struct Return<'a>(&'a Desk, NonNull<Context<'static, ()>>);
        impl Drop for Return<'_> {
            fn drop(&mut self) {
                self.0.context.set(Some(self.1));
            }
        }
        let mut taken = Return(self, self.context.take()?);
        // SAFETY: `lend` stored the pointer. It holds the borrow that the pointer came from until
        // the callback returns, does not touch it meanwhile, and then clears the cell. The cell is
        // empty while the context is used, so it is used only once at a time. `ask` accepts any
        // lifetime, so it cannot keep a part of the context.
        Some(ask(unsafe { taken.1.as_mut() }))
    }

    pub(crate) fn begin_chain(&self) {
        self.chains.set(self.chains.get() + 1);
    }

    pub(crate) fn end_chain(&self) {
        self.chains.set(self.chains.get() - 1);
    }

    /// Schedules a readback for release once the engine is at rest.
    pub(crate) fn retire(&self, taken: Taken) {
        if taken.wants_release() {
            self.over.borrow_mut().push(taken);
        }
    }

    pub(crate) fn tell_garbage(&self, words: impl FnOnce() -> String) {
        let mut garbage = self.garbage.borrow_mut();
        match garbage.first {
            None => garbage.first = Some(words()),
            Some(_) => garbage.more += 1,
        }
    }

    fn take_garbage(&self) -> Option<Fault> {
        let Garbage { first, more } = self.garbage.take();
        let mut words = first?;
        if more > 0 {
            words += &format!("; and {more} more");
        }
        Some(Fault::new(Code::Callback, words))
    }

    /// Releases retired readbacks. A release may add more of them.
    fn release(&self) {
        loop {
            // The statement ends the borrow before C code runs.
            let Some(taken) = self.over.borrow_mut().pop() else {
                return;
            };
            taken.release();
            self.stay_in_this_process();
        }
    }
}

impl Host {
    fn handle(&self) -> u64 {
        Kind::Engine.handle(self.number)
    }

    fn busy(&self, what: &str) -> Fault {
        Fault::new(Code::Busy, Kind::Engine.words(self.handle(), what))
    }

    /// Calls `at_rest` with the engine, or `inside` with the context that the engine lent to the
    /// running callback.
    fn ask<R>(
        &self,
        at_rest: impl FnOnce(&mut Engine<()>) -> R,
        inside: impl FnOnce(&mut Context<'_, ()>) -> R,
    ) -> Result<R, Fault> {
        match self.engine.try_borrow_mut() {
            Ok(mut engine) => Ok(at_rest(&mut engine)),
            Err(_) => self
                .desk
                .with_context(inside)
                .ok_or_else(|| self.busy("is busy outside of any callback")),
        }
    }

    /// Turns the engine, then does the work that callbacks left for the end of the turn.
    fn turn(&self, budget: u32) -> Result<httpstream_turned, Fault> {
        let turned = contain(|| self.turns(budget));
        self.desk.release();
        if self.desk.closes_idle.take() {
            self.engine.borrow_mut().close_idle();
        }
        if self.desk.network_changed.take() {
            self.engine.borrow_mut().network_changed();
        }
        turned?
    }

    fn turns(&self, budget: u32) -> Result<httpstream_turned, Fault> {
        let mut sum = httpstream_turned::default();
        let mut engine = self.engine.borrow_mut();
        for _ in 0..budget.max(1) {
            let turn = engine.turn(&mut (), Some(Duration::ZERO));
            let turn = turn.map_err(|error| fault_of(&error))?;
            sum.events += turn.events as u64;
            sum.answered += turn.answered as u64;
            sum.more = turn.more;
            sum.stopped |= turn.stopped;
            if !turn.more || turn.stopped {
                break;
            }
        }
        Ok(sum)
    }
}

/// Marks an engine as turning, which prevents a turn inside its own turn.
struct Turning<'a>(&'a Desk);

impl<'a> Turning<'a> {
    fn begin(desk: &'a Desk) -> Option<Self> {
        (!desk.is_turning.replace(true)).then(|| Self(desk))
    }
}

impl Drop for Turning<'_> {
    fn drop(&mut self) {
        self.0.is_turning.set(false);
    }
}

fn fault_of(error: &httpstream::Error) -> Fault {
    let code = match error.kind() {
        ErrorKind::InvalidConfig | ErrorKind::InvalidRequest => Code::Argument,
        _ => Code::Io,
    };
    Fault::new(code, format!("{error:#}"))
}

/// Returns the engine that a handle refers to, if it belongs to this thread and process.
fn host(engine: u64) -> Result<Rc<Host>, Fault> {
    let number = Kind::Engine.number(engine)?;
    let found = HOSTS.try_with(|hosts| {
        let hosts = hosts.borrow();
        let place = hosts.find(number).ok()?;
        Some(Rc::clone(&hosts.0[place]))
    });
    match found {
        Ok(Some(host)) if host.desk.born.is_here() => Ok(host),
        Ok(Some(_)) => Err(forked(engine)),
        Ok(None) | Err(_) => Err(shared().why_not_here(engine, number)),
    }
}

/// Creates an engine and writes it to `out`. It belongs to this thread: no other thread may use it,
/// except for httpstream_wakeup and httpstream_stop.
///
/// `config` is copied; 0 means the defaults. Free the engine with httpstream_free before its thread
/// ends. Otherwise it is leaked with its descriptors, and nothing is released.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the configuration is invalid; the message names the setting.
/// HTTPSTREAM_ERROR_IO: the system provides no poll or descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_new(
    config: httpstream_config,
    out: Option<&mut MaybeUninit<httpstream_engine>>,
) -> i32 {
    guard("httpstream_new", || {
        let out = raw::out("out", out)?;
        let draft = match config {
            0 => Default::default(),
            handle => shared().configs.get_mut(handle)?.clone(),
        };
        out.write(open(draft.config())?);
        Ok(HTTPSTREAM_OK)
    })
}

fn open(config: Config) -> Result<u64, Fault> {
    let engine = Engine::with_config(config).map_err(|error| fault_of(&error))?;
    let number = shared().announce(engine.submitter());
    let host = Rc::new(Host {
        number,
        fd: engine.as_raw_fd(),
        engine: RefCell::new(engine),
        desk: Rc::new(Desk::new(number)),
    });
    let handle = host.handle();
    let kept = HOSTS.try_with(|hosts| hosts.borrow_mut().0.push(host));
    kept.map_err(|_| {
        shared::retire(number);
        Fault::new(Code::Thread, "the thread is ending")
    })?;
    Ok(handle)
}

/// Frees an engine, and closes its connections and its descriptor. Remove the descriptor from your
/// event loop first. The only callback that runs is `release`, once for each chain that has not
/// ended. In a child process this fails and does nothing, because the engine belongs to the parent.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_free(engine: httpstream_engine) -> i32 {
    guard("httpstream_free", || {
        let host = host(engine)?;
        if host.desk.is_turning.get() {
            return Err(host.busy("cannot be freed inside its own callbacks"));
        }
        let desk = Rc::clone(&host.desk);
        let freed = contain(|| close(host));
        desk.release();
        freed.map(|()| HTTPSTREAM_OK)
    })
}

/// Removes the engine from all tables, then drops it.
fn close(host: Rc<Host>) {
    shared::retire(host.number);
    let taken = HOSTS.try_with(|hosts| {
        let mut hosts = hosts.borrow_mut();
        let place = hosts.find(host.number).ok()?;
        Some(hosts.0.remove(place))
    });
    drop(taken);
    drop(host);
}

/// Returns the descriptor to watch for reading, level-triggered. A negative value is an error. When
/// the descriptor is readable or the timeout has expired, call httpstream_turn. In an
/// edge-triggered loop, turn until `more` is false and `events` is 0. The descriptor stays the same
/// for the engine's life and belongs to the engine: do not close it or read from it.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_fd(engine: httpstream_engine) -> i32 {
    guard("httpstream_fd", || Ok(host(engine)?.fd))
}

/// Returns how long poll(2) may wait: in milliseconds, rounded up. 0 means that a turn is due, and
/// -1 that there is nothing to wait for but the descriptor. A value below -1 is an error. Ask again
/// before each wait and after each other call to the engine. Inside a callback the result is 0.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_timeout_ms(engine: httpstream_engine) -> i32 {
    guard("httpstream_timeout_ms", || {
        let host = host(engine)?;
        let timeout = match host.engine.try_borrow() {
            Ok(engine) => engine.next_timeout(),
            Err(_) => Some(Duration::ZERO),
        };
        Ok(timeout.map_or(-1, milliseconds))
    })
}

/// Rounds up. Rounded down, the timeout would be 0 during the last millisecond, and the loop would
/// spin.
fn milliseconds(time: Duration) -> i32 {
    i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Does all work that is due: reads and writes, checks deadlines, runs callbacks. It never blocks,
/// and may be called late, early or twice.
///
/// It makes up to `budget` turns as long as there is more to do; 0 counts as 1. Each turn is
/// limited (see "turn_events" and "turn_bytes"), and remaining work makes the timeout 0. A `budget`
/// of 1 suits a loop with other users; choose a higher one if going round the loop costs too much.
/// The result is written to `turned`, which may be null, and also if the call returns
/// HTTPSTREAM_ERROR_CALLBACK.
///
/// HTTPSTREAM_ERROR_BUSY: called inside a callback of this engine. HTTPSTREAM_ERROR_CALLBACK: a
/// callback returned an invalid value or a request that cannot be sent; the message names the
/// chain, and everything else was done. HTTPSTREAM_ERROR_IO: poll failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_turn(
    engine: httpstream_engine,
    budget: u32,
    // A pointer, not a reference: callbacks may read it, or have another engine write to it.
    turned: *mut httpstream_turned,
) -> i32 {
    guard("httpstream_turn", || {
        let host = host(engine)?;
        let result = match Turning::begin(&host.desk) {
            Some(_turning) => host.turn(budget),
            None => return Err(host.busy("cannot be turned inside its own callbacks")),
        };
        let garbage = host.desk.take_garbage();
        let sum = result?;
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        unsafe { raw::put(turned, sum) };
        match garbage {
            None => Ok(HTTPSTREAM_OK),
            Some(fault) => Err(fault),
        }
    })
}

/// Makes the descriptor readable, so that the loop turns the engine. Several wakeups before a turn
/// count as one. Callable from any thread; this function and httpstream_stop are the only ones that
/// other threads may call while the engine is in use.
///
/// HTTPSTREAM_ERROR_HANDLE: the engine was freed.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_wakeup(engine: httpstream_engine) -> i32 {
    guard("httpstream_wakeup", || {
        let submitter = shared().submitter(engine)?;
        // Any order wakes the loop, and this one has no effect because no chain has this id.
        let woken = submitter.resume(ChainId::from_u64(u64::MAX));
        woken
            .map(|()| HTTPSTREAM_OK)
            .map_err(|_| Kind::Engine.freed(engine))
    })
}

/// Sets `stopped` in the result of the httpstream_turn that is running, or else of the next one.
/// The engine can still be used afterwards. Callable from any thread.
///
/// HTTPSTREAM_ERROR_HANDLE: the engine was freed.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_stop(engine: httpstream_engine) -> i32 {
    guard("httpstream_stop", || {
        let submitter = shared().submitter(engine)?;
        let stopped = submitter.stop();
        stopped
            .map(|()| HTTPSTREAM_OK)
            .map_err(|_| Kind::Engine.freed(engine))
    })
}

/// Closes idle connections, and prevents connections in use from being reused. Inside a callback
/// this takes effect at the end of httpstream_turn. After a change of the network, call
/// httpstream_network_changed, which does this and more.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_close_idle(engine: httpstream_engine) -> i32 {
    guard("httpstream_close_idle", || {
        let host = host(engine)?;
        match host.engine.try_borrow_mut() {
            Ok(mut engine) => engine.close_idle(),
            Err(_) => host.desk.closes_idle.set(true),
        }
        Ok(HTTPSTREAM_OK)
    })
}

/// Tells the engine that the network changed: an interface came up, a VPN connected, or the machine
/// woke from sleep. Idle connections are closed, and connections in use are not reused. Cached
/// names, and the addresses and name servers noted as failing, are forgotten; resolv.conf and the
/// hosts file are read again. Requests in flight go on. Inside a callback this takes effect at the
/// end of httpstream_turn.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_network_changed(engine: httpstream_engine) -> i32 {
    guard("httpstream_network_changed", || {
        let host = host(engine)?;
        match host.engine.try_borrow_mut() {
            Ok(mut engine) => engine.network_changed(),
            Err(_) => host.desk.network_changed.set(true),
        }
        Ok(HTTPSTREAM_OK)
    })
}

/// Returns the number of chains that have not ended: queued, in flight, paused or delayed, and,
/// inside a callback, its own. A negative value is an error.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_pending(engine: httpstream_engine) -> i64 {
    guard("httpstream_pending", || Ok(host(engine)?.desk.chains.get()))
}

/// Writes statistics of the engine to `out`; set `out->size` first. All connections and chains are
/// counted for each call, which is cheap enough for once a second, but not for every turn.
///
/// HTTPSTREAM_ERROR_BUSY: called inside a callback of this engine. HTTPSTREAM_ERROR_ARGUMENT:
/// `size` is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_get_stats(
    engine: httpstream_engine,
    out: *mut httpstream_stats,
) -> i32 {
    guard("httpstream_get_stats", || {
        let host = host(engine)?;
        let stats = match host.engine.try_borrow() {
            Ok(engine) => engine.stats(),
            Err(_) => return Err(host.busy("has no stats inside its own callbacks")),
        };
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        unsafe { raw::fill("out", out, &to_c(&stats)) }?;
        Ok(HTTPSTREAM_OK)
    })
}

fn to_c(stats: &Stats) -> httpstream_stats {
    httpstream_stats {
        size: size_of::<httpstream_stats>(),
        links_open: stats.links_open as u64,
        links_idle: stats.links_idle as u64,
        links_dialing: stats.links_dialing as u64,
        in_flight: stats.in_flight as u64,
        queued: stats.queued as u64,
        delayed: stats.delayed as u64,
        paused: stats.paused as u64,
        opened: stats.opened,
        reused: stats.reused,
        submitted: stats.submitted,
        answered: stats.answered,
        failed: stats.failed,
        retried: stats.retried,
        bytes_in: stats.bytes_in,
        bytes_out: stats.bytes_out,
        turns: stats.turns,
        wakeups: stats.wakeups,
    }
}

/// Starts a chain: sends `request` after `delay_ms` milliseconds and passes the reply to the
/// callbacks of `readback`. A turn is then due. A delay of UINT64_MAX lasts until
/// httpstream_cancel. The chain's id is written to `id`, which may be null.
///
/// The caller keeps the request. The readback is copied and released exactly once; if this call
/// fails, it is not copied and not released. Callable inside callbacks.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the request cannot be sent.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_submit(
    engine: httpstream_engine,
    request: httpstream_request,
    delay_ms: u64,
    readback: Option<&httpstream_readback>,
    id: Option<&mut MaybeUninit<httpstream_id>>,
) -> i32 {
    guard("httpstream_submit", || {
        let host = host(engine)?;
        let readback = readback.ok_or_else(|| Fault::null("readback"))?;
        let request = sendable(request)?;
        let delay = knobs::delay(delay_ms);
        let due = Instant::now().checked_add(delay);
        // The readback is taken over only when nothing can fail any more.
        let chain = || CReadback::new(&host.desk, Taken::of(readback), request.clone(), due);
        let started = host.ask(
            |engine| engine.start(engine.send(request.clone()).after(delay).read_to(chain())),
            |cx| cx.start(cx.send(request.clone()).after(delay).read_to(chain())),
        )?;
        if let Some(id) = id {
            id.write(host.desk.ids.to_c(started));
        }
        Ok(HTTPSTREAM_OK)
    })
}

/// Ends a chain, whatever it is doing. A turn is then due.
///
/// Returns 1 if the chain is canceled: its on_reply is called once more, with
/// HTTPSTREAM_KIND_CANCELLED, and `next->action` is ignored. Returns 0 if the chain had ended or
/// was canceled before. Callable inside callbacks, including the chain's own.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_cancel(engine: httpstream_engine, id: httpstream_id) -> i32 {
    guard("httpstream_cancel", || {
        let host = host(engine)?;
        let id = host.desk.ids.of_c(id);
        let cancelled = host.ask(|engine| engine.cancel(id), |cx| cx.cancel(id))?;
        Ok(cancelled.into())
    })
}

/// Resumes a chain that a callback paused with HTTPSTREAM_PAUSE.
///
/// Returns 1 if the chain resumes; a turn is then due. Returns 0 if it was not paused; a pause
/// begins when the callback has returned. Callable inside callbacks.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_resume(engine: httpstream_engine, id: httpstream_id) -> i32 {
    guard("httpstream_resume", || {
        let host = host(engine)?;
        let id = host.desk.ids.of_c(id);
        let resumed = host.ask(|engine| engine.resume(id), |cx| cx.resume(id))?;
        Ok(resumed.into())
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::{CStr, c_void};

    use super::*;
    use crate::errors::{httpstream_last_error, httpstream_last_error_number};

    /// Increments the counter that `user` points to.
    unsafe extern "C" fn count(user: *mut c_void) {
        // SAFETY: the tests pass such a counter.
        let count = unsafe { &*user.cast::<Cell<u32>>() };
        count.set(count.get() + 1);
    }

    fn engine() -> u64 {
        open(Config::default()).unwrap()
    }

    fn turn(engine: u64) -> i32 {
        // SAFETY: nothing is written to null.
        unsafe { httpstream_turn(engine, 1, std::ptr::null_mut()) }
    }

    /// Starts a chain that never begins, and whose release is counted.
    fn wait_for_ever(engine: u64, released: &Cell<u32>) {
        let host = host(engine).unwrap();
        let request = httpstream::Request::get("http://127.0.0.1:1/")
            .build()
            .unwrap();
        let readback = httpstream_readback {
            on_reply: None,
            on_head: None,
            on_data: None,
            release: Some(count),
            user: std::ptr::from_ref(released).cast_mut().cast(),
        };
        let chain = CReadback::new(&host.desk, Taken::of(&readback), request.clone(), None);
        let mut engine = host.engine.borrow_mut();
        engine.start(
            httpstream::Next::send(request)
                .after(Duration::MAX)
                .read_to(chain),
        );
    }

    fn assert_panicked(answer: i32, function: &str) {
        assert_eq!(answer, HTTPSTREAM_ERROR_PANIC);
        assert_eq!(httpstream_last_error_number(), HTTPSTREAM_ERROR_PANIC);
        // SAFETY: it is NUL-terminated, and valid until the next failure on this thread.
        let words = unsafe { CStr::from_ptr(httpstream_last_error()) };
        let expected = format!("{function}: panic inside the library: on purpose");
        assert_eq!(words.to_str().unwrap(), expected);
    }

    #[test]
    fn a_panic_in_a_turn_does_not_cross_and_the_engine_goes_on() {
        let engine = engine();
        let released = Cell::new(0);
        wait_for_ever(engine, &released);
        let called = Rc::new(Cell::new(false));
        {
            let host = host(engine).unwrap();
            let mut engine = host.engine.borrow_mut();
            engine.call(|(), _| panic!("on purpose"));
            let called = Rc::clone(&called);
            engine.call(move |(), _| {
                called.set(true);
                httpstream::Next::done()
            });
        }
        assert_panicked(turn(engine), "httpstream_turn");
        while !called.get() {
            assert_eq!(turn(engine), HTTPSTREAM_OK);
        }
        assert_eq!(httpstream_pending(engine), 1);
        assert_eq!(httpstream_free(engine), HTTPSTREAM_OK);
        assert_eq!(released.get(), 1);
    }

    #[test]
    fn a_panic_while_an_engine_is_freed_leaves_no_release_out() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        let engine = engine();
        let released = Cell::new(0);
        wait_for_ever(engine, &released);
        {
            let host = host(engine).unwrap();
            let bomb = Bomb;
            host.engine.borrow_mut().call(move |(), _| {
                drop(bomb);
                httpstream::Next::done()
            });
        }
        wait_for_ever(engine, &released);
        assert_panicked(httpstream_free(engine), "httpstream_free");
        assert_eq!(released.get(), 2);
        assert_eq!(turn(engine), HTTPSTREAM_ERROR_HANDLE);
    }

    #[test]
    fn a_timeout_is_rounded_up_to_milliseconds() {
        let rows = [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(1), 1),
            (Duration::from_micros(1001), 2),
            (Duration::from_secs(1 << 40), i32::MAX),
        ];
        for (time, expected) in rows {
            assert_eq!(milliseconds(time), expected, "{time:?}");
        }
    }
}
