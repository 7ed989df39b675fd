//! Users start from the bots in the README and on the crate's front page. These bots must not flood
//! a server that returns only errors, and must poll again at once when there is news.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Context, Engine, Next, Reply, Request, Sim};

/// Returns the lines of a module of this file. The tests check that the documents contain them,
/// apart from indentation.
macro_rules! shown {
    ($name:ident) => {
        piece(concat!("mod ", stringify!($name), " {\n"))
    };
}

#[rustfmt::skip]
mod readme {
use std::time::Duration;
use httpstream::{Context, Next, Reply, Request};

pub(super) struct Bot { pub(super) login: Request, pub(super) poll: Request, pub(super) beat: Request }

impl Bot {
    pub(super) fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        if !reply.is_ok_and(|response| response.status().is_success()) {
            return Next::again().after(Duration::from_secs(60));
        }
        cx.submit(self.beat.clone(), Bot::on_beat); // starts a second chain
        Next::send(self.poll.clone()).read_by(Bot::on_poll) // continues this one
    }
    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            // The server holds a poll until it has news; the pause bounds the rate otherwise.
            Ok(news) if news.status().is_success() => {
                Next::again().after(Duration::from_millis(100))
            }
            // On any other status, such as 401, end all other chains, including the heartbeat.
            Ok(_) => {
                cx.cancel_others();
                Next::send(self.login.clone()).read_by(Bot::on_login).after(Duration::from_secs(5))
            }
            Err(_) => Next::again().after(Duration::from_secs(5)),
        }
    }
    fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::again().after(Duration::from_secs(60)) // waits without a thread or a socket
    }
}
}

#[rustfmt::skip]
mod front_page {
use std::time::Duration;
use httpstream::{Context, Error, Next, Reply, Request};

pub(super) struct Bot { pub(super) login: Request, pub(super) poll: Request, pub(super) beat: Request, pub(super) news: usize }

impl Bot {
    pub(super) fn new() -> Result<Self, Error> {
        let poll = Request::get("http://chat.test/poll").long_poll(Duration::from_secs(60));
        Ok(Self {
            login: Request::post("http://chat.test/login").build()?,
            poll: poll.build()?,
            beat: Request::post("http://chat.test/beat").build()?,
            news: 0,
        })
    }

    pub(super) fn on_login(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status() == 200 => {
                cx.submit(self.beat.clone(), Bot::on_beat); // starts a second chain
                Next::send(self.poll.clone()).read_by(Bot::on_poll)
            }
            _ => Next::again().after(Duration::from_secs(60)),
        }
    }

    fn on_poll(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status() == 200 => {
                self.news += 1;
                // The server holds a poll until it has news. If it does not, the pause
                // prevents a flood.
                Next::again().after(Duration::from_millis(100))
            }
            // On any other status, such as 401, end all other chains, including the heartbeat.
            Ok(_) => {
                cx.cancel_others();
                let login = Next::send(self.login.clone()).read_by(Bot::on_login);
                login.after(Duration::from_secs(5))
            }
            Err(_) => Next::again().after(Duration::from_secs(5)),
        }
    }

    fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::again().after(Duration::from_secs(60))
    }
}
}

/// Returns the lines of the module that begins like this, without its imports and visibility.
fn piece(begin: &str) -> Vec<String> {
    let (_, rest) = include_str!("readme_bot.rs").split_once(begin).unwrap();
    let (module, _) = rest.split_once("\n}\n}\n").unwrap();
    lines(&format!("{}\n}}", module.replace("pub(super) ", "")))
}

fn lines(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches("//!").trim());
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("use "));
    lines.map(str::to_owned).collect()
}

fn assert_shows(document: &str, piece: &[String]) {
    assert!(piece.len() > 10, "{piece:#?}");
    let lines = lines(document);
    let is_there = lines.windows(piece.len()).any(|window| window == piece);
    assert!(is_there, "the document does not contain: {piece:#?}");
}

#[test]
fn the_bots_below_are_those_that_are_shown() {
    assert_shows(include_str!("../../README.md"), &shown!(readme));
    assert_shows(include_str!("../../src/lib.rs"), &shown!(front_page));
}

fn request(path: &str) -> Request {
    let request = Request::get(format!("http://chat.test{path}"));
    request.long_poll(Duration::from_secs(60)).build().unwrap()
}

/// The number of requests for each path that a bot sends in its first minute, if the server gives
/// these answers to logins and to polls.
fn requests<B: 'static>(
    mut bot: B,
    on_login: impl FnMut(&mut B, Reply<'_>, &mut Context<'_, B>) -> Next<B> + 'static,
    login: impl Fn() -> Answer + 'static,
    poll: impl Fn() -> Answer + 'static,
) -> BTreeMap<String, u32> {
    let network = Network::new(1);
    network.host("chat.test", [[10, 0, 0, 1]]);
    let seen = Rc::new(RefCell::new(BTreeMap::new()));
    let count = Rc::clone(&seen);
    let _ = network.serve("10.0.0.1:80".parse().unwrap(), move |request: &Incoming| {
        *count
            .borrow_mut()
            .entry(request.path().to_owned())
            .or_default() += 1;
        match request.path() {
            "/login" => login(),
            "/poll" => poll(),
            _ => Answer::status(200),
        }
    });
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    engine.submit(request("/login"), on_login);
    engine.advance(&mut bot, Duration::from_secs(59)).unwrap();
    assert!(engine.pending() > 0, "the bot continues");
    drop(engine);
    seen.take()
}

/// Both bots, one after the other.
fn requests_of_both(login: fn() -> Answer, poll: fn() -> Answer) -> [BTreeMap<String, u32>; 2] {
    let readme = readme::Bot {
        login: request("/login"),
        poll: request("/poll"),
        beat: request("/beat"),
    };
    let front_page = front_page::Bot::new().unwrap();
    [
        requests(readme, readme::Bot::on_login, login, poll),
        requests(front_page, front_page::Bot::on_login, login, poll),
    ]
}

type Failure = (&'static str, fn() -> Answer);

/// Answers of a server that is running but not working.
const FAILURES: [Failure; 6] = [
    ("400", || Answer::status(400)),
    ("503", || Answer::status(503)),
    ("302", || Answer::status(302)),
    ("503, and closes", || Answer::status(503).close()),
    ("closes", || Answer::nothing().close()),
    ("resets", || Answer::nothing().reset()),
];

#[test]
fn a_server_that_fails_polls_gets_a_request_every_five_seconds_at_most() {
    for (why, answer) in FAILURES {
        for seen in requests_of_both(|| Answer::status(200), answer) {
            // After a status, each poll comes after a login, with a heartbeat.
            assert!((10..=13).contains(&seen["/poll"]), "{why}: {seen:?}");
            for path in ["/login", "/beat"] {
                assert!((1..=13).contains(&seen[path]), "{why}: {seen:?}");
            }
        }
    }
}

#[test]
fn a_server_that_fails_logins_gets_one_a_minute_and_nothing_else() {
    for (why, answer) in FAILURES {
        for seen in requests_of_both(answer, || Answer::status(200)) {
            let logins = BTreeMap::from([("/login".to_owned(), 1)]);
            assert_eq!(seen, logins, "{why}");
        }
    }
}

#[test]
fn a_server_that_holds_no_poll_gets_ten_a_second_at_most() {
    for seen in requests_of_both(|| Answer::status(200), || Answer::ok("news")) {
        assert!((500..=590).contains(&seen["/poll"]), "{seen:?}");
        assert_eq!((seen["/login"], seen["/beat"]), (1, 1), "{seen:?}");
    }
}

#[test]
fn a_session_that_ends_gets_one_heartbeat_at_a_time() {
    // Every poll ends the session after half a minute.
    let ended = || Answer::status(401).after(Duration::from_secs(30));
    for seen in requests_of_both(|| Answer::status(200), ended) {
        assert_eq!(
            (seen["/login"], seen["/poll"], seen["/beat"]),
            (2, 2, 2),
            "{seen:?}"
        );
    }
}
