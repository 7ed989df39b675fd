//! Turns options into requests. Nothing is sent unless all of them can be.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use httpstream::session::{Auth, Decode, Jar, Redirects, Retry, Session};
use httpstream::{Config, Request};

use crate::board::Board;
use crate::cookies::Cookies;
use crate::files::{self, Target};
use crate::hub::{Hub, Job, Patience, Rules};
use crate::options::{Conduct, Fail, Options, Saving, Url};
use crate::outlet::Outlet;
use crate::stdout::Stdout;
use crate::tap::{Keeps, Tap};
use crate::template::Template;

/// The waits of curl: one second, doubled up to ten minutes.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

pub(crate) struct Plan {
    pub(crate) config: Config,
    pub(crate) hub: Hub,
    /// How many requests are sent at once.
    pub(crate) parallel: usize,
    pub(crate) kept: Option<Kept>,
}

/// The cookies, which are written in the end.
pub(crate) struct Kept {
    jar: Jar,
    cookies: Cookies,
    urls: Vec<String>,
}

impl Plan {
    /// # Errors
    /// The option or URL that is wrong.
    pub(crate) fn new(options: Options) -> Result<Self, String> {
        check(&options)?;
        check_contents(&options)?;
        let jar = options.conduct.cookies.jar()?;
        let requests = requests(&options, jar.as_ref())?;
        let targets = files::targets(&options.saving, &requests)?;
        let parallel = options.parallel();
        let kept = jar.map(|jar| Kept::new(jar, &options.conduct.cookies, &requests));
        let kept = kept.transpose()?;
        let draws = !targets.iter().any(is_on_terminal);
        let telling = &options.telling;
        let board = Board::new(telling.silent, telling.show_error, draws);
        let jar = kept.as_ref().map(|kept| &kept.jar);
        let jobs = jobs(&options, jar, requests, targets)?;
        let max_time = options.config.timeouts.total;
        let mut config = config(options.config, &options.request, options.trust.into_tls()?);
        if options.saving.events {
            // Here the time is that of the stream with all its connections.
            config.timeouts.total = None;
        }
        let rules = Rules {
            follows: options.conduct.follows,
            fail: fail(&options.saving),
            only_head: options.request.only_head,
            retry: patience(&options.conduct),
            events: options.saving.events,
            max_time,
            write_out: options.telling.write_out,
        };
        Ok(Self {
            config,
            hub: Hub::new(rules, board, jobs),
            parallel,
            kept,
        })
    }
}

impl Kept {
    fn new(jar: Jar, cookies: &Cookies, requests: &[Request]) -> Result<Self, String> {
        let urls = requests.iter().map(|it| it.uri().to_string());
        let urls: Vec<_> = urls.collect();
        cookies.put_into(&jar, &urls)?;
        Ok(Self {
            jar,
            cookies: cookies.clone(),
            urls,
        })
    }

    /// Writes the cookies, if -c was given.
    pub(crate) fn save(&self) -> Result<(), String> {
        self.cookies.take_from(&self.jar, &self.urls);
        self.cookies.save(&self.jar)
    }
}

/// Checks options that contradict each other.
fn check(options: &Options) -> Result<(), String> {
    let Options {
        urls,
        request,
        conduct,
        saving,
        ..
    } = options;
    let fields = &request.fields;
    let sets_codings = fields.has("Accept-Encoding") || !fields.wants("Accept-Encoding");
    let problem = if urls.is_empty() {
        "no URL given"
    } else if conduct.is_digest && conduct.user.is_none() {
        "--digest: requires -u"
    } else if conduct.compressed && sets_codings {
        "--compressed: sets Accept-Encoding itself, so -H must not"
    } else if request.uploads.len() > urls.len() {
        "there are more -T than URLs"
    } else if saving.resume.is_some() && fields.has("Range") {
        "-C: sets Range itself, so -H must not"
    } else if saving.resume.is_some() && conduct.compressed {
        "-C: cannot be combined with --compressed"
    } else if saving.resume.is_some() && saving.removes_on_error {
        "-C: cannot be combined with --remove-on-error"
    } else if saving.events && (saving.resume.is_some() || saving.include || request.only_head) {
        "--sse: cannot be combined with -C, -i and -I"
    } else {
        return Ok(());
    };
    Err(problem.to_owned())
}

/// Checks what the requests carry.
fn check_contents(options: &Options) -> Result<(), String> {
    let Options {
        request, saving, ..
    } = options;
    let has_data = request.body.bytes().is_some() && !request.body_is_query;
    let has_form = !request.form.is_empty();
    let has_upload = !request.uploads.is_empty();
    let kinds = [has_data, has_form, has_upload];
    let kinds = kinds.into_iter().filter(|has| *has).count();
    let of_stdin = request.uploads.iter().filter(|upload| upload.is_stdin());
    let problem = if kinds > 1 {
        "only one of -d, -F and -T can be given"
    } else if request.only_head && kinds > 0 {
        "-I: cannot be combined with -d, -F and -T, except with -d and -G"
    } else if has_form && request.body_is_query {
        "-G: cannot be combined with -F"
    } else if has_form
        && (request.fields.has("Content-Type") || !request.fields.wants("Content-Type"))
    {
        "-F: sets Content-Type itself, so -H must not"
    } else if saving.resume.is_some() && kinds > 0 {
        "-C: continues downloads only, so it cannot be combined with -d, -F and -T"
    } else if of_stdin.count() > 1 {
        "-T: stdin can be sent once only"
    } else {
        return Ok(());
    };
    Err(problem.to_owned())
}

fn config(mut config: Config, template: &Template, tls: httpstream::tls::Tls) -> Config {
    let fields = &template.fields;
    // A connection may need a second descriptor, for its file. The usual limit is 1024.
    config.max_connections = 400;
    config.route.tls = tls;
    // As with curl, a server that sends nothing is too slow as well.
    if let Some(low_speed) = config
        .timeouts
        .low_speed
        .filter(|it| it.bytes_per_second > 0)
    {
        config.timeouts.first_byte = Some(low_speed.window);
    }
    if !fields.wants("User-Agent") {
        config.user_agent = None;
    }
    if fields.wants("Accept") {
        let accept = ("Accept".to_owned(), b"*/*".to_vec());
        config.default_headers.push(accept);
    }
    config
}

/// A tree is to contain no error pages.
fn fail(saving: &Saving) -> Option<Fail> {
    let of_tree = saving.tree.as_ref().map(|_| Fail::WithoutBody);
    saving.fail.or(of_tree)
}

fn patience(conduct: &Conduct) -> Option<Patience> {
    let attempts = u32::try_from(conduct.retries).ok()?.checked_add(1)?;
    let retry = Retry::attempts(attempts);
    let retry = match conduct.retry_delay {
        Some(delay) => retry.backoff(delay, delay).floor(delay),
        None => retry.backoff(FIRST_WAIT, LONGEST_WAIT),
    };
    (conduct.retries > 0).then(|| Patience {
        retry: retry.max_wait(LONGEST_WAIT),
        max_time: conduct.retry_max_time,
    })
}

/// Builds the request of each URL, without its session.
fn requests(options: &Options, jar: Option<&Jar>) -> Result<Vec<Request>, String> {
    let mut requests = Vec::with_capacity(options.urls.len());
    for (number, url) in options.urls.iter().enumerate() {
        let request = options
            .request
            .request(number, &url.text, &options.conduct, jar);
        let request = request.map_err(|error| format!("{}: {error:#}", url.place))?;
        let is_set = options.request.fields.has("Authorization");
        if options.conduct.is_digest && !is_set && request.header("Authorization").is_some() {
            let Url { place, .. } = url;
            return Err(format!("{place}: credentials for --digest are those of -u"));
        }
        requests.push(request);
    }
    Ok(requests)
}

/// Puts the requests into sessions, one for each origin: credentials are for one.
fn jobs(
    options: &Options,
    jar: Option<&Jar>,
    requests: Vec<Request>,
    targets: Vec<Target>,
) -> Result<Vec<Job>, String> {
    let keeps = Keeps {
        heads: options.saving.include || options.request.only_head,
        fields: options.telling.write_out.is_some(),
        coded: options.conduct.compressed,
    };
    let mut sessions = BTreeMap::new();
    let mut jobs = Vec::with_capacity(requests.len());
    for (number, (request, target)) in requests.into_iter().zip(targets).enumerate() {
        let origin = request.origin().to_string();
        let session = match sessions.entry(origin) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let session = session(options, jar, entry.key())?;
                entry.insert(session)
            }
        };
        let tap = Tap::new(keeps);
        let mut request = request
            .edit()
            .session(session)
            .policy(Arc::new(tap.clone()));
        let offset = options.saving.offset(&target);
        if offset > 0 {
            request = request.header("Range", format!("bytes={offset}-"));
        }
        jobs.push(Job {
            number,
            url: options.urls[number].text.clone(),
            request: request.build().map_err(|error| format!("{error:#}"))?,
            tap,
            offset,
            outlet: Outlet::new(target, offset > 0),
        });
    }
    Ok(jobs)
}

fn session(options: &Options, jar: Option<&Jar>, origin: &str) -> Result<Session, String> {
    let conduct = &options.conduct;
    let mut session = Session::builder();
    if let Some(jar) = jar {
        session = session.cookies(jar.clone());
    }
    if let Some(user) = &conduct.user
        && options.request.fields.wants("Authorization")
    {
        let auth = match conduct.is_digest {
            true => Auth::digest(&user.name, &user.password),
            false => Auth::basic(&user.name, &user.password),
        };
        session = session.auth(auth.at(origin));
    }
    if conduct.follows {
        session = session.redirects(Redirects::limited(conduct.max_redirs));
    }
    if conduct.compressed {
        // Bodies are not kept in memory, so they may be as long as the disk has room.
        session = session.decode(Decode::all().max_bytes(u64::MAX));
    }
    // Of all the settings, only the credentials can be invalid.
    session.build().map_err(|error| format!("-u: {error:#}"))
}

fn is_on_terminal(target: &Target) -> bool {
    matches!(target, Target::Stdout { .. }) && Stdout::is_terminal()
}
