//! Embeds the engine in a GLib main loop, as used by GTK programs: a source that watches the
//! engine's descriptor, and a timeout for its deadline.
//!
//! The trap: a timeout counts whole milliseconds and truncates the rest, so it is rounded up here.
//! After every turn, and after submissions outside of one, the deadline is read again and the
//! timeout set or removed. A new timeout source is added only if the deadline has moved, because
//! each added source wakes GLib's default context once more.

#[path = "../../conversation/mod.rs"]
mod conversation;

use std::cell::RefCell;
use std::error::Error;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use conversation::program::Job;
use glib::{ControlFlow, IOCondition, MainLoop, SourceId};
use httpstream::Engine;

/// The state that the callbacks and `main` share.
struct Host {
    engine: Engine<Job>,
    job: Job,
    /// The timeout and its deadline.
    timer: Option<(Instant, SourceId)>,
    main_loop: MainLoop,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut job = Job::from_args("embed_glib")?;
    let mut engine = Engine::with_config(job.config())?;
    job.begin(&mut engine);

    let fd = engine.as_raw_fd();
    let host = Rc::new(RefCell::new(Host {
        engine,
        job,
        timer: None,
        main_loop: MainLoop::new(None, false),
    }));
    let watch = glib::unix_fd_add_local(fd, IOCondition::IN, {
        let host = Rc::clone(&host);
        move |_, _| {
            turn(&host);
            ControlFlow::Continue
        }
    });
    set_timer(&host);
    let main_loop = host.borrow().main_loop.clone();
    main_loop.run();

    // The descriptor must not be watched any more when the engine closes it.
    watch.remove();
    if let Some((_, timeout)) = host.borrow_mut().timer.take() {
        timeout.remove();
    }
    let host = Rc::into_inner(host).ok_or("a source still holds the host")?;
    Ok(host.into_inner().job.end())
}

/// Runs when the descriptor is readable or the deadline has passed.
fn turn(host: &Rc<RefCell<Host>>) {
    let mut lent = host.borrow_mut();
    let Host {
        engine,
        job,
        main_loop,
        ..
    } = &mut *lent;
    job.woke();
    engine.turn(job, Some(Duration::ZERO)).expect("poll failed");
    if engine.pending() == 0 {
        main_loop.quit();
    }
    drop(lent);
    set_timer(host);
}

/// Sets the timeout to the current deadline.
fn set_timer(host: &Rc<RefCell<Host>>) {
    let mut lent = host.borrow_mut();
    let Host { engine, timer, .. } = &mut *lent;
    let deadline = engine.next_deadline();
    if timer.as_ref().map(|(set_to, _)| *set_to) == deadline {
        return;
    }
    if let Some((_, timeout)) = timer.take() {
        timeout.remove();
    }
    let Some(deadline) = deadline else {
        return;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = glib::timeout_add_local_once(whole_milliseconds(left), {
        let host = Rc::clone(host);
        move || {
            // The source removes itself, so only the record of it is dropped.
            host.borrow_mut().timer = None;
            turn(&host);
        }
    });
    *timer = Some((deadline, timeout));
}

/// Rounds up to whole milliseconds.
fn whole_milliseconds(left: Duration) -> Duration {
    let ms = left.as_nanos().div_ceil(1_000_000);
    // GLib's timeouts end after 49 days at the latest; the timeout is then set again.
    Duration::from_millis(u32::try_from(ms).unwrap_or(u32::MAX).into())
}
