// The first parameter of a readback is the engine's state, which is not `Bot` here.
use httpstream::{Context, Engine, Next, Reply, Request};

struct Bot;

impl Bot {
    fn on_login(&mut self, _: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        Next::done()
    }
}

fn main() {
    let mut engine = Engine::<()>::new().unwrap();
    let request = Request::get("http://127.0.0.1:1/").build().unwrap();
    engine.submit(request, Bot::on_login);
}
