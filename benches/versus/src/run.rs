//! The whole measurement: a list of steps, done one after another, each announced with a line.

use std::error::Error;
use std::fmt;
use std::time::{Duration, Instant};

use crate::bench::{Bench, Cores};
use crate::job::{Client, Workload};
use crate::measure::counts::{self, Counted};
use crate::measure::{cpu, growth, held, timers, transfers};
use crate::options::{Extent, Options};
use crate::report::{Header, Measured};
use crate::scene::{
    CHUNKED, CLOSE, DELAYED, DEPTH, FIELDS, HUGE, HUGE_STREAMED, LARGE, PIPELINED, SMALL_1,
    SMALL_50, SMALL_1000, Scene, TLS,
};

/// The floor, httpstream, and the clients that the limits refer to.
const MAIN_CLIENTS: [Client; 4] = [
    Client::Floor,
    Client::Httpstream,
    Client::HyperConn,
    Client::CurlMulti,
];
/// The cost of waiting is counted, not timed, so it hardly varies.
const WAITING_REPEATS: usize = 3;
const GROWING: [Client; 2] = [Client::Floor, Client::Httpstream];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Cpu(Scene),
    Instructions(Scene),
    Calls(Scene),
    /// Polls that are not answered.
    Held,
    /// Requests with a long delay.
    Pending,
    /// Among a million.
    Timers,
    /// With this many open connections.
    Growth(usize),
    /// Large bodies.
    Transfers,
}

impl Step {
    fn wanted_by(self, options: &Options) -> bool {
        match self {
            Step::Cpu(scene) => options.wants(scene.workload),
            Step::Instructions(scene) | Step::Calls(scene) => {
                options.exact_counts && options.wants(scene.workload)
            }
            Step::Held => options.wants(Workload::Held),
            Step::Pending => options.wants(Workload::Delayed),
            Step::Timers => options.wants_part("timers"),
            Step::Growth(_) => options.wants_part("growth"),
            Step::Transfers => options.wants_part("transfers"),
        }
    }

    /// A rough estimate; the steps done so far show how this machine compares.
    fn expected_seconds(self, options: &Options) -> f64 {
        let clients = self.clients(options).len() as f64;
        match self {
            Step::Cpu(scene) => {
                let opening = scene.connections as f64 * 1e-4;
                clients * (options.repeats + 1) as f64 * (0.22 + opening)
            }
            Step::Instructions(_) => clients * (2 * passes(options)) as f64 * 1.5,
            Step::Calls(_) => clients * 2.0,
            Step::Held => 25.0 * WAITING_REPEATS as f64 + 50.0,
            Step::Pending => 3.0 * WAITING_REPEATS as f64,
            Step::Timers => 7.0 * options.repeats as f64 + 60.0,
            Step::Growth(open) => clients * (15.0 + open as f64 * 2e-3),
            Step::Transfers => 16.0 * 0.5 * (options.gib * options.repeats as u64) as f64,
        }
    }

    fn clients(self, options: &Options) -> Vec<Client> {
        let wanted = |main: &[Client]| {
            let clients = options.clients.iter().copied();
            clients.filter(|client| main.contains(client)).collect()
        };
        match (self, options.extent) {
            (Step::Growth(_), _) => wanted(&GROWING),
            // Finding the best client for large bodies takes all of them.
            (Step::Cpu(HUGE | HUGE_STREAMED) | Step::Transfers, _) => options.clients.clone(),
            (_, Extent::Bars) => wanted(&MAIN_CLIENTS),
            (Step::Instructions(_), Extent::Quick)
            | (Step::Instructions(CHUNKED | FIELDS | LARGE | CLOSE), _) => {
                wanted(&MAIN_CLIENTS[..3])
            }
            (
                Step::Cpu(_)
                | Step::Instructions(_)
                | Step::Calls(_)
                | Step::Held
                | Step::Pending
                | Step::Timers,
                _,
            ) => options.clients.clone(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Cpu(scene) => write!(f, "processor time: {scene}"),
            Step::Instructions(scene) => write!(f, "instructions: {scene}"),
            Step::Calls(scene) => write!(f, "system calls: {scene}"),
            Step::Held => write!(f, "held polls"),
            Step::Pending => write!(f, "delayed requests"),
            Step::Timers => write!(f, "timers"),
            Step::Growth(open) => write!(f, "growth: {open} open connections"),
            Step::Transfers => write!(f, "transfers"),
        }
    }
}

fn passes(options: &Options) -> usize {
    match options.extent {
        Extent::Whole | Extent::Bars => 2,
        Extent::Quick => 1,
    }
}

fn alone(workload: Workload) -> Scene {
    Scene::new(workload, 1)
}

fn steps(options: &Options) -> Vec<Step> {
    let one_pipelined = alone(Workload::Pipelined { depth: DEPTH });
    let (cpu, instructions, calls, others, open) = match options.extent {
        Extent::Whole | Extent::Bars => (
            vec![
                SMALL_1,
                SMALL_50,
                SMALL_1000,
                CHUNKED,
                FIELDS,
                LARGE,
                HUGE,
                HUGE_STREAMED,
                CLOSE,
                TLS,
                PIPELINED,
                DELAYED,
            ],
            vec![
                SMALL_1,
                SMALL_50,
                alone(Workload::Chunked),
                alone(Workload::Fields),
                alone(Workload::Large),
                alone(Workload::Close),
                CHUNKED,
                FIELDS,
                LARGE,
                CLOSE,
                TLS,
                one_pipelined,
            ],
            vec![
                SMALL_1,
                SMALL_50,
                alone(Workload::Large),
                alone(Workload::Huge),
                alone(Workload::HugeStreamed),
                CLOSE,
                alone(Workload::Tls),
                one_pipelined,
            ],
            vec![Step::Held, Step::Pending, Step::Timers, Step::Transfers],
            growth::OPEN.to_vec(),
        ),
        Extent::Quick => (
            vec![SMALL_1, SMALL_50, CLOSE, TLS],
            vec![SMALL_1],
            vec![SMALL_1],
            Vec::new(),
            Vec::new(),
        ),
    };
    let steps = cpu.into_iter().map(Step::Cpu);
    let steps = steps.chain(instructions.into_iter().map(Step::Instructions));
    let steps = steps.chain(calls.into_iter().map(Step::Calls));
    let steps = steps.chain(others);
    let steps = steps.chain(open.into_iter().map(Step::Growth));
    let is_for_bars = |step: &Step| {
        options.extent != Extent::Bars
            || !matches!(step, Step::Cpu(CHUNKED | FIELDS | LARGE | DELAYED))
    };
    steps
        .filter(|step| step.wanted_by(options))
        .filter(is_for_bars)
        .collect()
}

/// Does all steps, and reports progress on standard error.
pub(crate) fn run(options: &Options) -> Result<Measured, Box<dyn Error>> {
    let steps = steps(options);
    if steps.is_empty() {
        return Err("a run this short has none of the parts that --only selects".into());
    }
    let bench = Bench::start()?;
    if bench.cores == Cores::One {
        eprintln!("only one core: client and server share it, so times are not meaningful");
    }
    let begin = Instant::now();
    let mut measured = Measured::new(Header::new(options, bench.cores));
    let mut progress = Progress::new(&steps, options);
    for &step in &steps {
        progress.announce(step);
        do_step(step, &bench, options, &mut measured)?;
        progress.on_done(step.expected_seconds(options));
    }
    measured.header.seconds = begin.elapsed().as_secs_f64();
    Ok(measured)
}

fn do_step(
    step: Step,
    bench: &Bench,
    options: &Options,
    measured: &mut Measured,
) -> Result<(), Box<dyn Error>> {
    let clients = step.clients(options);
    match step {
        Step::Cpu(scene) => {
            let timed = cpu::measure(bench, scene, &clients, options.repeats);
            measured.cpu.extend(timed);
        }
        Step::Instructions(scene) => {
            measured
                .instructions
                .extend(clients.into_iter().map(|client| Counted {
                    scene,
                    client,
                    each: counts::instructions(bench, &bench.job(client, scene), passes(options)),
                }))
        }
        Step::Calls(scene) => measured
            .calls
            .extend(clients.into_iter().map(|client| Counted {
                scene,
                client,
                each: counts::calls(bench, &bench.job(client, scene)),
            })),
        Step::Held => {
            let rows = held::polls(bench.server(), &clients, WAITING_REPEATS)?;
            measured.waiting.extend(rows);
        }
        Step::Pending => {
            measured
                .waiting
                .extend(held::delayed(&clients, WAITING_REPEATS));
        }
        Step::Timers => {
            measured.timers = timers::measure(options.repeats, options.exact_counts)?;
        }
        Step::Growth(open) => {
            let grown = growth::measure(bench, open, &clients, options.exact_counts);
            measured.growth.extend(grown);
        }
        Step::Transfers => {
            let bytes = options.gib << 30;
            measured.transfers = transfers::measure(bench, &clients, bytes, options.repeats);
        }
    }
    Ok(())
}

/// The progress, in expected seconds.
struct Progress {
    steps: usize,
    begun: usize,
    expected: f64,
    done: f64,
    begin: Instant,
}

impl Progress {
    fn new(steps: &[Step], options: &Options) -> Self {
        let expected = steps.iter().map(|step| step.expected_seconds(options));
        Self {
            steps: steps.len(),
            begun: 0,
            expected: expected.sum(),
            done: 0.0,
            begin: Instant::now(),
        }
    }

    fn announce(&mut self, step: Step) {
        self.begun += 1;
        let left = in_words(self.left());
        eprintln!(
            "[{:>2}/{}, about {left} left] {step}",
            self.begun, self.steps
        );
    }

    fn on_done(&mut self, expected: f64) {
        self.done += expected;
    }

    /// Estimates the time left, at the pace so far.
    fn left(&self) -> Duration {
        let pace = match self.done > 0.0 {
            true => self.begin.elapsed().as_secs_f64() / self.done,
            false => 1.0,
        };
        Duration::from_secs_f64(((self.expected - self.done) * pace).max(0.0))
    }
}

fn in_words(left: Duration) -> String {
    match left.as_secs() {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds => format!("{} min", (seconds + 30) / 60),
    }
}
