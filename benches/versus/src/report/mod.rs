//! The report of a run: tables, JSON with every single run, and charts.

mod bars;
mod charts;
mod header;
mod tables;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub(crate) use self::header::Header;
use crate::bench;
use crate::job::Client;
use crate::measure::counts::{Calls, Counted, Each};
use crate::measure::cpu::Timed;
use crate::measure::growth::Grown;
use crate::measure::held::{self, Whose};
use crate::measure::{timers, transfers};
use crate::options::{Destination, Options};
use crate::scene::Scene;

/// Everything that was measured in one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) header: Header,
    pub(crate) cpu: Vec<Timed>,
    pub(crate) instructions: Vec<Counted<Each>>,
    pub(crate) calls: Vec<Counted<Calls>>,
    /// Held polls, and delayed requests.
    pub(crate) waiting: Vec<held::Row>,
    pub(crate) timers: Vec<timers::Row>,
    pub(crate) growth: Vec<Grown>,
    #[serde(default)]
    pub(crate) transfers: Vec<transfers::Row>,
}

impl Measured {
    pub(crate) fn new(header: Header) -> Self {
        Self {
            header,
            cpu: Vec::new(),
            instructions: Vec::new(),
            calls: Vec::new(),
            waiting: Vec::new(),
            timers: Vec::new(),
            growth: Vec::new(),
            transfers: Vec::new(),
        }
    }

    fn timed(&self, client: Client, scene: Scene) -> Option<&Timed> {
        self.cpu
            .iter()
            .find(|timed| timed.client == client && timed.scene == scene)
    }

    /// Returns the heap bytes per waiting request, where this many wait.
    fn waiting_bytes(&self, whose: Whose, waiting: usize) -> Option<f64> {
        let row = self
            .waiting
            .iter()
            .find(|row| row.whose == whose && row.waiting == waiting)?;
        Some(row.each().ok()?.heap_bytes)
    }

    fn instructions(&self, client: Client, scene: Scene) -> Option<Each> {
        find(&self.instructions, client, scene)?
            .each
            .as_ref()
            .ok()
            .copied()
    }

    fn calls(&self, client: Client, scene: Scene) -> Option<&Calls> {
        find(&self.calls, client, scene)?.each.as_ref().ok()
    }
}

fn find<T>(all: &[Counted<T>], client: Client, scene: Scene) -> Option<&Counted<T>> {
    all.iter()
        .find(|counted| counted.client == client && counted.scene == scene)
}

/// Prints the tables, and writes all files.
pub(crate) fn publish(measured: &Measured, options: &Options) -> Result<(), Box<dyn Error>> {
    let directory = match options.destination {
        Destination::Target => bench::target_dir()?,
        Destination::Docs => docs(),
    };
    fs::create_dir_all(&directory)?;
    let text = tables::all(measured);
    println!("{text}");
    write(&directory, "versus.md", &text)?;
    write(
        &directory,
        "versus.json",
        &serde_json::to_string_pretty(measured)?,
    )?;
    charts::all(measured, &directory)?;
    eprintln!("written to {}", directory.display());
    Ok(())
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/performance")
}

fn write(directory: &Path, name: &str, text: &str) -> std::io::Result<()> {
    fs::write(directory.join(name), text)
}
