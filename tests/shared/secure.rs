//! https on the host's poll.

use crate::host::{Host, Turns};
use crate::peer::{TlsPeer, VERSIONS, World};

#[test]
fn https_runs_on_the_hosts_poll() {
    for version in VERSIONS {
        let world = World::speaking(version, |peer: &mut TlsPeer<'_>| {
            while let Some((head, _)) = peer.request() {
                let closes = head.starts_with("GET /close ");
                if !peer.send(&crate::common::ok(&"x".repeat(100_000))) || closes {
                    return;
                }
            }
        });
        let mut host = Host::with(|config| config.route.tls = world.authority.tls());
        host.turns = Turns::WhenTold;
        for i in 0..30 {
            host.submit(world.get(["/", "/close", "/"][i % 3]));
        }
        host.until("replies", |host| {
            host.registered_by_engine();
            host.log.replies.len() == 30
        });
        assert!(host.log.kinds().is_empty(), "{:?}", host.log.kinds());
        let whole = |got: &crate::common::Got| got.body.len() == 100_000;
        assert!(host.log.replies.iter().flatten().all(whole));
        host.assert_empty();
    }
}
