//! A person at the terminal chats with the bot: as a friend, in a group, in a discussion, as a
//! stranger.

use std::error::Error;
use std::io::{BufRead, stdin};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use httpstream::{Engine, Submitter};

use crate::doors;
use crate::events::{Entry, Event};
use crate::expect::Expect;
use crate::options::Options;
use crate::play::{ACCOUNT, write_ledger, write_log};
use crate::script::Line;
use crate::server::http::HttpServer;
use crate::server::{Account, Direct, Director, Server, Wish};
use crate::show::Show;
use crate::world::{self, World, drive, grant};

const HELP: &str = "\
Each line you type is sent to the bot; try: ping, about, help. Lines that begin with a slash are commands:
  /who      list the roles you can take
  /as N     take role N
  /look     send the next line with a picture
  /kick     log in elsewhere: the bot is kicked out, and logs in again
  /quit     like Ctrl-C: the bot sends its pending messages, for ten seconds at most, and logs out";

/// How long a logout may take.
const LOGOUT: Duration = Duration::from_secs(20);

/// Directs nothing: the only person is the one at the terminal.
struct Nobody;

impl Director for Nobody {
    fn direct(&mut self, _: &mut Server, _: Duration) -> Direct {
        Direct::Wait(None)
    }
}

struct Chat {
    roles: Vec<Line>,
    role: usize,
    with_picture: bool,
}

pub(crate) fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let account = Account::sample(ACCOUNT);
    let role = |(place, who)| Line::new(place, who, "", Expect::Nothing);
    let roles = account.places().into_iter().map(role).collect();
    let mut chat = Chat {
        roles,
        role: 0,
        with_picture: false,
    };

    let mut brain = Server::new(options.server_settings());
    brain.add_account(account);
    let opened = doors::open(options)?;
    let (place, _root) = opened.announce()?;
    let mut engine = world::engine(1, &opened.reach)?;
    let mut world = World::new([options.bot_settings(ACCOUNT)]);
    let submitter = engine.submitter();
    let wishes = submitter.clone();
    let server = HttpServer::start(opened.doors, brain, Box::new(Nobody), move |wish| {
        grant(&wishes, wish)
    })?;
    let mut stay = Stay::new(options, submitter.clone())?;
    say!("The server listens at {place}.\n{HELP}");
    chat.tell_role();
    grant(&submitter, Wish::Login { account: ACCOUNT });

    let lines = typed();
    drive(&mut engine, &mut world, |world, engine| {
        stay.tell(world);
        for line in lines.try_iter() {
            if line.trim() == "/quit" {
                stay.leave();
            } else {
                chat.on_line(line.trim(), &server);
            }
        }
        stay.is_over(world, engine)
    })?;
    let brain = server.stop();
    if let Some(folder) = &options.log {
        write_ledger(folder, brain.ledger())?;
    }
    stay.end(&world)
}

impl Chat {
    fn on_line(&mut self, line: &str, server: &HttpServer) {
        let command = line.split_once(' ').unwrap_or((line, ""));
        match command {
            ("", _) => {}
            ("/who", _) => {
                for (i, Line { place, who, .. }) in self.roles.iter().enumerate() {
                    say!("  {i:>2}  {who}, {place}");
                }
            }
            ("/as", number) => match number.trim().parse() {
                Ok(number) if number < self.roles.len() => {
                    self.role = number;
                    self.tell_role();
                }
                _ => say!("/as {number:?}: no such number, see /who"),
            },
            ("/look", _) => {
                self.with_picture = true;
                say!("The next line comes with a picture.");
            }
            ("/kick", _) => server.with(|brain, now| brain.kick(now, ACCOUNT)),
            (slash, _) if slash.starts_with('/') => say!("{slash}: no such command\n{HELP}"),
            _ => {
                let Line { place, who, .. } = &self.roles[self.role];
                let picture = std::mem::take(&mut self.with_picture);
                server.with(|brain, now| brain.say(now, ACCOUNT, place, who, line, picture));
            }
        }
    }

    fn tell_role(&self) {
        let Line { place, who, .. } = &self.roles[self.role];
        say!("You are {who}, {place}.");
    }
}

/// Returns the lines typed at the terminal, until its end.
pub(crate) fn typed() -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// How long a bot stays: until Ctrl-C, `/quit` or `--seconds` tells it to leave, or until it stops
/// on its own.
pub(crate) struct Stay {
    submitter: Submitter<World>,
    ctrl_c: Arc<AtomicBool>,
    /// When the bot is to leave, and when it was told to.
    leaves: Option<Instant>,
    told: Option<Instant>,
    was_online: bool,
    show: Show,
    /// The bot's events, and the folder of their log.
    log: Vec<(u64, Entry)>,
    folder: Option<PathBuf>,
}

impl Stay {
    /// Installs a handler: the first Ctrl-C has the bot log out, the second ends the program.
    pub(crate) fn new(
        options: &Options,
        submitter: Submitter<World>,
    ) -> Result<Self, ctrlc::Error> {
        let ctrl_c = Arc::new(AtomicBool::new(false));
        let pressed = Arc::clone(&ctrl_c);
        ctrlc::set_handler(move || {
            if pressed.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
            say!("logging out; press Ctrl-C again to end at once");
        })?;
        Ok(Self {
            submitter,
            ctrl_c,
            leaves: options.lasts.map(|lasts| Instant::now() + lasts),
            told: None,
            was_online: false,
            show: Show::new(1, 0),
            log: Vec::new(),
            folder: options.log.clone(),
        })
    }

    /// Prints the bot's events since the last call.
    pub(crate) fn tell(&mut self, world: &mut World) {
        for (account, entry) in world.take_events() {
            self.show.event(&entry);
            self.was_online |= entry.event == Event::Online;
            if self.folder.is_some() {
                self.log.push((account, entry));
            }
        }
    }

    pub(crate) fn leave(&mut self) {
        self.leaves = Some(Instant::now());
    }

    /// Has the bot log out when it is time, and returns whether it is gone.
    pub(crate) fn is_over(&mut self, world: &World, engine: &Engine<World>) -> bool {
        let now = Instant::now();
        let is_time = self.leaves.is_some_and(|at| now >= at);
        if self.told.is_none() && (is_time || self.ctrl_c.load(Ordering::Relaxed)) {
            self.told = Some(now);
            grant(&self.submitter, Wish::Logout { account: ACCOUNT });
        }
        let gave_up = self.told.is_some_and(|at| now >= at + LOGOUT);
        gave_up || (world.have_left() && engine.pending() == 0)
    }

    /// Writes the log, and returns whether the bot stayed until it was told to leave.
    ///
    /// # Errors
    /// If it was never online, stopped on its own, or did not log out, or if the log cannot be
    /// written.
    pub(crate) fn end(&self, world: &World) -> Result<bool, Box<dyn Error>> {
        if let Some(folder) = &self.folder {
            write_log(
                folder,
                self.log.iter().map(|(account, entry)| (*account, entry)),
            )?;
        }
        match (self.was_online, self.told) {
            (false, _) => Err("the bot was never online".into()),
            (true, None) => Err("the bot stopped on its own".into()),
            (true, Some(_)) if !world.have_left() => Err("the bot did not log out".into()),
            (true, Some(_)) => Ok(true),
        }
    }
}
