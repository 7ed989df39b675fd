//! Splits a command line into options, their values, and URLs.
//!
//! As with curl, short options can be combined (`-sSL`), and the value of the last one may follow
//! at once (`-opage`) or as the next argument (`-o page`). Errors do not repeat what may be the
//! value of an option, because it may be a secret.

use std::ffi::OsString;
use std::mem;

use crate::values::Value;

/// An option without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Basic,
    Close,
    Compressed,
    CreateDirs,
    Digest,
    Fail,
    FailWithBody,
    Get,
    Head,
    Help,
    Include,
    Location,
    Parallel,
    PublicOnly,
    RemoteName,
    RemoteNameAll,
    RemoveOnError,
    ShowError,
    Silent,
    Sse,
}

/// An option with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    CaCert,
    Cert,
    ConnectTimeout,
    Connections,
    ContinueAt,
    Cookie,
    CookieJar,
    Data,
    DataBinary,
    DataRaw,
    DataUrlencode,
    Expect100Timeout,
    Form,
    FormString,
    Header,
    Json,
    Key,
    LimitRate,
    List,
    MaxRedirs,
    MaxTime,
    Output,
    OutputDir,
    ParallelMax,
    Referer,
    Request,
    Resolve,
    Retry,
    RetryDelay,
    RetryMaxTime,
    SpeedLimit,
    SpeedTime,
    Tree,
    UnixSocket,
    UploadFile,
    Url,
    User,
    UserAgent,
    WriteOut,
}

/// Short name or "", long name, meaning.
const FLAGS: &[(&str, &str, Flag)] = &[
    ("", "basic", Flag::Basic),
    ("", "close", Flag::Close),
    ("", "compressed", Flag::Compressed),
    ("", "create-dirs", Flag::CreateDirs),
    ("", "digest", Flag::Digest),
    ("f", "fail", Flag::Fail),
    ("", "fail-with-body", Flag::FailWithBody),
    ("G", "get", Flag::Get),
    ("I", "head", Flag::Head),
    ("h", "help", Flag::Help),
    ("i", "include", Flag::Include),
    ("L", "location", Flag::Location),
    ("Z", "parallel", Flag::Parallel),
    ("", "public-only", Flag::PublicOnly),
    ("O", "remote-name", Flag::RemoteName),
    ("", "remote-name-all", Flag::RemoteNameAll),
    ("", "remove-on-error", Flag::RemoveOnError),
    ("S", "show-error", Flag::ShowError),
    ("s", "silent", Flag::Silent),
    ("", "sse", Flag::Sse),
];

/// Short name or "", long name, meaning.
const SETTINGS: &[(&str, &str, Setting)] = &[
    ("", "cacert", Setting::CaCert),
    ("E", "cert", Setting::Cert),
    ("", "connect-timeout", Setting::ConnectTimeout),
    ("", "connections", Setting::Connections),
    ("C", "continue-at", Setting::ContinueAt),
    ("b", "cookie", Setting::Cookie),
    ("c", "cookie-jar", Setting::CookieJar),
    ("d", "data", Setting::Data),
    ("", "data-ascii", Setting::Data),
    ("", "data-binary", Setting::DataBinary),
    ("", "data-raw", Setting::DataRaw),
    ("", "data-urlencode", Setting::DataUrlencode),
    ("", "expect100-timeout", Setting::Expect100Timeout),
    ("F", "form", Setting::Form),
    ("", "form-string", Setting::FormString),
    ("H", "header", Setting::Header),
    ("", "json", Setting::Json),
    ("", "key", Setting::Key),
    ("", "limit-rate", Setting::LimitRate),
    ("", "list", Setting::List),
    ("", "max-redirs", Setting::MaxRedirs),
    ("m", "max-time", Setting::MaxTime),
    ("", "timeout", Setting::MaxTime),
    ("o", "output", Setting::Output),
    ("", "output-dir", Setting::OutputDir),
    ("", "parallel-max", Setting::ParallelMax),
    ("e", "referer", Setting::Referer),
    ("X", "request", Setting::Request),
    ("", "resolve", Setting::Resolve),
    ("", "retry", Setting::Retry),
    ("", "retry-delay", Setting::RetryDelay),
    ("", "retry-max-time", Setting::RetryMaxTime),
    ("Y", "speed-limit", Setting::SpeedLimit),
    ("y", "speed-time", Setting::SpeedTime),
    ("", "tree", Setting::Tree),
    ("", "unix-socket", Setting::UnixSocket),
    ("T", "upload-file", Setting::UploadFile),
    ("", "url", Setting::Url),
    ("u", "user", Setting::User),
    ("A", "user-agent", Setting::UserAgent),
    ("w", "write-out", Setting::WriteOut),
];

/// One part of a command line.
pub(crate) enum Arg {
    Url(String),
    Flag(Flag),
    Setting(Setting, Value),
}

pub(crate) struct Args<I> {
    args: I,
    /// The rest of combined short options, without the hyphen.
    combined: String,
    /// After `--`, everything is a URL.
    only_urls: bool,
}

impl<I: Iterator<Item = OsString>> Args<I> {
    pub(crate) fn new(args: I) -> Self {
        Self {
            args,
            combined: String::new(),
            only_urls: false,
        }
    }

    /// Returns the next part of the command line. An error names the argument that is wrong.
    pub(crate) fn next(&mut self) -> Result<Option<Arg>, String> {
        if !self.combined.is_empty() {
            return self.short().map(Some);
        }
        let Some(arg) = self.args.next() else {
            return Ok(None);
        };
        let arg = arg
            .into_string()
            .map_err(|_| "an argument is not UTF-8".to_owned())?;
        if self.only_urls {
            return Ok(Some(Arg::Url(arg)));
        }
        if arg == "--" {
            self.only_urls = true;
            return self.next();
        }
        match (arg.strip_prefix("--"), arg.strip_prefix('-')) {
            (Some(name), _) => self.long(name).map(Some),
            (None, Some(letters)) if !letters.is_empty() => {
                self.combined = letters.to_owned();
                self.short().map(Some)
            }
            _ => Ok(Some(Arg::Url(arg))),
        }
    }

    fn long(&mut self, name: &str) -> Result<Arg, String> {
        if let Some((.., flag)) = FLAGS.iter().find(|(_, long, _)| *long == name) {
            return Ok(Arg::Flag(*flag));
        }
        if let Some((.., setting)) = SETTINGS.iter().find(|(_, long, _)| *long == name) {
            let value = self.value(format!("--{name}"))?;
            return Ok(Arg::Setting(*setting, value));
        }
        Err(match name.split_once('=') {
            Some((name, _)) => format!("--{name}=: no such option; a value is a separate argument"),
            None => format!("--{name}: no such option"),
        })
    }

    fn short(&mut self) -> Result<Arg, String> {
        let letter = self.combined.remove(0).to_string();
        if let Some((.., flag)) = FLAGS.iter().find(|(short, ..)| *short == letter) {
            return Ok(Arg::Flag(*flag));
        }
        let name = format!("-{letter}");
        let Some((.., setting)) = SETTINGS.iter().find(|(short, ..)| *short == letter) else {
            return Err(format!("{name}: no such option"));
        };
        let value = match mem::take(&mut self.combined) {
            rest if rest.is_empty() => self.value(name)?,
            rest => Value::new(name, rest.into()),
        };
        Ok(Arg::Setting(*setting, value))
    }

    fn value(&mut self, name: String) -> Result<Value, String> {
        match self.args.next() {
            Some(value) => Ok(Value::new(name, value)),
            None => Err(format!("{name}: a value is missing")),
        }
    }
}
