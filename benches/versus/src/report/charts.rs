//! The charts, as SVG: bars that lie, so that names have room, and lines for growth. Every axis begins at zero.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Measured;
use crate::job::{Client, Workload};
use crate::measure::growth::{Grown, Way};
use crate::measure::held::{self, Whose};
use crate::scene::{CLIENTS, SMALL_1, SMALL_50, SMALL_1000, Scene};
use crate::stats;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const WIDTH: i32 = 860;
const LEFT: i32 = 120;
/// Room for the figure behind the longest bar.
const RIGHT: i32 = 90;
/// Title and legend.
const TOP: i32 = 74;
const BOTTOM: i32 = 50;
const BAR: i32 = 15;
const GAP: i32 = 14;
const GRID: RGBColor = RGBColor(220, 220, 220);
const INK: RGBColor = RGBColor(40, 40, 40);
/// They differ in lightness too.
const COLOURS: [RGBColor; 3] = [
    RGBColor(158, 202, 225),
    RGBColor(66, 146, 198),
    RGBColor(8, 69, 148),
];
/// Ours.
const WARM: RGBColor = RGBColor(217, 95, 2);

/// Draws what there are figures for.
pub(super) fn all(measured: &Measured, directory: &Path) -> Result<()> {
    let cpu = |client, scene| {
        let seconds = measured.timed(client, scene)?.cpu_seconds();
        Some(stats::median(&seconds)? * 1e6)
    };
    Bars {
        title: "Processor time of a small request",
        axis: "µs of user and system time, median",
        series: scenes(&[SMALL_1, SMALL_50, SMALL_1000], |scene| {
            format!("{} in flight", scene.connections)
        }),
        rows: rows(&[SMALL_1, SMALL_50, SMALL_1000], cpu),
    }
    .draw(&directory.join("versus-cpu.svg"))?;

    let shown = [Workload::Small, Workload::Fields, Workload::Close]
        .map(|workload| Scene::new(workload, 1));
    Bars {
        title: "User-space instructions of a request",
        axis: "instructions, one request in flight",
        series: scenes(&shown, |scene| scene.workload.title().to_owned()),
        rows: rows(&shown, |client, scene| {
            Some(measured.instructions(client, scene)?.all)
        }),
    }
    .draw(&directory.join("versus-instructions.svg"))?;

    let held = Scene::new(Workload::Held, held::POLLS);
    Bars {
        title: "Heap of a held long poll",
        axis: "bytes for each of 10,000 connections",
        series: scenes(&[held], |_| "heap in use".to_owned()),
        rows: rows(&[held], |client, _| {
            measured.waiting_bytes(Whose::Client(client), held::POLLS)
        }),
    }
    .draw(&directory.join("versus-held.svg"))?;

    growth(
        measured,
        "Instructions of a small request, all connections busy",
        "instructions",
        |grown| grown.instructions.clone().ok(),
        &directory.join("versus-growth-instructions.svg"),
    )?;
    growth(
        measured,
        "Processor time of a small request, all connections busy",
        "µs of user and system time",
        |grown| Some(grown.cpu_seconds.clone().ok()? * 1e6),
        &directory.join("versus-growth-cpu.svg"),
    )
}

/// A name and a colour for each.
fn scenes(scenes: &[Scene], name: impl Fn(&Scene) -> String) -> Vec<(String, RGBColor)> {
    let colours = COLOURS.iter().skip(COLOURS.len() - scenes.len());
    scenes.iter().map(name).zip(colours.copied()).collect()
}

fn rows(
    scenes: &[Scene],
    figure: impl Fn(Client, Scene) -> Option<f64>,
) -> Vec<(&'static str, Vec<Option<f64>>)> {
    let row = |client: Client| {
        let figures = scenes.iter().map(|&scene| figure(client, scene)).collect();
        (client.name(), figures)
    };
    CLIENTS
        .into_iter()
        .map(row)
        .filter(|(_, figures): &(_, Vec<Option<f64>>)| figures.iter().any(Option::is_some))
        .collect()
}

/// Lying bars, a group for each row.
struct Bars {
    title: &'static str,
    axis: &'static str,
    series: Vec<(String, RGBColor)>,
    rows: Vec<(&'static str, Vec<Option<f64>>)>,
}

impl Bars {
    fn draw(&self, path: &Path) -> Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let group = BAR * self.series.len() as i32 + GAP;
        let bottom = TOP + group * self.rows.len() as i32;
        let root =
            SVGBackend::new(path, (WIDTH as u32, (bottom + BOTTOM) as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        root.draw(&Text::new(self.title, (LEFT, 14), font(18)))?;
        let mut at = LEFT;
        for (name, colour) in &self.series {
            root.draw(&Rectangle::new([(at, 46), (at + 12, 58)], colour.filled()))?;
            root.draw(&Text::new(name.clone(), (at + 18, 46), font(13)))?;
            at += 18 + 8 * name.len() as i32 + 24;
        }
        let figures = self.rows.iter().flat_map(|(_, figures)| figures);
        let most = figures.flatten().copied().fold(0.0, f64::max);
        let step = nice_step(most);
        let end = (most / step).ceil().max(1.0) * step;
        let place = |figure: f64| LEFT + (figure / end * f64::from(WIDTH - LEFT - RIGHT)) as i32;
        for tick in 0..=(end / step).round() as i32 {
            let x = place(f64::from(tick) * step);
            let line = PathElement::new(vec![(x, TOP - 4), (x, bottom)], GRID);
            root.draw(&line)?;
            let label = with_commas(f64::from(tick) * step);
            let centred = font(12).pos(Pos::new(HPos::Center, VPos::Top));
            root.draw(&Text::new(label, (x, bottom + 6), centred))?;
        }
        let centred = font(13).pos(Pos::new(HPos::Center, VPos::Top));
        let middle = (LEFT + WIDTH - RIGHT) / 2;
        root.draw(&Text::new(self.axis, (middle, bottom + 26), centred))?;
        for (i, (name, figures)) in self.rows.iter().enumerate() {
            let top = TOP + group * i as i32;
            let ours = Client::Httpstream.name();
            let beside = font(13).color(if *name == ours { &WARM } else { &INK });
            let beside = beside.pos(Pos::new(HPos::Right, VPos::Center));
            let middle = top + (group - GAP) / 2;
            root.draw(&Text::new(*name, (LEFT - 8, middle), beside))?;
            for (j, (figure, (_, colour))) in figures.iter().zip(&self.series).enumerate() {
                let Some(figure) = figure else { continue };
                let (top, x) = (top + BAR * j as i32, place(*figure));
                let bar = Rectangle::new([(LEFT, top), (x, top + BAR - 2)], colour.filled());
                root.draw(&bar)?;
                let behind = font(11).pos(Pos::new(HPos::Left, VPos::Center));
                let middle = top + BAR / 2 - 1;
                root.draw(&Text::new(with_commas(*figure), (x + 5, middle), behind))?;
            }
        }
        root.present()?;
        Ok(())
    }
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// 1, 2 or 5 times a power of ten, so that four to eight of them make the axis.
fn nice_step(most: f64) -> f64 {
    let rough = (most / 6.0).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let fits = |factor: &f64| factor * power >= rough;
    factors.into_iter().find(fits).unwrap_or(10.0) * power
}

/// `12,345`; below a hundred with one digit behind the point.
fn with_commas(figure: f64) -> String {
    if figure < 100.0 && figure.fract() > 0.05 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The floor and httpstream over the number of connections, whose axis is logarithmic.
fn growth(
    measured: &Measured,
    title: &str,
    axis: &str,
    figure: impl Fn(&Grown) -> Option<f64>,
    path: &Path,
) -> Result<()> {
    let line = |client: Client| -> Vec<(f64, f64)> {
        measured
            .growth
            .iter()
            .filter(|grown| grown.client == client && grown.way == Way::AllBusy)
            .filter_map(|grown| Some((grown.open as f64, figure(grown)?)))
            .collect()
    };
    // The names stand apart, also where the lines end together.
    let lines = [
        (Client::Httpstream, WARM, -8, line(Client::Httpstream)),
        (Client::Floor, COLOURS[2], 8, line(Client::Floor)),
    ];
    let points = || lines.iter().flat_map(|(_, _, _, line)| line);
    let most = points().map(|&(_, y)| y).fold(0.0, f64::max);
    let widest = points().map(|&(x, _)| x).fold(0.0, f64::max);
    if widest <= 1.0 {
        return Ok(());
    }
    let root = SVGBackend::new(path, (WIDTH as u32, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, font(18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        // The names of the lines stand behind their ends.
        .margin_right(110)
        .build_cartesian_2d((1.0..widest).log_scale(), 0.0..most * 1.15)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .x_desc("open connections (logarithmic)")
        .y_desc(axis)
        .label_style(font(12))
        .axis_desc_style(font(13))
        .x_label_formatter(&|x| with_commas(*x))
        .y_label_formatter(&|y| with_commas(*y))
        .draw()?;
    for (client, colour, aside, line) in lines {
        let Some(&last) = line.last() else { continue };
        let circles = line.iter().map(|&at| Circle::new(at, 3, colour.filled()));
        chart.draw_series(circles)?;
        chart.draw_series(LineSeries::new(
            line.iter().copied(),
            colour.stroke_width(2),
        ))?;
        let (x, y) = chart.backend_coord(&last);
        let style = font(13)
            .color(&colour)
            .pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(client.name(), (x + 8, y + aside), style))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Header;
    use super::*;
    use crate::bench::Cores;
    use crate::job::Cost;
    use crate::measure::counts::{Counted, Each};
    use crate::measure::cpu::{Runs, Timed};
    use crate::measure::growth;
    use crate::options::{Asked, Options};

    fn cost(microseconds: f64) -> Cost {
        Cost {
            user_seconds: microseconds,
            answered: 1_000_000,
            ..Cost::default()
        }
    }

    /// Figures like those of a real run.
    fn measured() -> Measured {
        let Ok(Asked::Run(options)) = Options::parse(&[]) else {
            panic!("nothing asked for is everything");
        };
        let mut measured = Measured::new(Header::new(&options, Cores::One));
        let figures = [6.6, 7.5, 10.5, 12.9, 21.2, 25.3, 11.2, 145.0, 8.5];
        for (client, figure) in CLIENTS.into_iter().zip(figures) {
            for (scene, factor) in [(SMALL_1, 2.0), (SMALL_50, 1.0), (SMALL_1000, 1.4)] {
                measured.cpu.push(Timed {
                    scene,
                    client,
                    runs: Runs::Costs(vec![cost(figure * factor)]),
                });
            }
            for workload in [Workload::Small, Workload::Fields, Workload::Close] {
                measured.instructions.push(Counted {
                    scene: Scene::new(workload, 1),
                    client,
                    each: Ok(Each {
                        all: figure * 1000.0,
                        outside_tls: 0.0,
                    }),
                });
            }
            measured.waiting.push(held::Row {
                whose: Whose::Client(client),
                waiting: held::POLLS,
                costs: Ok(vec![Cost {
                    heap_bytes: (figure * 1e7) as i64,
                    ..Cost::default()
                }]),
            });
            for open in growth::OPEN {
                measured.growth.push(Grown {
                    client,
                    open,
                    way: Way::AllBusy,
                    cpu_seconds: Ok(figure * 1e-6 * (open as f64).log10().max(1.0)),
                    instructions: Ok(figure * 500.0),
                    held_bytes: Err("not measured".to_owned()),
                });
            }
        }
        measured
    }

    #[test]
    fn charts_name_every_client_that_has_a_figure() {
        let directory = std::env::temp_dir().join(format!("versus-charts-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        all(&measured(), &directory).expect("they are drawn");
        for (name, clients) in [
            ("versus-cpu.svg", &CLIENTS[..]),
            ("versus-instructions.svg", &CLIENTS),
            ("versus-held.svg", &CLIENTS),
            ("versus-growth-instructions.svg", &CLIENTS[..2]),
            ("versus-growth-cpu.svg", &CLIENTS[..2]),
        ] {
            let drawn = std::fs::read_to_string(directory.join(name)).expect(name);
            for client in clients {
                assert!(drawn.contains(client.name()), "{name}: {}", client.name());
            }
        }
        std::fs::remove_dir_all(&directory).expect("it is ours");
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let mut measured = measured();
        measured.cpu.clear();
        measured.instructions.clear();
        measured.waiting.clear();
        measured.growth.clear();
        all(&measured, Path::new("/nowhere")).expect("nothing is written");
    }

    #[test]
    fn steps_of_an_axis_are_round() {
        for (most, step) in [
            (33_909.0, 10_000.0),
            (25.3, 5.0),
            (60_430.0, 20_000.0),
            (5.9, 1.0),
        ] {
            assert!(
                (nice_step(most) - step).abs() < 1e-9 * step,
                "{most}: {}",
                nice_step(most)
            );
        }
    }

    #[test]
    fn figures_are_grouped_by_thousands() {
        for (figure, text) in [
            (0.0, "0"),
            (6.63, "6.6"),
            (25.3, "25.3"),
            (61.0, "61"),
            (2121.0, "2,121"),
            (1e6, "1,000,000"),
        ] {
            assert_eq!(with_commas(figure), text);
        }
    }
}
