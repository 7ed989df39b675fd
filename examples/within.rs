//! Several accounts in one engine. The engine's state is the map of all accounts; `within` turns a
//! method of one account into a readback for that engine.

use std::collections::BTreeMap;

use httpstream::{Context, Engine, Error, Next, Reply, Request, within};

#[path = "support/demo.rs"]
mod demo;

struct Account {
    name: String,
    polls: u32,
}

impl Account {
    /// Has access to its own account only.
    fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match reply {
            Ok(news) if news.status().is_success() && self.polls < 2 => {
                self.polls += 1;
                println!("{}: {}", self.name, news.text().unwrap_or("(not text)"));
                Next::again()
            }
            _ => Next::done(),
        }
    }
}

type Accounts = BTreeMap<u64, Account>;

fn main() -> Result<(), Error> {
    let server = demo::serve(|asked| demo::ok(format!("news for {}", asked.path)));
    let server = server.expect("a port on loopback");

    let mut engine = Engine::<Accounts>::new()?;
    let mut accounts = Accounts::new();
    for (id, name) in [(1, "alice"), (2, "bob")] {
        let (name, polls) = (name.to_owned(), 0);
        accounts.insert(id, Account { name, polls });
        let poll = Request::get(format!("{server}/{id}")).build()?;
        // If the account has been removed by the time the response arrives, the chain ends.
        let readback = within(
            move |accounts: &mut Accounts| accounts.get_mut(&id),
            Account::on_poll,
        );
        engine.submit_to(poll, readback);
    }
    engine.run(&mut accounts)
}
