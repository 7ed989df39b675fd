//! Fetches URLs, all at once, on one thread. `get --help` lists the options; `RUST_LOG=debug` logs
//! each transition of the engine: connected, answered, idle, closed.
//!
//! Each URL is a chain of one request. Its readback is a `Download`, which streams the body to a
//! file or to stdout. The `Session`, which is the engine's state, holds what all downloads share.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderName, Method, Uri};
use httpstream::tls::Tls;
use httpstream::{
    Config, Context, Engine, Flow, Next, Readback, Reply, Request, Response, Stats, Timings,
};

const HELP: &str = "\
Usage: get [options] URL...

Fetches all URLs at once. When a URL is done, prints a line with its status, the HTTP version,
the size of the body, whether the connection was fresh or reused, when each step was completed
(in milliseconds since the start), and the URL. Does not follow redirects.

With one URL and without -o, the body goes to stdout and the line to stderr. Otherwise the line
goes to stdout, and bodies are discarded unless -o is given.

  -o DIR                    write each body to a file in DIR, named after the URL's path and query;
                            in DIR/HOST_PORT if the URLs are of more than one origin
  -i                        also print the response's header section
  -H 'NAME: VALUE'          send this header field; may be repeated
  -X METHOD                 use this method instead of GET
  -d DATA                   send DATA as the body, as form data; with POST unless -X is given
      --list FILE           also fetch the URLs in FILE, one per line; - means stdin
      --close               ask the server to close the connection after each response
      --connections N       open at most N connections to one server (default 256)
      --timeout SECONDS     give up on a URL after this time (default: never)
      --cacert FILE         trust the root certificates in FILE (PEM) instead of the system's
      --cert FILE           the client certificate with its chain (PEM), for servers that request
                            one
      --key FILE            the key of the client certificate (PEM); default: the file of --cert
      --unix-socket PATH    connect through this unix socket, whatever the URLs are
      --public-only         connect to public addresses only, whatever the names resolve to
      --resolve HOST:PORT:ADDR
                            connect to the address ADDR instead of HOST:PORT; may be repeated
  -h, --help                print this help

Exit code: 0 if every URL was fetched; 1 if one failed or has a status of 400 or above; 2 if the
arguments are wrong (nothing was sent).
";

fn main() -> ExitCode {
    env_logger::init();
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("get: {wrong}\nTry get --help.");
            return ExitCode::from(2);
        }
    };
    match run(options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("get: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Fetches the URLs, and returns how many of them failed.
fn run(options: Options) -> Result<usize, httpstream::Error> {
    let mut engine = Engine::with_config(options.config)?;
    let mut session = Session::new(options.requests.len(), options.folder, options.show_head);
    let begin = Instant::now();
    for request in options.requests {
        engine.submit_to(request.clone(), Download::new(request));
    }
    engine.run(&mut session)?;
    if session.urls > 1 {
        session.sum_up(&engine.stats(), begin.elapsed());
    }
    Ok(session.failed)
}

// ---- one download ----

/// The state that all downloads share.
struct Session {
    urls: usize,
    folder: Option<Folder>,
    show_head: bool,
    failed: usize,
    bytes: u64,
}

/// Reads the response to one request.
struct Download {
    request: Request,
    sink: Sink,
    bytes: u64,
    /// Why the download was aborted, if it was aborted here.
    refused: Option<String>,
}

/// Where the body of one response goes. A write may block, and then blocks the loop, which is
/// acceptable for files on a local disk.
enum Sink {
    Nowhere,
    Stdout,
    File(File, PathBuf),
}

impl Readback<Session> for Download {
    fn on_head(
        &mut self,
        session: &mut Session,
        head: &Response<'_>,
        _: &mut Context<'_, Session>,
    ) -> Flow {
        match self.open_sink(session, head) {
            Ok(sink) => {
                self.sink = sink;
                Flow::Stream
            }
            Err(why) => self.refuse(why),
        }
    }

    fn on_data(&mut self, _: &mut Session, data: &[u8], _: &mut Context<'_, Session>) -> Flow {
        let first = self.bytes == 0;
        self.bytes += data.len() as u64;
        let written = match &mut self.sink {
            Sink::Nowhere => Ok(()),
            Sink::Stdout if first && data.contains(&0) && io::stdout().is_terminal() => {
                return self.refuse(
                    "the body is binary, which would garble the terminal: redirect it, or use -o"
                        .to_owned(),
                );
            }
            Sink::Stdout => io::stdout().write_all(data),
            Sink::File(file, _) => file.write_all(data),
        };
        match written {
            Ok(()) => Flow::Stream,
            Err(error) => self.refuse(format!("cannot write the body: {error}")),
        }
    }

    fn on_reply(
        &mut self,
        session: &mut Session,
        reply: Reply<'_>,
        _: &mut Context<'_, Session>,
    ) -> Next<Session> {
        match reply {
            Ok(response) => {
                session.bytes += self.bytes;
                session.report(&response, self.bytes);
            }
            Err(error) => {
                let why = self.refused.take().unwrap_or_else(|| format!("{error:#}"));
                session.fail(self.request.uri(), &why);
                // An incomplete file must not be taken for a complete one.
                if let Sink::File(_, path) = &self.sink {
                    let _ = fs::remove_file(path);
                }
            }
        }
        Next::done()
    }
}

impl Download {
    fn new(request: Request) -> Self {
        Self {
            request,
            sink: Sink::Nowhere,
            bytes: 0,
            refused: None,
        }
    }

    fn open_sink(&self, session: &Session, head: &Response<'_>) -> Result<Sink, String> {
        let Some(folder) = &session.folder else {
            let takes_body = session.body_is_on_stdout();
            if takes_body && session.show_head {
                print_head(&mut io::stdout(), head).map_err(|error| error.to_string())?;
            }
            return Ok(if takes_body {
                Sink::Stdout
            } else {
                Sink::Nowhere
            });
        };
        if is_failure(head) {
            return Ok(Sink::Nowhere);
        }
        let path = folder.path_of(&self.request)?;
        let opened = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| File::create(&path));
        match opened {
            Ok(file) => Ok(Sink::File(file, path)),
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn refuse(&mut self, why: String) -> Flow {
        self.refused = Some(why);
        Flow::Abort
    }
}

/// The directory into which bodies are written as files.
struct Folder {
    dir: PathBuf,
    /// Whether each origin has a subdirectory, which is so if there is more than one origin.
    by_origin: bool,
}

impl Folder {
    /// Returns the folder, after checking that each request has a file of its own in it.
    fn new(dir: PathBuf, requests: &[Request]) -> Result<Self, String> {
        let mut origins = requests.iter().map(|request| origin(request.uri()));
        let first = origins.next();
        let by_origin = origins.any(|origin| Some(origin) != first);
        let folder = Self { dir, by_origin };

        let mut taken = HashSet::new();
        for request in requests {
            let path = folder.path_of(request)?;
            if let Some(twice) = taken.replace(path) {
                let (twice, url) = (twice.display(), request.uri());
                return Err(format!("{url}: {twice} is already the file of another URL"));
            }
        }
        Ok(folder)
    }

    /// Returns the file for the body of `request`. Names stay percent-encoded as they are in the
    /// URL, so none of them can lead into another directory.
    fn path_of(&self, request: &Request) -> Result<PathBuf, String> {
        let mut path = self.dir.clone();
        let url = request.uri();
        if self.by_origin {
            path.push(origin(url));
        }
        let (folders, file) = url.path().rsplit_once('/').unwrap_or(("", url.path()));
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            path.push(checked(folder, url)?);
        }
        let file = if file.is_empty() { "index.html" } else { file };
        match url.query() {
            Some(query) => path.push(checked(
                &format!("{file}?{}", query.replace('/', "%2F")),
                url,
            )?),
            None => path.push(checked(file, url)?),
        }
        Ok(path)
    }
}

/// Returns `HOST_PORT`, including the port if it is the scheme's default.
fn origin(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let usual = match url.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    format!("{host}_{}", url.port_u16().unwrap_or(usual))
}

/// Refuses path segments that name another directory.
fn checked<'a>(name: &'a str, url: &Uri) -> Result<&'a str, String> {
    match matches!(name, "." | "..") {
        true => Err(format!("{url}: {name:?} cannot be a file name")),
        false => Ok(name),
    }
}

// ---- output ----

impl Session {
    fn new(urls: usize, folder: Option<Folder>, show_head: bool) -> Self {
        Self {
            urls,
            folder,
            show_head,
            failed: 0,
            bytes: 0,
        }
    }

    fn body_is_on_stdout(&self) -> bool {
        self.urls == 1 && self.folder.is_none()
    }

    /// Prints a line about a response that has been read completely.
    fn report(&mut self, response: &Response<'_>, bytes: u64) {
        let info = response.info();
        let line = format!(
            "{} {:?} {bytes:>10} B  {}  {}  {}\n",
            response.status().as_u16(),
            response.version(),
            if info.reused { "reused" } else { "fresh " },
            steps(&info.timings),
            info.url(),
        );
        self.say(|out| {
            out.write_all(line.as_bytes())?;
            match self.show_head && !self.body_is_on_stdout() {
                true => print_head(out, response),
                false => Ok(()),
            }
        });
        if is_failure(response) {
            self.fail(info.url(), &response.status().to_string());
        }
    }

    fn fail(&mut self, url: &Uri, why: &str) {
        self.failed += 1;
        eprintln!("get: {url} failed: {why}");
    }

    fn sum_up(&self, stats: &Stats, took: Duration) {
        let line = format!(
            "{} of {} fetched, {} bytes in {:.3} s; {} connections opened, {} requests on reused connections, {} sent again\n",
            self.urls - self.failed,
            self.urls,
            self.bytes,
            took.as_secs_f64(),
            stats.opened,
            stats.reused,
            stats.retried,
        );
        self.say(|out| out.write_all(line.as_bytes()));
    }

    /// Writes to stdout, or to stderr if the body goes to stdout. Errors are ignored: if the stream
    /// is closed, nobody reads the line.
    fn say(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let _ = match self.body_is_on_stdout() {
            true => write(&mut io::stderr()),
            false => write(&mut io::stdout()),
        };
    }
}

fn is_failure(response: &Response<'_>) -> bool {
    response.status().as_u16() >= 400
}

/// Describes when each step was completed, in milliseconds since the start.
fn steps(timings: &Timings) -> String {
    let steps = [
        ("resolve", timings.resolve),
        ("connect", timings.connect),
        ("TLS", timings.tls),
        ("sent", timings.sent),
        ("first byte", timings.first_byte),
        ("done", timings.done),
    ];
    let steps = steps.map(|(name, at)| match at {
        Some(at) => format!("{name} {:.1}", at.as_secs_f64() * 1e3),
        None => format!("{name} -"),
    });
    steps.join(", ")
}

/// Prints the header section as it was received.
fn print_head(out: &mut dyn Write, response: &Response<'_>) -> io::Result<()> {
    write!(
        out,
        "{:?} {} ",
        response.version(),
        response.status().as_u16()
    )?;
    out.write_all(response.reason())?;
    for (name, value) in response.headers() {
        write!(out, "\r\n{name}: ")?;
        out.write_all(value)?;
    }
    out.write_all(b"\r\n\r\n")
}

// ---- arguments ----

struct Options {
    requests: Vec<Request>,
    config: Config,
    folder: Option<Folder>,
    show_head: bool,
}

/// The properties that all requests have in common.
#[derive(Default)]
struct Template {
    method: Option<Method>,
    fields: Vec<(String, String)>,
    body: Option<String>,
    close: bool,
}

impl Options {
    /// Returns `None` if help is requested. An error names the argument that is wrong.
    fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut args = Args(args);
        let mut template = Template::default();
        let mut config = Config::default();
        let (mut dir, mut show_head) = (None, false);
        let mut trust = Trust::default();
        // Each URL, and the argument or line that it came from.
        let mut urls: Vec<(String, String)> = Vec::new();

        // A connection may need a second descriptor, for its file. The usual limit is 1024.
        config.max_connections = 400;
        // A large download may take any time. The idle timeout still ends one that stalls.
        config.timeouts.total = None;

        let mut only_urls = false;
        while let Some(arg) = args.next_text()? {
            match arg.as_str() {
                _ if only_urls || !arg.starts_with('-') => {
                    urls.push((arg.clone(), format!("{arg:?}")));
                }
                "--" => only_urls = true,
                "-h" | "--help" => return Ok(None),
                "-i" => show_head = true,
                "--close" => template.close = true,
                "-o" => dir = Some(PathBuf::from(args.value_of(&arg)?)),
                "-d" => template.body = Some(args.text_of(&arg)?),
                "-H" => {
                    let number = template.fields.len() + 1;
                    template.fields.push(field(number, &args.text_of(&arg)?)?);
                }
                "-X" => template.method = Some(method(&args.text_of(&arg)?)?),
                "--list" => read_list(&args.value_of(&arg)?, &mut urls)?,
                "--timeout" => config.timeouts.total = Some(seconds(&args.text_of(&arg)?)?),
                "--connections" => {
                    let n = connections(&args.text_of(&arg)?)?;
                    (
                        config.max_connections_per_origin,
                        config.max_idle_per_origin,
                    ) = (n, n);
                }
                "--cacert" => trust.roots = Some(args.value_of(&arg)?),
                "--cert" => trust.certificate = Some(args.value_of(&arg)?),
                "--key" => trust.key = Some(args.value_of(&arg)?),
                "--unix-socket" => config.route.unix_path = Some(args.value_of(&arg)?.into()),
                "--public-only" => config.address_filter = Some(Arc::new(httpstream::public_only)),
                "--resolve" => {
                    let (pattern, addr) = address(&args.text_of(&arg)?)?;
                    config.resolve_to(&pattern, addr);
                }
                // The argument is not repeated, because it may contain a secret.
                _ if arg.starts_with("-H") => {
                    return Err("-H: the value must be a separate argument".to_owned());
                }
                _ => return Err(format!("{arg}: no such option")),
            }
        }
        if urls.is_empty() {
            return Err("no URL given".to_owned());
        }
        config.route.tls = trust.into_tls()?;
        let requests = template.requests(&urls)?;
        let folder = dir.map(|dir| Folder::new(dir, &requests)).transpose()?;
        Ok(Some(Self {
            requests,
            config,
            folder,
            show_head,
        }))
    }
}

impl Template {
    fn requests(&self, urls: &[(String, String)]) -> Result<Vec<Request>, String> {
        let request = |(url, place): &(String, String)| {
            self.request(url)
                .map_err(|error| format!("{place}: {error:#}"))
        };
        urls.iter().map(request).collect()
    }

    fn request(&self, url: &str) -> Result<Request, httpstream::Error> {
        let method = match (&self.method, &self.body) {
            (Some(method), _) => method.clone(),
            (None, Some(_)) => Method::POST,
            (None, None) => Method::GET,
        };
        let mut request = Request::builder(method, url);
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            let has_type = |(name, _): &(String, _)| name.eq_ignore_ascii_case("content-type");
            if !self.fields.iter().any(has_type) {
                request = request.header("Content-Type", "application/x-www-form-urlencoded");
            }
            request = request.body(body.as_bytes());
        }
        if self.close {
            request = request.close();
        }
        request.build()
    }
}

struct Args<I>(I);

impl<I: Iterator<Item = OsString>> Args<I> {
    fn next_text(&mut self) -> Result<Option<String>, String> {
        let text = self.0.next().map(OsString::into_string).transpose();
        text.map_err(|arg| format!("{}: not UTF-8", arg.display()))
    }

    fn value_of(&mut self, option: &str) -> Result<OsString, String> {
        let value = self.0.next();
        value.ok_or_else(|| format!("{option}: a value is missing"))
    }

    fn text_of(&mut self, option: &str) -> Result<String, String> {
        let text = self.value_of(option)?.into_string();
        text.map_err(|_| format!("{option}: its value is not UTF-8"))
    }
}

/// Parses the value of -H. It may be a secret, so an error identifies the field only by its number
/// and name.
fn field(number: usize, text: &str) -> Result<(String, String), String> {
    let Some((name, value)) = text.split_once(':') else {
        return Err(format!("-H number {number}: no colon"));
    };
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Err(format!(
            "-H number {number}: no valid header name before the colon"
        ));
    }
    let probe = Request::get("http://localhost/").header(name, value);
    match probe.build() {
        Ok(_) => Ok((name.to_owned(), value.to_owned())),
        Err(error) => Err(format!("-H number {number}: {error:#}")),
    }
}

fn method(text: &str) -> Result<Method, String> {
    let method = Method::from_bytes(text.as_bytes());
    let method = method.map_err(|error| format!("-X {text:?}: {error}"))?;
    match Request::builder(method.clone(), "http://localhost/").build() {
        Ok(_) => Ok(method),
        Err(error) => Err(format!("-X {text:?}: {error:#}")),
    }
}

fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n @ 1..) => Ok(n),
        _ => Err(format!("--connections {text:?}: not a number above 0")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("--timeout {text:?}: not a number of seconds above 0"))
}

/// Parses the value of --resolve. An IPv6 address may be in brackets or not.
fn address(text: &str) -> Result<(String, SocketAddr), String> {
    let wrong = || format!("--resolve {text:?}: not HOST:PORT:ADDR");
    let mut parts = text.splitn(3, ':');
    let (Some(host), Some(port), Some(addr)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(wrong());
    };
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let bare = addr
        .strip_prefix('[')
        .and_then(|addr| addr.strip_suffix(']'))
        .unwrap_or(addr);
    let ip: IpAddr = bare.parse().map_err(|_| wrong())?;
    Ok((format!("{host}:{port}"), SocketAddr::new(ip, port)))
}

/// The PEM files that https uses: the root certificates to trust, and the client certificate.
#[derive(Default)]
struct Trust {
    roots: Option<OsString>,
    certificate: Option<OsString>,
    key: Option<OsString>,
}

impl Trust {
    fn into_tls(self) -> Result<Tls, String> {
        let read = |option: &str, file: &OsString| {
            fs::read(file).map_err(|error| format!("{option} {}: {error}", file.display()))
        };
        let of = |option: &str, file: &OsString, error: httpstream::Error| {
            format!("{option} {}: {error:#}", file.display())
        };
        let tls = match &self.roots {
            None => Tls::platform(),
            Some(file) => Tls::with_roots_pem(&read("--cacert", file)?)
                .map_err(|error| of("--cacert", file, error))?,
        };
        let Some(file) = &self.certificate else {
            return match self.key {
                Some(_) => Err("--key: requires --cert".to_owned()),
                None => Ok(tls),
            };
        };
        let chain = read("--cert", file)?;
        let key = match &self.key {
            Some(key) => read("--key", key)?,
            None => chain.clone(),
        };
        tls.client_certificate_pem(&chain, &key)
            .map_err(|error| of("--cert", file, error))
    }
}

fn read_list(file: &OsString, urls: &mut Vec<(String, String)>) -> Result<(), String> {
    let name = file.display();
    let mut text = String::new();
    let read = match file == "-" {
        true => io::stdin().read_to_string(&mut text),
        false => File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| format!("--list {name}: {error}"))?;
    for (line, url) in (1..).zip(text.lines().map(str::trim)) {
        if !url.is_empty() {
            urls.push((url.to_owned(), format!("--list {name}: line {line}")));
        }
    }
    Ok(())
}
