//! The front-end of the server's brain on a simulated network.
//!
//! This corresponds to `server/http.rs`, in virtual time: after each change of the brain the
//! director is called, and answers that have become ready are sent.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use httpstream::sim::{self, ConnectionId, Incoming, Network, Random};

use crate::server::{
    self, Account, Answer, Call, Direct, Director, HoldId, Manner, Reaction, Scheme, Server, Wish,
};

/// All hosts of the simulated internet, each with an address of its own.
pub(crate) const HOSTS: [&str; 9] = [
    "ui.ptlogin2.qq.com",
    "check.ptlogin2.qq.com",
    "ssl.captcha.qq.com",
    "ssl.ptlogin2.qq.com",
    "web2.qq.com",
    "s.web2.qq.com",
    "d.web2.qq.com",
    "web.qq.com",
    "api.weather.example",
];

/// As over TCP: how long a poll waits before it is checked while another one is held.
const CLOSE_UNDER_WAY: Duration = Duration::from_millis(30);
/// The pause between two pieces of a dripping body, its maximum number of pieces, and their minimum
/// size in bytes.
const DRIP: Duration = Duration::from_millis(3);
const MAX_DROPS: usize = 40;
const MIN_DROP: usize = 3;
/// The longest delay of a slow answer. A client may have given up a poll by then, but no other
/// request.
const SLOW: Duration = Duration::from_secs(25);

/// The network's age when a simulation begins. It is the year 2040 then: the bot's jar goes by the
/// system's clock when the bot sets a cookie, and must not find that those of the network's servers
/// have expired.
const BEGINNING: Duration = Duration::from_secs(27 * 365 * 24 * 3600);

/// Makes the network of a simulation.
pub(crate) fn network(seed: u64) -> Network {
    let network = Network::new(seed);
    network.sleep(BEGINNING);
    network
}

/// Returns how long the simulation has lasted.
pub(crate) fn elapsed(network: &Network) -> Duration {
    network.elapsed() - BEGINNING
}

/// One host of the desk, as the network's server.
struct Door(Rc<RefCell<Desk>>);

impl sim::Server for Door {
    fn on_request(&mut self, request: &Incoming) -> sim::Answer {
        self.0.borrow_mut().on_request(request)
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.0.borrow_mut().on_close(connection);
    }
}

/// Passes calls to the brain and answers to the network.
pub(crate) struct Desk {
    network: Network,
    pub(crate) brain: Server,
    director: Box<dyn Director>,
    /// When the director wants to be called.
    direct_at: Option<Duration>,
    is_over: bool,
    /// The brain's numbers of connections.
    connections: BTreeMap<ConnectionId, u64>,
    /// The connections that wait for the answers of held calls.
    holds: HashMap<HoldId, ConnectionId>,
    /// A call that is being handled and was held. If its answer is ready at once, `at_once` takes
    /// it, because the network does not know the hold yet.
    asking: Option<HoldId>,
    at_once: Option<Answer>,
    /// Second polls, in the order in which they are due.
    postponed: VecDeque<(Duration, ConnectionId, Call)>,
    random: Random,
    /// How many answers in a thousand are slow.
    pub(crate) slow: u16,
}

impl Desk {
    /// Serves `account` at all addresses.
    pub(crate) fn open(
        network: &Network,
        seed: u64,
        account: Account,
        director: Box<dyn Director>,
    ) -> Rc<RefCell<Self>> {
        let settings = server::Settings {
            seed,
            ..server::Settings::default()
        };
        let mut brain = Server::new(settings);
        brain.add_account(account);
        let desk = Rc::new(RefCell::new(Self {
            network: network.clone(),
            brain,
            director,
            direct_at: Some(elapsed(network)),
            is_over: false,
            connections: BTreeMap::new(),
            holds: HashMap::new(),
            asking: None,
            at_once: None,
            postponed: VecDeque::new(),
            random: Random::new(seed),
            slow: 0,
        }));
        for addr in addrs() {
            network.serve(addr, Door(Rc::clone(&desk)));
        }
        desk
    }

    fn on_request(&mut self, request: &Incoming) -> sim::Answer {
        let call = self.read(request);
        if self.brain.is_polled(&call) {
            let at = elapsed(&self.network) + CLOSE_UNDER_WAY;
            self.postponed.push_back((at, request.connection, call));
            return sim::Answer::held();
        }
        match self.on_call(request.connection, &call, true) {
            Some(answer) => self.render(answer),
            None => sim::Answer::held(),
        }
    }

    fn read(&mut self, request: &Incoming) -> Call {
        let number = *self
            .connections
            .entry(request.connection)
            .or_insert_with(|| self.brain.on_connection(Scheme::Http));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = request.headers.iter();
        let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), text(value)));
        Call::parse(
            number,
            Scheme::Http,
            &request.method,
            &request.target,
            headers.collect(),
            request.body(),
        )
    }

    /// Returns the answer, if it is ready. With `is_new` the network waits for it, and does not
    /// know of a hold yet.
    fn on_call(&mut self, connection: ConnectionId, call: &Call, is_new: bool) -> Option<Answer> {
        let reaction = self.change(|desk, now| {
            let reaction = desk.brain.on_call(now, call);
            if let Reaction::Hold(hold) = reaction {
                desk.holds.insert(hold, connection);
                desk.asking = is_new.then_some(hold);
            }
            reaction
        });
        self.asking = None;
        match reaction {
            Reaction::Answer(answer) => Some(answer),
            Reaction::Hold(_) => self.at_once.take(),
        }
    }

    fn on_close(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
        self.postponed.retain(|(_, asker, _)| *asker != connection);
        let held = self.holds.iter().find(|(_, asker)| **asker == connection);
        if let Some((&hold, _)) = held {
            self.holds.remove(&hold);
            self.change(|desk, now| desk.brain.on_gone(now, hold));
        }
    }

    /// Returns when [`Desk::on_time`] must be called next.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let postponed = self.postponed.front().map(|(at, ..)| *at);
        let wakes = [self.brain.next_wake(), self.direct_at, postponed];
        wakes.into_iter().flatten().min()
    }

    /// Does what is due, and returns the wishes.
    pub(crate) fn on_time(&mut self) -> Vec<Wish> {
        let now = elapsed(&self.network);
        if self.next_wake().is_some_and(|at| at <= now) {
            self.change(|_, _| ());
        }
        while self.postponed.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, connection, call)) = self.postponed.pop_front()
        {
            if let Some(answer) = self.on_call(connection, &call, false) {
                let answer = self.render(answer);
                self.network.answer(connection, answer);
            }
        }
        self.brain.take_wishes()
    }

    /// Handles everything that is due, then calls `f`, then the director, and sends the answers
    /// that are ready.
    fn change<R>(&mut self, f: impl FnOnce(&mut Self, Duration) -> R) -> R {
        let now = elapsed(&self.network);
        if self.brain.next_wake().is_some_and(|at| at <= now) {
            self.brain.on_time(now);
        }
        let result = f(self, now);
        if !self.is_over {
            match self.director.direct(&mut self.brain, now) {
                Direct::Wait(at) => self.direct_at = at,
                Direct::Over => (self.is_over, self.direct_at) = (true, None),
            }
        }
        for (hold, answer) in self.brain.take_ready() {
            if let Some(connection) = self.holds.remove(&hold) {
                if self.asking == Some(hold) {
                    self.at_once = Some(answer);
                    continue;
                }
                let answer = self.render(answer);
                // The client may be gone, just as it may go while the answer travels.
                self.network.answer(connection, answer);
            }
        }
        result
    }

    /// Converts an answer for the network.
    fn render(&mut self, answer: Answer) -> sim::Answer {
        let Answer {
            status,
            headers,
            body,
            manner,
        } = answer;
        let len = body.len();
        let head = headers
            .iter()
            .fold(sim::Answer::status(status), |head, (name, value)| {
                head.header(name, value)
            });
        let half = |head: sim::Answer| {
            // Even an empty body must lack something.
            let told = head.header("Content-Length", len.max(1).to_string());
            told.body(&body[..len / 2])
        };
        match manner {
            Manner::Length if self.random.chance(self.slow) => {
                head.body(body).after(self.random.duration(SLOW))
            }
            Manner::Length => head.body(body),
            Manner::Chunked => {
                let pieces: Vec<&[u8]> = body.chunks(len.div_ceil(3).max(1)).collect();
                head.chunked(pieces)
            }
            Manner::UntilClose => head.until_close(body),
            Manner::Drip => {
                let drop = len.div_ceil(MAX_DROPS).max(MIN_DROP);
                head.body(body).drip(drop, DRIP)
            }
            Manner::CutShort => half(head).close(),
            Manner::ResetInBody => half(head).reset(),
            Manner::NoByte => sim::Answer::nothing().close(),
            Manner::Reset => sim::Answer::nothing().reset(),
            Manner::Silence => sim::Answer::nothing(),
        }
    }
}

/// Returns the servers' addresses.
pub(crate) fn addrs() -> impl Iterator<Item = SocketAddr> {
    let hosts = 1..=HOSTS.len() as u8;
    hosts.map(|host| SocketAddr::from((Ipv4Addr::new(10, 0, 0, host), 80)))
}
