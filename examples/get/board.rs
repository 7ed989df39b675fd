//! What is shown on stderr. If it is a terminal, each download has a line with a bar, its rate, and
//! how long it will take, and all lines are redrawn at once. Otherwise there are only lines about
//! what has ended.
//!
//! With bars, lines are held back until the bars are redrawn, which is ten times a second at most,
//! however many downloads end in between.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often bars are redrawn.
pub(crate) const PACE: Duration = Duration::from_millis(100);

/// The time over which a rate is averaged, in seconds.
const AVERAGE: f64 = 3.0;

/// Widths of the parts of a line, in characters. Without room for the shortest, there is no bar.
const MAX_NAME: usize = 40;
const MIN_BAR: usize = 10;
const MAX_BAR: usize = 30;

/// Of a terminal that does not tell its own.
const USUAL_SIZE: Size = Size {
    columns: 80,
    rows: 24,
};

pub(crate) struct Board {
    is_silent: bool,
    shows_errors: bool,
    /// Whether bars are drawn.
    draws: bool,
    /// The downloads in progress, by their number.
    bars: BTreeMap<usize, Bar>,
    /// The number of lines on the terminal that are replaced when the bars are redrawn.
    drawn: usize,
    held_back: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Size {
    columns: usize,
    rows: usize,
}

/// The progress of one download.
struct Bar {
    name: String,
    bytes: u64,
    total: Option<u64>,
    rate: Rate,
}

/// A rate in bytes per second, averaged over the last seconds.
#[derive(Default)]
struct Rate {
    average: Option<f64>,
    last: Option<(Instant, u64)>,
}

impl Board {
    /// `draws` is whether bars may be drawn if stderr is a terminal.
    pub(crate) fn new(is_silent: bool, shows_errors: bool, draws: bool) -> Self {
        Self {
            is_silent,
            shows_errors,
            draws: draws && !is_silent && io::stderr().is_terminal(),
            bars: BTreeMap::new(),
            drawn: 0,
            held_back: Vec::new(),
        }
    }

    pub(crate) fn draws(&self) -> bool {
        self.draws
    }

    /// Shows a line, unless -s was given.
    pub(crate) fn say(&mut self, line: String) {
        if !self.is_silent {
            self.print(line);
        }
    }

    /// Shows an error, unless -s was given without -S.
    pub(crate) fn complain(&mut self, error: &str) {
        if !self.is_silent || self.shows_errors {
            self.print(format!("get: {error}"));
        }
    }

    /// Shows the text of -w, whatever -s says.
    pub(crate) fn write(&mut self, text: &str) {
        match self.draws {
            true => self.held_back.push(text.trim_end_matches('\n').to_owned()),
            false => write_to_stderr(text),
        }
    }

    fn print(&mut self, line: String) {
        match self.draws {
            true => self.held_back.push(line),
            false => write_to_stderr(&(line + "\n")),
        }
    }

    /// Adds a bar, or begins it anew.
    pub(crate) fn begin(&mut self, number: usize, name: &str) {
        let bar = Bar {
            name: name.chars().map(printable).collect(),
            bytes: 0,
            total: None,
            rate: Rate::default(),
        };
        self.bars.insert(number, bar);
    }

    pub(crate) fn advance(&mut self, number: usize, bytes: u64, total: Option<u64>) {
        if let Some(bar) = self.bars.get_mut(&number) {
            bar.bytes = bytes;
            bar.total = total;
        }
    }

    pub(crate) fn end(&mut self, number: usize) {
        self.bars.remove(&number);
    }

    /// Draws the lines that were held back, and the bars below them.
    pub(crate) fn draw(&mut self, now: Instant) {
        for bar in self.bars.values_mut() {
            bar.rate.sample(now, bar.bytes);
        }
        let size = terminal_size();
        // One row for the cursor, and one for the count of those that have no room.
        let most = size.rows.saturating_sub(2).max(1);
        let mut lines: Vec<_> = self
            .bars
            .values()
            .take(most)
            .map(|bar| bar.line(size.columns))
            .collect();
        if let more @ 1.. = self.bars.len().saturating_sub(most) {
            lines.push(format!("and {more} more"));
        }
        self.redraw(&lines);
    }

    /// Removes the bars, and shows what was held back.
    pub(crate) fn close(&mut self) {
        if self.draws {
            self.redraw(&[]);
            self.draws = false;
        }
    }

    /// Writes everything at once, so that a terminal shows no half of it.
    fn redraw(&mut self, lines: &[String]) {
        let mut out = String::new();
        if self.drawn > 0 {
            // To the first of the lines, and everything below it erased.
            out.push_str(&format!("\x1b[{}F\x1b[J", self.drawn));
        }
        for line in self.held_back.iter().chain(lines) {
            out.push_str(line);
            out.push('\n');
        }
        self.held_back.clear();
        self.drawn = lines.len();
        write_to_stderr(&out);
    }
}

impl Bar {
    /// Returns the line in at most `columns` characters. The last column stays free, since some
    /// terminals would go to the next line.
    fn line(&self, columns: usize) -> String {
        let percent = self.total.filter(|total| *total > 0);
        let percent = percent.map(|total| (self.bytes as f64 / total as f64).min(1.0));
        let average = self.rate.average.filter(|rate| *rate >= 1.0);
        let left = self
            .total
            .map(|total| total.saturating_sub(self.bytes) as f64);
        let facts = format!(
            " {:>4} {:>9} {:>11} {:>8}",
            percent.map_or("-".to_owned(), |share| format!("{:.0}%", share * 100.0)),
            size(self.bytes as f64),
            average.map_or("-".to_owned(), |rate| format!("{}/s", size(rate))),
            match (left, average) {
                (Some(left), Some(rate)) => clock(left / rate),
                _ => "-:--".to_owned(),
            },
        );
        let room = columns.saturating_sub(facts.len() + 1);
        let bar_width = (room * 2 / 5).min(MAX_BAR);
        let bar = match bar_width >= MIN_BAR {
            true => {
                let done = (percent.unwrap_or(0.0) * bar_width as f64) as usize;
                format!(" [{:<bar_width$}]", "#".repeat(done))
            }
            false => String::new(),
        };
        let name_width = room.saturating_sub(bar.len()).min(MAX_NAME);
        let name = end_of(&self.name, name_width);
        let mut line = format!("{name:<name_width$}{bar}{facts}");
        line.truncate(columns.saturating_sub(1));
        line
    }
}

impl Rate {
    fn sample(&mut self, now: Instant, bytes: u64) {
        let Some((then, before)) = self.last.replace((now, bytes)) else {
            return;
        };
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds == 0.0 {
            return;
        }
        let current = bytes.saturating_sub(before) as f64 / seconds;
        let weight = (seconds / AVERAGE).min(1.0);
        let average = self.average.unwrap_or(current);
        self.average = Some(average + (current - average) * weight);
    }
}

/// If stderr is closed, nobody reads it.
pub(crate) fn write_to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Returns the end of a name, in which names differ most.
fn end_of(name: &str, width: usize) -> &str {
    let start = name.len().saturating_sub(width);
    name.get(start..).unwrap_or(name)
}

/// Replaces what could act on the terminal or has another width than one column.
fn printable(c: char) -> char {
    match c {
        ' '..='~' => c,
        _ => '?',
    }
}

/// Returns a number of bytes with its unit.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000.0 {
        return format!("{bytes:.0} B");
    }
    let (mut size, mut unit) = (bytes / 1000.0, 0);
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    format!("{size:.1} {}", UNITS[unit])
}

/// Returns a number of seconds as hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    const LONGEST: f64 = 100.0 * 3600.0;
    if seconds >= LONGEST {
        return "-:--".to_owned();
    }
    let seconds = seconds.ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(unix)]
fn terminal_size() -> Size {
    let size = rustix::termios::tcgetwinsize(io::stderr());
    match size.map(|size| (size.ws_col.into(), size.ws_row.into())) {
        Ok((columns @ 1.., rows @ 1..)) => Size { columns, rows },
        Ok(_) | Err(_) => USUAL_SIZE,
    }
}

#[cfg(not(unix))]
fn terminal_size() -> Size {
    USUAL_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, bytes: u64, total: Option<u64>, rate: Option<f64>) -> Bar {
        Bar {
            name: name.chars().map(printable).collect(),
            bytes,
            total,
            rate: Rate {
                average: rate,
                last: None,
            },
        }
    }

    #[test]
    fn a_line_shows_what_is_known() {
        for (bar, expected) in [
            (
                bar("page", 250, Some(1000), Some(50.0)),
                "page                    [####             ]  25%     250 B      50 B/s     0:15",
            ),
            (
                bar("page", 2_500_000, None, Some(1_250_000.0)),
                "page                    [                 ]    -    2.5 MB    1.2 MB/s     -:--",
            ),
            (
                bar("page", 0, Some(1000), None),
                "page                    [                 ]   0%       0 B           -     -:--",
            ),
            (
                // A server may send more than it said before.
                bar("page", 2000, Some(1000), Some(1.0)),
                "page                    [#################] 100%    2.0 kB       1 B/s     0:00",
            ),
            (
                bar(
                    "http://127.0.0.1/a/long/path/that/ends/here",
                    0,
                    Some(0),
                    None,
                ),
                "ong/path/that/ends/here [                 ]    -       0 B           -     -:--",
            ),
        ] {
            assert_eq!(bar.line(80), expected);
        }
    }

    #[test]
    fn a_line_fits_whatever_the_width() {
        let long = "n".repeat(500);
        for columns in 0..300 {
            for total in [None, Some(0), Some(u64::MAX)] {
                let bar = bar(&long, u64::MAX, total, Some(f64::MAX));
                let line = bar.line(columns);
                assert!(line.len() < columns.max(1), "{columns}: {line:?}");
            }
        }
        assert_eq!(bar("a\x1b[2J\u{e9}\u{4e2d}", 0, None, None).name, "a?[2J??");
    }

    #[test]
    fn sizes_and_times_are_short() {
        for (bytes, expected) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.0 kB"),
            (999_900.0, "999.9 kB"),
            (1e6, "1.0 MB"),
            (1e12, "1.0 TB"),
            (1e15, "1000.0 TB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
        for (seconds, expected) in [
            (0.0, "0:00"),
            (0.1, "0:01"),
            (59.5, "1:00"),
            (3599.0, "59:59"),
            (3600.0, "1:00:00"),
            (1e6, "-:--"),
            (f64::INFINITY, "-:--"),
        ] {
            assert_eq!(clock(seconds), expected);
        }
    }

    #[test]
    fn a_rate_follows_the_last_seconds() {
        let begin = Instant::now();
        let at = |tenth: u64| begin + PACE * tenth as u32;
        let mut rate = Rate::default();
        rate.sample(at(0), 0);
        assert_eq!(rate.average, None, "one sample is no rate");
        for tenth in 1..=100 {
            rate.sample(at(tenth), tenth * 100);
        }
        let steady = rate.average.unwrap();
        assert!((999.0..1001.0).contains(&steady), "{steady}");
        // The download stalls.
        for tenth in 101..=130 {
            rate.sample(at(tenth), 10_000);
        }
        let slower = rate.average.unwrap();
        assert!((300.0..450.0).contains(&slower), "{slower}");
        // It is sent again, from its beginning, at the same moment.
        rate.sample(at(130), 0);
        assert_eq!(rate.average, Some(slower));
    }
}
