//! A second engine on the same network, which shares the sessions of the first one: their rates,
//! lanes and budgets hold for both together.
//!
//! What its requests may look like is checked by the servers and by the books of their sessions.
//! Here, it is only checked that each is answered once, by its own response.

use std::collections::BTreeMap;
use std::time::Duration;

use httpstream::sim::Network;
use httpstream::{
    ChainId, Config, Context, Engine, Error, Next, Outcome, Readback, Reply, Sim, Turn,
};

use crate::server::path_of;
use crate::world::{Shared, check};

pub(crate) struct Neighbor {
    pub(crate) engine: Engine<Guests, Sim>,
    guests: Guests,
    pub(crate) max_connections: usize,
}

/// The state of its readbacks.
pub(crate) struct Guests {
    world: Shared,
    /// The requests that have not been answered, by nonce.
    open: BTreeMap<usize, ChainId>,
}

/// The readback of a request.
struct Guest {
    nonce: usize,
    left: usize,
}

impl Neighbor {
    pub(crate) fn new(network: &Network, config: Config, world: Shared) -> Self {
        let max_connections = config.max_connections;
        let open = BTreeMap::new();
        Self {
            engine: Engine::on_network(network, config).expect("the configuration is valid"),
            guests: Guests { world, open },
            max_connections,
        }
    }

    pub(crate) fn submit(&mut self) {
        let mut world = self.guests.world.borrow_mut();
        if world.plan.requests == 0 {
            return;
        }
        let (nonce, request) = world.wish();
        world.wishes[nonce].asked += 1;
        world.plan.requests -= 1;
        world.journal.notes().guests.insert(nonce);
        world.coverage.hit("submit from", "neighbor");
        world.tell(|| format!("nonce {nonce} goes to the neighbor"));
        let left = world.random.below(3);
        drop(world);
        let id = self.engine.submit_to(request, Guest { nonce, left });
        self.guests.open.insert(nonce, id);
    }

    pub(crate) fn turn(&mut self) -> Result<Turn, Error> {
        self.engine.turn(&mut self.guests)
    }

    pub(crate) fn cancel_all(&mut self) {
        for id in self.guests.open.values() {
            self.engine.cancel(*id);
        }
    }

    /// Checks that nothing is left.
    pub(crate) fn check_end(&self) {
        let mut world = self.guests.world.borrow_mut();
        let (pending, stats) = (self.engine.pending(), self.engine.stats());
        let open = self.guests.open.len();
        let left = stats.links_open + stats.in_flight + stats.queued + stats.delayed;
        check!(
            world,
            pending == 0 && open == 0 && left == 0,
            "the neighbor has {pending} chains and {open} requests at the end: {stats:?}"
        );
    }
}

impl Readback<Guests> for Guest {
    fn on_retry(
        &mut self,
        guests: &mut Guests,
        _: Outcome<'_>,
        after: Duration,
        _: &mut Context<'_, Guests>,
    ) {
        let world = guests.world.borrow_mut();
        if !world.journal.notes().is_resent(self.nonce) && world.wishes[self.nonce].by.is_some() {
            world.journal.notes().announced.insert(self.nonce, after);
        }
    }

    fn on_reply(
        &mut self,
        guests: &mut Guests,
        reply: Reply<'_>,
        cx: &mut Context<'_, Guests>,
    ) -> Next<Guests> {
        let mut world = guests.world.borrow_mut();
        let nonce = self.nonce;
        let id = guests.open.remove(&nonce);
        check!(
            world,
            id == Some(cx.id()),
            "nonce {nonce} of the neighbor is answered to chain {:?}, but it is chain {id:?}",
            cx.id()
        );
        let mut goes_on = self.left > 0 && !world.winding_down;
        match &reply {
            Ok(response) => {
                let path = response.info().url().path().to_owned();
                let own = path_of(nonce, response.info().hops().len());
                check!(
                    world,
                    path == own && response.header("X-Nonce") == Some(nonce.to_string().as_bytes()),
                    "nonce {nonce} of the neighbor reads the answer to {path}"
                );
            }
            Err(error) => goes_on &= error.kind() != httpstream::ErrorKind::Cancelled,
        }
        if !goes_on || world.plan.requests == 0 {
            return Next::done();
        }
        self.left -= 1;
        world.plan.requests -= 1;
        world.wishes[nonce].asked += 1;
        guests.open.insert(nonce, cx.id());
        Next::again()
    }
}
