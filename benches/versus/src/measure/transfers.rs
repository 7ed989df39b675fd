//! One large body, up or down, over one connection: the processor time per GiB, and the memory.
//!
//! Each transfer is a process of its own, whose peak of resident memory is therefore that of one
//! client. In a round each client runs once, and the first client changes from round to round. The
//! server is another process, whose time is not counted.

use std::error::Error;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::child;
use crate::bench::Bench;
use crate::job::{Client, Cost};
use crate::stats::{self, Ratio};
use crate::{clients, machine};

/// The argument that starts this program for a transfer.
pub(crate) const ASKED: &str = "--transfer";

const GIB: f64 = (1_u64 << 30) as f64;

/// What is transferred, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Transfer {
    /// A request body of known length.
    Up,
    /// A request body of unknown length.
    UpChunked,
    /// A response body, in pieces as it arrives.
    Down,
    /// The same to a task, by httpstream's `BodyStream`.
    DownToTask,
}

pub(crate) const TRANSFERS: [Transfer; 4] = [
    Transfer::Up,
    Transfer::UpChunked,
    Transfer::Down,
    Transfer::DownToTask,
];

impl Transfer {
    pub(crate) fn is_upload(self) -> bool {
        matches!(self, Self::Up | Self::UpChunked)
    }

    /// Returns the clients that are compared.
    pub(crate) fn clients(self) -> &'static [Client] {
        match self {
            Self::Up | Self::UpChunked | Self::Down => &[
                Client::Httpstream,
                Client::HyperConn,
                Client::Reqwest,
                Client::CurlMulti,
                Client::Ureq,
            ],
            Self::DownToTask => &[Client::Httpstream],
        }
    }

    /// Returns the transfer of the peers that this one is compared with.
    fn of_peers(self) -> Self {
        match self {
            Self::DownToTask => Self::Down,
            other => other,
        }
    }

    /// Returns the name in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::UpChunked => "up, chunked",
            Self::Down => "down",
            Self::DownToTask => "down, to a task",
        }
    }
}

/// The job of one process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ask {
    pub(crate) client: Client,
    pub(crate) transfer: Transfer,
    pub(crate) server: SocketAddr,
    pub(crate) bytes: u64,
}

/// The cost of one transfer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    cost: Cost,
    /// The most memory that was resident, of the whole process.
    peak_bytes: u64,
}

/// One client in one transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) client: Client,
    pub(crate) transfer: Transfer,
    bytes: u64,
    /// By round, or why there are none.
    runs: Result<Vec<Run>, String>,
}

impl Row {
    fn all(&self, what: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().flatten().map(what).collect()
    }

    /// Returns the seconds of user and system time per GiB, by round.
    fn cpu_seconds(&self) -> Vec<f64> {
        self.all(|run| run.cost.cpu_seconds_each() * GIB / self.bytes as f64)
    }

    fn wall_seconds(&self) -> Vec<f64> {
        self.all(|run| run.cost.wall_seconds * GIB / self.bytes as f64)
    }

    /// Returns the highest peak of all rounds, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<f64> {
        let peaks = self.all(|run| run.peak_bytes as f64 / (1 << 20) as f64);
        peaks.into_iter().max_by(f64::total_cmp)
    }
}

/// Transfers one body, and prints the cost; both are JSON.
pub(crate) fn run(ask: &str) -> Result<(), Box<dyn Error>> {
    machine::end_with_parent(clients::JOB_SECONDS);
    let cost = clients::transfers::run(&serde_json::from_str(ask)?)?;
    let peak_bytes = machine::peak_resident().ok_or("the system does not tell VmHWM")?;
    println!("{}", serde_json::to_string(&Run { cost, peak_bytes })?);
    Ok(())
}

/// Measures all transfers of so many bytes, by those of `clients` that are compared.
pub(crate) fn measure(bench: &Bench, clients: &[Client], bytes: u64, repeats: usize) -> Vec<Row> {
    let asked = TRANSFERS.into_iter().flat_map(|transfer| {
        let compared = transfer.clients().iter();
        let clients = compared.filter(|client| clients.contains(client));
        clients.map(move |&client| (client, transfer))
    });
    let mut rows: Vec<Row> = asked
        .map(|(client, transfer)| Row {
            client,
            transfer,
            bytes,
            runs: Ok(Vec::new()),
        })
        .collect();
    for round in 0..repeats {
        for turn in 0..rows.len() {
            let at = (round + turn) % rows.len();
            let row = &mut rows[at];
            let Ok(runs) = &mut row.runs else {
                continue;
            };
            let ask = Ask {
                client: row.client,
                transfer: row.transfer,
                server: bench.server().transfers,
                bytes,
            };
            match child::run(ASKED, &ask) {
                Ok(run) => runs.push(run),
                Err(why) => row.runs = Err(why),
            }
        }
    }
    rows
}

/// Returns the peer with the least median, and the ratio of httpstream's processor time to its.
pub(crate) fn relative_to_best(rows: &[Row], transfer: Transfer) -> Option<(Client, Ratio)> {
    let peers = rows
        .iter()
        .filter(|row| row.transfer == transfer.of_peers() && row.client != Client::Httpstream);
    let best = peers
        .filter_map(|row| Some((row, stats::median(&row.cpu_seconds())?)))
        .min_by(|(_, a), (_, b)| a.total_cmp(b))?
        .0;
    Some((best.client, relative_to(rows, transfer, best)?))
}

fn relative_to(rows: &[Row], transfer: Transfer, theirs: &Row) -> Option<Ratio> {
    let ours = of_httpstream(rows, transfer)?;
    stats::paired_ratio(&ours.cpu_seconds(), &theirs.cpu_seconds())
}

pub(crate) fn of_httpstream(rows: &[Row], transfer: Transfer) -> Option<&Row> {
    rows.iter()
        .find(|row| row.client == Client::Httpstream && row.transfer == transfer)
}

/// Formats the rows in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| body | client | CPU s per GiB, median (minimum) | wall s per GiB | peak MiB | httpstream's CPU relative to it (upper end) |\n\
         |---|---|---|---|---|---|\n",
    );
    for row in rows {
        let (title, name) = (row.transfer.title(), row.client.name());
        let cpu = row.cpu_seconds();
        let figures = stats::median(&cpu)
            .zip(stats::least(&cpu))
            .zip(stats::median(&row.wall_seconds()))
            .zip(row.peak_mib());
        table += &match (figures, &row.runs) {
            (Some((((median, least), wall), peak)), _) => {
                let ratio = match row.client {
                    Client::Httpstream => None,
                    _ => relative_to(rows, row.transfer, row),
                };
                let ratio = ratio.map_or("–".to_owned(), |ratio| {
                    format!("{:.2} ({:.2})", ratio.median, ratio.high)
                });
                format!(
                    "| {title} | {name} | {median:.3} ({least:.3}) | {wall:.3} | {peak:.1} | {ratio} |\n"
                )
            }
            (None, Err(why)) => format!("| {title} | {name} | – | – | – | {why} |\n"),
            (None, Ok(_)) => continue,
        };
    }
    table
}
