//! Queries and settings of the system: the core a process runs on, how many files it may open, and
//! when it must end.

use std::{fs, io};

/// Returns the cores that this process may use, in order.
pub(crate) fn cores() -> io::Result<Vec<usize>> {
    // SAFETY: a set of cores consists of integers, which sched_getaffinity fills in; CPU_ISSET
    // reads only inside of it.
    unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, size_of_val(&set), &mut set) != 0 {
            return Err(io::Error::last_os_error());
        }
        let all = 0..libc::CPU_SETSIZE as usize;
        Ok(all.filter(|&core| libc::CPU_ISSET(core, &set)).collect())
    }
}

/// Keeps this thread, and all that it starts from now on, on one core.
pub(crate) fn pin(core: usize) -> io::Result<()> {
    // SAFETY: the set is a local value, and CPU_SET writes only inside of it.
    let pinned = unsafe {
        let mut set = std::mem::zeroed::<libc::cpu_set_t>();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set)
    };
    match pinned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Raises the limit of open files as far as possible, for this process and all that it starts.
/// Returns the new limit.
pub(crate) fn raise_open_files() -> io::Result<usize> {
    // SAFETY: a limit is two integers, which getrlimit fills in and setrlimit reads.
    unsafe {
        let mut limit = std::mem::zeroed::<libc::rlimit>();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(limit.rlim_cur.try_into().unwrap_or(usize::MAX))
    }
}

/// Returns how many ports the system has for connections to one address.
pub(crate) fn ports() -> Option<usize> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ends = range.split_whitespace().map(str::parse::<usize>);
    let (first, last) = (ends.next()?.ok()?, ends.next()?.ok()?);
    Some((last + 1).saturating_sub(first))
}

/// Returns the memory that is available without swapping, in bytes.
pub(crate) fn free_memory() -> Option<usize> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Returns the most memory of this process that was resident at any time, in bytes.
pub(crate) fn peak_resident() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

/// Ends this process when its parent ends, and after this many seconds in any case, so that nothing
/// is left behind.
pub(crate) fn end_with_parent(seconds: u32) {
    // SAFETY: neither call touches memory.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(seconds);
    }
}

/// Returns the user and system time, in seconds, of the child processes that this one has waited
/// for.
pub(crate) fn children_computed() -> (f64, f64) {
    computed(libc::RUSAGE_CHILDREN)
}

/// The same for this process.
pub(crate) fn computed_here() -> (f64, f64) {
    computed(libc::RUSAGE_SELF)
}

fn computed(who: i32) -> (f64, f64) {
    // SAFETY: it consists of integers, which getrusage fills in.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(who, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    (seconds(usage.ru_utime), seconds(usage.ru_stime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_of_its_ports_and_its_memory() {
        assert!(ports().is_some_and(|ports| (1..=65_536).contains(&ports)));
        assert!(free_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(peak_resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
