//! Users start from the bots in the README and on the crate's front page. These bots must not flood
//! a server that returns only errors, and must poll again at once when there is news.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Request, Sim};

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

pub(super) struct Bot { pub(super) poll: Request, pub(super) beat: Request }

impl Bot {
    pub(super) fn on_login(&mut self, _: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        cx.submit(self.beat.clone(), Bot::on_beat);         // a chain of its own, beside this one
        Next::send(self.poll.clone()).read_by(Bot::on_poll) // what this one does next
    }
    fn on_poll(&mut self, news: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match news {
            Ok(news) if news.status().is_success() => Next::again(),
            _ => Next::again().after(Duration::from_secs(5)), // an error, or a 400, which is a response too
        }
    }
    fn on_beat(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::again().after(Duration::from_secs(60))        // waits without a thread or a socket
    }
}
}

#[rustfmt::skip]
mod front_page {
use httpstream::{Context, Next, Reply, Request};
use std::time::Duration;

pub(super) struct Bot { pub(super) poll: Request, pub(super) seen: usize }

impl Bot {
    pub(super) fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(response) if response.status() == 200 => {
                self.seen += response.body().len();
                Next::again()
            }
            other => {
                log::warn!("no news: {other:?}");
                Next::again().after(Duration::from_secs(1))
            }
        }
    }
}
}

/// Returns the lines of the module that begins with `begin`, as they are shown: `pub(super)` is
/// removed.
fn piece(begin: &str) -> Vec<String> {
    let (_, rest) = include_str!("readme_bot.rs").split_once(begin).unwrap();
    let (module, _) = rest.split_once("\n}\n}\n").unwrap();
    lines(&format!("{}\n}}", module.replace("pub(super) ", "")))
}

fn lines(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .map(|line| line.trim_start_matches("//!").trim());
    let lines = lines.filter(|line| !line.is_empty());
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
    // The front page imports the engine in the same line.
    let front_page =
        include_str!("../../src/lib.rs").replace("Context, Engine, Next", "Context, Next");
    assert_shows(&front_page, &shown!(front_page));
}

/// Returns a network with a server that gives this answer to polls, and the number of its polls.
fn network_with(answer: impl Fn() -> Answer + 'static) -> (Network, Rc<Cell<u32>>) {
    let network = Network::new(1);
    network.host("bot.test", [[10, 0, 0, 1]]);
    let polls = Rc::new(Cell::new(0));
    let count = Rc::clone(&polls);
    let _ = network.serve(
        "10.0.0.1:80".parse().unwrap(),
        move |request: &Incoming| match request.path() {
            "/poll" => {
                count.set(count.get() + 1);
                answer()
            }
            _ => Answer::status(200),
        },
    );
    (network, polls)
}

fn request(path: &str) -> Request {
    let request = Request::get(&format!("http://bot.test{path}"));
    request.long_poll(Duration::from_secs(60)).build().unwrap()
}

const MINUTE: Duration = Duration::from_secs(60);

/// Returns how often the README's bot polls in its first minute.
fn polls_of_readme(answer: impl Fn() -> Answer + 'static) -> u32 {
    let (network, polls) = network_with(answer);
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    let mut bot = readme::Bot {
        poll: request("/poll"),
        beat: request("/beat"),
    };
    engine.submit(request("/login"), readme::Bot::on_login);
    engine.advance(&mut bot, MINUTE).unwrap();
    assert_eq!(engine.pending(), 2, "a poll and a heartbeat continue");
    polls.get()
}

/// Returns how often the front page's bot polls in its first minute.
fn polls_of_front_page(answer: impl Fn() -> Answer + 'static) -> u32 {
    let (network, polls) = network_with(answer);
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    let mut bot = front_page::Bot {
        poll: request("/poll"),
        seen: 0,
    };
    engine.submit(bot.poll.clone(), front_page::Bot::on_poll);
    engine.advance(&mut bot, MINUTE).unwrap();
    assert_eq!(engine.pending(), 1, "the poll continues");
    polls.get()
}

#[test]
fn a_server_that_answers_errors_is_left_in_peace() {
    type Row = (&'static str, fn() -> Answer);
    const ROWS: [Row; 6] = [
        ("400", || Answer::status(400)),
        ("503", || Answer::status(503)),
        ("302", || Answer::status(302)),
        ("503, and closes", || Answer::status(503).close()),
        ("closes", || Answer::nothing().close()),
        ("resets", || Answer::nothing().reset()),
    ];
    for (why, answer) in ROWS {
        // Every five seconds.
        let polls = polls_of_readme(answer);
        assert!((10..=13).contains(&polls), "{why}: {polls}");
        // Every second.
        let polls = polls_of_front_page(answer);
        assert!((50..=61).contains(&polls), "{why}: {polls}");
    }
}

#[test]
fn where_there_is_news_the_next_poll_follows_at_once() {
    let news = || Answer::ok("news").after(Duration::from_millis(10));
    for polls in [polls_of_readme(news), polls_of_front_page(news)] {
        assert!(polls > 4000, "{polls}");
    }
}
