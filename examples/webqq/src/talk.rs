//! The bot's messages: the inbox, the plugins, and the sends, one at a time.

use std::time::Duration;

use httpstream::{Context, Error, ErrorKind, Next, Reply, Response, Sent};

use crate::answers::{self, Message, Trouble};
use crate::bot::{Bot, SECOND, Settings, Stage};
use crate::events::Event;
use crate::outbox;
use crate::plugins::{self, Answer, Question, Source};
use crate::policy::{self, AfterSend, How, LONG_TRIES};
use crate::roster::{Address, Target};
use crate::steps::{good, text, trouble_of};

/// How many seconds a logout waits for pending messages.
const MOST_WAITS: u32 = 10;
const NO_MATCH: &str = "the roster has no unique match for that name";
/// The longest message number that is repeated in front of the answer, in bytes.
const LONGEST_NUMBER: usize = 20;

/// A fetch that an answer needs.
#[derive(Clone)]
struct Errand {
    source: Source,
    read: fn(&Response<'_>) -> String,
    target: Target,
    head: String,
    tries: u32,
}

impl Errand {
    /// Whether to fetch it again although its session has given up. After a refusal the bot may be
    /// logged out, which the end of a poll reports at the latest. Without any answer the network
    /// may be down for a while.
    fn is_to_be_tried_again(&self, error: &Error) -> bool {
        let is_picture = matches!(self.source, Source::Picture(_));
        let has_answer = error.kind() == ErrorKind::Status;
        let is_refused = has_answer && error.status().is_some_and(|status| status == 403);
        is_picture && (is_refused || !has_answer) && self.tries < LONG_TRIES
    }
}

/// A message that waits for its answer.
pub(crate) struct Received {
    message: Message,
    /// The login whose uins the message uses.
    session: u32,
    /// Where the answer goes, if the lists had arrived before the message.
    target: Option<Target>,
}

impl Bot {
    /// Whether senders can be named. Messages wait until the lists have arrived.
    fn knows_people(&self) -> bool {
        self.stage == Stage::Online && self.lists.as_ref().is_none_or(|lists| lists.can_wait())
    }

    /// Takes a message in. It is answered later, so that no plugin delays the next poll.
    pub(crate) fn on_message(&mut self, message: Message) {
        let session = self.login.number;
        let is_new = self.seen.insert(message.id);
        if is_new {
            let target = self
                .knows_people()
                .then(|| self.roster.target(message.from, session));
            let received = Received {
                message,
                session,
                target,
            };
            return self.inbox.push_back(received);
        }
        self.tell(Event::Repeated {
            msg_id: message.id.msg_id,
            text: message.text.clone(),
        });
        // The uins may have changed since the first delivery; those of the second are valid.
        let mut inbox = self.inbox.iter_mut();
        let earlier = inbox.find(|earlier| earlier.message.id == message.id);
        if let Some(earlier) = earlier.filter(|earlier| earlier.target.is_none()) {
            (earlier.message, earlier.session) = (message, session);
        }
    }

    /// Whether a message of this session arrived before the lists.
    pub(crate) fn has_strangers(&self) -> bool {
        let is_unknown = |received: &Received| {
            received.target.is_none() && received.session == self.login.number
        };
        !self.knows_people() && self.inbox.iter().any(is_unknown)
    }

    /// Whether the message's sender can be addressed. A message that arrived in an earlier session,
    /// before its lists, is delivered again by the first poll of this session, with valid uins.
    fn can_be_answered(&self, received: &Received) -> bool {
        let is_of_now = received.session == self.login.number;
        is_of_now || received.target.is_some() || self.login.was_polled
    }

    pub(crate) fn read_inbox(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.login.set_now(cx.now());
        while self.knows_people()
            && let Some(i) = self
                .inbox
                .iter()
                .position(|received| self.can_be_answered(received))
            && let Some(received) = self.inbox.remove(i)
        {
            let Received {
                message,
                session,
                target,
            } = received;
            let target = target.unwrap_or_else(|| self.roster.target(message.from, session));
            self.answer(&message, target, cx);
        }
        self.send_next(cx);
        Next::done()
    }

    fn answer(&mut self, message: &Message, target: Target, cx: &mut Context<'_, Self>) {
        let from = target.speaker();
        self.tell(Event::Heard {
            msg_id: message.id.msg_id,
            from,
            text: message.text.clone(),
        });
        // A number in front of a message is repeated in front of the answer, so people can match
        // the two.
        let (number, words) = match message.text.split_once(' ') {
            Some((number, words)) if number.starts_with('#') && number.len() <= LONGEST_NUMBER => {
                (format!("{number} "), words)
            }
            _ => (String::new(), &*message.text),
        };
        let uptime = self.login.clock().since_begin();
        let question = Question {
            text: words,
            picture: message.picture.as_ref(),
            uptime,
        };
        let head = format!("{}{number}", target.prefix());
        match self.plugins.answer(&question) {
            Some(Ok(Answer::Say(answer))) => self.say(&target, &head, &answer),
            Some(Ok(Answer::Fetch(source, read))) => {
                self.fetching += 1;
                let errand = Errand {
                    source,
                    read,
                    target,
                    head,
                    tries: 0,
                };
                cx.call(move |bot: &mut Self, cx| bot.fetch(errand, cx));
            }
            Some(Err(why)) => self.say(&target, &head, &format!("sorry: {why}")),
            None => {}
        }
    }

    /// Fetches something for an answer, and sends the answer when it has arrived, in whichever
    /// login that is.
    fn fetch(&mut self, mut errand: Errand, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.login.set_now(cx.now());
        let request = match &errand.source {
            Source::Picture(_) if self.is_leaving => {
                let to = errand.target.describe();
                self.fetching -= 1;
                self.tell(Event::NotSaid {
                    to,
                    text: errand.head,
                    why: "logging out".to_owned(),
                });
                return Next::done();
            }
            Source::Picture(_) if !self.knows_people() => return self.fetch_later(errand, SECOND),
            Source::Picture(picture) => {
                let number = self.login.number;
                let picture = self.roster.picture(picture, &errand.target, number);
                Ok(self.login.picture(&picture))
            }
            Source::Url(url) => self.login.page(url),
        };
        let request = match request {
            Ok(request) => request,
            Err(error) => return self.on_fetched(&errand, &format!("sorry: {error}"), cx),
        };
        errand.tries += 1;
        Next::send(request).read_by(move |bot: &mut Self, reply, cx| {
            bot.login.set_now(cx.now());
            let answer = match reply {
                Ok(response) => plugins::read(errand.read, &response),
                // Another login has begun, in which the picture has another address.
                Err(error) if error.kind() == ErrorKind::Cancelled => {
                    cx.start(bot.fetch_later(errand.clone(), SECOND));
                    return Next::done();
                }
                Err(error) if errand.is_to_be_tried_again(&error) => {
                    let wait = SECOND * 2_u32.pow((errand.tries - 1).min(5));
                    return bot.fetch_later(errand.clone(), wait);
                }
                Err(error) => format!("sorry: {error}"),
            };
            bot.on_fetched(&errand, &answer, cx)
        })
    }

    fn fetch_later(&self, errand: Errand, wait: Duration) -> Next<Self> {
        Next::call(move |bot: &mut Self, cx| bot.fetch(errand, cx)).after(self.wait(wait))
    }

    fn on_fetched(
        &mut self,
        errand: &Errand,
        answer: &str,
        cx: &mut Context<'_, Self>,
    ) -> Next<Self> {
        self.fetching -= 1;
        self.say(&errand.target, &errand.head, answer);
        self.send_next(cx);
        Next::done()
    }

    fn say(&mut self, target: &Target, head: &str, answer: &str) {
        let Settings { max_text, long, .. } = self.settings;
        for message in outbox::messages(head, answer, max_text, long) {
            self.outbox.push(target, message);
        }
    }

    // ---- sending ----

    /// Sends the next message, unless one is under way.
    fn send_next(&mut self, cx: &mut Context<'_, Self>) {
        while self.knows_people()
            && let Some(wait) = self.outbox.take(cx.now())
        {
            match self.send() {
                Some(send) => self.sending = Some(cx.start(send.after(wait))),
                None => self.give_up(NO_MATCH, cx),
            }
        }
    }

    /// Returns the step that sends the message under way, or that fetches the signature for it if
    /// it goes to a stranger; `None` if nobody knows the recipient.
    fn send(&mut self) -> Option<Next<Self>> {
        let number = self.login.number;
        let message = self.outbox.under_way()?;
        let address = self.roster.address(&message.target, number)?;
        let sig = message.sig.as_ref().filter(|(login, _)| *login == number);
        Some(match (address, sig) {
            (Address::Sess { gid, uin }, None) => {
                Next::send(self.login.sess_sig(gid, uin)).read_by(Self::on_sess_sig)
            }
            (_, sig) => {
                let sig = sig.map_or("", |(_, sig)| sig);
                let request = self.login.send(address, &message.text, sig);
                Next::send(request).read_by(move |bot: &mut Self, reply, cx| {
                    bot.on_sent(number, reply, cx);
                    Next::done()
                })
            }
        })
    }

    fn on_sess_sig(&mut self, reply: Reply<'_>, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.login.set_now(cx.now());
        // Whatever ends the login now must not end this chain.
        let chain = self.sending.take();
        let number = self.login.number;
        let is_withdrawn = matches!(&reply, Err(error) if error.kind() == ErrorKind::Cancelled);
        match good(reply).and_then(|answer| answers::signature(text(&answer)?)) {
            Ok(sig) => {
                if let Some(message) = self.outbox.under_way() {
                    message.sig = Some((number, sig));
                }
                match self.send() {
                    Some(send) => {
                        self.sending = chain;
                        return send;
                    }
                    None => self.give_up(NO_MATCH, cx),
                }
            }
            Err(_) if is_withdrawn => self.put_back(cx),
            // No server refused the message: try again.
            Err(trouble @ (Trouble::Lost(_) | Trouble::Unverified(_))) => {
                self.delay(&trouble, 1, cx);
            }
            // The session is bad, not the message.
            Err(Trouble::Retcode(code)) if policy::after_send(code) == AfterSend::Suspect => {
                self.on_send_retcode(code, number, cx);
            }
            Err(trouble) => self.on_refused(&trouble, cx),
        }
        self.send_next(cx);
        Next::done()
    }

    /// Reads the answer to a message that was sent in login number `number`. It counts even if
    /// another login has begun, because it tells whether the message was delivered.
    fn on_sent(&mut self, number: u32, reply: Reply<'_>, cx: &mut Context<'_, Self>) {
        self.login.set_now(cx.now());
        self.sending = None;
        match reply {
            // The server cannot have received the request, so it may be sent again.
            Err(error) if error.request_sent() == Sent::No => match error.kind() {
                ErrorKind::Cancelled => self.put_back(cx),
                _ => self.delay(&trouble_of(&error), 1, cx),
            },
            reply => match good(reply).and_then(|answer| answers::result(text(&answer)?)) {
                Ok(_) => self.said(cx),
                Err(Trouble::Retcode(code)) => self.on_send_retcode(code, number, cx),
                Err(trouble) => self.perhaps_said(&trouble, cx),
            },
        }
        self.send_next(cx);
    }

    /// Ends the chain of the message under way, unless it is being sent: it was made for the login
    /// that ends.
    pub(crate) fn withdraw(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(chain) = self.sending
            && !self.login.sessions.is_sending()
        {
            cx.cancel(chain);
        }
    }

    /// Puts back a message that was withdrawn.
    fn put_back(&mut self, cx: &mut Context<'_, Self>) {
        self.outbox.put_back(cx.now(), Duration::ZERO);
        if self.is_leaving {
            self.give_up_all("logging out");
        }
    }

    fn on_send_retcode(&mut self, code: i64, number: u32, cx: &mut Context<'_, Self>) {
        let trouble = Trouble::Retcode(code);
        let is_live = number == self.login.number;
        match policy::after_send(code) {
            AfterSend::Sent => self.perhaps_said(&trouble, cx),
            AfterSend::Refused => self.on_refused(&trouble, cx),
            AfterSend::TooFast => self.delay(&trouble, 2, cx),
            AfterSend::Relink => {
                let Some(message) = self.outbox.under_way() else {
                    return;
                };
                message.relinks += 1;
                match message.relinks {
                    policy::TRIES.. => self.give_up(&trouble.to_string(), cx),
                    _ => self.delay(&trouble, 0, cx),
                }
                if is_live {
                    let _ = self.start_again(How::Relink, &format!("send: {trouble}"), cx);
                }
            }
            AfterSend::Suspect => {
                self.delay(&trouble, 1, cx);
                if is_live && self.is_bad_session() {
                    let _ = self.start_again(How::Login, &format!("send: {trouble}"), cx);
                }
            }
        }
    }

    fn on_refused(&mut self, trouble: &Trouble, cx: &mut Context<'_, Self>) {
        let Some(message) = self.outbox.under_way() else {
            return;
        };
        message.refusals += 1;
        match message.refusals {
            policy::TRIES.. => self.give_up(&trouble.to_string(), cx),
            refusals => self.delay(trouble, refusals, cx),
        }
    }

    fn delay(&mut self, trouble: &Trouble, seconds: u32, cx: &mut Context<'_, Self>) {
        self.tell(Event::Delayed {
            why: trouble.to_string(),
        });
        self.outbox.put_back(cx.now(), self.wait(SECOND * seconds));
    }

    fn said(&mut self, cx: &mut Context<'_, Self>) {
        if let Some(message) = self.outbox.done(cx.now()) {
            self.tell(Event::Said {
                to: message.target.describe(),
                text: message.text,
            });
        }
    }

    fn perhaps_said(&mut self, trouble: &Trouble, cx: &mut Context<'_, Self>) {
        if let Some(message) = self.outbox.done(cx.now()) {
            let (to, why) = (message.target.describe(), trouble.to_string());
            self.tell(Event::PerhapsSaid {
                to,
                text: message.text,
                why,
            });
        }
    }

    /// Drops all waiting messages.
    pub(crate) fn give_up_all(&mut self, why: &str) {
        for message in self.outbox.drain() {
            let (to, why) = (message.target.describe(), why.to_owned());
            let text = message.text;
            self.tell(Event::NotSaid { to, text, why });
        }
    }

    fn give_up(&mut self, why: &str, cx: &mut Context<'_, Self>) {
        if let Some(message) = self.outbox.done(cx.now()) {
            let to = message.target.describe();
            self.tell(Event::NotSaid {
                to,
                text: message.text,
                why: why.to_owned(),
            });
        }
    }

    // ---- leaving ----

    /// Sends the pending messages, then LOGOUT. Called from outside of the bot.
    pub(crate) fn log_out(&mut self, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.leave(MOST_WAITS, cx)
    }

    fn leave(&mut self, waits: u32, cx: &mut Context<'_, Self>) -> Next<Self> {
        self.login.set_now(cx.now());
        let is_silent = self.outbox.is_empty() && self.inbox.is_empty() && self.fetching == 0;
        let can_wait = matches!(self.stage, Stage::Online | Stage::LoggingIn);
        self.is_leaving = waits == 0 || is_silent || !can_wait;
        match self.stage {
            Stage::Online if is_silent || waits == 0 => {
                self.give_up_all("logging out");
                self.end_login(Stage::LoggingOut, cx);
                let logout = self.login.logout();
                cx.send(logout).read_by(|bot, reply, _| {
                    bot.stage = Stage::Offline;
                    bot.tell(match reply {
                        Ok(_) => Event::LoggedOut,
                        Err(error) => Event::Stopped {
                            why: format!("logout: {error:#}"),
                        },
                    });
                    Next::done()
                })
            }
            Stage::Online | Stage::LoggingIn if waits > 0 && !is_silent => {
                Next::call(move |bot: &mut Self, cx| bot.leave(waits - 1, cx))
                    .after(self.wait(SECOND))
            }
            _ => self.stop("told to", cx),
        }
    }
}
