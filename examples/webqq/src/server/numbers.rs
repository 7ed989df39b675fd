//! The numbers that identify people and places in a session. They are temporary: each full login
//! draws new ones.

use std::collections::{BTreeMap, BTreeSet};

use super::mint::Mint;
use super::people::Account;

/// The number of each name, for one account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    uins: BTreeMap<&'static str, u64>,
    gids: BTreeMap<&'static str, u64>,
    /// A group's second number. Member lists are requested by it; messages contain both.
    codes: BTreeMap<&'static str, u64>,
    dids: BTreeMap<&'static str, u64>,
}

impl Numbers {
    pub(crate) fn draw(account: &Account, mint: &mut Mint) -> Self {
        let mut used = BTreeSet::from([account.number]);
        let mut fresh = |name| {
            loop {
                let number = 1_000_000_000 + mint.draw_below(3_000_000_000);
                if used.insert(number) {
                    return (name, number);
                }
            }
        };
        Self {
            uins: account
                .people
                .iter()
                .map(|person| fresh(person.name))
                .collect(),
            gids: account.groups().map(&mut fresh).collect(),
            codes: account.groups().map(&mut fresh).collect(),
            dids: account.discussions().map(&mut fresh).collect(),
        }
    }

    pub(crate) fn uin(&self, who: &str) -> u64 {
        number(&self.uins, who)
    }

    pub(crate) fn gid(&self, group: &str) -> u64 {
        number(&self.gids, group)
    }

    pub(crate) fn code(&self, group: &str) -> u64 {
        number(&self.codes, group)
    }

    pub(crate) fn did(&self, discussion: &str) -> u64 {
        number(&self.dids, discussion)
    }

    pub(crate) fn who(&self, uin: u64) -> Option<&'static str> {
        name(&self.uins, uin)
    }

    pub(crate) fn group(&self, gid: u64) -> Option<&'static str> {
        name(&self.gids, gid)
    }

    pub(crate) fn group_by_code(&self, code: u64) -> Option<&'static str> {
        name(&self.codes, code)
    }

    pub(crate) fn discussion(&self, did: u64) -> Option<&'static str> {
        name(&self.dids, did)
    }

    /// Whether `number` is any of these.
    pub(crate) fn has(&self, number: u64) -> bool {
        let all = [&self.uins, &self.gids, &self.codes, &self.dids];
        all.iter().any(|map| name(map, number).is_some())
    }
}

/// Returns 0, which is never drawn, for a name without a number.
fn number(map: &BTreeMap<&'static str, u64>, name: &str) -> u64 {
    map.get(name).copied().unwrap_or_default()
}

fn name(map: &BTreeMap<&'static str, u64>, number: u64) -> Option<&'static str> {
    let entry = map.iter().find(|&(_, &n)| n == number);
    entry.map(|(&name, _)| name)
}
