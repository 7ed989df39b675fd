//! Timers among many: the cost of arming one, of canceling it, and of its firing.
//!
//! A process arms as many as should be pending, due in ten to twenty minutes, and then measures, in
//! batches of a thousand:
//!
//! - *any*: cancels random timers among the pending ones, and arms others in their places, as many
//!   delayed requests would. Each access hits memory that was not touched for long.
//! - *recent*: arms timers and cancels these: the deadline of a request that is soon answered.
//! - *fire*: arms a hundred thousand that are due within seconds, waits until they are, and takes
//!   them out.
//!
//! This measures processor time, which depends less on the machine's load than wall-clock time. The
//! sets take turns, each run in a process of its own, so that a ratio compares two runs of the same
//! round. Instructions are the difference between two lengths under callgrind, with fewer pending
//! timers, since they hardly depend on that number.
//!
//! The wheel is httpstream's own file, included here. What an engine adds to it (a request, a
//! readback, an id that is never reused, and the reply that each canceled chain gets) is measured
//! through the engine's `start` and `cancel`, which is not comparable to a timer alone.

mod sets;

use std::error::Error;
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::sets::{Clock, OfDelayQueue, OfEngine, OfHeap, OfTasks, OfTree, OfWheel, Timer, Timers};
use super::child;
use crate::meter::Meter;
use crate::stats::{self, Ratio};
use crate::{clients, machine};

/// The argument that starts this program for a run.
pub(crate) const ASKED: &str = "--timers";

const PENDING: usize = 1_000_000;
/// How many of them are canceled and replaced.
const REPLACED: usize = 200_000;
const RECENT: usize = 200_000;
const FIRED: usize = 100_000;
const BATCH: usize = 1000;

/// When pending ones are due, in milliseconds from the start: a run is over long before.
const FAR: Range<u32> = 600_000..1_200_000;
/// When those that are to fire are due, counted from before they are armed, which takes a tenth of
/// the time until the first is due; and when all of them certainly are.
const NEAR: Range<u32> = 500..800;
const ALL_DUE_MS: u32 = 810;

/// The number of pending timers for callgrind.
const COUNTED_PENDING: usize = 100_000;
const COUNTED_REPLACED: usize = 20_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Set {
    Wheel,
    DelayQueue,
    Task,
    Heap,
    Tree,
    Engine,
}

pub(crate) const SETS: [Set; 6] = [
    Set::Wheel,
    Set::DelayQueue,
    Set::Task,
    Set::Heap,
    Set::Tree,
    Set::Engine,
];

/// The job of one process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ask {
    set: Set,
    pending: usize,
    replaced: usize,
    recent: usize,
    fired: usize,
}

/// Its results, per timer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    /// To arm the pending ones, including growth.
    pub(crate) fill_seconds: f64,
    pub(crate) heap_bytes: f64,
    pub(crate) cancel_seconds: f64,
    pub(crate) arm_seconds: f64,
    /// To arm and to cancel.
    pub(crate) recent_seconds: f64,
    /// `None` if none were to fire, or if this machine was too busy to arm them before the first
    /// was due.
    pub(crate) fire_seconds: Option<f64>,
}

impl Run {
    /// To cancel a random one, and to arm another.
    pub(crate) fn any_seconds(&self) -> f64 {
        self.cancel_seconds + self.arm_seconds
    }
}

/// All runs of one set.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) set: Set,
    pub(crate) pending: usize,
    pub(crate) runs: Vec<Run>,
    /// To cancel a random one and to arm another, or why it was not counted.
    pub(crate) instructions: Result<f64, String>,
}

/// Does one run, and prints its results; both are JSON.
pub(crate) fn run(ask: &str) -> Result<(), Box<dyn Error>> {
    machine::end_with_parent(clients::JOB_SECONDS);
    let ask: Ask = serde_json::from_str(ask)?;
    let found = match ask.set {
        Set::Wheel => ask.run(OfWheel::new()),
        Set::DelayQueue => ask.run(OfDelayQueue::new()?),
        Set::Task => ask.run(OfTasks::new()?),
        Set::Heap => ask.run(OfHeap::new()),
        Set::Tree => ask.run(OfTree::new()),
        Set::Engine => ask.run(OfEngine::new()?),
    }?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

impl Ask {
    fn run(self, mut timers: impl Timers) -> Result<Run, Box<dyn Error>> {
        let mut random = Random(1);
        let meter = Meter::start();
        let watch = Watch::start();
        for first in (0..self.pending).step_by(BATCH) {
            let batch = first..self.pending.min(first + BATCH);
            let batch: Vec<Timer> = batch.map(|place| (place, random.within(FAR))).collect();
            timers.arm(&batch)?;
        }
        let fill_seconds = watch.seconds();
        let heap_bytes = meter.stop(0).heap_bytes;

        let mut order: Vec<usize> = (0..self.pending).collect();
        random.shuffle(&mut order);
        let (mut cancel_seconds, mut arm_seconds) = (0.0, 0.0);
        for places in order[..self.replaced].chunks(BATCH) {
            let batch: Vec<Timer> = places
                .iter()
                .map(|&place| (place, random.within(FAR)))
                .collect();
            let watch = Watch::start();
            timers.cancel(places)?;
            cancel_seconds += watch.seconds();
            let watch = Watch::start();
            timers.arm(&batch)?;
            arm_seconds += watch.seconds();
        }

        let fresh: Vec<usize> = (self.pending..self.pending + BATCH).collect();
        let mut recent_seconds = 0.0;
        for _ in 0..self.recent / BATCH {
            let batch: Vec<Timer> = fresh
                .iter()
                .map(|&place| (place, random.within(FAR)))
                .collect();
            let watch = Watch::start();
            timers.arm(&batch)?;
            timers.cancel(&fresh)?;
            recent_seconds += watch.seconds();
        }

        let each = |seconds: f64, count: usize| seconds / count.max(1) as f64;
        Ok(Run {
            fill_seconds: each(fill_seconds, self.pending),
            heap_bytes: each(heap_bytes as f64, self.pending),
            cancel_seconds: each(cancel_seconds, self.replaced),
            arm_seconds: each(arm_seconds, self.replaced),
            recent_seconds: each(recent_seconds, self.recent),
            fire_seconds: match self.fired {
                0 => None,
                fired => self
                    .fire(timers, &mut random)?
                    .map(|seconds| each(seconds, fired)),
            },
        })
    }

    fn fire<T: Timers>(
        self,
        mut timers: T,
        random: &mut Random,
    ) -> Result<Option<f64>, Box<dyn Error>> {
        let started = Instant::now();
        for first in (0..self.fired).step_by(BATCH) {
            let places = self.pending + first..self.pending + self.fired.min(first + BATCH);
            let batch: Vec<Timer> = places.map(|place| (place, random.within(NEAR))).collect();
            timers.arm(&batch)?;
        }
        if T::CLOCK == Clock::Real {
            if started.elapsed() >= millis(NEAR.start) {
                return Ok(None);
            }
            std::thread::sleep(millis(ALL_DUE_MS).saturating_sub(started.elapsed()));
        }
        let watch = Watch::start();
        let fired = timers.fire(ALL_DUE_MS, self.fired)?;
        let seconds = watch.seconds();
        match fired == self.fired {
            true => Ok(Some(seconds)),
            false => Err(format!("{fired} of {} fired", self.fired).into()),
        }
    }
}

fn millis(ms: u32) -> Duration {
    Duration::from_millis(ms.into())
}

/// Measures processor time.
struct Watch(f64);

impl Watch {
    fn start() -> Self {
        Self(computed())
    }

    fn seconds(&self) -> f64 {
        computed() - self.0
    }
}

/// Returns the processor time of this thread, in seconds.
fn computed() -> f64 {
    // SAFETY: a time is two integers, which clock_gettime fills in.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time);
        time
    };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// splitmix64: the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn within(&mut self, range: Range<u32>) -> u32 {
        range.start + (self.next() % u64::from(range.end - range.start)) as u32
    }

    fn shuffle(&mut self, all: &mut [usize]) {
        for last in (1..all.len()).rev() {
            all.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

/// Runs this many rounds, in which the sets take turns; then counts instructions, if wanted.
pub(crate) fn measure(repeats: usize, exact_counts: bool) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut rows: Vec<Row> = SETS.map(Row::new).into();
    for _ in 0..repeats {
        for row in &mut rows {
            row.runs.push(child::run(ASKED, &Ask::timed(row.set))?);
        }
    }
    if exact_counts {
        for row in &mut rows {
            row.instructions = instructions(row.set);
        }
    }
    Ok(rows)
}

impl Ask {
    fn timed(set: Set) -> Self {
        Self {
            set,
            pending: PENDING,
            replaced: REPLACED,
            recent: RECENT,
            fired: match set {
                Set::Wheel | Set::DelayQueue | Set::Task | Set::Heap | Set::Tree => FIRED,
                // The engine would send them.
                Set::Engine => 0,
            },
        }
    }
}

/// Returns the instructions for replacing one more timer.
fn instructions(set: Set) -> Result<f64, String> {
    let of = |replaced| {
        let ask = Ask {
            set,
            pending: COUNTED_PENDING,
            replaced,
            recent: 0,
            fired: 0,
        };
        child::instructions(ASKED, &ask)
    };
    let more = of(2 * COUNTED_REPLACED)? as f64 - of(COUNTED_REPLACED)? as f64;
    Ok(more / COUNTED_REPLACED as f64)
}

impl Row {
    fn new(set: Set) -> Self {
        Self {
            set,
            pending: PENDING,
            runs: Vec::new(),
            instructions: Err("not counted".into()),
        }
    }

    fn all(&self, what: impl Fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(what).collect()
    }
}

/// Returns the ratios of the wheel's times to those of another set, run by run: for random timers,
/// and for recent ones.
pub(crate) fn ratios(wheel: &Row, other: &Row) -> Option<(Ratio, Ratio)> {
    let of = |what: fn(&Run) -> f64| stats::paired_ratio(&wheel.all(what), &other.all(what));
    Some((of(Run::any_seconds)?, of(|run| run.recent_seconds)?))
}

impl Set {
    /// Returns the name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wheel => "httpstream's wheel",
            Self::DelayQueue => "tokio-util's DelayQueue",
            Self::Task => "a tokio task that sleeps",
            Self::Heap => "BinaryHeap, canceled entries left in",
            Self::Tree => "BTreeSet",
            Self::Engine => "the whole engine: start, cancel and the reply",
        }
    }
}

/// Formats the rows in Markdown.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| set | fill ns | any: cancel + arm ns, median (minimum) | recent: arm + cancel ns, median (minimum) | fire ns | heap B | instructions, any |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let nanos =
            |seconds: Option<f64>| seconds.map_or("–".into(), |s| format!("{:.0}", s * 1e9));
        let median = |what: fn(&Run) -> f64| nanos(stats::median(&row.all(what)));
        let least = |what: fn(&Run) -> f64| nanos(stats::least(&row.all(what)));
        let fired: Vec<f64> = row.runs.iter().filter_map(|run| run.fire_seconds).collect();
        let heap = stats::median(&row.all(|run| run.heap_bytes)).unwrap_or(0.0);
        let instructions = match &row.instructions {
            Ok(count) => format!("{count:.0}"),
            Err(why) => why.clone(),
        };
        table += &format!(
            "| {} | {} | {} ({}) | {} ({}) | {} | {heap:.0} | {instructions} |\n",
            row.set.name(),
            median(|run| run.fill_seconds),
            median(Run::any_seconds),
            least(Run::any_seconds),
            median(|run| run.recent_seconds),
            least(|run| run.recent_seconds),
            nanos(stats::median(&fired)),
        );
    }
    let of = |set| rows.iter().find(|row| row.set == set);
    if let (Some(wheel), Some(queue)) = (of(Set::Wheel), of(Set::DelayQueue))
        && let Some((any, recent)) = ratios(wheel, queue)
    {
        table += &format!(
            "\nThe wheel relative to DelayQueue: any {:.3} ({:.3} to {:.3}), recent {:.3} ({:.3} to {:.3}); median of {} pairs, 95 % interval.\n",
            any.median,
            any.low,
            any.high,
            recent.median,
            recent.low,
            recent.high,
            wheel.runs.len(),
        );
    }
    table
}
