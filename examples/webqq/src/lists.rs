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
use crate::protocol::Session;
use crate::roster::Roster;
use crate::steps::{Step, text};

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
        self.list(Session::friends, cx, |bot, answer, cx| {
            bot.on_friends(answers::friends(answer)?, cx);
            Ok(())
        });
    }

    fn on_friends(&mut self, friends: Vec<(u64, String)>, cx: &mut Context<'_, Self>) {
        for (uin, name) in friends {
            self.draft().add_friend(uin, name);
            let number = move |session: &Session| session.friend_uin(uin);
            self.list(number, cx, move |bot, answer, _| {
                bot.draft().set_account(uin, answers::account(answer)?);
                Ok(())
            });
        }
        self.list(Session::online_buddies, cx, |_, answer, _| {
            answers::result(answer).map(drop)
        });
        self.list(Session::groups, cx, Self::on_groups);
        self.list(Session::discus, cx, Self::on_discus);
    }

    fn on_groups(&mut self, answer: &str, cx: &mut Context<'_, Self>) -> Result<(), Trouble> {
        for group in answers::groups(answer)? {
            self.draft().add_group(group.gid, group.name);
            let members = move |session: &Session| session.members(group.code);
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
            let info = move |session: &Session| session.discu_info(did);
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
        request: impl Fn(&Session) -> Request + Copy + 'static,
        cx: &mut Context<'_, Self>,
        mut read: impl FnMut(&mut Self, &str, &mut Context<'_, Self>) -> Result<(), Trouble> + 'static,
    ) {
        self.lists_under_way().left += 1;
        let mut tries = 0;
        let on_list = self.in_session(move |bot, reply, cx| {
            let answer = bot
                .good(reply)
                .and_then(|answer| read(bot, text(&answer)?, cx));
            tries += 1;
            if let Err(trouble) = &answer {
                bot.tell(Event::Trouble {
                    what: "list",
                    why: trouble.to_string(),
                });
                // Retcode 100101 means that the request lacks something; a retry would lack it,
                // too.
                if tries < policy::TRIES && *trouble != Trouble::Retcode(100101) {
                    // The cookies may have changed by then, or the session.
                    let again =
                        bot.in_session_call(move |bot, _| Next::send(request(&bot.session)));
                    return Next::call(again).after(bot.wait(Duration::from_secs(1) * tries));
                }
            }
            bot.on_list_read(answer.is_err(), cx);
            Next::done()
        });
        cx.submit(request(&self.session), on_list);
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
        let refresh = self.in_session_call(|bot, cx| {
            bot.fetch_lists(Why::Refresh, cx);
            Next::done()
        });
        let wait = match why {
            Why::Login if failed => SOON.min(self.settings.refresh),
            _ => self.settings.refresh,
        };
        self.chains.refresh = Some(cx.start(Next::call(refresh).after(self.wait(wait))));
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
