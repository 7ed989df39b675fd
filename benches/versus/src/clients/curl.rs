//! libcurl's multi interface, driven by `curl_multi_socket_action` from an epoll of our own. Its
//! documentation recommends this for many connections, and it avoids the limit of 1,023 descriptors
//! in `select`.
//!
//! Each connection in flight is an easy handle, configured once. It is removed and added again
//! between two transfers, which is how libcurl expects handles to be reused. A collected body goes
//! into a vector that the handle keeps. The epoll is level-triggered, as libcurl requires, and a
//! socket's interest is changed only when libcurl says so.

use std::error::Error;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::curl::easy::{Easy2, Handler, WriteError};
use ::curl::multi::{Easy2Handle, Events, Multi, Socket, SocketEvents};

use super::ask::{self, Holding, Resting, Tally, not_applicable};
use crate::job::{Cost, Job, Workload};
use crate::meter::Meter;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// libcurl's own buffer, which all transfers of a multi handle share.
const READ_BUFFER: usize = 16 << 10;
/// For large bodies its documentation recommends a larger one; this is as large as the floor's and
/// httpstream's.
const LARGE_READ_BUFFER: usize = 128 << 10;

/// The outcome of one transfer.
type Outcome = std::result::Result<(), ::curl::Error>;

pub(crate) fn run(job: &Job) -> Result<Cost> {
    count_allocations()?;
    match job.workload {
        Workload::Small
        | Workload::Chunked
        | Workload::Fields
        | Workload::Large
        | Workload::Huge
        | Workload::HugeStreamed
        | Workload::Close
        | Workload::Delayed => ask(job),
        Workload::Held => hold(job),
        Workload::Tls => {
            not_applicable("another TLS library; hyper with rustls is measured instead")
        }
        Workload::Pipelined { .. } => not_applicable("pipelining was removed from it in 7.62"),
    }
}

/// Makes libcurl count its allocations. The size of a block is `malloc`'s, up to 15 bytes more than
/// was requested.
///
/// libcurl only accepts replacements for `malloc` when it is initialized, and the curl crate has
/// done that before `main`, so it is initialized again.
fn count_allocations() -> Result<()> {
    // SAFETY: the functions are those of `malloc` apart from the counting, which neither unwinds
    // nor touches the blocks. No other thread uses libcurl, and nothing of it is in use yet, so it
    // can be cleaned up.
    let code = unsafe {
        curl_sys::curl_global_cleanup();
        curl_sys::curl_global_init_mem(
            curl_sys::CURL_GLOBAL_ALL,
            counted::malloc,
            counted::free,
            counted::realloc,
            counted::strdup,
            counted::calloc,
        )
    };
    match code {
        curl_sys::CURLE_OK => Ok(()),
        code => Err(::curl::Error::new(code).into()),
    }
}

/// The C library's allocator, counted by the meter in the same way as Rust's.
mod counted {
    use libc::{c_char, c_void, malloc_usable_size, size_t};

    use crate::meter::count;

    pub(super) extern "C" fn malloc(size: size_t) -> *mut c_void {
        // SAFETY: any size is allowed; a null pointer has the size 0.
        unsafe {
            let block = libc::malloc(size);
            count(malloc_usable_size(block), 0);
            block
        }
    }

    pub(super) extern "C" fn free(block: *mut c_void) {
        // SAFETY: libcurl frees what it was given.
        unsafe {
            count(0, malloc_usable_size(block));
            libc::free(block);
        }
    }

    pub(super) extern "C" fn realloc(block: *mut c_void, size: size_t) -> *mut c_void {
        // SAFETY: as above; on failure, the old block and its size are unchanged.
        unsafe {
            let before = malloc_usable_size(block);
            let after = libc::realloc(block, size);
            if !after.is_null() {
                count(malloc_usable_size(after), before);
            }
            after
        }
    }

    pub(super) extern "C" fn strdup(text: *const c_char) -> *mut c_char {
        // SAFETY: libcurl's strings end with a NUL.
        unsafe {
            let copy = libc::strdup(text);
            count(malloc_usable_size(copy.cast()), 0);
            copy
        }
    }

    pub(super) extern "C" fn calloc(number: size_t, size: size_t) -> *mut c_void {
        // SAFETY: as for `malloc`.
        unsafe {
            let block = libc::calloc(number, size);
            count(malloc_usable_size(block), 0);
            block
        }
    }
}

/// Receives a body from libcurl.
enum Sink {
    Collected(Vec<u8>),
    Streamed { len: usize },
}

impl Sink {
    fn new(workload: Workload) -> Self {
        match workload {
            Workload::HugeStreamed => Self::Streamed { len: 0 },
            _ => Self::Collected(Vec::new()),
        }
    }

    /// Returns the length of the body, and discards the body.
    fn take_len(&mut self) -> usize {
        match self {
            Self::Collected(body) => {
                let len = body.len();
                body.clear();
                len
            }
            Self::Streamed { len } => std::mem::take(len),
        }
    }
}

impl Handler for Sink {
    fn write(&mut self, piece: &[u8]) -> std::result::Result<usize, WriteError> {
        match self {
            Self::Collected(body) => body.extend_from_slice(piece),
            Self::Streamed { len } => *len += piece.len(),
        }
        Ok(piece.len())
    }
}

fn easy(job: &Job, connection: usize) -> Result<Easy2<Sink>> {
    let mut easy = Easy2::new(Sink::new(job.workload));
    easy.url(&ask::url(job, connection))?;
    // Ignore the environment's proxy variables.
    easy.noproxy("*")?;
    if ask::body_len(job.workload) > READ_BUFFER {
        easy.buffer_size(LARGE_READ_BUFFER)?;
    }
    Ok(easy)
}

fn ask(job: &Job) -> Result<Cost> {
    let mut asking = Asking {
        driver: Driver::new()?,
        tally: Tally::new(job),
        handles: Vec::new(),
    };
    for connection in 0..job.connections {
        asking.handles.push(Handle::Over);
        asking.go_on(connection, easy(job, connection)?)?;
    }
    let mut resting = Resting::default();
    let mut done = Vec::new();
    while !asking.tally.is_over() {
        asking.driver.turn(resting.next_deadline())?;
        asking.driver.take_done(&mut done);
        for (connection, outcome) in done.drain(..) {
            let easy = asking.on_done(connection, outcome)?;
            if job.workload == Workload::Delayed {
                asking.handles[connection] = Handle::Resting(easy);
                resting.push(connection);
            } else {
                asking.go_on(connection, easy)?;
            }
        }
        while let Some(connection) = resting.take_due(Instant::now()) {
            if let Handle::Resting(easy) = asking.take(connection) {
                asking.go_on(connection, easy)?;
            }
        }
    }
    asking.tally.cost()
}

/// The handle of one connection in flight.
enum Handle {
    Running(Easy2Handle<Sink>),
    Resting(Easy2<Sink>),
    Over,
}

struct Asking {
    driver: Driver,
    tally: Tally,
    /// By connection.
    handles: Vec<Handle>,
}

impl Asking {
    /// Sends the next request, if there is one.
    fn go_on(&mut self, connection: usize, easy: Easy2<Sink>) -> Result<()> {
        if self.tally.send() {
            self.handles[connection] = Handle::Running(self.driver.add(easy, connection)?);
        }
        Ok(())
    }

    fn on_done(&mut self, connection: usize, outcome: Outcome) -> Result<Easy2<Sink>> {
        let Handle::Running(handle) = self.take(connection) else {
            return Err("an answer without a request".into());
        };
        let mut easy = self.driver.multi.remove2(handle)?;
        let body_len = easy.get_mut().take_len();
        match outcome {
            Ok(()) => self.tally.on_answer(easy.response_code()? as u16, body_len),
            Err(error) => self.tally.on_error(&error),
        }
        Ok(easy)
    }

    fn take(&mut self, connection: usize) -> Handle {
        std::mem::replace(&mut self.handles[connection], Handle::Over)
    }
}

fn hold(job: &Job) -> Result<Cost> {
    let mut driver = Driver::new()?;
    let mut holding = Holding::new(job, job.connections)?;
    let meter = Meter::start();
    let mut running = Vec::new();
    for connection in 0..job.connections {
        running.push(driver.add(easy(job, connection)?, connection)?);
    }
    let mut next = Instant::now();
    loop {
        if next <= Instant::now() {
            if holding.is_complete()? {
                break;
            }
            next = Instant::now() + Holding::PAUSE;
        }
        driver.turn(Some(next))?;
    }
    Ok(meter.stop(job.connections as u64))
}

/// A multi handle, the sockets that it waits for, and the latest time at which it must be called.
struct Driver {
    multi: Multi,
    epoll: Arc<Epoll>,
    /// Set by libcurl.
    deadline: Arc<Mutex<Option<Instant>>>,
    ready: Vec<libc::epoll_event>,
}

impl Driver {
    fn new() -> Result<Self> {
        let mut multi = Multi::new();
        let epoll = Arc::new(Epoll::new()?);
        let deadline = Arc::new(Mutex::new(None));
        multi.socket_function({
            let epoll = Arc::clone(&epoll);
            // By descriptor: whether it is in the epoll.
            let mut known = Vec::new();
            move |socket, wanted, _| epoll.change(&mut known, socket, &wanted)
        })?;
        multi.timer_function({
            let deadline = Arc::clone(&deadline);
            move |timeout| {
                let due = timeout.map(|timeout| Instant::now() + timeout);
                deadline.lock().map(|mut deadline| *deadline = due).is_ok()
            }
        })?;
        Ok(Self {
            multi,
            epoll,
            deadline,
            ready: Vec::with_capacity(1024),
        })
    }

    fn add(&self, easy: Easy2<Sink>, connection: usize) -> Result<Easy2Handle<Sink>> {
        let mut handle = self.multi.add2(easy)?;
        handle.set_token(connection)?;
        Ok(handle)
    }

    /// Waits for libcurl's events, at most until `own`, and passes them to libcurl.
    fn turn(&mut self, own: Option<Instant>) -> Result<()> {
        let theirs = *self.deadline.lock().map_err(|_| "libcurl panicked")?;
        let first = theirs.into_iter().chain(own).min();
        self.epoll.wait(
            &mut self.ready,
            first.map(|due| due.saturating_duration_since(Instant::now())),
        )?;
        for event in &self.ready {
            let bits = event.events as i32;
            let mut events = Events::new();
            events.input(bits & libc::EPOLLIN != 0);
            events.output(bits & libc::EPOLLOUT != 0);
            events.error(bits & (libc::EPOLLERR | libc::EPOLLHUP) != 0);
            self.multi.action(event.u64 as Socket, &events)?;
        }
        let theirs = *self.deadline.lock().map_err(|_| "libcurl panicked")?;
        if theirs.is_some_and(|due| due <= Instant::now()) {
            // Each deadline is reported once; libcurl sets the next one from within the call.
            *self.deadline.lock().map_err(|_| "libcurl panicked")? = None;
            self.multi.timeout()?;
        }
        Ok(())
    }

    /// Takes the connections whose transfer has ended.
    fn take_done(&self, done: &mut Vec<(usize, Outcome)>) {
        self.multi.messages(|message| {
            if let (Ok(connection), Some(outcome)) = (message.token(), message.result()) {
                done.push((connection, outcome));
            }
        });
    }
}

/// A level-triggered epoll. An event's data is the descriptor.
struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers. It returns a new descriptor without another owner.
        unsafe {
            let fd = check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// Changes the interest in a socket as libcurl requests.
    fn change(&self, known: &mut Vec<bool>, socket: Socket, wanted: &SocketEvents) {
        let at = socket as usize;
        if known.len() <= at {
            known.resize(at + 1, false);
        }
        let operation = match (wanted.remove(), known[at]) {
            (true, false) => return,
            (true, true) => libc::EPOLL_CTL_DEL,
            (false, true) => libc::EPOLL_CTL_MOD,
            (false, false) => libc::EPOLL_CTL_ADD,
        };
        known[at] = !wanted.remove();
        let mut bits = 0;
        if wanted.input() {
            bits |= libc::EPOLLIN;
        }
        if wanted.output() {
            bits |= libc::EPOLLOUT;
        }
        let mut event = libc::epoll_event {
            events: bits as u32,
            u64: at as u64,
        };
        // SAFETY: `event` lives through the call. An invalid socket only causes an error.
        let changed = unsafe {
            check(libc::epoll_ctl(
                self.0.as_raw_fd(),
                operation,
                socket,
                &mut event,
            ))
        };
        if let Err(error) = changed {
            eprintln!("epoll_ctl of {socket}: {error}");
        }
    }

    fn wait(
        &self,
        ready: &mut Vec<libc::epoll_event>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        // Rounded up, so as not to wake early and spin.
        let timeout = timeout.map_or(-1, |timeout| timeout.as_micros().div_ceil(1000) as i32);
        ready.clear();
        // SAFETY: there is room for `capacity` events, and the call has initialized as many of them
        // as it returns.
        unsafe {
            let n = check(libc::epoll_wait(
                self.0.as_raw_fd(),
                ready.as_mut_ptr(),
                ready.capacity() as i32,
                timeout,
            ))?;
            ready.set_len(n as usize);
        }
        Ok(())
    }
}

fn check(answer: i32) -> io::Result<i32> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}
