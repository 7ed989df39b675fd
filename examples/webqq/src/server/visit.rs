//! One call on its way through the server, and what all accounts share.

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

/// What all accounts share.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) settings: Settings,
    pub(crate) ledger: Ledger,
    pub(crate) mint: Mint,
    /// What is due at a time.
    pub(crate) agenda: BTreeSet<(Duration, Due)>,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) ready: Vec<(HoldId, Answer)>,
    /// Login signatures handed out, which nobody has used yet.
    pub(crate) sigs: VecDeque<u64>,
    /// Some page came without one, so a CHECK may do so.
    pub(crate) has_left_out_sig: bool,
    serial: u64,
}

/// Something that happens by itself, to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    HoldEnds(u64),
    CaptchaIsRead(u64),
}

/// Who gets none does not come back for it; so many may be on their way.
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

    /// Numbers everything that is handed out, and every hold.
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

/// The JSON of the form's `r`; null if there is none.
pub(crate) fn r_of(call: &Call) -> Value {
    let r = call.form("r").and_then(|r| serde_json::from_str(r).ok());
    r.unwrap_or_default()
}

/// One call, with what its steps need.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) now: Duration,
    pub(crate) call: &'a Call,
    pub(crate) step: Step,
    /// As [`r_of`] has it.
    pub(crate) r: Value,
    /// What strikes this call.
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

    /// A parameter from where the step has it: in `r` if it is a POST, else in the query.
    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        match self.call.method.as_str() {
            "POST" => self.r.get(name).map(parameters::text),
            _ => self.call.query(name).map(str::to_owned),
        }
    }

    /// A parameter that is a number; 0, which stands for nothing, if it is none.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let text = self.parameter(name).unwrap_or_default();
        text.parse().unwrap_or_default()
    }

    /// When it may have been made: what opens a connection waits for that, and with TLS for the
    /// handshake as well.
    pub(crate) fn under_way_since(&self) -> Duration {
        self.call.opened.unwrap_or(self.now).min(self.now)
    }

    pub(crate) fn note_scheme(&mut self) {
        match self.call.scheme {
            Scheme::Http => {}
            Scheme::Https => self.house.ledger.note_tls(self.step),
        }
    }

    /// The client will not be able to read the answer.
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
