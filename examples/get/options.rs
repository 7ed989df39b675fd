//! What the command line asks for.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use httpstream::{Config, Keepalive, LowSpeed};

use crate::args::{Arg, Args, Flag, Setting};
use crate::cookies::Cookies;
use crate::fields::Fields;
use crate::template::Template;
use crate::trust::Trust;
use crate::upload::Upload;
use crate::values::{User, Value};
use crate::write_out::Format;

/// The defaults of curl.
const MAX_REDIRS: usize = 50;
const PARALLEL: usize = 50;
const MAX_PARALLEL: usize = 300;
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A session's attempts are counted up to 255, and the first one is no retry.
const MAX_RETRIES: usize = 254;

pub(crate) struct Options {
    pub(crate) urls: Vec<Url>,
    pub(crate) request: Template,
    pub(crate) conduct: Conduct,
    pub(crate) saving: Saving,
    pub(crate) telling: Telling,
    pub(crate) config: Config,
    pub(crate) trust: Trust,
    is_parallel: bool,
    parallel_max: Option<usize>,
}

pub(crate) struct Url {
    pub(crate) text: String,
    /// Where it was given.
    pub(crate) place: String,
}

/// What is done for a request besides sending it.
pub(crate) struct Conduct {
    pub(crate) follows: bool,
    pub(crate) max_redirs: usize,
    pub(crate) compressed: bool,
    pub(crate) user: Option<User>,
    pub(crate) is_digest: bool,
    pub(crate) cookies: Cookies,
    pub(crate) retries: usize,
    pub(crate) retry_delay: Option<Duration>,
    pub(crate) retry_max_time: Option<Duration>,
}

impl Conduct {
    fn new() -> Self {
        Self {
            follows: false,
            max_redirs: MAX_REDIRS,
            compressed: false,
            user: None,
            is_digest: false,
            cookies: Cookies::default(),
            retries: 0,
            retry_delay: None,
            retry_max_time: None,
        }
    }
}

/// Where the responses go.
#[derive(Default)]
pub(crate) struct Saving {
    /// In the order of the URLs.
    pub(crate) outputs: Vec<Output>,
    pub(crate) remote_name_all: bool,
    pub(crate) output_dir: Option<PathBuf>,
    pub(crate) creates_dirs: bool,
    pub(crate) removes_on_error: bool,
    pub(crate) tree: Option<PathBuf>,
    pub(crate) fail: Option<Fail>,
    pub(crate) include: bool,
    pub(crate) resume: Option<Resume>,
    /// Bodies are event streams, of which the events are printed.
    pub(crate) events: bool,
}

/// Where bodies begin that are continued (-C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resume {
    /// At the end of the file that they are written to.
    AfterFile,
    /// Behind so many bytes.
    At(u64),
}

pub(crate) enum Output {
    To(PathBuf),
    RemoteName,
}

/// What is done with a response whose status is 400 or above, besides failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    WithBody,
    WithoutBody,
}

/// What is printed besides the responses.
#[derive(Default)]
pub(crate) struct Telling {
    pub(crate) silent: bool,
    pub(crate) show_error: bool,
    pub(crate) write_out: Option<Format>,
}

impl Options {
    fn new() -> Self {
        let mut config = Config::default();
        // As with curl, a server may take its time unless an option says otherwise. The probes end
        // the wait for one that is gone.
        config.timeouts.write = None;
        config.timeouts.first_byte = None;
        config.timeouts.idle = None;
        config.timeouts.total = None;
        config.route.keepalive = Some(Keepalive::after(KEEPALIVE));
        Self {
            urls: Vec::new(),
            request: Template::new(),
            conduct: Conduct::new(),
            saving: Saving::default(),
            telling: Telling::default(),
            config,
            trust: Trust::default(),
            is_parallel: false,
            parallel_max: None,
        }
    }

    /// Returns `None` if help is requested. An error names the argument that is wrong.
    pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Self>, String> {
        let mut options = Self::new();
        let mut args = Args::new(args);
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Flag(Flag::Help) => return Ok(None),
                Arg::Flag(flag) => options.turn_on(flag),
                Arg::Setting(setting, value) => options.set(setting, value)?,
                Arg::Url(url) => options.add_url(url),
            }
        }
        Ok(Some(options))
    }

    /// Returns how many requests are sent at once.
    pub(crate) fn parallel(&self) -> usize {
        match self.is_parallel {
            true => self.parallel_max.unwrap_or(PARALLEL),
            false => 1,
        }
    }

    fn add_url(&mut self, text: String) {
        let place = format!("URL number {}", self.urls.len() + 1);
        self.urls.push(Url { text, place });
    }

    fn turn_on(&mut self, flag: Flag) {
        let Self {
            request,
            conduct,
            saving,
            telling,
            ..
        } = self;
        match flag {
            Flag::Help => {}
            Flag::Close => request.close = true,
            Flag::Get => request.body_is_query = true,
            Flag::Head => request.only_head = true,
            Flag::Basic => conduct.is_digest = false,
            Flag::Digest => conduct.is_digest = true,
            Flag::Compressed => conduct.compressed = true,
            Flag::Location => conduct.follows = true,
            Flag::CreateDirs => saving.creates_dirs = true,
            Flag::Fail => saving.fail = Some(Fail::WithoutBody),
            Flag::FailWithBody => saving.fail = Some(Fail::WithBody),
            Flag::Include => saving.include = true,
            Flag::RemoteName => saving.outputs.push(Output::RemoteName),
            Flag::RemoteNameAll => saving.remote_name_all = true,
            Flag::RemoveOnError => saving.removes_on_error = true,
            Flag::Sse => saving.events = true,
            Flag::ShowError => telling.show_error = true,
            Flag::Silent => telling.silent = true,
            Flag::Parallel => self.is_parallel = true,
            Flag::PublicOnly => {
                self.config.address_filter = Some(Arc::new(httpstream::public_only));
            }
        }
    }

    fn set(&mut self, setting: Setting, value: Value) -> Result<(), String> {
        let Self {
            request,
            conduct,
            saving,
            config,
            trust,
            ..
        } = self;
        match setting {
            Setting::Data => request.body.add_data(&value)?,
            Setting::DataBinary => request.body.add_binary(&value)?,
            Setting::DataRaw => request.body.add_raw(&value),
            Setting::DataUrlencode => request.body.add_urlencoded(&value)?,
            Setting::Json => request.body.add_json(&value)?,
            Setting::Form => request.form.add(&value)?,
            Setting::FormString => request.form.add_text(&value)?,
            Setting::UploadFile => request.uploads.push(Upload::new(&value)?),
            Setting::Expect100Timeout => request.consent = value.seconds()?.unwrap_or_default(),
            Setting::Header => request.fields.add(&value)?,
            Setting::Referer => set_referer(&mut request.fields, &value)?,
            Setting::UserAgent => request.fields.set_by(&value, "User-Agent")?,
            Setting::Request => request.method = Some(value.method()?),
            Setting::User => conduct.user = Some(value.user()?),
            Setting::Cookie => conduct.cookies.add(value)?,
            Setting::CookieJar => conduct.cookies.save_to(value),
            Setting::MaxRedirs => conduct.max_redirs = value.redirects()?,
            Setting::Retry => conduct.retries = value.number(0..=MAX_RETRIES)?,
            Setting::RetryDelay => conduct.retry_delay = value.seconds()?,
            Setting::RetryMaxTime => conduct.retry_max_time = value.seconds()?,
            Setting::ContinueAt => saving.resume = Some(value.offset()?),
            Setting::Output => saving.outputs.push(Output::To(value.path())),
            Setting::OutputDir => saving.output_dir = Some(value.path()),
            Setting::Tree => saving.tree = Some(value.path()),
            Setting::WriteOut => self.telling.write_out = Some(Format::parse(&value)?),
            Setting::ParallelMax => self.parallel_max = Some(value.number(1..=MAX_PARALLEL)?),
            Setting::MaxTime => config.timeouts.total = value.seconds()?,
            Setting::ConnectTimeout => set_connect_timeout(config, value.seconds()?),
            Setting::LimitRate => request.limit_rate = value.bytes()?,
            Setting::SpeedLimit => low_speed(config).bytes_per_second = value.bytes()?,
            Setting::SpeedTime => low_speed(config).window = window(value.seconds()?),
            Setting::Connections => set_connections(config, value.number(1..=usize::MAX)?),
            Setting::UnixSocket => config.route.unix_path = Some(value.path()),
            Setting::Resolve => {
                let (pattern, addr) = value.address()?;
                config.resolve_to(&pattern, addr);
            }
            Setting::CaCert => trust.roots = Some(value),
            Setting::Cert => trust.certificate = Some(value),
            Setting::Key => trust.key = Some(value),
            Setting::List => self.add_list(&value)?,
            Setting::Url => self.add_url(value.text()?.to_owned()),
        }
        Ok(())
    }

    /// Adds the URLs in a file, one per line.
    fn add_list(&mut self, value: &Value) -> Result<(), String> {
        let bytes = value.read(value.raw())?;
        let text = str::from_utf8(&bytes).map_err(|_| value.wrong("the file is not UTF-8"))?;
        for (number, url) in (1..).zip(text.lines().map(str::trim)) {
            if !url.is_empty() {
                let place = format!("{}: line {number}", value.raw().display());
                let (text, place) = (url.to_owned(), value.wrong(place));
                self.urls.push(Url { text, place });
            }
        }
        Ok(())
    }
}

fn set_referer(fields: &mut Fields, value: &Value) -> Result<(), String> {
    if value.text()?.ends_with(";auto") {
        return Err(value.wrong("\";auto\" is not supported"));
    }
    fields.set_by(value, "Referer")
}

/// Limits each of the phases before a request is sent.
fn set_connect_timeout(config: &mut Config, limit: Option<Duration>) {
    let timeouts = &mut config.timeouts;
    timeouts.resolve = limit;
    timeouts.connect = limit;
    timeouts.tls = limit;
}

/// Returns the low speed, by default that of curl if only one of its options is given.
fn low_speed(config: &mut Config) -> &mut LowSpeed {
    let low_speed = &mut config.timeouts.low_speed;
    low_speed.get_or_insert(LowSpeed::new(1, Duration::from_secs(30)))
}

/// In a window that never ends, no speed is too low.
fn window(seconds: Option<Duration>) -> Duration {
    seconds.unwrap_or(Duration::MAX)
}

fn set_connections(config: &mut Config, most: usize) {
    config.max_connections_per_origin = most;
    config.max_idle_per_origin = most;
}
