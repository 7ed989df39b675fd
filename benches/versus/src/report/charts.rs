//! The charts, as SVG: horizontal bars, which leave room for names, and lines for growth. Every
//! axis begins at zero.

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

const WIDTH: u32 = 860;
/// The height of a bar, and of the gap between two rows.
const BAR: u32 = 15;
/// The space around the drawing: title, axis labels, margins.
const AROUND: u32 = 110;
const GRID: RGBColor = RGBColor(220, 220, 220);
const INK: RGBColor = RGBColor(40, 40, 40);
/// They differ in lightness, too.
const COLOURS: [RGBColor; 3] = [
    RGBColor(158, 202, 225),
    RGBColor(66, 146, 198),
    RGBColor(8, 69, 148),
];
/// httpstream's color.
const WARM: RGBColor = RGBColor(217, 95, 2);

/// Draws the charts for which there are figures.
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

/// Returns a name and a color for each.
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

/// Horizontal bars, with a group for each row.
struct Bars {
    title: &'static str,
    axis: &'static str,
    series: Vec<(String, RGBColor)>,
    rows: Vec<(&'static str, Vec<Option<f64>>)>,
}

impl Bars {
    fn draw(&self, path: &Path) -> Result<()> {
        let figures = self.rows.iter().flat_map(|(_, figures)| figures);
        let most = figures.flatten().copied().fold(0.0, f64::max);
        if most == 0.0 {
            return Ok(());
        }
        let (rows, bars) = (self.rows.len(), self.series.len());
        let height = BAR * (rows * (bars + 1)) as u32 + AROUND;
        let root = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE)?;
        // Downwards, in units of bars; the gap between two rows is half above and half below.
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, font(18))
            .margin(16)
            // Room for the figure next to the longest bar.
            .margin_right(80)
            .x_label_area_size(44)
            .y_label_area_size(104)
            .build_cartesian_2d(0.0..most, (rows * (bars + 1)) as f64..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .max_light_lines(1)
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .x_desc(self.axis)
            .label_style(font(12))
            .axis_desc_style(font(13))
            .x_label_formatter(&|x| with_commas(*x))
            .draw()?;
        let top = |row: usize| (row * (bars + 1)) as f64 + 0.5;
        for (row, (name, _)) in self.rows.iter().enumerate() {
            let ours = *name == Client::Httpstream.name();
            let style = font(13).color(if ours { &WARM } else { &INK });
            let style = style.pos(Pos::new(HPos::Right, VPos::Center));
            let (x, y) = chart.backend_coord(&(0.0, top(row) + bars as f64 / 2.0));
            root.draw(&Text::new(*name, (x - 8, y), style))?;
        }
        for (bar, (name, colour)) in self.series.iter().enumerate() {
            let place = |(row, (_, figures)): (usize, &(&str, Vec<Option<f64>>))| {
                Some((figures[bar]?, top(row) + bar as f64))
            };
            let places = || self.rows.iter().enumerate().filter_map(place);
            let colour = colour.filled();
            let drawn = places().map(|(x, y)| Rectangle::new([(0.0, y), (x, y + 0.87)], colour));
            chart
                .draw_series(drawn)?
                .label(name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 12, y + 6)], colour));
            let style = font(11).pos(Pos::new(HPos::Left, VPos::Center));
            chart.draw_series(places().map(|(x, y)| {
                let text = Text::new(with_commas(x), (5, 0), style.clone());
                EmptyElement::at((x, y + 0.45)) + text
            }))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .legend_area_size(20)
            .label_font(font(13))
            .background_style(WHITE)
            .draw()?;
        root.present()?;
        Ok(())
    }
}

fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Formats `12,345`; below a hundred with one decimal.
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

/// Draws the floor and httpstream over the number of connections, on a logarithmic axis.
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
    // The names are offset, in case the lines end at the same height.
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
    let root = SVGBackend::new(path, (WIDTH, 420)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, font(18))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        // The names of the lines are next to their ends.
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
    use std::fs;

    use super::*;

    const REFRESH: &str = "VERSUS_DRAW_CHARTS";

    /// Reads the run that the documentation shows.
    fn recorded() -> Measured {
        let json = super::super::docs().join("versus.json");
        let json = fs::read_to_string(json).expect("a run is recorded");
        serde_json::from_str(&json).expect("a recorded run")
    }

    #[test]
    fn the_charts_in_the_documentation_show_the_recorded_run() {
        let docs = super::super::docs();
        if std::env::var_os(REFRESH).is_some() {
            all(&recorded(), &docs).expect("the charts are drawn");
        }
        let directory = std::env::temp_dir().join(format!("versus-charts-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory");
        all(&recorded(), &directory).expect("the charts are drawn");
        let mut charts = 0;
        for drawn in fs::read_dir(&directory).expect("the directory exists") {
            let drawn = drawn.expect("a file").path();
            let shown = docs.join(drawn.file_name().expect("a file name"));
            let read = |path: &Path| fs::read_to_string(path).expect("a chart");
            assert!(
                read(&drawn) == read(&shown),
                "{shown:?} is outdated; redraw it with {REFRESH}=1 cargo test -p versus charts"
            );
            charts += 1;
        }
        assert_eq!(charts, 5);
        fs::remove_dir_all(&directory).expect("the directory can be removed");
    }

    #[test]
    fn charts_name_every_client_that_has_a_figure() {
        let recorded = recorded();
        let wrk = recorded.timed(Client::Wrk, SMALL_50);
        let has_wrk = wrk.is_some_and(|timed| !timed.costs().is_empty());
        for (name, clients) in [
            ("versus-cpu.svg", &CLIENTS[..]),
            ("versus-instructions.svg", &CLIENTS[..8]),
            ("versus-held.svg", &CLIENTS[..5]),
            ("versus-growth-instructions.svg", &CLIENTS[..2]),
            ("versus-growth-cpu.svg", &CLIENTS[..2]),
        ] {
            let drawn = fs::read_to_string(super::super::docs().join(name)).expect(name);
            for client in clients {
                // wrk is an installed program, and not part of every run.
                let has_figure = *client != Client::Wrk || has_wrk;
                let is_named = drawn.contains(client.name());
                assert_eq!(is_named, has_figure, "{name}: {}", client.name());
            }
        }
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let measured = Measured::new(recorded().header);
        all(&measured, Path::new("/nowhere")).expect("no chart is drawn");
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
