//! The terminal output: the transcript, the tables, and the progress of many bots. Colors are used
//! on a terminal only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use console::{Style, StyledObject, style};
use indicatif::{ProgressBar, ProgressStyle};

use crate::events::{Entry, Event};
use crate::server::Ledger;
use crate::verdict::Verdict;

pub(crate) struct Show {
    begin: Instant,
    /// Whether events are printed: those of one bot are, those of many are counted.
    is_told: bool,
    bar: ProgressBar,
}

impl Show {
    /// For `bots` bots, which have `messages` messages to answer.
    pub(crate) fn new(bots: usize, messages: usize) -> Self {
        let bar = match bots {
            1 => ProgressBar::hidden(),
            _ => ProgressBar::new(messages as u64),
        };
        let style =
            ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} answered, {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            begin: Instant::now(),
            is_told: bots == 1,
            bar,
        }
    }

    /// Returns a printer of titles for a director, which runs on the server's thread.
    pub(crate) fn scenes(&self) -> impl FnMut(&str) + Send + use<> {
        let begin = self.begin;
        move |title| {
            say!(
                "{} {}",
                time(begin.elapsed()),
                style(format!("-- {title}")).bold()
            )
        }
    }

    pub(crate) fn event(&self, entry: &Entry) {
        if self.is_told {
            say!("{} {}", time(self.begin.elapsed()), coloured(&entry.event));
        }
    }

    /// Updates the progress bar. `answered` is called only if the bar is shown.
    pub(crate) fn progress(&self, online: usize, answered: impl FnOnce() -> usize) {
        if !self.is_told {
            self.bar.set_position(answered() as u64);
            self.bar.set_message(format!("{online} bots online"));
        }
    }

    pub(crate) fn end_of_progress(&self) {
        self.bar.finish_and_clear();
    }

    /// Prints what went wrong, and how often.
    pub(crate) fn faults(&self, ledger: &Ledger) {
        say!(
            "\n{}",
            style("What went wrong on purpose, by step of the protocol").bold()
        );
        let mut by_step: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, count) in &ledger.fired {
            let (step, fault) = name.split_once(": ").unwrap_or(("the session", name));
            let times = if *count > 1 {
                format!(" x{count}")
            } else {
                String::new()
            };
            by_step
                .entry(step)
                .or_default()
                .push(format!("{fault}{times}"));
        }
        for (step, faults) in by_step {
            say!("  {step:<18} {}", faults.join(", "));
        }
    }

    pub(crate) fn summary(&self, rows: &[(&str, String)]) {
        say!("\n{}", style("Summary").bold());
        for (name, value) in rows {
            say!("  {name:<24} {value}");
        }
    }

    pub(crate) fn verdict(&self, verdict: &Verdict) {
        const SHOWN: usize = 40;
        say!();
        for complaint in verdict.complaints.iter().take(SHOWN) {
            say!("  {} {complaint}", style("wrong:").red());
        }
        if verdict.complaints.len() > SHOWN {
            say!("  ... and {} more", verdict.complaints.len() - SHOWN);
        }
        if verdict.requests_over_tls > 0 {
            say!("{} requests came over TLS.", verdict.requests_over_tls);
        }
        match verdict.is_good() {
            true if verdict.messages == 0 => say!("No message was sent."),
            true => say!(
                "{}",
                style("Every message was answered correctly and exactly once.").green()
            ),
            false => say!("{}", style("This went wrong.").red()),
        }
    }
}

fn time(time: Duration) -> StyledObject<String> {
    style(format!("{:7.3}", time.as_secs_f64())).dim()
}

fn coloured(event: &Event) -> StyledObject<String> {
    let style = match event {
        Event::Heard { .. } => Style::new().cyan(),
        Event::Said { .. } => Style::new().green(),
        Event::Trouble { .. } | Event::Delayed { .. } | Event::PerhapsSaid { .. } => {
            Style::new().yellow()
        }
        Event::LoggingInAgain { .. } | Event::NotSaid { .. } | Event::Stopped { .. } => {
            Style::new().red()
        }
        _ => Style::new(),
    };
    // Text from a server may contain terminal control sequences.
    let text = event.to_string();
    let is_control = |c: char| c.is_control();
    style.apply_to(text.replace(is_control, "\u{fffd}"))
}
