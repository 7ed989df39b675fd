// A response is only lent to the readback. `into_body`, `to_http` and `info().clone()` are owned.
use httpstream::{Context, Next, Reply, Response};

struct Bot<'a> {
    last: Option<Response<'a>>,
}

impl Bot<'_> {
    fn on_poll(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        self.last = reply.ok();
        Next::again()
    }
}

fn main() {}
