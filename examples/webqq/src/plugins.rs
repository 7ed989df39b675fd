//! The bot's abilities. The matching plugin of the highest priority answers a message; a plugin
//! that fails affects nothing else.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use httpstream::Response;
use log::warn;

use crate::answers::Picture;

/// A message, as a plugin sees it.
pub(crate) struct Question<'a> {
    pub(crate) text: &'a str,
    pub(crate) picture: Option<&'a Picture>,
    pub(crate) uptime: Duration,
}

impl<'a> Question<'a> {
    /// Returns the text behind the first word, if that is `command`.
    fn argument(&self, command: &str) -> Option<&'a str> {
        let (first, rest) = self.text.split_once(' ').unwrap_or((self.text, ""));
        (first == command).then_some(rest.trim())
    }
}

pub(crate) enum Answer {
    Say(String),
    /// Fetches something first, then makes the answer from the response with this function.
    Fetch(Source, fn(&Response<'_>) -> String),
}

#[derive(Clone)]
pub(crate) enum Source {
    Url(String),
    Picture(Picture),
}

pub(crate) trait Plugin {
    fn priority(&self) -> i32 {
        0
    }
    fn matches(&self, question: &Question<'_>) -> bool;
    /// # Errors
    /// The reason, as it is told to the sender.
    fn answer(&mut self, question: &Question<'_>) -> Result<Answer, String>;
}

thread_local! {
    static IS_RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// Installs a panic hook that logs a plugin's crash instead of printing it: the sender is told in
/// the chat.
pub(crate) fn keep_crashes_quiet() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |crash| match IS_RUNNING.get() {
        true => warn!("{crash}"),
        false => tell(crash),
    }));
}

/// Reads the response that a plugin requested.
pub(crate) fn read(read: fn(&Response<'_>) -> String, response: &Response<'_>) -> String {
    guarded(|| read(response)).unwrap_or_else(|crash| format!("sorry: {crash}"))
}

/// Runs a plugin's code, and contains its panic.
fn guarded<R>(run: impl FnOnce() -> R) -> Result<R, String> {
    IS_RUNNING.set(true);
    let done = catch_unwind(AssertUnwindSafe(run));
    IS_RUNNING.set(false);
    done.map_err(|_| "that plugin has crashed".to_owned())
}

pub(crate) struct Plugins(Vec<Box<dyn Plugin>>);

impl Plugins {
    pub(crate) fn standard() -> Self {
        let mut plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(Command("about", |_, _| Ok(Answer::Say(ABOUT.to_owned())))),
            Box::new(Command("count", count)),
            Box::new(Command("divide", divide)),
            Box::new(Command("echo", |text, _| Ok(Answer::Say(text.to_owned())))),
            Box::new(Command("help", |_, _| Ok(Answer::Say(HELP.to_owned())))),
            Box::new(Command("ping", |_, _| Ok(Answer::Say("pong".to_owned())))),
            Box::new(Command("uptime", uptime)),
            Box::new(Command("weather", weather)),
            Box::new(Pictures),
        ];
        plugins.sort_by_key(|plugin| -plugin.priority());
        Self(plugins)
    }

    /// Returns `None` if no plugin matches the message.
    pub(crate) fn answer(&mut self, question: &Question<'_>) -> Option<Result<Answer, String>> {
        guarded(|| {
            let plugin = self.0.iter_mut().find(|plugin| plugin.matches(question))?;
            Some(plugin.answer(question))
        })
        .unwrap_or_else(|crash| Some(Err(crash)))
    }
}

const ABOUT: &str = "a WebQQ bot on httpstream, one thread, no sleep";
const HELP: &str = "about, count N, divide A B, echo TEXT, help, ping, uptime, weather CITY";

/// A plugin for messages that begin with a certain word.
struct Command(
    &'static str,
    fn(&str, &Question<'_>) -> Result<Answer, String>,
);

impl Plugin for Command {
    fn matches(&self, question: &Question<'_>) -> bool {
        question.argument(self.0).is_some()
    }

    fn answer(&mut self, question: &Question<'_>) -> Result<Answer, String> {
        (self.1)(question.argument(self.0).unwrap_or_default(), question)
    }
}

fn uptime(_: &str, question: &Question<'_>) -> Result<Answer, String> {
    Ok(Answer::Say(format!(
        "up for {} s",
        question.uptime.as_secs()
    )))
}

fn count(argument: &str, _: &Question<'_>) -> Result<Answer, String> {
    match argument.parse() {
        Ok(most @ 1..=1000_u32) => {
            let numbers: Vec<String> = (1..=most).map(|n| n.to_string()).collect();
            Ok(Answer::Say(numbers.join(" ")))
        }
        _ => Err(format!("{argument:?} is not a number from 1 to 1000")),
    }
}

/// Divides by zero when told to: this is the plugin that crashes.
fn divide(argument: &str, _: &Question<'_>) -> Result<Answer, String> {
    let numbers = argument
        .split_once(' ')
        .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let (a, b): (u32, u32) = numbers.ok_or("two numbers, please")?;
    Ok(Answer::Say((a / b).to_string()))
}

fn weather(city: &str, _: &Question<'_>) -> Result<Answer, String> {
    if city.is_empty() || !city.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err("which city?".to_owned());
    }
    let url = format!("http://api.weather.example/today?city={city}");
    Ok(Answer::Fetch(Source::Url(url), |response| {
        match response.status().as_u16() {
            200 => String::from_utf8_lossy(response.body()).into_owned(),
            404 => "nobody knows that city".to_owned(),
            status => format!("the weather service answers {status}"),
        }
    }))
}

/// Answers every picture, before other plugins see the text next to it.
struct Pictures;

impl Plugin for Pictures {
    fn priority(&self) -> i32 {
        10
    }

    fn matches(&self, question: &Question<'_>) -> bool {
        question.picture.is_some()
    }

    fn answer(&mut self, question: &Question<'_>) -> Result<Answer, String> {
        let picture = question.picture.ok_or("no picture")?.clone();
        Ok(Answer::Fetch(
            Source::Picture(picture),
            |response| match response.status().as_u16() {
                200 => format!("a picture of {} bytes", response.body().len()),
                status => format!("no picture: status {status}"),
            },
        ))
    }
}
