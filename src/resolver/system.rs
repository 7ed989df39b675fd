//! `getaddrinfo` on helper threads.

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Family, LookupAnswer, LookupError, LookupId, Resolve, Wake};
use crate::io_error::is_exhaustion;

/// A resolver that calls `getaddrinfo` on helper threads, so that names resolve as in every other
/// program on the host.
///
/// A lookup blocks its helper thread, not the event loop. Up to four lookups run at once, and an
/// idle thread ends after ten seconds. Both address families of a host are looked up together.
/// Answers are not cached, because `getaddrinfo` does not report a TTL.
///
/// The C library manages its own configuration. glibc 2.26 and later rereads `/etc/resolv.conf`
/// when it has changed; [`on_network_changed`](Resolve::on_network_changed) does nothing here.
pub struct System {
    desk: Arc<Desk>,
}

/// State shared by the engine's thread and the helper threads.
struct Desk {
    ledger: Mutex<Ledger>,
    work: Condvar,
}

#[derive(Default)]
struct Ledger {
    /// Hosts to look up, each with the questions that it answers.
    asked: VecDeque<(String, Vec<(LookupId, Family)>)>,
    answered: VecDeque<(LookupId, LookupAnswer)>,
    threads: usize,
    resting: usize,
    closed: bool,
    wake: Option<Wake>,
}

impl System {
    const MAX_THREADS: usize = 4;
    const REST: Duration = Duration::from_secs(10);

    /// Creates a resolver without threads; the first lookup starts one.
    pub fn new() -> Self {
        let desk = Desk {
            ledger: Mutex::default(),
            work: Condvar::new(),
        };
        Self {
            desk: Arc::new(desk),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.desk.ledger();
        f.debug_struct("System")
            .field("asked", &ledger.asked.len())
            .field("threads", &ledger.threads)
            .finish()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.desk.ledger().closed = true;
        self.desk.work.notify_all();
    }
}

impl Resolve for System {
    fn attach(&mut self, wake: Wake) {
        self.desk.ledger().wake = Some(wake);
    }

    fn start(&mut self, host: &str, family: Family, id: LookupId) {
        let mut ledger = self.desk.ledger();
        if let Some((_, questions)) = ledger.asked.iter_mut().find(|(asked, _)| asked == host) {
            // The host is queued already.
            return questions.push((id, family));
        }
        ledger
            .asked
            .push_back((host.to_owned(), vec![(id, family)]));
        // An idle thread may have been notified for an earlier host and not have woken up yet, so
        // the number of idle threads is compared with the whole queue.
        if ledger.asked.len() <= ledger.resting {
            self.desk.work.notify_one();
        } else if ledger.threads < Self::MAX_THREADS {
            let desk = Arc::clone(&self.desk);
            let started = std::thread::Builder::new()
                .name("httpstream-names".into())
                .stack_size(256 * 1024)
                .spawn(move || desk.serve());
            match started {
                Ok(_) => ledger.threads += 1,
                // A running thread will get to it. Without one, nobody would.
                Err(_) if ledger.threads > 0 => {}
                Err(error) => {
                    let why = LookupError::Exhausted(format!(
                        "cannot start a thread to look up names: {error}"
                    ));
                    for (_, questions) in std::mem::take(&mut ledger.asked) {
                        let failed = questions
                            .into_iter()
                            .map(|(id, _)| (id, LookupAnswer::failed(why.clone())));
                        ledger.answered.extend(failed);
                    }
                }
            }
        }
    }

    fn cancel(&mut self, id: LookupId) {
        let mut ledger = self.desk.ledger();
        for (_, questions) in &mut ledger.asked {
            questions.retain(|(asked, _)| *asked != id);
        }
        ledger.asked.retain(|(_, questions)| !questions.is_empty());
        ledger.answered.retain(|(answered, _)| *answered != id);
    }

    fn on_tick(&mut self, _: Instant) {}

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn take(&mut self) -> Option<(LookupId, LookupAnswer)> {
        self.desk.ledger().answered.pop_front()
    }
}

impl Desk {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A panic of a helper thread cannot leave the ledger half changed.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a helper thread.
    fn serve(&self) {
        let mut ledger = self.ledger();
        loop {
            if ledger.closed {
                break;
            }
            let Some((host, questions)) = ledger.asked.pop_front() else {
                ledger.resting += 1;
                let (back, rest) = self
                    .work
                    .wait_timeout(ledger, System::REST)
                    .unwrap_or_else(PoisonError::into_inner);
                ledger = back;
                ledger.resting -= 1;
                if rest.timed_out() && ledger.asked.is_empty() {
                    break;
                }
                continue;
            };
            drop(ledger);
            let found = look_up(&host);
            ledger = self.ledger();
            for (id, family) in questions {
                let answer = match &found {
                    Ok(addrs) => {
                        LookupAnswer::found(addrs.iter().copied().filter(|ip| family.has(ip)))
                    }
                    Err(error) => LookupAnswer::failed(error.clone()),
                };
                ledger.answered.push_back((id, answer));
            }
            if let Some(wake) = ledger.wake.clone() {
                wake.wake();
            }
        }
        ledger.threads -= 1;
    }
}

/// Asks `getaddrinfo` for all addresses of `host`.
///
/// Without free file descriptors, `getaddrinfo` cannot open its files and may return any error,
/// including "no such name". An error is therefore trusted only if descriptors were free both
/// before and after it.
fn look_up(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    spare_descriptors()?;
    match (host, 0u16).to_socket_addrs() {
        Ok(found) => {
            let mut addrs = Vec::new();
            for ip in found.map(|addr| addr.ip()) {
                if !addrs.contains(&ip) {
                    addrs.push(ip);
                }
            }
            Ok(addrs)
        }
        Err(error) => {
            spare_descriptors()?;
            // The standard library exposes `getaddrinfo`'s error codes only as text.
            let why = error.to_string();
            let not_found = [
                "not known",
                "No address associated",
                "nodename nor servname",
                "No such host",
            ];
            if not_found.iter().any(|words| why.contains(words)) {
                Err(LookupError::NotFound)
            } else {
                Err(LookupError::Failed(why))
            }
        }
    }
}

/// Fails if fewer file descriptors are free than `getaddrinfo` opens at once.
pub(crate) fn spare_descriptors() -> Result<(), LookupError> {
    const NEEDED: usize = 3;
    let mut held = Vec::with_capacity(NEEDED);
    for _ in 0..NEEDED {
        match UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
            Ok(socket) => held.push(socket),
            Err(error) if is_exhaustion(&error) => {
                return Err(LookupError::Exhausted(error.to_string()));
            }
            // Without IPv4 this check is not possible.
            Err(_) => break,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_does_not_queue_behind_one_that_a_resting_helper_was_called_for() {
        let mut system = System::new();
        // Simulates an idle thread that was notified for the first host and has not woken up when
        // the second one is queued.
        system.desk.ledger().resting = 1;
        system.start("127.0.0.1", Family::V4, LookupId(1));
        system.start("127.0.0.1", Family::V6, LookupId(2));
        assert_eq!(system.desk.ledger().threads, 0);
        system.start("127.0.0.2", Family::V4, LookupId(3));
        assert_eq!(system.desk.ledger().threads, 1);
    }
}
