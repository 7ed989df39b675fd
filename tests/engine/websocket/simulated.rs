//! WebSockets in virtual time.

use std::time::Duration;

use httpstream::sim::{Fault, Faults, Network};
use httpstream::{Config, Engine, ErrorKind, Request, Sim};

use super::peers::{CLOSE, Frame, PING, TEXT, echoed, simulated};
use super::recorded;
use crate::common::Log;

fn engine(network: &Network) -> Engine<Log, Sim> {
    Engine::on_network(network, Config::default()).unwrap()
}

fn request() -> Request {
    Request::websocket("ws://10.0.0.1/").build().unwrap()
}

/// Returns what a conversation looks like from both sides, and the digest of all bytes.
fn conversation(seed: u64, faults: &Faults) -> (Vec<String>, Vec<Frame>, u64) {
    let network = Network::new(seed);
    network.set_faults(faults.clone());
    let seen = simulated(&network, echoed);
    let mut engine = engine(&network);
    let chat = recorded();
    let sender = chat.sender();
    for i in 0..20 {
        sender.send("x".repeat(i * 37)).unwrap();
    }
    sender.close(1000, "");
    // Bytes may be delayed for 40 s, while a small send buffer is full.
    let request = Request::websocket("ws://10.0.0.1/").timeouts(|t| t.write = None);
    engine.submit_to(request.build().unwrap(), chat);
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    let frames = seen.borrow().clone();
    (log.notes, frames, network.fingerprint())
}

#[test]
fn equal_seeds_give_equal_bytes() {
    let none = Faults::none();
    let (notes, frames, digest) = conversation(7, &none);
    assert_eq!(notes.len(), 22);
    assert_eq!(notes[21], "over 101");
    assert_eq!(frames.len(), 21);
    assert_eq!(conversation(7, &none), (notes, frames, digest));
    // The keys and the masks are others.
    assert_ne!(conversation(8, &none).2, digest);
}

#[test]
fn messages_survive_every_split_and_delay() {
    let faults = Faults::none()
        .with(Fault::Split, 500)
        .with(Fault::NoLatency, 300)
        .with(Fault::ShortWrite, 500)
        .with(Fault::SmallSendBuffer, 500)
        .with(Fault::SmallWindow, 500)
        .with(Fault::MidTurn, 300)
        .with(Fault::Spurious, 300)
        .with(Fault::Interrupted, 300);
    let expected = conversation(1, &Faults::none());
    for seed in 0..200 {
        let (notes, frames, _) = conversation(seed, &faults);
        assert!(
            notes == expected.0 && frames == expected.1,
            "seed {seed}: {:?}",
            notes.last()
        );
    }
}

#[test]
fn pings_are_sent_in_silence_and_end_with_it() {
    let network = Network::new(1);
    let seen = simulated(&network, echoed);
    let mut engine = engine(&network);
    let chat = recorded().ping_every(Duration::from_secs(30));
    let sender = chat.sender();
    let request = Request::websocket("ws://10.0.0.1/")
        .timeouts(|t| t.idle = Some(Duration::from_secs(45)))
        .build()
        .unwrap();
    engine.submit_to(request, chat);
    let mut log = Log::default();
    engine.advance(&mut log, Duration::from_secs(3601)).unwrap();
    assert_eq!(seen.borrow().len(), 120);
    assert!(
        seen.borrow()
            .iter()
            .all(|frame| *frame == (PING, Vec::new()))
    );
    assert!(log.notes.is_empty());
    sender.close(1000, "");
    engine.run(&mut log).unwrap();
    assert_eq!(log.notes, [r#"Close(1000, "")"#, "over 101"]);
    assert!(
        network.elapsed() < Duration::from_secs(3602),
        "the pings are over, too"
    );
}

#[test]
fn a_dead_server_is_noticed_by_its_silence() {
    let network = Network::new(1);
    // It answers no pings.
    let seen = simulated(&network, |_| Vec::new());
    let mut engine = engine(&network);
    let request = Request::websocket("ws://10.0.0.1/")
        .timeouts(|t| t.idle = Some(Duration::from_secs(100)))
        .build()
        .unwrap();
    engine.submit_to(request, recorded().ping_every(Duration::from_secs(30)));
    let mut log = Log::default();
    engine.run(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Timeout]);
    assert_eq!(log.notes, ["Timeout: idle timeout of 100s"]);
    assert_eq!(seen.borrow().len(), 3);
}

#[test]
fn an_open_websocket_may_be_silent_for_a_day() {
    let network = Network::new(1);
    let seen = simulated(&network, echoed);
    let mut engine = engine(&network);
    let chat = recorded();
    let sender = chat.sender();
    engine.submit_to(request(), chat);
    let mut log = Log::default();
    engine
        .advance(&mut log, Duration::from_secs(86_400))
        .unwrap();
    assert_eq!(engine.pending(), 1);
    sender.send("still there?").unwrap();
    engine.advance(&mut log, Duration::from_secs(1)).unwrap();
    assert_eq!(log.notes, [r#"Text("still there?")"#]);
    assert_eq!(*seen.borrow(), [(TEXT, b"still there?".to_vec())]);
    let connection = network.connections()[0];
    network.close(connection);
    engine.run(&mut log).unwrap();
    assert_eq!(log.kinds(), [ErrorKind::Truncated]);
    assert!(seen.borrow().iter().all(|(first, _)| *first != CLOSE));
}
