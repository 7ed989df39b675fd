//! Server and bot in separate processes.

use std::error::Error;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::company::Company;
use crate::doors;
use crate::options::{Elsewhere, Options};
use crate::play::{ACCOUNT, write_ledger};
use crate::script::Expectations;
use crate::serve::{Stay, typed};
use crate::server::http::HttpServer;
use crate::server::{Account, Server, Wish};
use crate::show::Show;
use crate::verdict::{Evidence, judge};
use crate::world::{self, World, drive, grant};

/// The interval between two questions to a bot.
const QUESTIONS: Duration = Duration::from_secs(1);
/// How long the last answers may take.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serves until Ctrl-C, and judges whether every question was answered.
pub(crate) fn run_server(options: &Options) -> Result<bool, Box<dyn Error>> {
    let show = Show::new(1, 0);
    let mut brain = Server::new(options.server_settings());
    brain.add_account(Account::sample(ACCOUNT));
    let expectations = Expectations::default();
    let (company, silence) = Company::new(vec![ACCOUNT], QUESTIONS, expectations.clone());
    let opened = doors::open(options)?;
    let (place, _root) = opened.announce()?;
    let server = HttpServer::start(opened.doors, brain, Box::new(company), |wish| {
        if let Wish::Code { account, code } = wish {
            say!("the captcha of {account} says {code}");
        }
    })?;
    say!("listening at {place}");

    let (stop, stopped) = channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })?;
    // Without a limit, wait until Ctrl-C.
    let _ = stopped.recv_timeout(options.lasts.unwrap_or(Duration::MAX));
    silence.fall();
    server.wait_over(LAST_ANSWERS);

    let brain = server.stop();
    let ledger = brain.ledger();
    if let Some(folder) = &options.log {
        write_ledger(folder, ledger)?;
    }
    let expected = expectations.lock().expect("the director has not panicked");
    let verdict = judge(&Evidence {
        ledger,
        expected: &expected,
        logs: &Default::default(),
        switches: &[],
        over_tls: &[],
    });
    say!(
        "{} questions, {} answers, {} logins",
        verdict.messages,
        verdict.answers,
        ledger.logins
    );
    show.verdict(&verdict);
    Ok(verdict.is_good())
}

/// Runs the bot against a server in another process, until Ctrl-C.
pub(crate) fn run_bot(options: &Options, server: &Elsewhere) -> Result<bool, Box<dyn Error>> {
    let mut engine = world::engine(1, &doors::reach(server)?)?;
    let mut world = World::new([options.bot_settings(ACCOUNT)]);
    let submitter = engine.submitter();
    let mut stay = Stay::new(options, submitter.clone())?;
    grant(&submitter, Wish::Login { account: ACCOUNT });

    let lines = typed();
    drive(&mut engine, &mut world, |world, engine| {
        stay.tell(world);
        for line in lines.try_iter().filter(|line| !line.trim().is_empty()) {
            // A captcha's code is the only input that the bot expects.
            let code = line.trim().to_owned();
            grant(
                &submitter,
                Wish::Code {
                    account: ACCOUNT,
                    code,
                },
            );
        }
        stay.is_over(world, engine)
    })?;
    stay.end(&world)
}
