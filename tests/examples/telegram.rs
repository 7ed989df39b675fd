//! The example `telegram` against a simulated server that fails.

use std::collections::{BTreeMap, VecDeque};

use std::time::Duration;

use httpstream::sim::{Answer, Incoming, Network};
use httpstream::{Config, Engine, Sim};
use serde_json::{Value, json};

use super::bots::telegram::Bot;

/// What the server answers and what it is asked.
pub(crate) struct Case {
    pub(crate) why: &'static str,
    /// The answers to the requests of a method, in order. Others succeed, except that a poll finds
    /// the token revoked.
    answers: fn() -> Vec<(&'static str, Answer)>,
    /// The second of the arrival, method, target after the token, and body of each request.
    requests: &'static [&'static str],
}

#[rustfmt::skip]
pub(crate) const CASES: &[Case] = &[
    Case {
        why: "a message is answered, and confirmed by the next poll",
        answers: || vec![("getUpdates", updates(&[(7, Some("hi"))]).after(secs(3)))],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "3 GET getUpdates?offset=8&timeout=50",
            r#"3 POST sendMessage {"chat_id":70,"text":"You said: hi"}"#,
        ],
    },
    Case {
        why: "what is no text is confirmed only, and the order of updates does not matter",
        answers: || vec![("getUpdates", updates(&[(9, None), (8, Some("a"))]))],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "0 GET getUpdates?offset=10&timeout=50",
            r#"0 POST sendMessage {"chat_id":80,"text":"You said: a"}"#,
        ],
    },
    Case {
        why: "an answer waits as long as the server asks, and the poll goes on",
        answers: || vec![
            ("getUpdates", updates(&[(7, Some("hi"))])),
            ("getUpdates", updates(&[]).after(secs(4))),
            ("sendMessage", refused(429, json!({"parameters": {"retry_after": 7}}))),
        ],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "0 GET getUpdates?offset=8&timeout=50",
            r#"0 POST sendMessage {"chat_id":70,"text":"You said: hi"}"#,
            "4 GET getUpdates?offset=8&timeout=50",
            r#"7 POST sendMessage {"chat_id":70,"text":"You said: hi"}"#,
        ],
    },
    Case {
        why: "polls back off while the server fails, and start over once it does not",
        answers: || vec![
            ("getMe", refused(500, json!({}))),
            ("getUpdates", refused(502, json!({}))),
            ("getUpdates", Answer::status(503).body("<html>")),
            ("getUpdates", Answer::nothing().close()),
            ("getUpdates", updates(&[]).after(secs(1))),
            ("getUpdates", refused(502, json!({}))),
        ],
        requests: &[
            "0 GET getMe",
            // The waits are random: up to 2 s, and up to twice as long after each failure in a row.
            "1 GET getMe",
            "1 GET deleteWebhook",
            "1 GET getUpdates?offset=0&timeout=50",
            "3 GET getUpdates?offset=0&timeout=50",
            "4 GET getUpdates?offset=0&timeout=50",
            "4 GET getUpdates?offset=0&timeout=50",
            "5 GET getUpdates?offset=0&timeout=50",
            "6 GET getUpdates?offset=0&timeout=50",
        ],
    },
    Case {
        why: "an answer that may have arrived is not sent again",
        answers: || vec![
            ("getUpdates", updates(&[(7, Some("a")), (8, Some("b"))])),
            ("sendMessage", refused(502, json!({}))),
            ("sendMessage", Answer::nothing().close()),
        ],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "0 GET getUpdates?offset=9&timeout=50",
            r#"0 POST sendMessage {"chat_id":70,"text":"You said: a"}"#,
            r#"0 POST sendMessage {"chat_id":80,"text":"You said: b"}"#,
        ],
    },
    Case {
        why: "a poll that another program disturbs is repeated",
        answers: || vec![("getUpdates", refused(409, json!({})))],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "1 GET getUpdates?offset=0&timeout=50",
        ],
    },
    Case {
        why: "a redirect is not followed, and the poll is repeated",
        answers: || vec![("getUpdates", Answer::status(302).header("Location", "/elsewhere"))],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "10 GET getUpdates?offset=0&timeout=50",
        ],
    },
    Case {
        why: "a token that is not valid ends the bot",
        answers: || vec![("getMe", refused(401, json!({})))],
        requests: &["0 GET getMe"],
    },
    Case {
        why: "a revoked token ends answers that wait as well",
        answers: || vec![
            ("getUpdates", updates(&[(7, Some("hi"))])),
            ("sendMessage", refused(429, json!({"parameters": {"retry_after": 100}}))),
        ],
        requests: &[
            "0 GET getMe",
            "0 GET deleteWebhook",
            "0 GET getUpdates?offset=0&timeout=50",
            "0 GET getUpdates?offset=8&timeout=50",
            r#"0 POST sendMessage {"chat_id":70,"text":"You said: hi"}"#,
        ],
    },
];

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn success(result: &Value) -> Answer {
    Answer::ok(json!({"ok": true, "result": result}).to_string())
}

fn refused(status: u16, mut answer: Value) -> Answer {
    answer["ok"] = false.into();
    answer["error_code"] = status.into();
    Answer::status(status).body(answer.to_string())
}

/// Updates with these ids, each a message if it has a text.
fn updates(updates: &[(u64, Option<&str>)]) -> Answer {
    let update = |(id, text): &(u64, Option<&str>)| match text {
        Some(text) => {
            json!({"update_id": id, "message": {"chat": {"id": id * 10}, "text": text}})
        }
        None => json!({"update_id": id, "edited_message": {}}),
    };
    success(&updates.iter().map(update).collect())
}

/// Runs the bot against the server of a case, and returns the requests.
pub(crate) fn requests_of(case: &Case) -> Vec<String> {
    const TOKEN: &str = "/bot123:s3cret/";
    let mut answers = BTreeMap::<_, VecDeque<_>>::new();
    for (method, answer) in (case.answers)() {
        answers.entry(method).or_default().push_back(answer);
    }
    let network = Network::new(1);
    network.host("telegram.test", [[10, 0, 0, 1]]);
    network.serve(([10, 0, 0, 1], 443).into(), move |request: &Incoming| {
        let method = request.path().strip_prefix(TOKEN).unwrap_or_default();
        let answer = answers.get_mut(method).and_then(VecDeque::pop_front);
        answer.unwrap_or_else(|| match method {
            "getUpdates" => refused(401, json!({})).after(secs(20)),
            _ => success(&json!({"username": "bot"})),
        })
    });

    let mut bot = Bot::new("https://telegram.test", "123:s3cret").unwrap();
    let mut engine = Engine::<_, Sim>::on_network(&network, Config::default()).unwrap();
    engine.call(Bot::start);
    engine.run(&mut bot).unwrap();
    assert!(network.misuses().is_empty(), "{}", case.why);
    let ledger = network.ledger();
    assert!(ledger.requests().all(|request| request.https));
    let shown = ledger.requests().map(|request| {
        let (at, method) = (request.at.as_secs(), &request.method);
        let target = request.target.strip_prefix(TOKEN).expect("our token");
        let body = String::from_utf8_lossy(request.body());
        let line = format!("{at} {method} {target} {body}");
        line.trim_end().to_owned()
    });
    shown.collect()
}

#[test]
fn the_server_is_asked_what_it_should_be() {
    for case in CASES {
        assert_eq!(requests_of(case), case.requests, "{}", case.why);
    }
}
