// The closure that finds the part must be written in the call itself.
use httpstream::{Context, Engine, Next, Reply, Request, within};

struct Account;

impl Account {
    fn on_login(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::done()
    }
}

struct App {
    accounts: Vec<Account>,
}

fn main() {
    let mut engine = Engine::<App>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    let account = |app: &mut App| app.accounts.get_mut(0);
    engine.submit_to(request, within(account, Account::on_login));
}
