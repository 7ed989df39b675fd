//! What a response tells about its connection: its id, both addresses, and how long the request
//! waited for it.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::channel;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, ConnectionId, Engine, Info, Next, Request, Sim};

use crate::common::{Server, ok};

fn note(infos: &mut Vec<Info>, reply: httpstream::Reply<'_>) {
    infos.push(reply.unwrap().info().clone());
}

#[test]
fn two_responses_have_the_same_id_if_they_came_over_the_same_connection() {
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve("10.0.0.1:80".parse().unwrap(), |incoming: &Incoming| {
        let answer = Answer::ok("x").header("X-Id", incoming.connection.to_string());
        if incoming.path() == "/close" {
            answer.close()
        } else {
            answer
        }
    });
    let mut engine =
        Engine::<Vec<(ConnectionId, Vec<u8>)>, Sim>::on_network(&network, Config::default())
            .unwrap();
    let mut seen = Vec::new();
    for target in ["/", "/", "/close", "/", "/close", "/close", "/"] {
        for _ in 0..2 {
            let request = Request::get(format!("http://a.test{target}"))
                .build()
                .unwrap();
            engine.submit(request, |seen: &mut Vec<_>, reply, _| {
                let response = reply.unwrap();
                let own = response.header("X-Id").unwrap().to_vec();
                seen.push((response.info().connection, own));
                Next::done()
            });
        }
        engine.run(&mut seen).unwrap();
    }
    for (id, own) in &seen {
        for (other, others) in &seen {
            assert_eq!(id == other, own == others, "{id} {other}");
            assert_eq!(id.to_u64() == other.to_u64(), id == other);
        }
    }
    let ids: HashSet<_> = seen.iter().map(|(id, _)| id.to_string()).collect();
    assert!(ids.len() > 4, "slots are reused, and ids are not: {ids:?}");
}

#[test]
fn both_addresses_are_those_of_the_socket() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        if std::net::TcpListener::bind(listen).is_err() {
            println!("skipped: {listen}");
            continue;
        }
        let (tell, told) = channel::<SocketAddr>();
        let server = Server::on(listen, move |peer| {
            tell.send(peer.stream().peer_addr().unwrap()).unwrap();
            while let Some(seen) = peer.request() {
                peer.send(&ok(&seen.path));
            }
        });
        let mut engine = Engine::<Vec<Info>>::new().unwrap();
        let mut infos = Vec::new();
        for _ in 0..2 {
            engine.submit(server.get("/"), |infos: &mut Vec<Info>, reply, _| {
                note(infos, reply);
                Next::done()
            });
            engine.run(&mut infos).unwrap();
        }
        let seen = told.recv().unwrap();
        for info in &infos {
            assert_eq!((info.peer, info.local), (server.addr, seen));
        }
    }
}

#[cfg(unix)]
#[test]
fn a_unix_socket_has_no_addresses() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    let path = std::env::temp_dir().join(format!("httpstream-facts-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let heard = stream.read(&mut [0; 1024]).unwrap();
        assert!(heard > 0);
        stream.write_all(&ok("x")).unwrap();
    });
    let mut config = Config::default();
    config.route = httpstream::Route::unix(&path);
    let mut engine = Engine::<Vec<Info>>::with_config(config).unwrap();
    let request = Request::get("http://a.test/").build().unwrap();
    engine.submit(request, |infos: &mut Vec<Info>, reply, _| {
        note(infos, reply);
        Next::done()
    });
    let mut infos = Vec::new();
    engine.run(&mut infos).unwrap();
    server.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    let none = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    assert_eq!((infos[0].peer, infos[0].local), (none, none));
}

#[test]
fn the_time_in_the_queue_ends_with_a_connection_and_precedes_every_step() {
    const SECOND: Duration = Duration::from_secs(1);
    let network = Network::new(1);
    network.host("a.test", [[10, 0, 0, 1]]);
    network.serve("10.0.0.1:80".parse().unwrap(), |_: &Incoming| {
        Answer::ok("late").after(Duration::from_secs(1))
    });
    let mut config = Config::default();
    config.max_connections_per_origin = 1;
    let mut engine = Engine::<Vec<Info>, Sim>::on_network(&network, config).unwrap();
    for _ in 0..3 {
        let request = engine.send(Request::get("http://a.test/").build().unwrap());
        // The delay does not count.
        engine.start(request.after(5 * SECOND).read_by(|infos, reply, _| {
            note(infos, reply);
            Next::done()
        }));
    }
    let mut infos = Vec::new();
    engine.run(&mut infos).unwrap();
    for (i, info) in infos.iter().enumerate() {
        let timings = info.timings;
        let queued = timings.queued.unwrap();
        let expected = SECOND * i as u32;
        assert!(
            queued >= expected && queued < expected + SECOND / 10,
            "{i}: {queued:?}"
        );
        assert!(timings.sent >= timings.queued, "{i}: {timings:?}");
        assert!(
            timings.first_byte.unwrap() >= queued + SECOND,
            "{i}: {timings:?}"
        );
        assert!(
            timings.first_byte.unwrap() < queued + 2 * SECOND,
            "{i}: {timings:?}"
        );
        assert!(timings.done >= timings.first_byte, "{i}: {timings:?}");
        assert_eq!(timings.connect.is_some(), i == 0);
    }
    assert_eq!(infos[0].timings.queued, Some(Duration::ZERO));
}
