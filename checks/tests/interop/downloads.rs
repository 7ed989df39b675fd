//! Downloads from nginx and starlette through a proxy that breaks their connections.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use httpstream::session::Retry;
use httpstream::{Engine, Error, Next, Request, Save, Saved};
use socket2::SockRef;

use crate::programs;
use crate::servers::{Nginx, Random, TempDir};

const SIZE: usize = 5_000_000;
const BREAKS: usize = 5;

/// A proxy that passes 300,000 bytes and a few more of each response, and then breaks the
/// connection, with a reset or without. After five breaks it lets everything through.
struct Breaker {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Breaker {
    /// `on_connection` is called with the number of each connection, before it is passed on.
    fn before(server: SocketAddr, on_connection: impl Fn(usize) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                on_connection(number);
                let most = match number < BREAKS {
                    true => 300_000 + 77_777 * number as u64,
                    false => u64::MAX,
                };
                // One after another, as the client connects.
                let _ = pass(&client.unwrap(), server, most, number.is_multiple_of(2));
            }
        });
        Self { addr, connections }
    }
}

fn pass(client: &TcpStream, server: SocketAddr, most: u64, resets: bool) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &server);
            let _ = server.shutdown(Shutdown::Write);
        });
        let passed = io::copy(&mut (&server).take(most), &mut &*client);
        if resets {
            let _ = SockRef::from(client).set_linger(Some(Duration::ZERO));
        }
        // Ends the other thread.
        let _ = (&*client).flush();
        let _ = client.shutdown(if resets {
            Shutdown::Read
        } else {
            Shutdown::Both
        });
        passed.map(drop)
    })
}

/// Downloads a file through a proxy.
fn download(breaker: &Breaker, path: &str, target: &Path) -> Saved {
    let wait = Duration::from_millis(1);
    let save = Save::to(target)
        .resume(true)
        .retry(Retry::attempts(10).backoff(wait, wait));
    let save = save.then(|outcome: &mut Option<Result<Saved, Error>>, saved, _| {
        *outcome = Some(saved);
        Next::done()
    });
    let request = Request::get(format!("http://{}{path}", breaker.addr));
    let mut engine = Engine::new().unwrap();
    engine.submit_to(request.build().unwrap(), save);
    let mut outcome = None;
    engine.run(&mut outcome).unwrap();
    outcome.unwrap().unwrap_or_else(|error| panic!("{error:#}"))
}

/// Downloads a file of this server, which is on disk as `source`. Then again, while it is replaced
/// by a longer one.
fn download_both(server: SocketAddr, path: &str, source: &Path) {
    let content = Random(5).bytes(SIZE);
    fs::write(source, &content).unwrap();
    let folder = TempDir::new();
    let target = folder.path().join("saved");

    let breaker = Breaker::before(server, |_| ());
    let saved = download(&breaker, path, &target);
    assert_eq!(saved.bytes, SIZE as u64);
    // A reset may discard all that its connection has brought, so not each leaves a rest.
    assert!(
        (2..=BREAKS).contains(&(saved.resumed as usize)),
        "{saved:?}"
    );
    assert_eq!(breaker.connections.load(Ordering::SeqCst), BREAKS + 1);
    assert!(fs::read(&target).unwrap() == content, "other bytes");

    let other = Random(6).bytes(SIZE + 1);
    let (longer, source) = (other.clone(), source.to_owned());
    let breaker = Breaker::before(server, move |number| {
        if number == 2 {
            // Renamed, so that no response has a part of each.
            let new = source.with_extension("new");
            fs::write(&new, &longer).unwrap();
            fs::rename(&new, &source).unwrap();
        }
    });
    let saved = download(&breaker, path, &target);
    assert_eq!(saved.bytes, SIZE as u64 + 1);
    assert_eq!(breaker.connections.load(Ordering::SeqCst), BREAKS + 1);
    assert!(fs::read(&target).unwrap() == other, "other bytes");

    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 1, "no temporary file is left");
}

#[test]
fn downloads_from_starlette_survive_five_breaks() {
    let folder = TempDir::new();
    let args = [OsStr::new("0"), folder.path().as_os_str()];
    if let Some(server) = programs::python("http_server.py", args) {
        download_both(server.addr, "/files/file", &folder.path().join("file"));
    }
}

#[test]
fn downloads_from_nginx_survive_five_breaks() {
    let prepare = |prefix: &Path| fs::create_dir(prefix.join("docs")).unwrap();
    match Nginx::serving_with("root docs;", "", prepare) {
        Some(nginx) => download_both(nginx.addr, "/file", &nginx.prefix().join("docs/file")),
        None => println!("skipped: nginx is not installed"),
    }
}
