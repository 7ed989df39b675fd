//! The steps of the protocol, and how a request is recognized as one.

use std::collections::BTreeSet;
use std::fmt;

use super::wire::{Call, Scheme};

/// Everything that a client can request, in the order of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Step {
    Sig,
    Check,
    Captcha,
    PtLogin,
    CheckSig,
    Login2,
    Friends,
    OnlineBuddies,
    Groups,
    Members,
    Discus,
    DiscuInfo,
    Poll,
    Heartbeat,
    SendBuddy,
    SendGroup,
    SendDiscu,
    SessSig,
    SendSess,
    FriendUin,
    LongNick,
    AllowAdd,
    Offpic,
    GroupPic,
    File,
    Logout,
    /// A service of another site.
    Weather,
}

use Step::*;

/// The step, its name, its method, host and path.
type Row = (Step, &'static str, &'static str, &'static str, &'static str);

const STEPS: &[Row] = &[
    (Sig, "sig", "GET", "ui.ptlogin2.qq.com", "/cgi-bin/login"),
    (Check, "check", "GET", "check.ptlogin2.qq.com", "/check"),
    (Captcha, "captcha", "GET", "ssl.captcha.qq.com", "/getimage"),
    (PtLogin, "ptlogin", "GET", "ssl.ptlogin2.qq.com", "/login"),
    (CheckSig, "checksig", "GET", "web2.qq.com", "/check_sig"),
    (CheckSig, "checksig", "GET", "s.web2.qq.com", "/check_sig"),
    (CheckSig, "checksig", "GET", "d.web2.qq.com", "/check_sig"),
    (Login2, "login2", "POST", D, "/channel/login2"),
    (Friends, "friends", "POST", S, "/api/get_user_friends2"),
    (
        OnlineBuddies,
        "online buddies",
        "GET",
        D,
        "/channel/get_online_buddies2",
    ),
    (
        Groups,
        "groups",
        "POST",
        S,
        "/api/get_group_name_list_mask2",
    ),
    (Members, "members", "GET", S, "/api/get_group_info_ext2"),
    (Discus, "discussions", "GET", S, "/api/get_discus_list"),
    (DiscuInfo, "discussion", "GET", D, "/channel/get_discu_info"),
    (Poll, "poll", "POST", D, "/channel/poll2"),
    (
        Heartbeat,
        "heartbeat",
        "GET",
        "web.qq.com",
        "/web2/get_msg_tip",
    ),
    (
        SendBuddy,
        "send to buddy",
        "POST",
        D,
        "/channel/send_buddy_msg2",
    ),
    (
        SendGroup,
        "send to group",
        "POST",
        D,
        "/channel/send_qun_msg2",
    ),
    (
        SendDiscu,
        "send to discussion",
        "POST",
        D,
        "/channel/send_discu_msg2",
    ),
    (
        SessSig,
        "session signature",
        "GET",
        D,
        "/channel/get_c2cmsg_sig2",
    ),
    (
        SendSess,
        "send to session",
        "POST",
        D,
        "/channel/send_sess_msg2",
    ),
    (FriendUin, "friend uin", "GET", S, "/api/get_friend_uin2"),
    (LongNick, "long nick", "POST", S, "/api/set_long_nick2"),
    (AllowAdd, "allow and add", "POST", S, "/api/allow_and_add2"),
    (Offpic, "offpic", "GET", D, "/channel/get_offpic2"),
    (
        GroupPic,
        "group picture",
        "GET",
        "web2.qq.com",
        "/cgi-bin/get_group_pic",
    ),
    (File, "file", "GET", D, "/channel/get_file2"),
    (Logout, "logout", "GET", D, "/channel/logout2"),
    (Weather, "weather", "GET", "api.weather.example", "/today"),
];

const D: &str = "d.web2.qq.com";
const S: &str = "s.web2.qq.com";

impl Step {
    /// Returns the step that `call` requests, by host and path.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let is_meant = |row: &&Row| row.3 == call.host && row.4 == call.path;
        STEPS.iter().find(is_meant).map(|row| row.0)
    }

    pub(crate) fn name(self) -> &'static str {
        self.row().1
    }

    pub(crate) fn method(self) -> &'static str {
        self.row().2
    }

    /// Returns the steps that use https.
    pub(crate) fn https() -> impl Iterator<Item = Self> {
        let mut steps: Vec<Self> = STEPS.iter().map(|row| row.0).collect();
        steps.retain(|step| step.scheme() == Some(Scheme::Https));
        steps.into_iter()
    }

    /// Returns the hosts of the https steps.
    pub(crate) fn https_hosts() -> BTreeSet<&'static str> {
        let is_https = |row: &&Row| row.0.scheme() == Some(Scheme::Https);
        STEPS.iter().filter(is_https).map(|row| row.3).collect()
    }

    /// Returns the scheme of its URL, or `None` if that is no longer known, in which case either is
    /// accepted.
    pub(crate) fn scheme(self) -> Option<Scheme> {
        match self {
            Sig | Captcha | PtLogin | OnlineBuddies | DiscuInfo | SendDiscu | SessSig
            | SendSess | Logout => Some(Scheme::Https),
            Offpic | File => None,
            Check | CheckSig | Login2 | Friends | Groups | Members | Discus | Poll | Heartbeat
            | SendBuddy | SendGroup | FriendUin | LongNick | AllowAdd | GroupPic | Weather => {
                Some(Scheme::Http)
            }
        }
    }

    /// Whether it needs no login.
    pub(crate) fn is_for_anybody(self) -> bool {
        matches!(self, Sig | Weather)
    }

    /// Whether it is part of the login, before there is a session.
    pub(crate) fn is_before_login(self) -> bool {
        matches!(self, Sig | Check | Captcha | PtLogin | CheckSig)
    }

    pub(crate) fn is_send(self) -> bool {
        matches!(self, SendBuddy | SendGroup | SendDiscu | SendSess)
    }

    /// Whether it is a list that a bot loads at its login.
    pub(crate) fn is_list(self) -> bool {
        matches!(self, Friends | Groups | Members)
    }

    /// Whether it is repeated for as long as the session lasts.
    pub(crate) fn is_loop(self) -> bool {
        matches!(self, Poll | Heartbeat)
    }

    /// Whether its answer has a retcode.
    pub(crate) fn has_retcode(self) -> bool {
        let others = matches!(self, Heartbeat | Offpic | GroupPic | File | Weather);
        !others && !self.is_before_login()
    }

    fn row(self) -> &'static Row {
        let row = STEPS.iter().find(|row| row.0 == self);
        row.unwrap_or(&STEPS[0])
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
