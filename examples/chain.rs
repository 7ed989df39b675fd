//! A chain of two requests: the readback of the first response returns the second request.

use httpstream::{Context, Engine, Error, Next, Reply, Request};

#[path = "support/demo.rs"]
mod demo;

struct Reader {
    server: String,
    lines: Vec<String>,
}

impl Reader {
    /// Reads a token from the response to the login, and returns a request that carries it.
    fn on_login(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        let token = match &reply {
            Ok(response) if response.status().is_success() => response.text().unwrap_or_default(),
            other => return fail("login", other),
        };
        let news = Request::get(format!("{}/news", self.server)).header("X-Token", token);
        match news.build() {
            Ok(news) => Next::send(news).read_by(Reader::on_news),
            Err(error) => fail("news", &Err(error)),
        }
    }

    /// Stores the lines of the response, and ends the chain.
    fn on_news(&mut self, reply: Reply<'_>, _: &mut Context<'_, Self>) -> Next<Self> {
        match &reply {
            Ok(response) if response.status().is_success() => {
                let text = response.text().unwrap_or_default();
                self.lines.extend(text.lines().map(str::to_owned));
                Next::done()
            }
            other => fail("news", other),
        }
    }
}

/// Prints why a request failed, and ends the chain.
fn fail(what: &str, reply: &Reply<'_>) -> Next<Reader> {
    match reply {
        Ok(response) => eprintln!("{what}: status {}", response.status()),
        Err(error) => eprintln!("{what}: {error:#}"),
    }
    Next::done()
}

fn main() -> Result<(), Error> {
    let server = demo::serve(|asked| match &*asked.path {
        "/login" => demo::ok("4711"),
        "/news" => demo::ok("one\ntwo\n"),
        _ => ("404 Not Found", String::new()),
    });
    let mut reader = Reader {
        server: server.expect("a port on loopback"),
        lines: Vec::new(),
    };
    let login = Request::post(format!("{}/login", reader.server)).form([("user", "bot")]);

    let mut engine = Engine::new()?;
    engine.submit(login.build()?, Reader::on_login);
    engine.run(&mut reader)?; // until no chain is left
    println!("{:?}", reader.lines);
    Ok(())
}
