//! POLL: held open until there is something to deliver.

use std::time::Duration;

use serde_json::{Value, json};

use super::fault::Fault;
use super::mail::{Delivery, Letter, Writer};
use super::seat::Seat;
use super::step::Step;
use super::visit::{Due, House, Visit};
use super::wire::{Answer, HoldId, Reaction};

/// A poll that waits for its answer.
#[derive(Debug)]
pub(crate) struct HeldPoll {
    pub(crate) hold: HoldId,
    connection: u64,
    until: Duration,
    /// Applied when the poll is answered.
    fault: Option<Fault>,
}

impl Seat {
    /// Handles the arrival of a poll, which may acknowledge what the last one delivered.
    pub(crate) fn note_poll(&mut self, visit: &mut Visit<'_>) {
        visit.house.ledger.polls += 1;
        self.last_poll = Some(visit.call.clone());
        if let Some(session) = &mut self.session {
            session.was_polled = true;
            self.mail.on_poll(session.serial, visit.call.connection);
        }
    }

    pub(crate) fn poll(&mut self, visit: &mut Visit<'_>) -> Reaction {
        if let Some(session) = &mut self.session {
            session.refusals = 0;
        }
        let connection = visit.call.connection;
        match visit.fault {
            Some(Fault::ShortHold | Fault::Empty | Fault::NotJson | Fault::Status(_)) => {
                return Reaction::Answer(Answer::retcode(102));
            }
            fault if self.has_enough(fault) => {
                let (answer, fault) = self.news(visit.house, connection, fault);
                visit.fault = fault;
                return Reaction::Answer(answer);
            }
            _ => {}
        }
        let hold = visit.house.next_hold();
        let until = visit.now + visit.house.settings.hold();
        let due = Due::HoldEnds(self.account.number);
        visit.house.agenda.insert((until, due));
        self.poll = Some(HeldPoll {
            hold,
            connection,
            until,
            fault: visit.fault,
        });
        Reaction::Hold(hold)
    }

    fn has_enough(&self, fault: Option<Fault>) -> bool {
        let wanted = if fault == Some(Fault::Batch) { 2 } else { 1 };
        self.mail.waiting.len() >= wanted
    }

    /// Answers the held poll, if enough mail waits for it.
    pub(crate) fn on_mail(&mut self, house: &mut House) {
        let fault = self.poll.as_ref().map(|poll| poll.fault);
        if fault.is_some_and(|fault| self.has_enough(fault)) {
            self.answer_held(house);
        }
    }

    /// Answers the held poll at the end of its hold.
    pub(crate) fn on_hold_end(&mut self, house: &mut House) {
        self.answer_held(house);
    }

    fn answer_held(&mut self, house: &mut House) {
        let Some(poll) = self.unhold(house) else {
            return;
        };
        let (answer, fault) = self.news(house, poll.connection, poll.fault);
        let answer = self.finish(house, Step::Poll, fault, answer);
        house.ready.push((poll.hold, answer));
    }

    /// Returns a poll's answer, all that waits, newest first, or 102; and the fault to apply to it,
    /// if it still can be.
    fn news(
        &mut self,
        house: &mut House,
        connection: u64,
        fault: Option<Fault>,
    ) -> (Answer, Option<Fault>) {
        let waiting = self.mail.waiting.len();
        let fault = match fault {
            Some(fault @ Fault::Batch) if waiting < 2 => {
                self.rearm(Step::Poll, fault);
                None
            }
            Some(fault @ Fault::Twice) if waiting == 0 => {
                self.rearm(Step::Poll, fault);
                None
            }
            fault => fault,
        };
        if waiting == 0 {
            return (Answer::retcode(102), fault);
        }
        let letters: Vec<Letter> = self.mail.waiting.drain(..).collect();
        let answer = self.write(house, &letters);
        if fault.is_some_and(Fault::loses_answer) {
            self.mail.waiting = letters.into();
        } else {
            self.note_delivery(house, letters, connection, fault);
        }
        (answer, fault)
    }

    fn write(&self, house: &House, letters: &[Letter]) -> Answer {
        let writer = Writer {
            account: &self.account,
            numbers: &self.numbers,
            ledger: &house.ledger,
            mint: &house.mint,
        };
        let items: Vec<Value> = letters
            .iter()
            .rev()
            .map(|letter| writer.write(letter))
            .collect();
        Answer::result(json!(items))
    }

    fn note_delivery(
        &mut self,
        house: &mut House,
        letters: Vec<Letter>,
        connection: u64,
        fault: Option<Fault>,
    ) {
        for letter in &letters {
            if let &Letter::Said { nonce, .. } = letter {
                house.ledger.messages[nonce as usize - 1].delivered += 1;
            }
        }
        self.mail.out = Some(Delivery {
            letters,
            session: self.session.as_ref().map_or(0, |session| session.serial),
            connection: (fault != Some(Fault::UntilClose)).then_some(connection),
            again: fault == Some(Fault::Twice),
        });
    }

    fn unhold(&mut self, house: &mut House) -> Option<HeldPoll> {
        let poll = self.poll.take()?;
        house
            .agenda
            .remove(&(poll.until, Due::HoldEnds(self.account.number)));
        Some(poll)
    }

    /// Takes the held poll away, to be answered with something other than mail. Its fault waits for
    /// the next poll.
    pub(crate) fn take_poll(&mut self, house: &mut House) -> Option<HeldPoll> {
        let poll = self.unhold(house)?;
        if let Some(fault) = poll.fault {
            self.rearm(Step::Poll, fault);
        }
        Some(poll)
    }

    /// The client has closed the connection of a held call.
    pub(crate) fn on_gone(&mut self, house: &mut House, hold: HoldId) {
        if self.poll.as_ref().is_some_and(|poll| poll.hold == hold) {
            self.take_poll(house);
        }
        self.late.retain(|(late, _)| *late != hold);
    }
}
