//! What the runs have reached, and what they are required to reach.

use std::collections::BTreeMap;
use std::fmt;

use httpstream::sim::{Fault, Network};
use httpstream::{ErrorKind, Flow, Phase};

/// Hit counts by group and place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    faults: Vec<u64>,
}

const CALLS: &[&str] = &["interim", "head", "data", "reply", "error", "call", "retry"];

/// Every place that 1,000 seeds have to reach, in addition to every fault of the network.
const REQUIRED: &[(&str, &[&str])] = &[
    (
        "state",
        &[
            "dialing",
            "idle",
            "queued",
            "delayed",
            "in flight",
            "paused",
            "fd reused",
            "bounded turn",
        ],
    ),
    ("pipeline", &["pipelined", "sent again behind another"]),
    (
        "turn",
        &[
            "in time",
            "early",
            "late",
            "repeated",
            "more",
            "after a panic",
            "in drain",
            "in run",
            "stopped",
        ],
    ),
    (
        "flow",
        &[
            "buffer",
            "stream",
            "discard",
            "pause in head",
            "pause in data",
            "abort in head",
            "abort in data",
        ],
    ),
    (
        "next",
        &[
            "done",
            "again",
            "send",
            "again after",
            "send after",
            "another readback",
            "never",
            "call",
            "wait",
            "wait after",
            "wait in session",
            "after slow work",
        ],
    ),
    (
        "submit from",
        &[
            "host",
            "host after",
            "submitter",
            "submitter after",
            "readback",
            "readback after",
            "part",
            "neighbor",
        ],
    ),
    (
        "call from",
        &[
            "host",
            "host after",
            "host over a part",
            "submitter",
            "readback",
            "part",
        ],
    ),
    ("resume from", &["host", "submitter", "readback"]),
    ("cancel from", &["host", "submitter", "readback"]),
    ("cancels itself in", CALLS),
    ("panic in", CALLS),
    (
        "part gone while",
        &["delayed", "calling", "waiting", "reading"],
    ),
    (
        "cancelled while",
        &[
            "queue",
            "resolve",
            "connect",
            "write",
            "first byte",
            "head",
            "body",
        ],
    ),
    (
        "timeout while",
        &[
            "queue",
            "resolve",
            "connect",
            "write",
            "first byte",
            "head",
            "body",
        ],
    ),
    (
        "deadline",
        &[
            "total",
            "resolve",
            "connect",
            "write",
            "first byte",
            "idle",
            "hold",
            "low speed",
        ],
    ),
    (
        "speed",
        &[
            "capped download",
            "capped upload",
            "slow download",
            "slow upload",
            "meant to be too slow",
        ],
    ),
    ("key from", &["host", "readback", "step"]),
    ("key", &["replaced", "perhaps replaced", "canceled"]),
    ("key canceled from", &["host", "readback"]),
    ("chain timeout from", &["host", "readback", "step"]),
    ("chain timeout", &["replaced", "lifted", "silent"]),
    (
        "chain timeout while",
        &["queue", "resolve", "connect", "write", "first byte", "body"],
    ),
    (
        "error",
        &[
            "resolve",
            "connect",
            "closed before response",
            "truncated",
            "malformed",
            "too large",
            "timeout",
            "exhausted",
            "cancelled",
            "aborted",
            "policy",
            "status",
        ],
    ),
    (
        "session",
        &[
            "header",
            "credentials",
            "challenged",
            "stale",
            "digest",
            "cookie",
            "redirect",
            "several redirects",
            "redirected at home",
            "astray",
            "astray and back",
            "too many redirects",
            "status",
            "ended",
            "ended on the way",
            "spared",
        ],
    ),
    (
        "session ended from",
        &["host", "submitter", "thread", "context", "readback"],
    ),
    (
        "retry",
        &[
            "after a status",
            "after an error",
            "asked to wait",
            "asked to wait by a body",
            "not idempotent",
            "of a redirect",
            "slow",
            "from a shared budget",
            "not of this failure",
            "spent",
            "too long",
            "too late",
            "budget exhausted",
            "not charged",
        ],
    ),
    (
        "lane",
        &[
            "waits for a place",
            "waits for its rate",
            "waits for the session's rate",
            "held back by a 429",
            "overtaken by priority",
            "full",
            "canceled in it",
            "timed out in it",
            "session ended",
            "part gone in it",
            "drained",
            "shared by two engines",
            "held without a name",
            "not held by another origin",
            "sent once more",
            "gives its token back",
            "has lost its token",
        ],
    ),
    ("policy", &["after", "wait", "decode", "resend"]),
    (
        "source",
        &[
            "opened",
            "waits",
            "sized",
            "chunked",
            "sent again",
            "failed",
        ],
    ),
    (
        "coding",
        &[
            "removed",
            "left",
            "three layers",
            "several lines",
            "cut short",
            "broken",
        ],
    ),
    ("stale connection", &["sent again", "not sent again"]),
    (
        "answer",
        &[
            "length",
            "chunked",
            "trailers",
            "until close",
            "http 1.0",
            "no content",
            "head",
            "early",
            "large",
            "upload",
            "continue",
            "continue in time",
            "expectation failed",
            "interim",
            "refusal",
        ],
    ),
    (
        "connection",
        &[
            "closed by client",
            "reset by client",
            "closed by server",
            "reset by server",
        ],
    ),
    (
        "host",
        &[
            "close idle",
            "drain",
            "drain that cancels",
            "run",
            "advance",
            "reset",
            "push",
            "close",
            "submitter gone",
            "neighbor gone",
            "submit before a late turn",
        ],
    ),
];

impl Coverage {
    pub(crate) fn hit(&mut self, group: &'static str, thing: &'static str) {
        *self.counts.entry((group, thing)).or_default() += 1;
    }

    pub(crate) fn hit_if(&mut self, reached: bool, group: &'static str, thing: &'static str) {
        if reached {
            self.hit(group, thing);
        }
    }

    pub(crate) fn take_faults(&mut self, network: &Network) {
        self.faults = Fault::ALL
            .iter()
            .map(|fault| network.struck(*fault))
            .collect();
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            *self.counts.entry(*key).or_default() += count;
        }
        self.faults.resize(Fault::ALL.len(), 0);
        for (sum, count) in self.faults.iter_mut().zip(&other.faults) {
            *sum += count;
        }
    }

    /// Returns the places and faults that were not reached.
    pub(crate) fn missing(&self) -> Vec<String> {
        let places = REQUIRED
            .iter()
            .flat_map(|(group, things)| things.iter().map(move |thing| (*group, *thing)))
            .filter(|place| !self.counts.contains_key(place))
            .map(|(group, thing)| format!("{group}: {thing}"));
        let faults = Fault::ALL
            .iter()
            .zip(&self.faults)
            .filter(|(_, struck)| **struck == 0)
            .map(|(fault, _)| format!("fault: {fault:?}"));
        places.chain(faults).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut group = "";
        for ((of, thing), count) in &self.counts {
            if *of != group {
                write!(f, "\n  {of}:")?;
                group = of;
            }
            write!(f, " {thing} {count};")?;
        }
        write!(f, "\n  fault:")?;
        for (fault, struck) in Fault::ALL.iter().zip(&self.faults) {
            write!(f, " {fault:?} {struck};")?;
        }
        Ok(())
    }
}

pub(crate) fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Queue => "queue",
        Phase::Resolve => "resolve",
        Phase::Connect => "connect",
        Phase::Write => "write",
        Phase::FirstByte => "first byte",
        Phase::Head => "head",
        Phase::Body => "body",
        _ => "another phase",
    }
}

pub(crate) fn kind(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Resolve => "resolve",
        ErrorKind::Connect => "connect",
        ErrorKind::ClosedBeforeResponse => "closed before response",
        ErrorKind::Truncated => "truncated",
        ErrorKind::Io => "io",
        ErrorKind::Malformed => "malformed",
        ErrorKind::TooLarge => "too large",
        ErrorKind::Timeout => "timeout",
        ErrorKind::Exhausted => "exhausted",
        ErrorKind::Cancelled => "cancelled",
        ErrorKind::Aborted => "aborted",
        ErrorKind::Policy => "policy",
        ErrorKind::Body => "body",
        ErrorKind::Status => "status",
        _ => "another kind",
    }
}

pub(crate) fn flow(flow: Flow, in_head: bool) -> &'static str {
    match (flow, in_head) {
        (Flow::Buffer, _) => "buffer",
        (Flow::Stream, _) => "stream",
        (Flow::Discard, _) => "discard",
        (Flow::Pause, true) => "pause in head",
        (Flow::Pause, false) => "pause in data",
        (Flow::Abort, true) => "abort in head",
        (Flow::Abort, false) => "abort in data",
        _ => "another flow",
    }
}
