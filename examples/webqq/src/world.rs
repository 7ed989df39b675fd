//! The bots and the engine that they share. The same code serves one bot or five hundred, through
//! `within`.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use httpstream::tls::Tls;
use httpstream::{Config, Context, Engine, Next, Submitter, within_call};

use crate::bot::{Bot, Settings, Stage};
use crate::events::Entry;
use crate::server::Wish;

/// How often [`drive`] checks whether it is over.
const LOOK_UP: Duration = Duration::from_millis(50);

pub(crate) struct World {
    bots: Vec<Bot>,
    /// Each account's position in `bots`, which never changes.
    index: BTreeMap<u64, usize>,
}

impl World {
    pub(crate) fn new(settings: impl IntoIterator<Item = Settings>) -> Self {
        let now = Instant::now();
        let bots: Vec<Bot> = settings
            .into_iter()
            .map(|settings| Bot::new(settings, now))
            .collect();
        let index = bots
            .iter()
            .enumerate()
            .map(|(i, bot)| (bot.account(), i))
            .collect();
        Self { bots, index }
    }

    fn bot(&mut self, account: u64) -> Option<&mut Bot> {
        let i = *self.index.get(&account)?;
        self.bots.get_mut(i)
    }

    pub(crate) fn online(&self) -> usize {
        self.bots
            .iter()
            .filter(|bot| bot.stage == Stage::Online)
            .count()
    }

    /// Whether all bots have been online or logging in, and are offline now.
    pub(crate) fn have_left(&self) -> bool {
        self.bots
            .iter()
            .all(|bot| bot.stage == Stage::Offline && bot.has_come())
    }

    /// Returns the bots' events since the last call.
    pub(crate) fn take_events(&mut self) -> impl Iterator<Item = (u64, Entry)> {
        self.bots.iter_mut().flat_map(|bot| {
            let account = bot.account();
            bot.events.drain(..).map(move |entry| (account, entry))
        })
    }
}

/// The addresses that stand in for all of qq.com.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) http: SocketAddr,
    /// The https address, and the TLS settings that verify it.
    pub(crate) https: Option<(SocketAddr, Tls)>,
}

/// Makes an engine for `bots` bots, which reaches all of qq.com at one server.
///
/// # Errors
/// If this process may not open that many sockets.
pub(crate) fn engine(bots: usize, server: &Reach) -> Result<Engine<World>, Box<dyn Error>> {
    let mut config = Config::default();
    config.max_connections = room_for(bots)?;
    config.max_connections_per_origin = config.max_connections;
    config.max_idle_per_origin = 16 + bots;
    // The first matching entry wins.
    if let Some((https, tls)) = &server.https {
        config.resolve_to("*.qq.com:443", *https);
        config.route.tls = tls.clone();
    }
    config.resolve_to("*.qq.com", server.http);
    config.resolve_to("api.weather.example", server.http);
    Ok(Engine::with_config(config)?)
}

/// Returns how many connections `bots` bots may have, if the server runs in the same process.
fn room_for(bots: usize) -> Result<usize, Box<dyn Error>> {
    /// Files, pipes, polls.
    const OTHERS: usize = 64;
    // Each bot has a poll, a send, a heartbeat, and the concurrent lists of its login.
    let wanted = 64 + 6 * bots;
    // With fewer, the polls, which the server holds open, would take all connections.
    let least = 16 + bots + bots / 4;
    let limit = rlimit::increase_nofile_limit((OTHERS + 2 * wanted) as u64)?;
    let room = usize::try_from(limit)?.saturating_sub(OTHERS) / 2;
    if room < least {
        let needed = OTHERS + 2 * least;
        return Err(
            format!("{bots} bots need {needed} open files, but the limit is {limit}").into(),
        );
    }
    Ok(room.min(wanted))
}

/// Turns the engine until `is_over` returns true. It is called after each turn, at least every 50
/// ms, and never before the first turn, which takes in earlier submissions.
pub(crate) fn drive(
    engine: &mut Engine<World>,
    world: &mut World,
    mut is_over: impl FnMut(&mut World, &Engine<World>) -> bool,
) -> Result<(), httpstream::Error> {
    loop {
        engine.turn(world, Some(LOOK_UP))?;
        if is_over(world, engine) {
            return Ok(());
        }
    }
}

/// Passes on what people do outside of HTTP. May be called from any thread.
pub(crate) fn grant(submitter: &Submitter<World>, wish: Wish) {
    type Call = Box<dyn FnOnce(&mut Bot, &mut Context<'_, Bot>) -> Next<Bot> + Send>;
    let (account, call): (u64, Call) = match wish {
        Wish::Login { account } => (account, Box::new(Bot::log_in)),
        Wish::Logout { account } => (account, Box::new(Bot::log_out)),
        Wish::Code { account, code } => {
            (account, Box::new(move |bot, cx| bot.enter_code(code, cx)))
        }
    };
    // If the engine is gone, there is no bot to tell.
    let _ = submitter.call(within_call(
        move |world: &mut World| world.bot(account),
        call,
    ));
}

/// Returns the wall-clock time, which cookies need.
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}
