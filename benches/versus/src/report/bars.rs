//! The limits that httpstream must meet, its goals, and the measured values.

use super::Measured;
use crate::clients::waiting::Waiting;
use crate::job::{Client, Workload};
use crate::measure::counts::{Each, calls_but_waits};
use crate::measure::growth::{Grown, Way};
use crate::measure::held::{self, Whose};
use crate::measure::timers::{self, Set};
use crate::measure::transfers::{self, TRANSFERS};
use crate::scene::{
    CHUNKED, CLIENTS, CLOSE, DEPTH, FIELDS, HUGE, HUGE_STREAMED, LARGE, PIPELINED, SMALL_1,
    SMALL_50, SMALL_1000, Scene, TLS,
};
use crate::stats::{self, Ratio};

/// A measure with an upper limit.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) measure: String,
    pub(crate) bar: f64,
    pub(crate) goal: Option<f64>,
    pub(crate) measured: Option<f64>,
    pub(crate) remark: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Both the limit and the goal are met.
    Goal,
    Met,
    Missed,
    NotMeasured,
}

impl Bar {
    fn new(measure: &str, bar: f64, goal: impl Into<Option<f64>>, measured: Option<f64>) -> Self {
        Self {
            measure: measure.to_owned(),
            bar,
            goal: goal.into(),
            measured,
            remark: String::new(),
        }
    }

    fn remark(mut self, remark: String) -> Self {
        self.remark = remark;
        self
    }

    /// Judges the measured value before any rounding.
    pub(crate) fn verdict(&self) -> Verdict {
        let Some(measured) = self.measured else {
            return Verdict::NotMeasured;
        };
        if measured > self.bar {
            return Verdict::Missed;
        }
        match self.goal {
            Some(goal) if measured <= goal => Verdict::Goal,
            _ => Verdict::Met,
        }
    }
}

/// Formats a value so that one slightly over a limit does not look like the limit: with three
/// decimals below ten, with one below a hundred thousand.
pub(crate) fn figure(value: f64) -> String {
    let digits = match value.abs() {
        0.0..10.0 => 3,
        10.0..100_000.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// System calls are the difference between two runs in which the kernel causes extra calls, so they
/// are rounded to hundredths, like the limits.
fn in_hundredths(calls: f64) -> f64 {
    (calls * 100.0).round() / 100.0
}

/// Returns the ratio of processor times, round by round.
pub(super) fn cpu_ratio(
    measured: &Measured,
    ours: (Client, Scene),
    theirs: (Client, Scene),
) -> Option<Ratio> {
    let ours = measured.timed(ours.0, ours.1)?.cpu_seconds();
    let theirs = measured.timed(theirs.0, theirs.1)?.cpu_seconds();
    stats::paired_ratio(&ours, &theirs)
}

pub(super) fn all(measured: &Measured) -> Vec<Bar> {
    let mut bars = instructions(measured);
    bars.extend(allocations(measured));
    bars.extend(calls(measured));
    bars.extend(waiting(measured));
    bars.extend(timers(measured));
    bars.extend(processor_time(measured));
    bars.extend(https(measured));
    bars.extend(large_bodies(measured));
    bars.extend(pipelined(measured));
    bars.extend(growth(measured));
    bars.extend(transferred(measured));
    bars
}

fn alone(workload: Workload) -> Scene {
    Scene::new(workload, 1)
}

fn instructions(measured: &Measured) -> Vec<Bar> {
    let of = |client, scene| Some(measured.instructions(client, scene)?.all);
    let ours = |scene| of(Client::Httpstream, scene);
    let to_hyper = |scene| Some(ours(scene)? / of(Client::HyperConn, scene)?);
    let mut bars = vec![
        Bar::new("instructions, small, C=1", 4500.0, 3000.0, ours(SMALL_1)),
        Bar::new("instructions, small, C=50", 4500.0, 3000.0, ours(SMALL_50)),
        Bar::new(
            "instructions, small, C=1, relative to hyper-conn",
            0.30,
            None,
            to_hyper(SMALL_1),
        ),
        Bar::new(
            "instructions, small, C=50, relative to hyper-conn",
            0.30,
            None,
            to_hyper(SMALL_50),
        ),
    ];
    for (scene, bar, goal) in [
        (CHUNKED, 5500.0, 4000.0),
        (FIELDS, 12_000.0, 9500.0),
        (LARGE, 5000.0, 3200.0),
        (CLOSE, 6500.0, 4500.0),
    ] {
        for scene in [alone(scene.workload), scene] {
            bars.push(Bar::new(
                &format!("instructions, {scene}"),
                bar,
                goal,
                ours(scene),
            ));
        }
    }
    bars
}

fn allocations(measured: &Measured) -> Vec<Bar> {
    let ours = |scene| measured.timed(Client::Httpstream, scene)?.allocations();
    vec![
        Bar::new("allocations, small, C=1", 0.0, 0.0, ours(SMALL_1)),
        Bar::new("allocations, small, C=50", 0.0, 0.0, ours(SMALL_50)),
        Bar::new("allocations, connection per request", 2.0, 0.0, ours(CLOSE)),
    ]
}

fn calls(measured: &Measured) -> Vec<Bar> {
    let calls = |scene| measured.calls(Client::Httpstream, scene);
    let every = |scene| Some(in_hundredths(calls(scene)?.values().sum()));
    vec![
        Bar::new("system calls, small, C=1", 3.0, 3.0, every(SMALL_1)),
        Bar::new(
            "system calls except waits, small, C=50",
            2.0,
            2.0,
            calls(SMALL_50).map(calls_but_waits).map(in_hundredths),
        ),
        Bar::new(
            "system calls, connection per request, C=50",
            8.1,
            7.1,
            every(CLOSE),
        ),
    ]
}

fn waiting(measured: &Measured) -> Vec<Bar> {
    let polls = measured.waiting_bytes(Whose::Client(Client::Httpstream), held::POLLS);
    let delayed = measured.waiting_bytes(Whose::Waiting(Waiting::Httpstream), held::DELAYED);
    vec![
        Bar::new("heap bytes, held long poll", 512.0, 200.0, polls),
        Bar::new("heap bytes, delayed request (clones)", 160.0, 96.0, delayed),
    ]
}

fn timers(measured: &Measured) -> Vec<Bar> {
    let of = |set| measured.timers.iter().find(|row| row.set == set);
    let ratios = of(Set::Wheel)
        .zip(of(Set::DelayQueue))
        .and_then(|(wheel, queue)| timers::ratios(wheel, queue));
    let bar = |measure: &str, ratio: Option<Ratio>| {
        let median = ratio.map(|ratio| ratio.median);
        Bar::new(measure, 0.30, 0.20, median).remark(interval(ratio))
    };
    vec![
        bar(
            "timer among 1,000,000, random cancel and arm, relative to DelayQueue",
            ratios.map(|(any, _)| any),
        ),
        bar(
            "timer among 1,000,000, arm and early cancel, relative to DelayQueue",
            ratios.map(|(_, recent)| recent),
        ),
    ]
}

fn processor_time(measured: &Measured) -> Vec<Bar> {
    let rows = [
        (Client::HyperConn, SMALL_1, 0.85),
        (Client::HyperConn, SMALL_50, 0.90),
        (Client::HyperConn, SMALL_1000, 0.60),
        (Client::CurlMulti, SMALL_50, 0.45),
        (Client::CurlMulti, SMALL_1000, 0.20),
    ];
    let bar = |(peer, scene, bar): (Client, Scene, f64)| {
        let measure = format!("CPU, {scene}, relative to {}, upper end", peer.name());
        upper_end(measured, &measure, bar, (peer, scene), scene)
    };
    rows.into_iter().map(bar).collect()
}

fn upper_end(
    measured: &Measured,
    measure: &str,
    bar: f64,
    theirs: (Client, Scene),
    scene: Scene,
) -> Bar {
    let ratio = cpu_ratio(measured, (Client::Httpstream, scene), theirs);
    Bar::new(measure, bar, None, ratio.map(|ratio| ratio.high)).remark(interval(ratio))
}

fn interval(ratio: Option<Ratio>) -> String {
    match ratio {
        Some(Ratio { median, low, high }) => {
            format!("median {median:.2}, 95 % interval {low:.2} to {high:.2}")
        }
        None => String::new(),
    }
}

fn https(measured: &Measured) -> Vec<Bar> {
    let outside = |client| {
        let Each { outside_tls, .. } = measured.instructions(client, TLS)?;
        Some(outside_tls)
    };
    let ratio = outside(Client::Httpstream).zip(outside(Client::HyperConn));
    let remark = ratio.map_or(String::new(), |(ours, theirs)| {
        format!("{ours:.0} vs. {theirs:.0}")
    });
    let ratio = ratio.map(|(ours, theirs)| ours / theirs);
    vec![
        Bar::new(
            "instructions outside rustls, https, C=50, relative to hyper",
            0.60,
            0.45,
            ratio,
        )
        .remark(remark),
        upper_end(
            measured,
            "CPU, https, C=50, relative to hyper, upper end",
            0.90,
            (Client::HyperConn, TLS),
            TLS,
        ),
    ]
}

fn large_bodies(measured: &Measured) -> Vec<Bar> {
    let mut bars = Vec::new();
    for scene in [HUGE, HUGE_STREAMED] {
        let title = scene.workload.title();
        let best = best_peer(measured, scene);
        let ratio =
            best.and_then(|peer| cpu_ratio(measured, (Client::Httpstream, scene), (peer, scene)));
        let remark = best.map_or(String::new(), |peer| {
            format!("{}; {}", peer.name(), interval(ratio))
        });
        bars.push(
            Bar::new(
                &format!("CPU, {title}, relative to the best peer"),
                1.05,
                1.0,
                ratio.map(|ratio| ratio.median),
            )
            .remark(remark),
        );
        let calls = measured.calls(Client::Httpstream, alone(scene.workload));
        bars.push(Bar::new(
            &format!("system calls, {title}"),
            16.0,
            None,
            calls.map(|calls| in_hundredths(calls.values().sum())),
        ));
    }
    let lent = measured.timed(Client::Httpstream, HUGE_STREAMED);
    bars.push(Bar::new(
        "allocations, 1 MiB streamed",
        0.0,
        None,
        lent.and_then(|timed| timed.allocations()),
    ));
    bars
}

fn transferred(measured: &Measured) -> Vec<Bar> {
    let rows = &measured.transfers;
    let bars = TRANSFERS.into_iter().flat_map(|transfer| {
        let title = transfer.title();
        let best = transfers::relative_to_best(rows, transfer);
        let remark = best.map_or(String::new(), |(peer, ratio)| {
            format!("{}; {}", peer.name(), interval(Some(ratio)))
        });
        let ratio = best.map(|(_, ratio)| ratio.high);
        let peak = transfers::of_httpstream(rows, transfer).and_then(|row| row.peak_mib());
        [
            Bar::new(
                &format!("CPU, a large body {title}, relative to the best peer, upper end"),
                1.2,
                None,
                ratio,
            )
            .remark(remark),
            Bar::new(
                &format!("resident MiB, a large body {title}"),
                16.0,
                None,
                peak,
            ),
        ]
    });
    bars.collect()
}

/// Returns the client with the least median, not counting the floor and httpstream.
fn best_peer(measured: &Measured, scene: Scene) -> Option<Client> {
    let median = |client| stats::median(&measured.timed(client, scene)?.cpu_seconds());
    CLIENTS
        .into_iter()
        .filter(|client| !matches!(client, Client::Floor | Client::Httpstream))
        .filter_map(|client| Some((client, median(client)?)))
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(client, _)| client)
}

fn pipelined(measured: &Measured) -> Vec<Bar> {
    let ours = (Client::Httpstream, PIPELINED);
    let ratio = cpu_ratio(measured, ours, (Client::Floor, PIPELINED));
    let measure = format!("CPU, {DEPTH} pipelined, relative to the floor unpipelined at C=50");
    vec![Bar::new(&measure, 0.35, 0.24, ratio.map(|ratio| ratio.median)).remark(interval(ratio))]
}

/// Compares the largest number of connections with one, and with the least figure at any number: a
/// single connection alone pays for a wait with each answer, which would hide growth after it. The
/// remark has the floor's figure for the same sockets.
fn growth(measured: &Measured) -> Vec<Bar> {
    let mut bars = Vec::new();
    for (way, words) in [(Way::AllBusy, "all busy"), (Way::FiftyBusy, "50 busy")] {
        let mut add = |measure: &str, bar: f64, of: fn(&Grown) -> Option<f64>| {
            let ours = growth_of(measured, Client::Httpstream, way, of);
            let floor = growth_of(measured, Client::Floor, way, of);
            let open = ours.map_or(String::new(), |ours| format!(" {}", ours.open));
            type OfGrowth = fn(Growth) -> f64;
            let ratios: [(&str, OfGrowth); 2] = [
                ("one", |growth| growth.from_one),
                ("the least at any number", |growth| growth.from_least),
            ];
            for (base, ratio) in ratios {
                let measure =
                    format!("{measure} at{open} connections, {words}, relative to {base}");
                let floor = floor.map(|floor| format!("floor: {}", figure(ratio(floor))));
                bars.push(
                    Bar::new(&measure, bar, None, ours.map(ratio))
                        .remark(floor.unwrap_or_default()),
                );
            }
        };
        add("instructions", 1.05, |grown| {
            grown.instructions.clone().ok()
        });
        add("CPU", 1.5, |grown| grown.cpu_seconds.clone().ok());
    }
    bars.push(linear_memory(measured));
    bars
}

/// Compares the heap per held connection at the largest number with that at a thousand: with fewer,
/// most of it is what an engine has once.
fn linear_memory(measured: &Measured) -> Bar {
    let ours: Vec<&Grown> = measured
        .growth
        .iter()
        .filter(|grown| grown.client == Client::Httpstream && grown.open >= 1000)
        .collect();
    let bytes = |grown: Option<&&Grown>| grown?.held_bytes.clone().ok();
    let (few, most) = (ours.first(), ours.last());
    let is_grown = few
        .zip(most)
        .is_some_and(|(few, most)| few.open < most.open);
    let ratio = bytes(most).zip(bytes(few)).filter(|_| is_grown);
    let open = most.map_or(String::new(), |most| format!(" {}", most.open));
    let measure = format!("heap per held connection at{open}, relative to 1000");
    Bar::new(&measure, 1.0, None, ratio.map(|(most, few)| most / few))
}

#[derive(Clone, Copy, Debug)]
struct Growth {
    open: usize,
    from_least: f64,
    from_one: f64,
}

fn growth_of(
    measured: &Measured,
    client: Client,
    way: Way,
    of: fn(&Grown) -> Option<f64>,
) -> Option<Growth> {
    let ours = measured.growth.iter();
    let ours: Vec<&Grown> = ours.filter(|grown| grown.client == client).collect();
    let (last, one) = (
        ours.iter().rfind(|grown| grown.way == way)?,
        ours.iter().find(|grown| grown.open == 1)?,
    );
    let least = ours
        .iter()
        .filter_map(|grown| of(grown))
        .min_by(f64::total_cmp)?;
    (last.open > 1).then_some(Growth {
        open: last.open,
        from_least: of(last)? / least,
        from_one: of(last)? / of(one)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Cores;
    use crate::job::Cost;
    use crate::measure::cpu::{Runs, Timed};
    use crate::options::{Asked, Options};
    use crate::report::Header;

    fn nothing() -> Measured {
        let Ok(Asked::Run(options)) = Options::parse(&[]) else {
            panic!("the default measures everything");
        };
        Measured::new(Header::new(&options, Cores::One))
    }

    /// Makes runs from the microseconds of a request, by round.
    fn timed(client: Client, scene: Scene, rounds: &[f64]) -> Timed {
        let cost = |&microseconds: &f64| Cost {
            user_seconds: microseconds,
            answered: 1_000_000,
            ..Cost::default()
        };
        Timed {
            scene,
            client,
            runs: Runs::Costs(rounds.iter().map(cost).collect()),
        }
    }

    fn measured_of(bars: &[Bar], measure: &str) -> Option<f64> {
        let bar = bars.iter().find(|bar| bar.measure == measure);
        bar.unwrap_or_else(|| panic!("{measure:?} is not in {bars:?}"))
            .measured
    }

    #[test]
    fn processor_time_is_ours_to_theirs_and_the_upper_end() {
        let mut measured = nothing();
        let ours: Vec<f64> = (0..15).map(|round| 5.0 + f64::from(round % 3)).collect();
        measured.cpu = vec![
            timed(Client::Httpstream, SMALL_50, &ours),
            timed(Client::HyperConn, SMALL_50, &[10.0; 15]),
        ];
        let bars = processor_time(&measured);
        // The median is 0.6; a third of the rounds have 0.7.
        let measure = "CPU, small, C=50, relative to hyper-conn, upper end";
        assert_eq!(measured_of(&bars, measure), Some(0.7));
        let measure = "CPU, small, C=50, relative to curl-multi, upper end";
        assert_eq!(measured_of(&bars, measure), None);
    }

    #[test]
    fn the_best_peer_is_neither_the_floor_nor_ourselves() {
        let mut measured = nothing();
        measured.cpu = vec![
            timed(Client::Floor, HUGE, &[1.0]),
            timed(Client::Httpstream, HUGE, &[3.0]),
            timed(Client::HyperConn, HUGE, &[4.0]),
            timed(Client::CurlMulti, HUGE, &[2.0]),
        ];
        let bars = large_bodies(&measured);
        let measure = "CPU, 1 MiB collected, relative to the best peer";
        assert_eq!(measured_of(&bars, measure), Some(1.5));
    }

    #[test]
    fn growth_is_counted_from_one_and_from_the_least() {
        let mut measured = nothing();
        let rows = [
            (1, Way::AllBusy, 24.0, 4000.0),
            (100, Way::AllBusy, 6.0, 250.0),
            (100, Way::FiftyBusy, 6.0, 250.0),
            (1000, Way::AllBusy, 7.0, 200.0),
            (15_000, Way::AllBusy, 12.0, 190.0),
            (15_000, Way::FiftyBusy, 9.0, 190.0),
        ];
        measured.growth = rows
            .map(|(open, way, microseconds, held_bytes)| Grown {
                client: Client::Httpstream,
                open,
                way,
                cpu_seconds: Ok(microseconds),
                instructions: Err("not counted".to_owned()),
                held_bytes: Ok(held_bytes),
            })
            .into();
        let bars = growth(&measured);
        for (measure, expected) in [
            ("CPU at 15000 connections, all busy, relative to one", 0.5),
            (
                "CPU at 15000 connections, all busy, relative to the least at any number",
                2.0,
            ),
            (
                "CPU at 15000 connections, 50 busy, relative to the least at any number",
                1.5,
            ),
            ("heap per held connection at 15000, relative to 1000", 0.95),
        ] {
            assert_eq!(measured_of(&bars, measure), Some(expected), "{measure}");
        }
    }

    #[test]
    fn a_bar_is_not_met_by_rounding() {
        let judged = |bar, goal: f64, measured| Bar::new("", bar, goal, measured).verdict();
        assert_eq!(judged(0.85, 0.80, Some(0.80)), Verdict::Goal);
        assert_eq!(judged(0.85, 0.80, Some(0.804)), Verdict::Met);
        assert_eq!(judged(0.85, 0.80, Some(0.854)), Verdict::Missed);
        assert_eq!(judged(4500.0, 3000.0, Some(4500.4)), Verdict::Missed);
        assert_eq!(judged(0.0, 0.0, Some(0.004)), Verdict::Missed);
        assert_eq!(judged(0.0, 0.0, None), Verdict::NotMeasured);
        for (value, text) in [
            (0.854, "0.854"),
            (1.05, "1.05"),
            (3.0, "3"),
            (4500.4, "4500.4"),
            (12_000.0, "12000"),
        ] {
            assert_eq!(figure(value), text);
        }
        assert_eq!(in_hundredths(3.0008), 3.0);
    }
}
