//! Which requests share connections: those with the same route, and so with the same [`Tls`] or a
//! clone of it.

use httpstream::tls::Tls;
use httpstream::{ErrorKind, Phase, Request, Route};

use crate::certificates::Authority;
use crate::common::{Bench, ok};
use crate::peer::World;

fn through(world: &World, tls: &Tls) -> Request {
    let mut route = Route::default();
    route.tls = tls.clone();
    world.at("/").route(route).build().unwrap()
}

#[test]
fn clones_share_connections_and_others_do_not() {
    let world = World::new(|peer| while peer.answer(&ok("a")) {});
    let (one, other) = (world.authority.tls(), world.authority.tls());
    let mut bench = Bench::new();
    for (tls, opened) in [
        (&one, 1),
        (&other, 2),
        (&one.clone(), 2),
        (&other.clone(), 2),
    ] {
        assert_eq!(bench.fetch_ok(through(&world, tls)).text(), "a");
        assert_eq!(bench.stats().opened, opened);
    }
    assert_eq!(bench.stats().links_idle, 2);
    bench.assert_empty();
}

#[test]
fn a_connection_made_under_other_rules_lets_nobody_in() {
    let world = World::new(|peer| while peer.answer(&ok("a")) {});
    let mut bench = world.bench();
    bench.fetch_ok(world.get("/"));
    assert_eq!(bench.stats().links_idle, 1);
    let stranger = Authority::new().tls();
    let error = bench.fetch_err(through(&world, &stranger));
    assert_eq!((error.kind(), error.phase()), (ErrorKind::Tls, Phase::Tls));
    // Nor is a session resumed from a connection that trusted the server.
    assert_eq!(bench.fetch_ok(world.get("/")).text(), "a");
    assert_eq!(bench.stats().opened, 2);
    bench.assert_empty();
}

#[test]
fn two_engines_have_rules_of_their_own() {
    let worlds = [(); 2].map(|()| World::new(|peer| while peer.answer(&ok("a")) {}));
    let mut benches = [worlds[0].bench(), worlds[1].bench()];
    for (i, world) in worlds.iter().enumerate() {
        for (j, bench) in benches.iter_mut().enumerate() {
            let reply = bench.fetch(world.get("/"));
            assert_eq!(reply.is_ok(), i == j, "server {i}, engine {j}: {reply:?}");
        }
    }
    benches.iter_mut().for_each(Bench::assert_empty);
}

#[test]
fn two_engines_share_the_sessions_of_clones() {
    let world = World::new(|peer| while peer.answer(&ok("a")) {});
    let tls = world.authority.tls();
    let kinds = [tls.clone(), tls].map(|tls| {
        let mut bench = Bench::with(|config| config.route.tls = tls);
        bench.engine.submit(world.get("/"), crate::peer::note);
        bench.replies(1);
        bench.log.notes.remove(0)
    });
    assert_eq!(kinds, ["TLSv1.3 full", "TLSv1.3 resumed"]);
}
