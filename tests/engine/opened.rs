//! Bodies that tasks read as they arrive: `Local::open`, `Submitter::open`, `tokio::Client::open`.

use crate::common;

use std::time::Duration;

use common::{Bench, Server};
use httpstream::body::BodyStream;
use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Error, ErrorKind, Request, Session, Sim};

const LARGE: usize = 3 << 20;

fn serve() -> Network {
    let network = Network::new(1);
    let answer = |request: &Incoming| match request.path() {
        "/chunked" => Answer::status(200)
            .chunked(["one ", "two ", "three"])
            .trailer("X-Sum", "11"),
        "/empty" => Answer::status(204),
        "/moved" => Answer::status(302).header("Location", "/chunked"),
        "/slow" => Answer::ok("slow").drip(1, Duration::from_secs(1)),
        "/silent" => Answer::ok("").after(Duration::from_secs(1000)),
        "/cut" => Answer::ok("x".repeat(1000)).truncate(500).close(),
        _ => Answer::ok("x".repeat(LARGE)),
    };
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), answer);
    network
}

type Log = Vec<String>;
type Sims = Engine<Log, Sim>;

fn get(path: &str) -> Request {
    Request::get(format!("http://10.0.0.1{path}"))
        .build()
        .unwrap()
}

async fn rest_of(body: &mut BodyStream) -> Result<String, Error> {
    let mut text = String::new();
    while let Some(piece) = body.next().await {
        text.push_str(std::str::from_utf8(&piece?).unwrap());
    }
    // The end stays the end.
    assert!(body.next().await.is_none());
    Ok(text)
}

fn run(
    network: &Network,
    task: impl AsyncFnOnce(httpstream::Local<Log>) -> String + 'static,
) -> String {
    let mut engine = Sims::on_network(network, Config::default()).unwrap();
    let http = engine.local();
    engine.spawn(async move {
        let told = task(http.clone()).await;
        http.with(move |log: &mut Log, _| log.push(told))
            .await
            .unwrap();
    });
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(engine.stats().in_flight, 0);
    log.pop().expect("the task has ended")
}

#[test]
fn a_task_reads_head_pieces_and_trailers() {
    let network = serve();
    let told = run(&network, async |http| {
        let mut response = http.open(get("/chunked")).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.extensions().get::<httpstream::Info>().is_some());
        let text = rest_of(response.body_mut()).await.unwrap();
        let trailers = response.body().trailers();
        format!("{text} {:?}", trailers.get("x-sum"))
    });
    assert_eq!(told, "one two three Some(\"11\")");
    let told = run(&network, async |http| {
        let mut response = http.open(get("/empty")).await.unwrap();
        let text = rest_of(response.body_mut()).await.unwrap();
        format!("{} {text:?}", response.status())
    });
    assert_eq!(told, "204 No Content \"\"");
    let told = run(&network, async |http| {
        let moved = get("/moved")
            .edit()
            .session(&Session::new())
            .build()
            .unwrap();
        let mut response = http.open(moved).await.unwrap();
        rest_of(response.body_mut()).await.unwrap()
    });
    assert_eq!(told, "one two three", "the redirect is not shown");
}

#[test]
fn a_head_is_there_before_its_body() {
    let network = serve();
    let clock = network.clone();
    let told = run(&network, async move |http| {
        let response = http.open(get("/slow")).await.unwrap();
        let head_at = clock.elapsed().as_secs();
        let mut body = response.into_body();
        let text = rest_of(&mut body).await.unwrap();
        format!("{head_at} {text}")
    });
    assert!(told.ends_with(" slow"), "{told}");
    assert!(network.elapsed() > Duration::from_secs(3));
}

#[test]
fn a_task_that_does_not_read_holds_the_server_back() {
    let network = serve();
    let mut engine = Sims::on_network(&network, Config::default()).unwrap();
    let http = engine.local();
    engine.spawn(async move {
        let mut response = http.open(get("/large")).await.unwrap();
        http.sleep(Duration::from_secs(60)).await;
        let rested = http.with(|log: &mut Log, cx| {
            log.push("rested".into());
            cx.stop();
        });
        rested.await.unwrap();
        let text = rest_of(response.body_mut()).await.unwrap();
        http.with(move |log: &mut Log, _| log.push(text.len().to_string()))
            .await
            .unwrap();
    });
    let mut log = Log::new();
    engine.run(&mut log).unwrap();
    assert_eq!(log, ["rested"]);
    let read = engine.stats().bytes_in;
    assert!((128 << 10..512 << 10).contains(&read), "{read}");
    engine.run(&mut log).unwrap();
    assert_eq!(log, ["rested".to_owned(), LARGE.to_string()]);
}

#[test]
fn what_goes_wrong_is_told_where_it_happens() {
    let network = serve();
    let told = run(&network, async |http| {
        let refused = Request::get("http://10.0.0.1:81/").build().unwrap();
        let before = http.open(refused).await.unwrap_err().kind();
        let mut response = http.open(get("/cut")).await.unwrap();
        let mut bytes = 0;
        let error = loop {
            match response.body_mut().next().await.expect("an error") {
                Ok(piece) => bytes += piece.len(),
                Err(error) => break error,
            }
        };
        assert!(response.body_mut().next().await.is_none());
        format!("{before:?} {bytes} {:?}", error.kind())
    });
    assert_eq!(told, "Connect 459 Truncated");
}

#[test]
fn dropping_either_half_cancels_the_request() {
    let network = serve();
    let told = run(&network, async |http| {
        let opening = http.open(get("/silent"));
        drop(opening);
        let response = http.open(get("/large")).await.unwrap();
        drop(response);
        String::from("dropped")
    });
    assert_eq!(told, "dropped");
    assert!(network.elapsed() < Duration::from_secs(1));
}

#[test]
fn an_engine_that_is_dropped_ends_its_bodies() {
    let server = Server::start(|peer| {
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        peer.hold();
    });
    let mut bench = Bench::new();
    let http = bench.engine.submitter();
    let opening = http.open(server.get("/"));
    let reading = std::thread::spawn(move || {
        let mut engine = Engine::<()>::new().unwrap();
        let body = engine.block_on(async {
            let mut body = opening.await.unwrap().into_body();
            let first = body.next().await.unwrap().unwrap();
            assert_eq!(first, b"hello");
            body.next().await.unwrap().unwrap_err().kind()
        });
        body.unwrap()
    });
    bench.until("the piece has arrived", |engine, _| {
        engine.stats().bytes_in > 40
    });
    drop(bench);
    assert_eq!(reading.join().unwrap(), ErrorKind::Gone);
}

#[cfg(unix)]
#[test]
fn a_body_is_an_async_read_for_tokio() {
    use httpstream::tokio::Client;
    use tokio::io::AsyncReadExt;

    let server = Server::start(|peer| {
        peer.request();
        let body = "0123456789".repeat(100_000);
        peer.send(&common::ok(&body));
        peer.request();
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::on_thread(Config::default()).unwrap();
        let opening = client.open(server.get("/"));
        drop(client);
        // The body keeps the engine.
        let mut body = opening.await.unwrap().into_body();
        let mut text = String::new();
        let mut piece = [0; 7];
        body.read_exact(&mut piece).await.unwrap();
        assert_eq!(&piece, b"0123456");
        assert_eq!(body.next().await.unwrap().unwrap()[..3], *b"789");
        body.read_to_string(&mut text).await.unwrap();
        assert!(text.len() < 1_000_000 && text.ends_with("0123456789"));

        let client = Client::on_thread(Config::default()).unwrap();
        let cut = Server::once("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        let mut body = client.open(cut.get("/")).await.unwrap().into_body();
        let mut bytes = Vec::new();
        let error = body.read_to_end(&mut bytes).await.unwrap_err();
        assert_eq!(bytes, b"hello");
        let error = error.into_inner().unwrap().downcast::<Error>().unwrap();
        assert_eq!(error.kind(), ErrorKind::Truncated);
    });
}
