//! The bot's lists: FRIENDS, then the number behind each friend, GROUPS with their MEMBERS, and
//! DISCUS, all fetched concurrently.
//!
//! They are collected in a draft, which replaces the roster when the last one has arrived.

use std::time::Duration;

use httpstream::{Context, Next, Request, Response};

use crate::answers::{self, Trouble};
use crate::bot::Bot;
use crate::events::Event;
use crate::policy::{self, How};
use crate::protocol::Login;
use crate::roster::Roster;
use crate::steps::{OfLogin, Step, good, text};

/// The time until the next refresh, if some lists failed.
const SOON: Duration = Duration::from_secs(60);

/// Lists that are being fetched.
pub(crate) struct Lists {
    why: Why,
    draft: Roster,
    /// Answers that have not arrived yet.
    left: usize,
    failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    Login,
    /// Every uin may have changed.
    Relink,
    /// A periodic refresh: the current roster remains valid.
    Refresh,
}

impl Lists {
    fn new(why: Why) -> Self {
        Self {
            why,
            draft: Roster::default(),
            left: 0,
            failed: false,
        }
    }

    /// Whether messages can be answered before these lists have arrived.
    pub(crate) fn can_wait(&self) -> bool {
        self.why == Why::Refresh
    }
}

impl Bot {
    /// Reads FRIENDS during a login. Without them the login fails.
    pub(crate) fn on_first_friends(
        &mut self,
        answer: &Response<'_>,
        cx: &mut Context<'_, Self>,
    ) -> Step {
        let friends = answers::friends(text(answer)?)?;
        if friends.is_empty() {
            return Err(Trouble::Garbled("a list of no friends".to_owned()));
        }
        self.lists = Some(Lists::new(Why::Login));
        self.on_friends(friends, cx);
        Ok(Next::done())
    }

    /// Fetches all lists again. Each may fail without affecting the others.
    pub(crate) fn fetch_lists(&mut self, why: Why, cx: &mut Context<'_, Self>) {
        self.lists = Some(Lists::new(why));
        self.list(Login::friends, cx, |bot, answer, cx| {
            bot.on_friends(answers::friends(answer)?, cx);
            Ok(())
        });
    }

    /// Begins the lists under way anew: their requests contain a hash of the old ptwebqq.
    pub(crate) fn renew_lists(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(lists) = self.lists.take() {
            cx.end(&self.login.sessions.again);
            self.fetch_lists(lists.why, cx);
        }
    }

    fn on_friends(&mut self, friends: Vec<(u64, String)>, cx: &mut Context<'_, Self>) {
        for (uin, name) in friends {
            self.draft().add_friend(uin, name);
            let number = move |login: &Login| login.friend_uin(uin);
            self.list(number, cx, move |bot, answer, _| {
                bot.draft().set_account(uin, answers::account(answer)?);
                Ok(())
            });
        }
        self.list(Login::online_buddies, cx, |_, answer, _| {
            answers::result(answer).map(drop)
        });
        self.list(Login::groups, cx, Self::on_groups);
        self.list(Login::discus, cx, Self::on_discus);
    }

    fn on_groups(&mut self, answer: &str, cx: &mut Context<'_, Self>) -> Result<(), Trouble> {
        for group in answers::groups(answer)? {
            self.draft().add_group(group.gid, group.name);
            let members = move |login: &Login| login.members(group.code);
            self.list(members, cx, move |bot, answer, cx| {
                bot.draft()
                    .set_members(group.gid, answers::members(answer)?);
                bot.go_online(cx);
                Ok(())
            });
        }
        Ok(())
    }

    fn on_discus(&mut self, answer: &str, cx: &mut Context<'_, Self>) -> Result<(), Trouble> {
        for (did, name) in answers::discus(answer)? {
            self.draft().add_discu(did, name);
            let info = move |login: &Login| login.discu_info(did);
            self.list(info, cx, move |bot, answer, _| {
                bot.draft()
                    .set_discu_people(did, answers::discu_people(answer)?);
                Ok(())
            });
        }
        Ok(())
    }

    /// Fetches one of the lists, with a few retries. The draft is completed without it if all fail.
    fn list(
        &mut self,
        request: impl Fn(&Login) -> Request + Copy + 'static,
        cx: &mut Context<'_, Self>,
        mut read: impl FnMut(&mut Self, &str, &mut Context<'_, Self>) -> Result<(), Trouble> + 'static,
    ) {
        self.lists_under_way().left += 1;
        let mut tries = 0;
        let on_list = OfLogin::new("list", move |bot: &mut Self, reply, cx| {
            let answer = good(reply).and_then(|answer| read(bot, text(&answer)?, cx));
            tries += 1;
            if let Err(trouble) = &answer {
                bot.report("list", trouble);
                if tries < policy::TRIES && may_be_better_next_time(trouble) {
                    let again = move |bot: &mut Self, _: &mut Context<'_, Self>| {
                        Next::send(request(&bot.login))
                    };
                    return bot.later(bot.wait(Duration::from_secs(1) * tries), again);
                }
            }
            bot.on_list_read(answer.is_err(), cx);
            Next::done()
        });
        cx.submit_to(request(&self.login), on_list);
    }

    fn on_list_read(&mut self, failed: bool, cx: &mut Context<'_, Self>) {
        let lists = self.lists_under_way();
        lists.left -= 1;
        lists.failed |= failed;
        if lists.left > 0 {
            return;
        }
        let Some(Lists {
            why, draft, failed, ..
        }) = self.lists.take()
        else {
            return;
        };
        if why == Why::Relink && failed {
            // Every uin may have changed, and no other answer would report the new ones.
            let _ = self.start_again(How::Login, "the lists could not be fetched", cx);
            return;
        }
        // A complete old roster is better than an incomplete new one.
        if why == Why::Login || !failed {
            self.tell(Event::Lists(draft.counts()));
            self.roster = draft;
        }
        let wait = match why {
            Why::Login if failed => SOON.min(self.settings.refresh),
            _ => self.settings.refresh,
        };
        cx.start(self.later(self.wait(wait), |bot, cx| {
            bot.fetch_lists(Why::Refresh, cx);
            Next::done()
        }));
        self.go_online(cx);
        cx.call(Self::read_inbox);
    }

    fn draft(&mut self) -> &mut Roster {
        &mut self.lists_under_way().draft
    }

    fn lists_under_way(&mut self) -> &mut Lists {
        self.lists.get_or_insert_with(|| Lists::new(Why::Refresh))
    }
}

/// Whether to request a list again after an answer of no use. After none, the session has done so
/// already.
fn may_be_better_next_time(trouble: &Trouble) -> bool {
    match trouble {
        // The request lacks something.
        Trouble::Retcode(100101) => false,
        Trouble::Empty | Trouble::Garbled(_) | Trouble::Retcode(_) => true,
        Trouble::Lost(_) | Trouble::Unverified(_) | Trouble::Status(_) | Trouble::Refused(..) => {
            false
        }
    }
}
