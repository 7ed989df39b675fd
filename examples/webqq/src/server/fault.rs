//! Everything that the server can do wrong or refuse on purpose, and the names of its switches.

use super::step::Step;
use super::wire::{Answer, Manner};

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    // Faults in the transfer of the answer.
    Chunked,
    UntilClose,
    /// JSON with the media type of plain text.
    TextPlain,
    Drip,
    NoByte,
    Reset,
    ResetInBody,
    CutShort,
    Silence,

    // Faults in its content.
    /// Status 200 without a body.
    Empty,
    NotJson,
    Status(u16),
    Retcode(i64),
    /// PTLOGIN answers with this code.
    Ptui(u16),
    /// CHECK demands a captcha.
    Captcha,
    /// SIG's page lacks the signature.
    NoSig,
    /// CHECK answers without a body.
    NoData,
    /// CHECKSIG answers this many requests with 302, each with a cookie.
    Redirects(u8),
    /// CHECKSIG sets cookies for sub-domains, and some that it may not set.
    SubdomainCookies,
    /// The captcha's code has expired when it is typed.
    Expired,

    // Faults of polls, logins and lists.
    /// 102 at once.
    ShortHold,
    /// A poll is answered only when two messages wait.
    Batch,
    /// What a poll delivers, the next one delivers again.
    Twice,
    /// A relink draws new uins.
    DropUins,
    /// A list is answered only after the next login, with the old content.
    Late,
}

use Fault::*;

impl Fault {
    /// Whether the client cannot read the answer, and so has to assume that there was none.
    pub(crate) fn loses_answer(self) -> bool {
        matches!(
            self,
            NoByte
                | Reset
                | ResetInBody
                | CutShort
                | Silence
                | Empty
                | NotJson
                | NoData
                | Status(_)
        )
    }

    /// Whether it is a fault of the transfer, which applies once there is an answer.
    pub(crate) fn is_of_travel(self) -> bool {
        matches!(
            self,
            Chunked
                | UntilClose
                | TextPlain
                | Drip
                | NoByte
                | Reset
                | ResetInBody
                | CutShort
                | Silence
        )
    }

    /// Applies this fault to `answer`'s transfer or appearance.
    pub(crate) fn dress(self, mut answer: Answer) -> Answer {
        match self {
            Chunked => answer.manner = Manner::Chunked,
            UntilClose => answer.manner = Manner::UntilClose,
            Drip => answer.manner = Manner::Drip,
            NoByte => answer.manner = Manner::NoByte,
            Reset => answer.manner = Manner::Reset,
            ResetInBody => answer.manner = Manner::ResetInBody,
            CutShort => answer.manner = Manner::CutShort,
            Silence => answer.manner = Manner::Silence,
            TextPlain => answer.headers[0].1 = "text/plain".into(),
            Empty | NoData => answer.body.clear(),
            NotJson => answer = Answer::html("<html><body>The system is busy.</body></html>"),
            Status(status) => answer = Answer::status(status),
            Retcode(_) | Ptui(_) | Captcha | NoSig | Redirects(_) | SubdomainCookies | Expired => {}
            ShortHold | Batch | Twice | DropUins | Late => {}
        }
        answer
    }

    /// Whether it can apply to `step`.
    pub(crate) fn suits(self, step: Step) -> bool {
        match self {
            Retcode(_) => step.has_retcode(),
            NotJson | TextPlain => step.has_retcode(),
            Ptui(_) => step == Step::PtLogin,
            Captcha | NoData => step == Step::Check,
            NoSig => step == Step::Sig,
            Redirects(_) | SubdomainCookies => step == Step::CheckSig,
            Expired => step == Step::Captcha,
            ShortHold | Batch | Twice => step == Step::Poll,
            DropUins => step == Step::Login2,
            Late => step.is_list(),
            _ => true,
        }
    }

    pub(crate) fn words(self) -> String {
        let words = match self {
            Status(status) => return format!("status {status}"),
            Retcode(code) => return format!("retcode {code}"),
            Ptui(code) => return format!("code {code}"),
            Redirects(hops) => return format!("{hops} redirects"),
            Chunked => "chunked",
            UntilClose => "ends with the connection",
            TextPlain => "says text/plain",
            Drip => "drips",
            NoByte => "closed without a byte",
            Reset => "reset",
            ResetInBody => "reset inside the body",
            CutShort => "closed inside the body",
            Silence => "never answered",
            Empty => "empty",
            NotJson => "not JSON",
            Captcha => "demands a captcha",
            NoSig => "no signature",
            NoData => "no data",
            SubdomainCookies => "cookies on sub-domains",
            Expired => "code expires",
            ShortHold => "102 at once",
            Batch => "two messages in one answer",
            Twice => "delivers twice",
            DropUins => "drops uins",
            Late => "answered after the next login",
        };
        words.into()
    }
}

/// Something that a script can cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// A fault, armed once for a step.
    Arm(Step, Fault),
    /// The same fault armed three times, and met three times in a row.
    ArmThrice(Step, Fault),
    Kick,
    Intrude,
}

impl Switch {
    /// Returns the name under which the ledger counts it.
    pub(crate) fn name(self) -> String {
        match self {
            Switch::Kick => "kick".into(),
            Switch::Intrude => "second poll refused".into(),
            Switch::ArmThrice(step, fault) => {
                format!("{}, three in a row", Switch::Arm(step, fault).name())
            }
            Switch::Arm(step, fault) => {
                let step = match step {
                    Step::Poll if fault.is_of_travel() => "held poll",
                    step if step.is_send() => "send",
                    step => step.name(),
                };
                format!("{step}: {}", fault.words())
            }
        }
    }
}

/// The faults that a script should cause, by step.
const FAULTS: &[(Step, &[Fault])] = &[
    (Step::Sig, &[NoSig, Status(503)]),
    (Step::Check, &[Captcha, NoData, Chunked]),
    (Step::Captcha, &[Expired, Drip]),
    (
        Step::PtLogin,
        &[Ptui(3), Ptui(4), Ptui(7), Ptui(24), NoByte],
    ),
    (Step::CheckSig, &[Redirects(4), SubdomainCookies]),
    (Step::Login2, &[Retcode(108), Empty, DropUins]),
    (
        Step::Friends,
        &[Retcode(100101), Retcode(100000), CutShort, Late],
    ),
    (Step::Groups, &[TextPlain, NotJson]),
    (Step::Members, &[Drip, Late]),
    (
        Step::Poll,
        &[
            Retcode(102),
            Retcode(116),
            Retcode(120),
            Retcode(121),
            Retcode(100),
            Retcode(103),
            Retcode(108),
            Retcode(109),
            Retcode(110),
            Retcode(114),
            Retcode(100002),
            Retcode(100006),
            Status(502),
            Empty,
            NotJson,
            ShortHold,
            Batch,
            Twice,
            Chunked,
            UntilClose,
            TextPlain,
            Drip,
            NoByte,
            Reset,
            ResetInBody,
            CutShort,
            Silence,
        ],
    ),
    (Step::Heartbeat, &[NoByte, Silence, Status(500)]),
    (
        Step::SendBuddy,
        &[
            Retcode(8),
            Retcode(103),
            Retcode(108),
            Retcode(1202),
            Retcode(100001),
            Retcode(100003),
            Retcode(100012),
            Retcode(100100),
            NoByte,
            Reset,
            CutShort,
            Empty,
            NotJson,
            Status(500),
        ],
    ),
    (Step::SessSig, &[Retcode(100000)]),
    (Step::Weather, &[Status(500), Silence]),
];

/// Returns all switches that a script should use.
pub(crate) fn switches() -> Vec<Switch> {
    let armed = FAULTS.iter().flat_map(|&(step, faults)| {
        let faults = faults.iter();
        faults.map(move |&fault| Switch::Arm(step, fault))
    });
    let thrice = Switch::ArmThrice(Step::Poll, Retcode(103));
    armed
        .chain([thrice, Switch::Kick, Switch::Intrude])
        .collect()
}

/// Returns the names of all switches.
pub(crate) fn all_switches() -> Vec<String> {
    switches().into_iter().map(Switch::name).collect()
}
