//! The tables, in Markdown.

use std::fmt::Write;

use super::bars::{self, Verdict};
use super::{Header, Measured};
use crate::job::Client;
use crate::measure::counts::calls_but_waits;
use crate::measure::cpu::Runs;
use crate::measure::growth::Way;
use crate::measure::{held, timers, transfers};
use crate::scene::{CLIENTS, SMALL_1, Scene};
use crate::stats::{self, Ratio};

/// A table of text cells.
struct Table {
    text: String,
}

impl Table {
    fn new(columns: &[String]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(columns);
        table.text += &"|---".repeat(columns.len());
        table.text += "|\n";
        table
    }

    fn row(&mut self, cells: &[String]) {
        for cell in cells {
            // A vertical bar would end the cell.
            let _ = write!(self.text, "| {} ", cell.replace('|', "\\|"));
        }
        self.text += "|\n";
    }
}

pub(super) fn all(measured: &Measured) -> String {
    let mut text = header(&measured.header);
    let bars = bars::all(measured);
    if bars.iter().any(|bar| bar.measured.is_some()) {
        text += "## Limits\n\n";
        text += &bars_table(&bars);
    }
    if !measured.cpu.is_empty() {
        text += "\n## Processor time\n\nUser and system time per request in µs: the median of all rounds (the minimum). In the pipelined column, the floor sends one request after another, C=50.\n\n";
        text += &cpu(measured);
        text += "\nhttpstream's time relative to each client's: the median of the paired ratios (the upper end of their 95 % interval).\n\n";
        text += &ratios(
            measured,
            |client| client != Client::Httpstream,
            Client::Httpstream,
        );
        text += "\nEach client's time as a multiple of the floor's.\n\n";
        text += &multiples_of_floor(measured);
        text += "\n## Wall-clock time\n\nPer request in µs, the median of all rounds; at C=1 the median latency.\n\n";
        text += &wall(measured);
        text += "\n## Allocations\n\nPer request, in the steady state (bytes).\n\n";
        text += &allocations(measured);
    }
    if !measured.instructions.is_empty() {
        text += "\n## Instructions\n\nUser-space instructions per request; for https, those outside rustls and its provider in parentheses.\n\n";
        text += &instructions(measured);
    }
    if !measured.calls.is_empty() {
        text += "\n## System calls\n\nPer request; without waits for readiness in parentheses.\n\n";
        text += &calls(measured);
    }
    if !measured.waiting.is_empty() {
        text += "\n## Waiting\n\nHeld polls and delayed requests: the cost of each.\n\n";
        text += &held::table(&measured.waiting);
    }
    if !measured.timers.is_empty() {
        text += "\n## Timers\n\nAmong 1,000,000 pending; processor time per timer.\n\n";
        text += &timers::table(&measured.timers);
    }
    if !measured.growth.is_empty() {
        text += "\n## Growth\n\n";
        text += &growth(measured);
    }
    if !measured.transfers.is_empty() {
        text += "\n## Transfers\n\nOne large body over one connection; the time and the peak of resident memory of the client's process.\n\n";
        text += &transfers::table(&measured.transfers);
    }
    text += &missing(measured);
    wrapped(&text)
}

/// Wraps paragraphs at 100 columns, as all of the project's Markdown is. Rows of tables stay whole.
fn wrapped(text: &str) -> String {
    let mut wrapped = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with('|') {
            wrapped += line;
        } else {
            let mut column = 0;
            for (n, word) in line.split(' ').enumerate() {
                let width = word.chars().count();
                match n {
                    0 => column = width,
                    _ if column + 1 + width > 100 => {
                        wrapped.push('\n');
                        column = width;
                    }
                    _ => {
                        wrapped.push(' ');
                        column += 1 + width;
                    }
                }
                wrapped += word;
            }
        }
        wrapped.push('\n');
    }
    wrapped
}

fn header(header: &Header) -> String {
    let versions: Vec<String> = header
        .versions
        .iter()
        .map(|(name, version)| format!("{name} {version}"))
        .collect();
    format!(
        "# httpstream and its peers\n\n{}, `{}`, {} rounds, {:.0} min {:.0} s.\n{}; {}; Linux {}; {}.\n{}.\n\n",
        header.date,
        header.command,
        header.repeats,
        (header.seconds / 60.0).floor(),
        header.seconds % 60.0,
        header.processor,
        header.cores,
        header.kernel,
        header.rustc,
        versions.join(", "),
    )
}

fn bars_table(bars: &[bars::Bar]) -> String {
    let columns = ["measure", "limit", "goal", "measured", "", "remark"];
    let mut table = Table::new(&columns.map(str::to_owned));
    for bar in bars {
        table.row(&[
            bar.measure.clone(),
            bars::figure(bar.bar),
            bar.goal.map_or("–".to_owned(), bars::figure),
            bar.measured.map_or("–".to_owned(), bars::figure),
            match bar.verdict() {
                Verdict::Goal => "met, and the goal",
                Verdict::Met => "met",
                Verdict::Missed => "**missed**",
                Verdict::NotMeasured => "not measured",
            }
            .to_owned(),
            bar.remark.clone(),
        ]);
    }
    table.text
}

/// A row for each client, a column for each scene.
fn by_scene(
    scenes: &[Scene],
    clients: impl Iterator<Item = Client>,
    cell: impl Fn(Client, Scene) -> Option<String>,
) -> String {
    let columns: Vec<String> = std::iter::once("client".to_owned())
        .chain(scenes.iter().map(Scene::to_string))
        .collect();
    let mut table = Table::new(&columns);
    for client in clients {
        let cells: Vec<Option<String>> = scenes.iter().map(|&scene| cell(client, scene)).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells = cells.into_iter().map(|cell| cell.unwrap_or("–".to_owned()));
        let row: Vec<String> = std::iter::once(client.name().to_owned())
            .chain(cells)
            .collect();
        table.row(&row);
    }
    table.text
}

/// Returns each scene once, in the order of the steps.
fn scenes(all: impl Iterator<Item = Scene>) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for scene in all {
        if !scenes.contains(&scene) {
            scenes.push(scene);
        }
    }
    scenes
}

fn cpu_scenes(measured: &Measured) -> Vec<Scene> {
    scenes(measured.cpu.iter().map(|timed| timed.scene))
}

fn cpu(measured: &Measured) -> String {
    by_scene(
        &cpu_scenes(measured),
        CLIENTS.into_iter(),
        |client, scene| {
            let seconds = measured.timed(client, scene)?.cpu_seconds();
            let (median, least) = (stats::median(&seconds)?, stats::least(&seconds)?);
            Some(format!("{:.2} ({:.2})", median * 1e6, least * 1e6))
        },
    )
}

fn cell(ratio: Ratio) -> String {
    format!("{:.2} ({:.2})", ratio.median, ratio.high)
}

fn ratios(measured: &Measured, is_in: impl Fn(Client) -> bool, ours: Client) -> String {
    let clients = CLIENTS.into_iter().filter(|&client| is_in(client));
    by_scene(&cpu_scenes(measured), clients, |client, scene| {
        bars::cpu_ratio(measured, (ours, scene), (client, scene)).map(cell)
    })
}

fn multiples_of_floor(measured: &Measured) -> String {
    let clients = CLIENTS
        .into_iter()
        .filter(|&client| client != Client::Floor);
    by_scene(&cpu_scenes(measured), clients, |client, scene| {
        bars::cpu_ratio(measured, (client, scene), (Client::Floor, scene)).map(cell)
    })
}

fn wall(measured: &Measured) -> String {
    by_scene(
        &cpu_scenes(measured),
        CLIENTS.into_iter(),
        |client, scene| {
            let timed = measured.timed(client, scene)?;
            let seconds = match scene {
                SMALL_1 if client != Client::Wrk => timed.latencies(),
                _ => timed.wall_seconds(),
            };
            Some(format!("{:.2}", stats::median(&seconds)? * 1e6))
        },
    )
}

fn allocations(measured: &Measured) -> String {
    by_scene(
        &cpu_scenes(measured),
        CLIENTS.into_iter(),
        |client, scene| {
            let timed = measured.timed(client, scene)?;
            let (count, bytes) = (timed.allocations()?, timed.allocated_bytes()?);
            Some(format!("{count:.2} ({bytes:.0})"))
        },
    )
}

fn instructions(measured: &Measured) -> String {
    let scenes = scenes(measured.instructions.iter().map(|counted| counted.scene));
    by_scene(&scenes, CLIENTS.into_iter(), |client, scene| {
        let each = measured.instructions(client, scene)?;
        Some(match scene.workload {
            crate::job::Workload::Tls => format!("{:.0} ({:.0})", each.all, each.outside_tls),
            _ => format!("{:.0}", each.all),
        })
    })
}

fn calls(measured: &Measured) -> String {
    let scenes = scenes(measured.calls.iter().map(|counted| counted.scene));
    by_scene(&scenes, CLIENTS.into_iter(), |client, scene| {
        let calls = measured.calls(client, scene)?;
        let all: f64 = calls.values().sum();
        Some(format!("{all:.2} ({:.2})", calls_but_waits(calls)))
    })
}

fn growth(measured: &Measured) -> String {
    let columns = [
        "open connections",
        "client",
        "busy",
        "CPU µs per request",
        "instructions per request",
        "heap B per held connection",
    ];
    let mut table = Table::new(&columns.map(str::to_owned));
    for grown in &measured.growth {
        let figure = |value: &Result<f64, String>, scale: f64, digits: usize| match value {
            Ok(value) => format!("{:.digits$}", value * scale),
            Err(why) => why.clone(),
        };
        table.row(&[
            grown.open.to_string(),
            grown.client.name().to_owned(),
            match grown.way {
                Way::AllBusy => "all",
                Way::FiftyBusy => "50",
            }
            .to_owned(),
            figure(&grown.cpu_seconds, 1e6, 2),
            figure(&grown.instructions, 1.0, 0),
            figure(&grown.held_bytes, 1.0, 0),
        ]);
    }
    table.text
}

/// Lists missing figures and their reasons, once for each client and reason.
fn missing(measured: &Measured) -> String {
    let mut reasons: Vec<(Client, String, Vec<String>)> = Vec::new();
    let mut note = |client: Client, why: &str, what: String| {
        let known = reasons
            .iter_mut()
            .find(|(of, reason, _)| *of == client && reason == why);
        match known {
            Some((_, _, whats)) => whats.push(what),
            None => reasons.push((client, why.to_owned(), vec![what])),
        }
    };
    for timed in &measured.cpu {
        if let Runs::None(why) = &timed.runs {
            note(timed.client, why, format!("time: {}", timed.scene));
        }
    }
    for counted in &measured.instructions {
        if let Err(why) = &counted.each {
            note(
                counted.client,
                why,
                format!("instructions: {}", counted.scene),
            );
        }
    }
    for counted in &measured.calls {
        if let Err(why) = &counted.each {
            note(counted.client, why, format!("calls: {}", counted.scene));
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["client", "no figure for", "because"].map(str::to_owned));
    for (client, why, whats) in reasons {
        table.row(&[client.name().to_owned(), whats.join("; "), why]);
    }
    format!("\n## Without a figure\n\n{}", table.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_are_wrapped_and_tables_are_not() {
        let word = "x".repeat(49);
        let line = format!("{word} {word} y");
        assert_eq!(wrapped(&line), format!("{word} {word}\ny\n"));
        assert_eq!(
            wrapped(&format!("| {line} |\n\n")),
            format!("| {line} |\n\n")
        );
        assert_eq!(wrapped("a\nb"), "a\nb\n");
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new(&["a", "b"].map(str::to_owned));
        table.row(&["1".to_owned(), "x|y".to_owned()]);
        assert_eq!(table.text, "| a | b |\n|---|---|\n| 1 | x\\|y |\n");
    }

    #[test]
    fn a_client_without_any_figure_has_no_row() {
        let text = by_scene(&[SMALL_1], CLIENTS.into_iter(), |client, _| {
            (client == Client::Floor).then(|| "7".to_owned())
        });
        assert_eq!(text, "| client | small, C=1 |\n|---|---|\n| floor | 7 |\n");
    }
}
