//! The plugins, asked as people ask them.

use std::time::Duration;

use httpstream::sim::{Answer as SimAnswer, Incoming, Network};
use httpstream::{Config, Engine, Next, Request, Response, Sim};

use crate::answers::Picture;
use crate::plugins::{Answer, Plugins, Question, Source};

fn question(text: &str) -> Question<'_> {
    Question {
        text,
        picture: None,
        uptime: Duration::from_millis(61_900),
    }
}

/// Returns the immediate answer, with errors in brackets.
fn said(plugins: &mut Plugins, text: &str) -> Option<String> {
    let answer = plugins.answer(&question(text))?;
    Some(match answer {
        Ok(Answer::Say(words)) => words,
        Ok(Answer::Fetch(Source::Url(url), _)) => format!("<{url}>"),
        Ok(Answer::Fetch(Source::Picture(_), _)) => "<a picture>".to_owned(),
        Err(why) => format!("[{why}]"),
    })
}

#[test]
fn each_plugin_answers_its_word() {
    #[rustfmt::skip]
    let rows: &[(&str, &str)] = &[
        ("ping",                "pong"),
        ("ping me",             "pong"),
        ("uptime",              "up for 61 s"),
        ("echo a  b ",          "a  b"),
        ("echo   企鹅",         "企鹅"),
        ("echo",                ""),
        ("echo echo ping",      "echo ping"),
        ("count 1",             "1"),
        ("count 12",            "1 2 3 4 5 6 7 8 9 10 11 12"),
        ("count 0",             "[\"0\" is not a number from 1 to 1000]"),
        ("count 1001",          "[\"1001\" is not a number from 1 to 1000]"),
        ("count many",          "[\"many\" is not a number from 1 to 1000]"),
        ("count -1",            "[\"-1\" is not a number from 1 to 1000]"),
        ("count 4294967297",    "[\"4294967297\" is not a number from 1 to 1000]"),
        ("count",               "[\"\" is not a number from 1 to 1000]"),
        ("divide 7 2",          "3"),
        ("divide 7",            "[two numbers, please]"),
        ("divide seven two",    "[two numbers, please]"),
        ("weather Helsinki",    "<http://api.weather.example/today?city=Helsinki>"),
        ("weather",             "[which city?]"),
        ("weather a&b=c",       "[which city?]"),
        ("weather ../x",        "[which city?]"),
        ("weather New York",    "[which city?]"),
    ];
    let mut plugins = Plugins::standard();
    for (text, expected) in rows {
        assert_eq!(
            said(&mut plugins, text).as_deref(),
            Some(*expected),
            "{text:?}"
        );
    }
}

#[test]
fn help_names_every_command_and_each_of_them_answers() {
    let mut plugins = Plugins::standard();
    let help = said(&mut plugins, "help").unwrap();
    let words: Vec<&str> = help
        .split(", ")
        .filter_map(|usage| usage.split(' ').next())
        .collect();
    assert_eq!(words.len(), 8);
    for word in words {
        assert!(said(&mut plugins, word).is_some(), "{word}");
    }
}

#[test]
fn what_is_for_nobody_is_not_answered() {
    let mut plugins = Plugins::standard();
    for text in [
        "",
        " ",
        "hello",
        "Ping",
        "pinging",
        "please ping",
        "#1 ping",
        "企鹅",
    ] {
        assert_eq!(said(&mut plugins, text), None, "{text:?}");
    }
}

#[test]
fn a_plugin_that_panics_says_so_and_goes_on() {
    let mut plugins = Plugins::standard();
    for _ in 0..3 {
        let crash = said(&mut plugins, "divide 1 0");
        assert_eq!(crash.as_deref(), Some("[that plugin has crashed]"));
    }
    assert_eq!(said(&mut plugins, "divide 6 3").as_deref(), Some("2"));
    assert_eq!(said(&mut plugins, "ping").as_deref(), Some("pong"));
}

fn picture() -> Picture {
    Picture::Offline {
        file_path: "/a".to_owned(),
        from_uin: 11,
    }
}

#[test]
fn a_picture_comes_before_the_words_beside_it() {
    let picture = picture();
    let mut plugins = Plugins::standard();
    for text in ["", "ping", "hello"] {
        let question = Question {
            picture: Some(&picture),
            ..question(text)
        };
        match plugins.answer(&question) {
            Some(Ok(Answer::Fetch(Source::Picture(found), _))) => assert_eq!(found, picture),
            _ => panic!("{text:?}: the picture is not fetched"),
        }
    }
}

/// Returns what a plugin makes of this response.
fn read_by(read: fn(&Response<'_>) -> String, status: u16, body: &'static [u8]) -> String {
    let network = Network::new(1);
    network.host("service.test", [[10, 0, 0, 1]]);
    network.serve(([10, 0, 0, 1], 80).into(), move |_: &Incoming| {
        SimAnswer::status(status).body(body)
    });
    let mut engine = Engine::<String, Sim>::on_network(&network, Config::default()).unwrap();
    let request = Request::get("http://service.test/").build().unwrap();
    engine.submit(request, move |read_text: &mut String, reply, _| {
        *read_text = read(&reply.expect("an answer"));
        Next::done()
    });
    let mut text = String::new();
    engine.advance(&mut text, Duration::from_secs(60)).unwrap();
    text
}

#[test]
fn what_was_fetched_is_read_by_who_asked_for_it() {
    let mut plugins = Plugins::standard();
    let Some(Ok(Answer::Fetch(_, weather))) = plugins.answer(&question("weather Oslo")) else {
        panic!("nothing to fetch");
    };
    #[rustfmt::skip]
    let rows: &[(u16, &[u8], &str)] = &[
        (200, b"Oslo: rain",            "Oslo: rain"),
        (200, b"-3 \xb0C",              "-3 \u{fffd}C"),
        (404, b"no such city",          "nobody knows that city"),
        (500, b"<html>busy</html>",     "the weather service answers 500"),
    ];
    for (status, body, expected) in rows {
        assert_eq!(read_by(weather, *status, body), *expected, "{status}");
    }

    let picture = picture();
    let question = Question {
        picture: Some(&picture),
        ..question("look")
    };
    let Some(Ok(Answer::Fetch(_, look))) = plugins.answer(&question) else {
        panic!("nothing to fetch");
    };
    assert_eq!(read_by(look, 200, &[0xff; 700]), "a picture of 700 bytes");
    assert_eq!(read_by(look, 404, b"gone"), "no picture: status 404");
}
