//! The configuration of an engine, converted to the form that the hot path needs.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{AddressFilter, Config};
use crate::error::Error;
use crate::net::pattern::Pattern;
use crate::net::pool::Depth;
use crate::net::tls::MIN_READ_BUFFER;
use crate::policy::{Policy, fields};
use crate::proto::Limits;
use crate::request::{MAX_PIPELINE, Request, field_bit};
use crate::route::Route;
use crate::timeouts::{Floor, Millis};

pub(super) struct Settings {
    pub(super) max_links: usize,
    pub(super) max_links_per_origin: usize,
    pub(super) max_idle_per_origin: usize,
    /// In milliseconds.
    pub(super) idle_timeout: u64,
    pub(super) timeouts: Millis,
    /// The low speed of requests that set none.
    pub(super) low_speed: Option<Floor>,
    pub(super) limits: Limits,
    pub(super) turn_events: usize,
    pub(super) turn_bytes: usize,
    pub(super) read_buffer: usize,
    pub(super) max_inbox: usize,
    pub(super) defaults: Defaults,
    pub(super) address_filter: AddressFilter,
    /// The route of requests that have none of their own.
    pub(super) route: Arc<Route>,
    /// The same without a client certificate.
    route_elsewhere: Arc<Route>,
    pub(super) policy: Option<Arc<dyn Policy>>,
}

impl Settings {
    /// Converts a configuration.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if the configuration is
    /// invalid, for example because a default field cannot be sent.
    pub(super) fn new(config: &Config) -> Result<Self, Error> {
        config.check()?;
        let address_filter = config.address_filter.clone();
        let route = Arc::new(config.route.clone());
        Ok(Self {
            max_links: config.max_connections,
            max_links_per_origin: config.max_connections_per_origin,
            max_idle_per_origin: config.max_idle_per_origin,
            idle_timeout: millis(config.idle_timeout),
            timeouts: Millis::new(&config.timeouts),
            low_speed: Floor::new(config.timeouts.low_speed),
            limits: config.limits.clone(),
            turn_events: config.turn_events,
            turn_bytes: config.turn_bytes,
            read_buffer: config.read_buffer.max(MIN_READ_BUFFER),
            max_inbox: config.max_inbox,
            defaults: Defaults::new(config)?,
            address_filter: address_filter.unwrap_or_else(|| Arc::new(|_| true)),
            route_elsewhere: match route.without_identity() {
                Some(route) => Arc::new(route),
                None => Arc::clone(&route),
            },
            route,
            policy: config.policy.clone(),
        })
    }

    /// Returns the route of a request.
    #[inline]
    pub(super) fn route_of<'a>(&'a self, request: &'a Request) -> &'a Arc<Route> {
        match request.route() {
            Some(route) => route,
            None if request.is_elsewhere() => &self.route_elsewhere,
            None => &self.route,
        }
    }

    /// Returns whether the speed of a request's exchange may be limited. If false, it is not.
    #[inline]
    pub(super) fn may_limit_speed_of(&self, request: &Request) -> bool {
        self.low_speed.is_some() || request.speeds().is_some()
    }

    /// Returns whether the speed of a request's exchange is limited.
    pub(super) fn limits_speed_of(&self, request: &Request) -> bool {
        match request.speeds() {
            None => self.low_speed.is_some(),
            Some(speeds) => speeds.floor(self.low_speed).is_some() || !speeds.has_no_cap(),
        }
    }

    #[inline]
    pub(super) fn limits_of(&self, request: &Request) -> Limits {
        match request.limits() {
            Some(edit) => edit.over(&self.limits),
            None => self.limits.clone(),
        }
    }
}

/// Converts to whole milliseconds that can be added to any time without overflow. A longer duration
/// becomes 8,900 years.
fn millis(duration: Duration) -> u64 {
    const NEVER: u64 = u64::MAX >> 16;
    u64::try_from(duration.as_millis()).map_or(NEVER, |ms| ms.min(NEVER))
}

/// Parses the patterns of origins to be pipelined, each with its depth.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) if a pattern cannot be parsed or a
/// depth is out of range.
pub(super) fn depths(pipelines: &[(String, usize, bool)]) -> Result<Vec<Depth>, Error> {
    let depths = pipelines.iter().map(|(pattern, depth, is_known)| {
        let refused = |why| Error::invalid_config(format!("pipeline {pattern:?}: {why}"));
        let depth = u16::try_from(*depth).ok();
        let depth = depth.filter(|depth| (1..=MAX_PIPELINE).contains(depth));
        let depth = depth.ok_or_else(|| refused("the depth must be from 1 (off) to 1024"))?;
        let pattern = Pattern::parse(pattern).map_err(refused)?;
        let is_known = *is_known;
        Ok(Depth {
            pattern,
            depth,
            is_known,
        })
    });
    depths.collect()
}

/// The field lines that the engine adds to requests, and the empty line after them.
///
/// One block is prepared for requests that carry none of these fields themselves. Further blocks,
/// for requests that carry some, are built when first needed.
#[derive(Debug)]
pub(super) struct Defaults {
    lines: Vec<(String, Vec<u8>)>,
    /// The bits of all names, as in [`Request::field_mask`].
    mask: u32,
    /// The blocks, each with the set of lines that it leaves out.
    blocks: Vec<(u32, Box<[u8]>)>,
}

impl Defaults {
    /// A set of lines is a `u32`, and the value `u32::MAX` stands for all of them.
    const MAX_LINES: usize = 31;
    /// The maximum number of blocks besides the first. Each leaves out another set of lines.
    const MAX_BLOCKS: usize = 1024;

    fn new(config: &Config) -> Result<Self, Error> {
        let user_agent = config
            .user_agent
            .iter()
            .map(|value| ("User-Agent", value.as_bytes()));
        let others = config
            .default_headers
            .iter()
            .map(|(name, value)| (&**name, &**value));
        let mut lines = Vec::new();
        for (name, value) in user_agent.chain(others) {
            let probe = Request::get("http://localhost/")
                .header(name, value)
                .build();
            if let Err(error) = probe {
                let why =
                    std::error::Error::source(&error).map_or(String::new(), ToString::to_string);
                return Err(Error::invalid_config(format!(
                    "default field {name:?}: {why}"
                )));
            }
            for framing in ["host", "content-length", "expect", "connection"] {
                if name.eq_ignore_ascii_case(framing) {
                    let why = "belongs to a single request";
                    return Err(Error::invalid_config(format!(
                        "default field {name:?} {why}"
                    )));
                }
            }
            let value = value.trim_ascii();
            lines.push((
                name.to_owned(),
                [name.as_bytes(), b": ", value, b"\r\n"].concat(),
            ));
        }
        if lines.len() > Self::MAX_LINES {
            let n = lines.len();
            return Err(Error::invalid_config(format!(
                "{n} default fields are more than the maximum of {}",
                Self::MAX_LINES
            )));
        }
        let mask = lines
            .iter()
            .fold(0, |mask, (name, _)| mask | field_bit(name.as_bytes()));
        let mut defaults = Self {
            lines,
            mask,
            blocks: Vec::new(),
        };
        defaults.block_without(0);
        Ok(defaults)
    }

    /// Appends to `block` the lines that go with `request`, except those that `block` already
    /// contains.
    pub(super) fn append_to(&self, block: &mut Vec<u8>, request: &Request) {
        let added = block.len();
        for (name, line) in &self.lines {
            if !request.has_field(name) && !fields::has(&block[..added], name) {
                block.extend_from_slice(line);
            }
        }
        block.extend_from_slice(b"\r\n");
    }

    /// Returns the number of the block that goes with `request`.
    #[inline]
    pub(super) fn choose(&mut self, request: &Request) -> u16 {
        if request.field_mask() & self.mask == 0 {
            return 0;
        }
        let left_out = self
            .lines
            .iter()
            .enumerate()
            .fold(0, |set, (i, (name, _))| {
                set | u32::from(request.has_field(name)) << i
            });
        self.block_without(left_out)
    }

    fn block_without(&mut self, left_out: u32) -> u16 {
        if let Some(i) = self
            .blocks
            .iter()
            .position(|(without, _)| *without == left_out)
        {
            return i as u16;
        }
        // This many sets are far beyond any sensible use. Such a request is sent without default
        // fields rather than with a wrong set.
        let left_out = if self.blocks.len() > Self::MAX_BLOCKS {
            u32::MAX
        } else {
            left_out
        };
        if let Some(i) = self
            .blocks
            .iter()
            .position(|(without, _)| *without == left_out)
        {
            return i as u16;
        }
        let mut block = Vec::new();
        for (i, (_, line)) in self.lines.iter().enumerate() {
            if left_out >> i & 1 == 0 {
                block.extend_from_slice(line);
            }
        }
        block.extend_from_slice(b"\r\n");
        self.blocks.push((left_out, block.into()));
        (self.blocks.len() - 1) as u16
    }

    #[inline]
    pub(super) fn block(&self, i: u16) -> &[u8] {
        &self.blocks[usize::from(i)].1
    }
}
