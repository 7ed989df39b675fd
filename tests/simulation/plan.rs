//! Everything a seed determines before the run: the network, its faults, the configuration, and how
//! erratic the host is.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use httpstream::resolver::LookupError;
use httpstream::sim::{Fault, Faults, Network, Random};
use httpstream::{Config, Timeouts};

use crate::server::Scripted;
use crate::world::{Shared, low_speed};

/// Faults that cause no failure: with only these, every exchange has to end as its server intended.
pub(crate) const BENIGN: [Fault; 14] = [
    Fault::Split,
    Fault::ShortWrite,
    Fault::SmallSendBuffer,
    Fault::SmallWindow,
    Fault::NoLatency,
    Fault::MidTurn,
    Fault::Reorder,
    Fault::BareEvent,
    Fault::Stale,
    Fault::Spurious,
    Fault::Interrupted,
    Fault::ConnectedAtOnce,
    Fault::EndWithData,
    Fault::Stray,
];

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// The maximum number of requests in a run.
pub(crate) const MOST_REQUESTS: u32 = 70;

/// The addresses at which there are servers.
pub(crate) const SERVED: [&str; 8] = [
    "10.0.0.1:80",
    "10.0.0.1:443",
    "10.0.0.2:80",
    "10.0.0.3:80",
    "10.0.0.4:80",
    "10.0.0.5:80",
    "127.0.0.1:80",
    "[2001:db8::2]:80",
];

#[derive(Debug)]
pub(crate) struct Plan {
    /// Only [`BENIGN`] faults, a punctual host, and timeouts that no server exceeds by accident, so
    /// that the outcomes are known.
    pub(crate) benign: bool,
    pub(crate) faults: Faults,
    pub(crate) origins: Vec<Origin>,
    /// Whether bodies may be long.
    pub(crate) large: bool,
    pub(crate) timeouts: Timeouts,
    /// The number of requests that the run may send, in all chains together.
    pub(crate) requests: usize,
    /// How many of a thousand callbacks do something unexpected.
    pub(crate) mischief: u16,
    /// How many of a thousand readbacks take some time before they return.
    pub(crate) slow: u16,
    /// The number of steps before the host winds down.
    pub(crate) steps: usize,
    /// The depth to which requests are pipelined; 1 disables pipelining.
    pub(crate) depth: usize,
}

/// An origin to send requests to.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) url: &'static str,
    /// The addresses at which its requests may arrive; empty if nothing answers there.
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Origin {
    pub(crate) fn is_https(&self) -> bool {
        self.url.starts_with("https:")
    }

    /// Returns host and port as in the Host field. No origin here names its default port.
    pub(crate) fn authority(&self) -> &'static str {
        let scheme_end = self.url.find("//").map_or(0, |at| at + 2);
        &self.url[scheme_end..]
    }

    pub(crate) fn host(&self) -> &'static str {
        let authority = self.authority();
        authority.split(':').next().unwrap_or(authority)
    }

    pub(crate) fn has_alternatives(&self) -> bool {
        self.url.contains("many.") || self.url.contains("localhost")
    }
}

fn addr(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 80).into()
}

impl Plan {
    pub(crate) fn draw(random: &mut Random) -> Self {
        let benign = random.chance(350);
        let mut faults = match random.below(10) {
            _ if benign => benign_faults(random),
            0..6 => Faults::some(random),
            6..9 => Faults::storm(),
            _ => Faults::none(),
        };
        let large = random.chance(60);
        if large {
            // Byte by byte, a long body would take as many events as it has bytes.
            faults = faults
                .with(Fault::SmallSendBuffer, 0)
                .with(Fault::SmallWindow, 0);
        }
        let depth = *random.pick(&[1, 1, 1, 2, 4, 16]);
        if depth > 1 {
            // A surplus response could not be told from the response to the next request.
            faults = faults.with(Fault::Unsolicited, 0);
        }
        Self {
            benign,
            faults,
            origins: Vec::new(),
            large,
            timeouts: timeouts(random, benign),
            requests: random.between(10, MOST_REQUESTS as usize),
            mischief: *random.pick(&[0, 30, 100, 250]),
            slow: *random.pick(&[0, 0, 30, 150]),
            steps: random.between(20, 90),
            depth,
        }
    }

    /// Shortens the run, so that many can be made.
    pub(crate) fn shorten(&mut self, random: &mut Random) {
        self.requests = random.between(1, 7);
        self.steps = random.between(3, 9);
        self.large = false;
        if random.chance(700) {
            // Otherwise, most of the time would be spent on bodies that arrive byte by byte.
            let few = [Fault::SmallSendBuffer, Fault::SmallWindow, Fault::Split];
            for fault in few {
                self.faults = self.faults.clone().with(fault, 0);
            }
        }
    }

    /// Adds host names and servers to the network.
    pub(crate) fn furnish(&mut self, network: &Network, random: &mut Random, world: &Shared) {
        network.set_faults(self.faults.clone());
        if random.chance(300) {
            network.set_latency(random.duration(20 * MS));
        }
        if random.chance(150) {
            network.limit_fds(random.between(1, 6));
        }
        for last in 1..=5 {
            let listener = network.serve(addr(last), Scripted::new(network, Rc::clone(world)));
            if random.chance(250) {
                // Longer than a benign host lets a connection wait for its request.
                let least = if self.benign { 10 * SECOND } else { MS };
                let _ = listener.idle_timeout(random.duration(10 * SECOND) + least);
            } else if random.chance(100) && !self.benign {
                let _ = listener
                    .reads_at_most(random.below(3000))
                    .send_buffer(random.between(1, 2000));
            } else if random.chance(200) && !self.benign {
                let every = random.duration(200 * MS);
                let _ = listener
                    .reads_slowly(random.between(1, 1000), every)
                    .send_buffer(random.between(1, 2000));
            } else if random.chance(200) {
                let _ = listener.window(random.between(500, 20_000));
            }
        }
        let secure: SocketAddr = ([10, 0, 0, 1], 443).into();
        let _ = network.serve(secure, Scripted::new(network, Rc::clone(world)));
        let local: SocketAddr = ([127, 0, 0, 1], 80).into();
        let _ = network.serve(local, Scripted::new(network, Rc::clone(world)));
        let _ = network
            .host("one.test", [[10, 0, 0, 1]])
            .after(random.duration(200 * MS));
        // There is no server at the first address of each family.
        let many = [
            "2001:db8::9",
            "2001:db8::2",
            "10.0.0.9",
            "10.0.0.2",
            "10.0.0.3",
        ];
        let _ = network
            .host("many.test", many.map(|ip| ip.parse::<IpAddr>().unwrap()))
            .after_v6(20 * MS);
        let v6: SocketAddr = "[2001:db8::2]:80".parse().unwrap();
        let _ = network.serve(v6, Scripted::new(network, Rc::clone(world)));
        network.black_hole("[2001:db8::9]:80".parse().unwrap());
        let _ = network
            .host("at-once.test", [[10, 0, 0, 4]])
            .after(Duration::ZERO);
        let _ = network
            .host("slow.test", [[10, 0, 0, 1]])
            .after(15 * SECOND);
        let _ = network.host_fails("broken.test", LookupError::Failed("broken".to_owned()));
        let _ = network.host_fails(
            "full.test",
            LookupError::Exhausted("no descriptor".to_owned()),
        );
        network.unreachable(addr(7));
        network.black_hole(addr(8));
        network.refuse(addr(9));

        let served = |url, lasts: &[u8]| Origin {
            url,
            addrs: lasts.iter().map(|last| addr(*last)).collect(),
        };
        self.origins = vec![
            served("http://10.0.0.1", &[1]),
            served("http://10.0.0.2", &[2]),
            served("http://one.test", &[1]),
            Origin {
                url: "http://many.test",
                addrs: vec![v6, addr(2), addr(3)],
            },
            served("http://at-once.test", &[4]),
            served("http://over.ride.test:8080", &[5]),
            served("http://other.ride.test", &[5]),
            Origin {
                url: "https://one.test",
                addrs: vec![secure],
            },
            Origin {
                url: "http://localhost",
                addrs: vec![local],
            },
        ];
        random.shuffle(&mut self.origins);
        let count = random.between(1, 5);
        self.origins.truncate(count);
        let dead = [
            "http://10.0.0.7",
            "http://10.0.0.8",
            "http://10.0.0.9",
            "http://slow.test",
            "http://broken.test",
            "http://full.test",
            "http://no-such.test",
        ];
        if random.chance(400) {
            let url: &&str = random.pick(&dead);
            let lasts: &[u8] = if url.contains("slow") { &[1] } else { &[] };
            self.origins.push(served(url, lasts));
        }
    }

    pub(crate) fn config(&self, random: &mut Random) -> Config {
        let mut config = Config::default();
        config.resolve_to("*.ride.test", addr(5));
        config.timeouts = self.timeouts.clone();
        match random.chance(500) {
            true => config.pipeline("*", self.depth),
            false => config.pipeline_without_trial("*", self.depth),
        }
        config.max_connections = *random.pick(&[1, 2, 3, 8, 1000]);
        config.max_connections_per_origin = *random.pick(&[1, 1, 2, 5, 1000]);
        config.max_idle_per_origin = *random.pick(&[0, 1, 2, 32, 32]);
        config.idle_timeout = *random.pick(&[5 * MS, SECOND, 60 * SECOND]);
        config.turn_events = *random.pick(&[1, 2, 3, 1024, 1024]);
        config.turn_bytes = match self.large {
            true => 16 << 10,
            false => *random.pick(&[1, 100, 4096, 512 << 10]),
        };
        config.read_buffer = *random.pick(&[4096, 4099, 16 << 10]);
        config
    }
}

fn benign_faults(random: &mut Random) -> Faults {
    let storm = match random.chance(500) {
        true => Faults::storm(),
        false => Faults::some(random),
    };
    BENIGN.into_iter().fold(Faults::none(), |faults, fault| {
        faults.with(fault, storm.per_mille(fault))
    })
}

fn timeouts(random: &mut Random, benign: bool) -> Timeouts {
    let mut timeouts = Timeouts::default();
    if benign {
        // Longer than any pause of a server that intends to answer.
        timeouts.resolve = Some(20 * SECOND);
        timeouts.write = Some(60 * SECOND);
        timeouts.first_byte = Some(60 * SECOND);
        timeouts.idle = Some(60 * SECOND);
        timeouts.total = Some(600 * SECOND);
        timeouts.low_speed = random.chance(200).then(|| low_speed(random, true));
        return timeouts;
    }
    let draw = |random: &mut Random| match random.below(10) {
        0 => None,
        1..4 => Some(random.duration(20 * MS)),
        4..8 => Some(random.duration(3 * SECOND)),
        _ => Some(30 * SECOND),
    };
    timeouts.resolve = draw(random);
    timeouts.connect = draw(random);
    timeouts.write = draw(random);
    timeouts.first_byte = draw(random);
    timeouts.idle = draw(random);
    timeouts.total = match random.below(10) {
        0 => None,
        1..4 => Some(random.duration(2 * SECOND)),
        _ => Some(random.duration(60 * SECOND)),
    };
    timeouts.low_speed = random.chance(300).then(|| low_speed(random, false));
    timeouts
}
