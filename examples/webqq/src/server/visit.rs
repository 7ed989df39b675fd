//! One call on its way through the server, and the state that all accounts share.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::Value;

use super::Settings;
use super::fault::Fault;
use super::ledger::{Ledger, ProtocolError};
use super::mint::Mint;
use super::parameters;
use super::step::Step;
use super::wire::{Answer, Call, HoldId, Scheme, Wish};

/// The state that all accounts share.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) settings: Settings,
    pub(crate) ledger: Ledger,
    pub(crate) mint: Mint,
    /// Timed events.
    pub(crate) agenda: BTreeSet<(Duration, Due)>,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) ready: Vec<(HoldId, Answer)>,
    /// Login signatures that were handed out and not used yet.
    pub(crate) sigs: VecDeque<u64>,
    /// Whether a page came without a signature, in which case a CHECK may come without one.
    pub(crate) has_left_out_sig: bool,
    serial: u64,
}

/// A timed event of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    HoldEnds(u64),
    CaptchaIsRead(u64),
}

/// The most unused signatures that are kept: some clients never return.
const MAX_SIGS: usize = 10_000;

impl House {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            mint: Mint::new(settings.seed),
            settings,
            ledger: Ledger::default(),
            agenda: BTreeSet::new(),
            wishes: Vec::new(),
            ready: Vec::new(),
            sigs: VecDeque::new(),
            has_left_out_sig: false,
            serial: 0,
        }
    }

    /// Returns a new serial number, for tokens and holds.
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn next_hold(&mut self) -> HoldId {
        HoldId(self.next_serial())
    }

    pub(crate) fn hand_out_sig(&mut self) -> u64 {
        let serial = self.next_serial();
        self.sigs.push_back(serial);
        if self.sigs.len() > MAX_SIGS {
            self.sigs.pop_front();
        }
        serial
    }
}

/// Returns the JSON of the form's `r`; null if there is none.
pub(crate) fn r_of(call: &Call) -> Value {
    let r = call.form("r").and_then(|r| serde_json::from_str(r).ok());
    r.unwrap_or_default()
}

/// One call, with all that its step needs.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) now: Duration,
    pub(crate) call: &'a Call,
    pub(crate) step: Step,
    /// The result of [`r_of`].
    pub(crate) r: Value,
    /// The fault that applies to this call.
    pub(crate) fault: Option<Fault>,
    pub(crate) house: &'a mut House,
}

impl<'a> Visit<'a> {
    pub(crate) fn new(
        now: Duration,
        call: &'a Call,
        step: Step,
        r: Value,
        house: &'a mut House,
    ) -> Self {
        Self {
            now,
            call,
            step,
            r,
            fault: None,
            house,
        }
    }

    /// Returns a parameter from where the step has it: from `r` of a POST, else from the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        match self.call.method.as_str() {
            "POST" => self.r.get(name).map(parameters::text),
            _ => self.call.query(name).map(str::to_owned),
        }
    }

    /// Returns a numeric parameter, or 0, which stands for nothing, if it is not a number.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let text = self.parameter(name).unwrap_or_default();
        text.parse().unwrap_or_default()
    }

    /// Returns the earliest time at which the call may have been built. A call that opens a
    /// connection waits for the connection and, with TLS, for the handshake.
    pub(crate) fn under_way_since(&self) -> Duration {
        self.call.opened.unwrap_or(self.now).min(self.now)
    }

    pub(crate) fn note_scheme(&mut self) {
        match self.call.scheme {
            Scheme::Http => {}
            Scheme::Https => self.house.ledger.note_tls(self.step),
        }
    }

    /// Whether the client will be unable to read the answer.
    pub(crate) fn is_lost(&self) -> bool {
        self.fault.is_some_and(Fault::loses_answer)
    }

    pub(crate) fn note_error(&mut self, account: Option<u64>, what: String, provoked: bool) {
        self.house.ledger.errors.push(ProtocolError {
            at: self.now,
            account,
            step: Some(self.step),
            what,
            provoked,
        });
    }
}
