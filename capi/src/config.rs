//! Configurations: settings collected call by call, from which each engine gets a `Config` of its
//! own.
//!
//! A call that sets an invalid value fails. Two mistakes are detected only when an engine is
//! created: a malformed pattern given to `httpstream_config_resolve_to`, and too many default
//! fields.

use std::ffi::{c_char, c_void};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use httpstream::resolver::System;
use httpstream::{Config, LowSpeed, Request, public_only};

use crate::errors::{Code, Fault, guard};
use crate::knobs::{self, Clock, Limit};
use crate::raw;
use crate::shared::shared;
use crate::tls::Roots;
use crate::types::*;

/// The settings made so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    settings: Vec<Setting>,
    user_agent: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    overrides: Vec<(String, SocketAddr)>,
    roots: Option<Roots>,
}

/// A numeric setting, converted to its type.
#[derive(Clone, Copy, Debug)]
enum Setting {
    MaxConnections(usize),
    MaxConnectionsPerOrigin(usize),
    MaxIdlePerOrigin(usize),
    IdleTimeout(Duration),
    TurnEvents(usize),
    TurnBytes(usize),
    ReadBuffer(usize),
    MaxLookups(usize),
    KeepNames(Duration),
    KeepStaleNames(Duration),
    HostsFile(bool),
    SystemResolver(bool),
    PublicOnly(bool),
    Nodelay(bool),
    Timerfd(bool),
    Timeout(Clock, u64),
    LowSpeed(LowSpeed),
    Limit(Limit),
}

impl Setting {
    fn of(name: &str, value: u64) -> Result<Self, Fault> {
        Ok(match name {
            "max_connections" => Setting::MaxConnections(knobs::count(name, value)?),
            "max_connections_per_origin" => {
                Setting::MaxConnectionsPerOrigin(knobs::count(name, value)?)
            }
            "max_idle_per_origin" => Setting::MaxIdlePerOrigin(knobs::count(name, value)?),
            "idle_timeout_ms" => Setting::IdleTimeout(knobs::delay(value)),
            "turn_events" => Setting::TurnEvents(knobs::count(name, value)?),
            "turn_bytes" => Setting::TurnBytes(knobs::count(name, value)?),
            "read_buffer" => Setting::ReadBuffer(knobs::count(name, value)?),
            "max_lookups" => Setting::MaxLookups(knobs::count(name, value)?),
            "keep_names_ms" => Setting::KeepNames(knobs::delay(value)),
            "keep_stale_names_ms" => Setting::KeepStaleNames(knobs::delay(value)),
            "hosts_file" => Setting::HostsFile(knobs::yes(name, value)?),
            "system_resolver" => Setting::SystemResolver(knobs::yes(name, value)?),
            "public_only" => Setting::PublicOnly(knobs::yes(name, value)?),
            "nodelay" => Setting::Nodelay(knobs::yes(name, value)?),
            "timerfd" => Setting::Timerfd(knobs::yes(name, value)?),
            _ => match (Clock::of(name), Limit::of(name, value)) {
                (Some(clock), _) => Setting::Timeout(clock, value),
                (None, Some(limit)) => Setting::Limit(limit?),
                (None, None) => return Err(knobs::unknown(name)),
            },
        })
    }

    /// Returns a fault if no engine could work with this value.
    fn check(self) -> Result<(), Fault> {
        let mut config = Config::default();
        self.set(&mut config);
        config
            .check()
            .map_err(|error| Fault::argument(format!("{error:#}")))
    }

    fn set(self, config: &mut Config) {
        match self {
            Setting::MaxConnections(count) => config.max_connections = count,
            Setting::MaxConnectionsPerOrigin(count) => config.max_connections_per_origin = count,
            Setting::MaxIdlePerOrigin(count) => config.max_idle_per_origin = count,
            Setting::IdleTimeout(time) => config.idle_timeout = time,
            Setting::TurnEvents(count) => config.turn_events = count,
            Setting::TurnBytes(bytes) => config.turn_bytes = bytes,
            Setting::ReadBuffer(bytes) => config.read_buffer = bytes,
            Setting::MaxLookups(count) => config.max_lookups = count,
            Setting::KeepNames(time) => config.keep_names = time,
            Setting::KeepStaleNames(time) => config.keep_stale_names = time,
            Setting::HostsFile(true) => config.hosts_file = Config::default().hosts_file,
            Setting::HostsFile(false) => config.hosts_file = None,
            Setting::SystemResolver(true) => {
                config.resolver = Some(Arc::new(|| Box::new(System::new())))
            }
            Setting::SystemResolver(false) => config.resolver = None,
            Setting::PublicOnly(true) => config.address_filter = Some(Arc::new(public_only)),
            Setting::PublicOnly(false) => config.address_filter = None,
            Setting::Nodelay(yes) => config.route.nodelay = yes,
            Setting::Timerfd(yes) => set_timerfd(config, yes),
            Setting::Timeout(clock, ms) => clock.set(&mut config.timeouts, ms),
            Setting::LowSpeed(low_speed) => config.timeouts.low_speed = Some(low_speed),
            Setting::Limit(limit) => limit.set(&mut config.limits),
        }
    }
}

#[cfg(target_os = "linux")]
fn set_timerfd(config: &mut Config, yes: bool) {
    config.timerfd = yes;
}

/// Does nothing: other systems have no timerfd, so the host relies on the timeout.
#[cfg(not(target_os = "linux"))]
fn set_timerfd(_: &mut Config, _: bool) {}

impl Draft {
    pub(crate) fn config(&self) -> Config {
        let mut config = Config::default();
        // Off by default: a C host has timers, or sets "timerfd".
        set_timerfd(&mut config, false);
        for setting in &self.settings {
            setting.set(&mut config);
        }
        match self.user_agent.as_deref() {
            None => {}
            Some("") => config.user_agent = None,
            Some(text) => config.user_agent = Some(text.to_owned()),
        }
        config.default_headers.clone_from(&self.headers);
        for (pattern, address) in &self.overrides {
            config.resolve_to(pattern, *address);
        }
        if let Some(roots) = &self.roots {
            roots.set(&mut config);
        }
        config
    }
}

/// Returns a fault if this field cannot be sent.
fn check_field(name: &str, value: &[u8]) -> Result<(), Fault> {
    let probe = Request::get("http://localhost/").header(name, value);
    match probe.mistake() {
        None => Ok(()),
        Some(invalid) => Err(Fault::argument(invalid.to_string())),
    }
}

fn change(config: u64, change: impl FnOnce(&mut Draft)) -> Result<i32, Fault> {
    change_draft(config, change).map(|()| HTTPSTREAM_OK)
}

fn change_draft(config: u64, change: impl FnOnce(&mut Draft)) -> Result<(), Fault> {
    shared().configs.get_mut(config).map(change)
}

/// Creates a configuration with the default settings and writes it to `out`. Free it with
/// httpstream_config_free; engines created with it no longer need it. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_config_new(out: Option<&mut MaybeUninit<httpstream_config>>) -> i32 {
    guard("httpstream_config_new", || {
        let out = raw::out("out", out)?;
        out.write(shared().configs.insert(Draft::default())?);
        Ok(HTTPSTREAM_OK)
    })
}

/// Frees a configuration. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_config_free(config: httpstream_config) -> i32 {
    guard("httpstream_config_free", || {
        let draft = shared().configs.remove(config)?;
        drop(draft);
        Ok(HTTPSTREAM_OK)
    })
}

/// Sets a numeric setting. `name` is NUL-terminated. Sizes are in bytes and times in milliseconds;
/// defaults are in parentheses.
///
/// - "max_connections" (1024), "max_connections_per_origin" (256): connections open at once;
///   "max_idle_per_origin" (32)
/// - "idle_timeout_ms" (60,000): how long an idle connection is kept; 0 keeps none, UINT64_MAX
///   keeps it until the server closes it
/// - "timeout_resolve_ms", "timeout_connect_ms", "timeout_tls_ms" (10,000 each),
///   "timeout_write_ms", "timeout_first_byte_ms", "timeout_idle_ms" (30,000 each),
///   "timeout_total_ms" (300,000): timeouts of requests that do not set their own. UINT64_MAX, and
///   anything longer than 24 days, means none; 0 counts as 1.
/// - "limit_max_head_bytes" (65,536), "limit_max_fields" (128), "limit_max_body_bytes" (67,108,864;
///   applies to buffered bodies), "limit_max_interim" (16), "limit_max_trailer_bytes",
///   "limit_max_chunk_extension_bytes" (16,384 each), "limit_refuse_obs_fold" (0): limits on
///   responses
/// - "turn_events" (1024, at most 1,048,576), "turn_bytes" (524,288, per connection): limits on the
///   work of one turn; "read_buffer" (131,072)
/// - "max_lookups" (64), "keep_names_ms", "keep_stale_names_ms" (86,400,000 each), "hosts_file"
///   (1): how host names are looked up. "system_resolver" (0): 1 uses the C library's resolver, on
///   threads that this library starts, instead of querying name servers.
/// - "public_only" (0): 1 connects only to addresses on the public internet, for URLs from
///   untrusted sources
/// - "nodelay" (0): 1 sets TCP_NODELAY on all connections
/// - "timerfd" (0): 1 makes the descriptor readable at deadlines too, so that a host without timers
///   needs only the descriptor (Linux)
///
/// HTTPSTREAM_ERROR_ARGUMENT: there is no such setting, or no engine can work with the value.
/// Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_config_set(
    config: httpstream_config,
    name: *const c_char,
    value: u64,
) -> i32 {
    guard("httpstream_config_set", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let name = unsafe { raw::c_text("name", name) }?;
        let setting = Setting::of(name, value)?;
        setting.check()?;
        change(config, |draft| draft.settings.push(setting))
    })
}

/// Fails requests that set no low speed of their own if, on average over a window of `window_ms`
/// milliseconds, fewer than `bytes_per_second` bytes are transferred. The error is
/// HTTPSTREAM_KIND_TIMEOUT. By default there is no such check; 0 bytes, or a window longer than 24
/// days, turns it off.
///
/// Windows follow one another while the request is written, and from the first byte of the response
/// on. They stop while the engine waits for the response, while the response is paused, and while
/// the request's "download_rate" or "upload_rate" holds it back. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn httpstream_config_low_speed(
    config: httpstream_config,
    bytes_per_second: u64,
    window_ms: u64,
) -> i32 {
    guard("httpstream_config_low_speed", || {
        let low_speed = LowSpeed::new(bytes_per_second, knobs::delay(window_ms));
        change(config, |draft| {
            draft.settings.push(Setting::LowSpeed(low_speed))
        })
    })
}

/// Sets the User-Agent of requests without one of their own, in place of "httpstream/VERSION". A
/// `len` of 0 sends none. A `len` of SIZE_MAX means that `text` is NUL-terminated.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the text is not a valid field value. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_config_user_agent(
    config: httpstream_config,
    text: *const c_char,
    len: usize,
) -> i32 {
    guard("httpstream_config_user_agent", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let text = unsafe { raw::text("text", text, len) }?;
        check_field("User-Agent", text.as_bytes())?;
        change(config, |draft| draft.user_agent = Some(text.to_owned()))
    })
}

/// Adds a field to every request that has no field of that name. At most 31 are allowed, the
/// User-Agent included. A length of SIZE_MAX means NUL-terminated.
///
/// HTTPSTREAM_ERROR_ARGUMENT: the field cannot be sent; the message names the invalid byte.
/// Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_config_header(
    config: httpstream_config,
    name: *const c_char,
    name_len: usize,
    value: *const c_char,
    value_len: usize,
) -> i32 {
    guard("httpstream_config_header", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let (name, value) = unsafe {
            let name = raw::text("name", name, name_len)?;
            (
                name,
                raw::bytes("value", value.cast::<c_void>(), value_len)?,
            )
        };
        check_field(name, value)?;
        for own in ["host", "content-length", "expect", "connection"] {
            if name.eq_ignore_ascii_case(own) {
                return Err(Fault::argument(format!(
                    "header {name:?} belongs to a single request"
                )));
            }
        }
        let field = (name.to_owned(), value.to_vec());
        change(config, |draft| draft.headers.push(field))
    })
}

/// Connects requests that match `pattern` to `address`, in place of the URL's host and port and
/// without a lookup. Both are NUL-terminated.
///
/// `pattern` is a host, "host:port", "*.domain" (every host below the domain) or "*"; the first
/// match applies. `address` has the form "127.0.0.1:8080" or "[::1]:8080".
///
/// HTTPSTREAM_ERROR_ARGUMENT: the address is malformed. A malformed pattern is reported by
/// httpstream_new. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_config_resolve_to(
    config: httpstream_config,
    pattern: *const c_char,
    address: *const c_char,
) -> i32 {
    guard("httpstream_config_resolve_to", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let (pattern, address) = unsafe {
            (
                raw::c_text("pattern", pattern)?,
                raw::c_text("address", address)?,
            )
        };
        let address = address.parse().map_err(|_| {
            let why = "is not an IP address with a port, such as 127.0.0.1:8080";
            Fault::argument(format!("address {address:?} {why}"))
        })?;
        let pattern = pattern.to_owned();
        change(config, |draft| draft.overrides.push((pattern, address)))
    })
}

/// Trusts the root certificates in this PEM file and no others, in place of the system's. `path` is
/// NUL-terminated. The file is read by this call.
///
/// HTTPSTREAM_ERROR_IO: the file cannot be read. HTTPSTREAM_ERROR_ARGUMENT: the file contains no
/// certificate or an invalid one, or the library was built without TLS. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn httpstream_config_ca_file(
    config: httpstream_config,
    path: *const c_char,
) -> i32 {
    guard("httpstream_config_ca_file", || {
        // SAFETY: the caller promises that its pointers are valid, see `raw`.
        let path = unsafe { raw::c_path("path", path) }?;
        let pem = std::fs::read(path)
            .map_err(|error| Fault::new(Code::Io, format!("file {path:?}: {error}")))?;
        let roots = Roots::from_pem(&pem)?;
        change(config, |draft| draft.roots = Some(roots))
    })
}
