//! The rules that a call can break, and the answer to each breach.

use super::step::Step;
use super::wire::Answer;

/// A rule that a call can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// http or https.
    Scheme,
    Method,
    Parameter,
    Referer,
    Origin,
    Cookie,
    /// The tokens of a full login.
    Keys,
    Session,
    Hash,
    Code,
    Pace,
    /// A uin, gid, code or did of the present login.
    Number,
    Length,
    SecondPoll,
    /// Counters must increase.
    Order,
}

/// A broken rule.
#[derive(Debug)]
pub(crate) struct Breach {
    pub(crate) rule: Rule,
    pub(crate) what: String,
    pub(crate) provoked: bool,
}

/// `Err` contains the first broken rule.
pub(crate) type Checked = Result<(), Breach>;

impl Rule {
    pub(crate) fn broken(self, what: impl Into<String>) -> Breach {
        Breach {
            rule: self,
            what: what.into(),
            provoked: false,
        }
    }

    pub(crate) fn unless(self, is_kept: bool, what: &str) -> Checked {
        if is_kept {
            Ok(())
        } else {
            Err(self.broken(what))
        }
    }
}

impl Breach {
    pub(crate) fn provoked_if(self, provoked: bool) -> Self {
        Self { provoked, ..self }
    }

    /// Returns the real server's answer to this breach.
    pub(crate) fn answer(&self, step: Step) -> Answer {
        use Rule::{Code, Cookie, Hash, Keys, Length, Method, Number, Order};
        use Rule::{Origin, Pace, Parameter, Referer, Scheme, SecondPoll, Session};
        let retcode = match (step, self.rule) {
            (_, Scheme) => return Answer::status(403),
            (_, Method) => return Answer::status(405),
            (Step::PtLogin, rule) => {
                let code = match rule {
                    Hash => 3,
                    Code => 4,
                    Cookie => 24,
                    _ => 7,
                };
                return Answer::ptui(code, "", "refused", "");
            }
            (step, Referer | Origin | Cookie | Keys | Session | Hash) if step.is_list() => 100_101,
            (_, Referer | Origin) => return Answer::status(403),
            (step, Parameter | Number) if !step.has_retcode() => return Answer::status(400),
            (step, _) if !step.has_retcode() => return Answer::status(403),
            (Step::Poll, Session | SecondPoll) => 121,
            (Step::Poll | Step::Login2, Cookie) => 108,
            (step, Session) if step.is_send() => 8,
            (_, Cookie | Keys | Session) => 103,
            (_, Pace) => 108,
            (_, Number) => 100_012,
            (_, Length | Order) => 100_001,
            (_, Parameter | Hash | Code | SecondPoll) => 100_000,
        };
        Answer::retcode(retcode)
    }
}

/// A call that cannot be attributed to an account.
pub(crate) fn nobody() -> Breach {
    Rule::Session.broken("not a call of any account here")
}
