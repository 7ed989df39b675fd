//! Everything the server can do wrong or refuse on purpose, and what its switches are called.

use super::step::Step;
use super::wire::{Answer, Manner};

/// What goes wrong with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    // How the answer travels.
    Chunked,
    UntilClose,
    /// JSON that calls itself plain text.
    TextPlain,
    Drip,
    NoByte,
    Reset,
    ResetInBody,
    CutShort,
    Silence,

    // What it says.
    /// 200, and no body.
    Empty,
    NotJson,
    Status(u16),
    Retcode(i64),
    /// This code from PTLOGIN.
    Ptui(u16),
    /// CHECK demands one.
    Captcha,
    /// SIG's page lacks it.
    NoSig,
    /// CHECK without a body.
    NoData,
    /// So many 302 from CHECKSIG, each with a cookie.
    Redirects(u8),
    /// CHECKSIG sets cookies for sub-domains, and some that it may not set.
    SubdomainCookies,
    /// The captcha's code has expired when it is typed.
    Expired,

    // Of polls, logins and lists.
    /// 102 at once.
    ShortHold,
    /// A poll is answered only when two messages wait.
    Batch,
    /// What a poll delivers, the next one delivers again.
    Twice,
    /// A RELINK draws new uins.
    DropUins,
    /// A list comes after the next login, as it was.
    Late,
}

use Fault::*;

impl Fault {
    /// The client cannot read the answer: as far as it knows, there was none.
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

    /// It is a matter of how an answer travels: it waits until there is one.
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

    /// Lets `answer` travel, or look, as this fault has it.
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

    /// Whether `step` can be struck by it.
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

/// Something a script can make happen.
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
    /// Under this name the ledger counts it.
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

/// Each switch that a script should use.
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

/// Each thing that a script should let happen.
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

/// The names of all switches.
pub(crate) fn all_switches() -> Vec<String> {
    switches().into_iter().map(Switch::name).collect()
}
