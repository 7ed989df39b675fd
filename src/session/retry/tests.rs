use super::*;
use crate::error::{Circumstances, Phase, Sent};
use crate::policy::testing::at;
use crate::request::Request;
use crate::response::Reply;
use crate::response::testing::lend;

const SECOND: Duration = Duration::from_secs(1);

fn get() -> Request {
    Request::get("http://a/").build().unwrap()
}

fn post() -> Request {
    Request::post("http://a/").build().unwrap()
}

/// Fails in this way before a response.
fn failed(request: &Request, kind: ErrorKind, sent: Sent) -> Error {
    Error::of(
        kind,
        Circumstances {
            phase: Phase::FirstByte,
            sent,
            resend_is_safe: sent == Sent::No || request.is_idempotent(),
            reused: false,
            attempts: 1,
            origin: Some(request.origin()),
            request: Some(request.clone()),
            status: None,
            partial_body: Vec::new(),
        },
    )
}

#[test]
fn what_may_succeed_and_is_safe_is_sent_again() {
    use ErrorKind as Kind;
    let retry = Retry::attempts(2);
    #[rustfmt::skip]
    let rows = [
        // Kind, whether it may be sent again, and whether the kind is transient.
        (Kind::Resolve, Sent::No, true),
        (Kind::Connect, Sent::No, true),
        (Kind::Timeout, Sent::No, true),
        (Kind::Timeout, Sent::Maybe, true),
        (Kind::ClosedBeforeResponse, Sent::Maybe, true),
        (Kind::Truncated, Sent::Yes, true),
        (Kind::Io, Sent::Maybe, true),
        (Kind::Exhausted, Sent::No, true),
        (Kind::Tls, Sent::No, false),
        (Kind::Malformed, Sent::Yes, false),
        (Kind::TooLarge, Sent::Yes, false),
        (Kind::Policy, Sent::No, false),
        (Kind::Cancelled, Sent::No, false),
        (Kind::Aborted, Sent::Yes, false),
        (Kind::InvalidRequest, Sent::No, false),
        (Kind::Gone, Sent::No, false),
    ];
    at(1, |at| {
        for (kind, sent, is_transient) in rows {
            for request in [get(), post()] {
                let error = failed(&request, kind, sent);
                let is_safe = sent == Sent::No || request.method() == "GET";
                let waits = retry.wait(1, &error, at).is_some();
                assert_eq!(waits, is_transient && is_safe, "{kind:?} {sent:?}");
            }
        }
        let marked = post().edit().idempotent(true).build().unwrap();
        let error = failed(&marked, Kind::Io, Sent::Maybe);
        assert!(retry.wait(1, &error, at).is_some());
    });
}

#[test]
fn a_connection_that_breaks_in_the_handshake_is_transient() {
    let circumstances = || Circumstances {
        phase: Phase::Tls,
        sent: Sent::No,
        resend_is_safe: true,
        reused: false,
        attempts: 1,
        origin: None,
        request: Some(get()),
        status: None,
        partial_body: Vec::new(),
    };
    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    let broken = Error::from_io(ErrorKind::Tls, reset, circumstances());
    let refused = Error::from_text(ErrorKind::Tls, "bad certificate".into(), circumstances());
    let not_allowed = |kind| vec![("192.0.2.1:80".parse().unwrap(), io::Error::from(kind))];
    at(1, |at| {
        let retry = Retry::attempts(2);
        assert!(retry.wait(1, &broken, at).is_some());
        assert!(retry.wait(1, &refused, at).is_none());
        // Refused by the address filter, and by the server.
        let rows = [
            (io::ErrorKind::PermissionDenied, false),
            (io::ErrorKind::InvalidInput, false),
            (io::ErrorKind::TimedOut, true),
        ];
        for (kind, is_transient) in rows {
            let tried = not_allowed(kind);
            let error = Error::from_addresses(ErrorKind::Connect, None, tried, circumstances());
            assert_eq!(retry.wait(1, &error, at).is_some(), is_transient, "{kind}");
        }
    });
}

#[test]
fn statuses_are_retried_if_that_is_safe() {
    let rows = [
        (408, true, true),
        (425, true, true),
        (429, true, true),
        (500, true, false),
        (502, true, false),
        (503, true, false),
        (504, true, false),
        (501, false, false),
        (404, false, false),
        (200, false, false),
    ];
    let retry = Retry::attempts(2);
    for (status, of_get, of_post) in rows {
        for (request, expected) in [(get(), of_get), (post(), of_post)] {
            let head = format!("HTTP/1.1 {status} \r\n\r\n");
            lend(&request, &head, b"", |response| {
                at(1, |at| {
                    let waits = retry.wait(1, &response, at).is_some();
                    assert_eq!(waits, expected, "{status}");
                    // The same, as an error.
                    let error = Error::of_status(&response);
                    let waits = retry.wait(1, &error, at).is_some();
                    assert_eq!(waits, expected, "{status}");
                    let reply: Reply<'_> = Ok(response);
                    assert_eq!(retry.wait(1, &reply, at).is_some(), expected);
                });
            });
        }
    }
    let other = Retry::attempts(2).statuses([404]);
    for (status, expected) in [(404, true), (503, false)] {
        lend(
            &get(),
            &format!("HTTP/1.1 {status} \r\n\r\n"),
            b"",
            |response| {
                at(1, |at| {
                    assert_eq!(other.wait(1, &response, at).is_some(), expected)
                });
            },
        );
    }
}

#[test]
fn attempts_are_counted() {
    at(1, |at| {
        let error = failed(&get(), ErrorKind::Io, Sent::Maybe);
        let count = |retry: &Retry| {
            (1..2000)
                .take_while(|n| retry.wait(*n, &error, at).is_some())
                .count()
        };
        assert_eq!(count(&Retry::attempts(0)), 0);
        assert_eq!(count(&Retry::attempts(1)), 0);
        assert_eq!(count(&Retry::attempts(4)), 3);
        // Chains do not count further.
        assert_eq!(count(&Retry::attempts(1000)), 254);
        assert_eq!(count(&Retry::forever()), 1999);
    });
}

#[test]
fn waits_are_spread_below_a_bound_that_doubles() {
    let retry = Retry::attempts(100).backoff(SECOND, 10 * SECOND);
    let most = [1, 2, 4, 8, 10, 10, 10];
    for (failures, most) in (1..).zip(most) {
        let most = SECOND * most;
        assert_eq!(retry.own_wait(failures, 0), SECOND / 5);
        let longest = retry.own_wait(failures, u64::MAX);
        assert!(longest <= most && longest > most - SECOND / 1000);
        assert_eq!(retry.own_wait(failures, 1 << 63), most / 2);
    }
    assert_eq!(retry.own_wait(u32::MAX, 1 << 63), 5 * SECOND);
    let floored = retry.clone().floor(3 * SECOND);
    assert_eq!(floored.own_wait(1, u64::MAX), 3 * SECOND);
    assert_eq!(floored.own_wait(9, 1 << 63), 5 * SECOND);
    let endless = Retry::forever().backoff(Duration::MAX, Duration::MAX);
    assert!(endless.own_wait(9, u64::MAX) > Duration::from_secs(u32::MAX.into()));
}

#[test]
fn servers_are_never_asked_early() {
    let rows = [
        ("Retry-After: 7\r\n", Some(7)),
        ("Retry-After: 0\r\n", Some(0)),
        ("Retry-After: 60\r\n", Some(60)),
        ("Retry-After: 61\r\n", None),
        ("Retry-After: 31536000\r\n", None),
        // A minute from the Date, and yesterday.
        (
            "Date: Sun, 06 Nov 1994 08:49:00 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
            Some(37),
        ),
        (
            "Date: Sun, 06 Nov 1994 08:49:00 GMT\r\nRetry-After: Sat, 05 Nov 1994 08:49:37 GMT\r\n",
            Some(0),
        ),
        ("Retry-After: soon\r\n", Some(0)),
    ];
    let retry = Retry::attempts(2);
    for (fields, asked) in rows {
        for status in [429, 503] {
            let head = format!("HTTP/1.1 {status} \r\n{fields}\r\n");
            lend(&get(), &head, b"", |response| {
                at(1, |at| {
                    let wait = retry.wait(1, &response, at);
                    assert_eq!(wait.is_some(), asked.is_some(), "{fields}");
                    let least = asked.map_or(SECOND / 10, |asked| asked * SECOND);
                    assert!(wait.is_none_or(|wait| wait >= least.max(SECOND / 10)));
                    assert!(wait.is_none_or(|wait| wait <= least.max(SECOND / 2)));
                });
            });
        }
    }
    let patient = Retry::attempts(2).max_wait(Duration::from_secs(31_536_000));
    lend(
        &get(),
        "HTTP/1.1 429 \r\nRetry-After: 31536000\r\n\r\n",
        b"",
        |response| {
            at(1, |at| {
                let wait = patient.wait(1, &response, at);
                assert_eq!(wait, Some(Duration::from_secs(31_536_000)));
            });
        },
    );
}

#[test]
fn a_body_may_say_how_long_to_wait() {
    let retry = Retry::attempts(2).wait_from(|response| {
        let seconds = response.text().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    });
    let rows = [
        ("", "9", Some(9)),
        ("Retry-After: 20\r\n", "9", Some(20)),
        ("Retry-After: 2\r\n", "9", Some(9)),
        ("", "90", None),
        ("", "nothing", Some(0)),
    ];
    for (fields, body, asked) in rows {
        let head = format!("HTTP/1.1 429 \r\n{fields}\r\n");
        lend(&post(), &head, body.as_bytes(), |response| {
            at(1, |at| {
                let wait = retry.wait(1, &response, at);
                assert_eq!(wait.is_some(), asked.is_some());
                let least = asked.map_or(SECOND, |asked| asked * SECOND);
                assert!(wait.is_none_or(|wait| wait >= least && wait <= least.max(SECOND / 2)));
            });
        });
    }
}

#[test]
fn an_exhausted_budget_ends_attempts_and_slows_polls() {
    at(1, |at| {
        let retry = Retry::attempts(4).backoff(SECOND, 10 * SECOND);
        let taken = (0..100).map_while(|_| retry.take(SECOND, at)).count();
        assert_eq!(taken, 10);
        // A clone has the same budget.
        assert_eq!(retry.clone().take(SECOND, at), None);
        retry.give_back();
        assert_eq!(retry.take(SECOND, at), Some((SECOND, true)));

        let forever = Retry::forever().backoff(SECOND, 10 * SECOND);
        for _ in 0..10 {
            assert_eq!(forever.take(SECOND, at), Some((SECOND, true)));
        }
        for _ in 0..100 {
            let (wait, is_taken) = forever.take(SECOND, at).unwrap();
            assert!(!is_taken && (5 * SECOND..=10 * SECOND).contains(&wait));
        }
        // What the server asks for holds nevertheless.
        assert_eq!(forever.take(30 * SECOND, at), Some((30 * SECOND, false)));
    });
}

#[test]
fn settings_are_checked() {
    let rows = [
        (Retry::attempts(0), "attempts count the first one"),
        (Retry::attempts(2).budget(-0.1), "the budget is no share"),
        (
            Retry::attempts(2).budget(f32::NAN),
            "the budget is no share",
        ),
        (
            Retry::attempts(2).backoff(2 * SECOND, SECOND),
            "exceeds its cap",
        ),
        (
            Retry::attempts(2).statuses([503, 200]),
            "below 400 is no failure",
        ),
    ];
    for (retry, expected) in rows {
        let why = retry.check().unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
    assert_eq!(Retry::forever().budget(f32::INFINITY).check(), Ok(()));
}
