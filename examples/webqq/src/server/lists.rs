//! An account's lists: friends, groups, members, discussions.

use serde_json::{Value, json};

use super::people::Account;
use super::seat::Seat;
use super::visit::Visit;
use super::wire::Answer;

impl Seat {
    pub(crate) fn friends(&self) -> Answer {
        let account = &self.account;
        let (mut friends, mut info, mut marknames) = (Vec::new(), Vec::new(), Vec::new());
        for friend in &account.friends {
            let uin = self.numbers.uin(friend.who);
            friends.push(json!({"uin": uin, "categories": 0, "flag": 0}));
            if !friend.is_ghost {
                let nick = nick(account, friend.who);
                info.push(json!({"uin": uin, "nick": nick, "face": 0, "flag": 0}));
            }
            if let Some(markname) = friend.markname {
                marknames.push(json!({"uin": uin, "markname": markname, "type": 0}));
            }
        }
        let vip = |who| json!({"u": self.numbers.uin(who), "is_vip": 0, "vip_level": 0});
        let vipinfo: Vec<Value> = account.friends().map(vip).collect();
        Answer::result(json!({
            "friends": friends, "info": info, "marknames": marknames, "vipinfo": vipinfo,
            "categories": [{"index": 0, "sort": 0, "name": "我的好友"}],
        }))
    }

    pub(crate) fn online_buddies(&self) -> Answer {
        let online = self.account.friends().take(3);
        let online = online.map(|who| {
            let uin = self.numbers.uin(who);
            json!({"uin": uin, "status": "online", "client_type": 1})
        });
        Answer::result(online.collect())
    }

    pub(crate) fn groups(&self) -> Answer {
        let groups = self.account.groups().map(|name| {
            let (gid, code) = (self.numbers.gid(name), self.numbers.code(name));
            json!({"name": name, "gid": gid, "code": code, "flag": 1})
        });
        let groups: Vec<Value> = groups.collect();
        Answer::result(json!({"gnamelist": groups, "gmasklist": [], "gmarklist": []}))
    }

    /// The members of one group, including the account itself.
    pub(crate) fn members(&self, visit: &Visit<'_>) -> Answer {
        let account = &self.account;
        let name = self.numbers.group_by_code(visit.number("gcode"));
        let Some(group) = name.and_then(|name| account.group(name)) else {
            return Answer::retcode(100_012);
        };
        let own = account.number;
        let uin = |who| self.numbers.uin(who);
        let mut members = vec![json!({"muin": own, "mflag": 0})];
        let mut minfo = vec![member_info(own, Some(&account.nick))];
        let mut cards = Vec::new();
        let owner = group.members.first().map_or(own, |member| uin(member.who));
        for member in &group.members {
            members.push(json!({"muin": uin(member.who), "mflag": 0}));
            minfo.push(member_info(uin(member.who), nick(account, member.who)));
            if let Some(card) = member.card {
                cards.push(json!({"muin": uin(member.who), "card": card}));
            }
        }
        let mut result = json!({
            "ginfo": {
                "code": self.numbers.code(group.name), "gid": self.numbers.gid(group.name),
                "name": group.name, "owner": owner, "class": 10026, "level": 0,
                "flag": 1, "option": 2, "face": 0, "memo": "", "fingermemo": "",
                "createtime": 1_300_000_000, "members": members,
            },
            "minfo": minfo,
            "stats": [{"uin": own, "stat": 10, "client_type": 41}],
            "vipinfo": [],
        });
        if group.has_cards {
            result["cards"] = cards.into();
        }
        Answer::result(result)
    }

    pub(crate) fn discus(&self) -> Answer {
        let named = |name| json!({"did": self.numbers.did(name), "name": name});
        let names: Vec<Value> = self.account.discussions().map(named).collect();
        Answer::result(json!({"dnamelist": names, "dmasklist": []}))
    }

    pub(crate) fn discu_info(&self, visit: &Visit<'_>) -> Answer {
        let did = visit.number("did");
        let name = self.numbers.discussion(did);
        let Some(discussion) = name.and_then(|name| self.account.discussion(name)) else {
            return Answer::retcode(100_012);
        };
        let members = discussion
            .members
            .iter()
            .map(|&who| json!({"uin": self.numbers.uin(who), "nick": nick(&self.account, who)}));
        let members: Vec<Value> = members.collect();
        let owner = members.first().map(|member| member["uin"].clone());
        Answer::result(json!({
            "info": {"did": did, "discu_name": discussion.name, "discu_owner": owner},
            "mem_info": members, "mem_status": [],
        }))
    }

    /// The QQ number behind a uin, or a group's number behind its code.
    pub(crate) fn friend_uin(&self, visit: &Visit<'_>) -> Answer {
        let tuin = visit.number("tuin");
        let person = self
            .numbers
            .who(tuin)
            .and_then(|who| self.account.person(who));
        let group = self
            .numbers
            .group(tuin)
            .or(self.numbers.group_by_code(tuin));
        let group = group.and_then(|name| self.account.group(name));
        let number = person
            .map(|person| person.number)
            .or(group.map(|group| group.number));
        Answer::result(json!({"uiuin": "", "account": number, "uin": tuin}))
    }

    pub(crate) fn allow_add(&self, visit: &Visit<'_>) -> Answer {
        Answer::result(json!({"result": 0, "account": visit.number("account")}))
    }
}

fn nick<'a>(account: &'a Account, who: &str) -> Option<&'a str> {
    account.person(who)?.nick
}

fn member_info(uin: u64, nick: Option<&str>) -> Value {
    json!({"uin": uin, "nick": nick, "province": "", "city": "", "country": "", "gender": "unknown"})
}
