//! Charts as SVG, and the numbers of a chart as a table.
//!
//! A chart is as wide as a phone, so that its letters have the size of the text around it there; on
//! larger screens charts stand beside one another. Colors are placeholders, `#0000NN`, for which
//! the style sheet has a variable each: so they follow the dark mode and the printer.
//!
//! Knows the marks of [`crate::document`]. Does not know what they mean.

use std::ops::Range;

use ams_model::metrics::Interval;
use ams_train::ablate::{Cells, interval};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::document::{Chart, Curve, GroupSeries, Marks, Point, RowMark};

/// Width of a chart, pixels.
const WIDTH: u32 = 360;

/// Height of a chart, pixels; one of rows is as high as its rows need.
const HEIGHT: u32 = 232;

/// Height of a row, pixels: its name above its interval.
const ROW: u32 = 38;

/// Size of letters as plotters counts it, which writes it 1.24 times smaller.
const LETTERS: f64 = 14.5;

/// Series that have a color of their own; a chart has no more.
pub(crate) const COLORS: usize = 8;

/// Color of axes and words, which a style sheet replaces.
const INK: RGBColor = RGBColor(0, 0, 1);

/// The lines of the grid.
const GRID: RGBColor = RGBColor(0, 0, 2);

/// A line to compare with: the diagonal, or no difference.
const LINE: RGBColor = RGBColor(0, 0, 3);

/// Why a mark cannot be drawn; no reason that a text in memory has.
type Refused = DrawingAreaErrorKind<std::io::Error>;

type Drawn = Result<(), Refused>;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// The placeholder of series `at`, counted from 0.
fn color(at: usize) -> RGBColor {
    RGBColor(0, 0, 10 + (at % COLORS) as u8)
}

/// A range of values, which a chart shows whole.
#[derive(Clone, Copy, Debug)]
struct Span {
    low: f64,
    high: f64,
}

impl Span {
    /// The range of `values` with some room around them.
    fn around(values: impl IntoIterator<Item = f64>) -> Span {
        let all = Span { low: f64::INFINITY, high: f64::NEG_INFINITY };
        let wider = |span: Span, x: f64| Span { low: span.low.min(x), high: span.high.max(x) };
        let Span { low, high } = values.into_iter().filter(|x| x.is_finite()).fold(all, wider);
        if low > high {
            return Span { low: 0.0, high: 1.0 };
        }
        let room = if high > low { 0.06 * (high - low) } else { 0.05 * high.abs().max(0.02) };
        Span { low: low - room, high: high + room }
    }

    fn range(self) -> Range<f64> {
        self.low..self.high
    }

    /// Decimals that tell apart the labels of the axis.
    fn decimals(self) -> usize {
        let step = (self.high - self.low) / 5.0;
        (1.0 - step.log10()).floor().clamp(0.0, 6.0) as usize
    }
}

impl Chart {
    /// The names of the series, in the order of their colors; empty where a chart needs no legend.
    pub(crate) fn legend(&self) -> Vec<&str> {
        match &self.marks {
            Marks::Curves(curves) | Marks::Shares(curves) => {
                curves.iter().map(|curve| &curve.name[..]).collect()
            }
            Marks::Groups { series, .. } => series.iter().map(|it| &it.name[..]).collect(),
            Marks::Rows { .. } => Vec::new(),
        }
    }

    /// Whether the chart has a table of its own.
    pub(crate) fn has_cells(&self) -> bool {
        !matches!(self.marks, Marks::Shares(_))
    }

    /// The numbers that are drawn.
    pub(crate) fn cells(&self) -> Cells {
        match &self.marks {
            Marks::Curves(curves) | Marks::Shares(curves) => curves_as_cells(&self.x, curves),
            Marks::Groups { categories, series } => {
                let names = series.iter().map(|series| series.name.clone());
                let row = |(at, name): (usize, &String)| {
                    let values = series.iter().map(|series| value(series.values[at]));
                    std::iter::once(name.clone()).chain(values).collect()
                };
                Cells {
                    header: std::iter::once(self.x.clone()).chain(names).collect(),
                    rows: categories.iter().enumerate().map(row).collect(),
                }
            }
            Marks::Rows { rows, differences } => {
                let text = |mark: &RowMark| match differences {
                    true => interval(mark.value),
                    false => value(mark.value),
                };
                Cells {
                    header: vec![self.y.clone(), self.x.clone()],
                    rows: rows.iter().map(|mark| vec![mark.name.clone(), text(mark)]).collect(),
                }
            }
        }
    }

    /// The chart as SVG; none if it has no mark.
    pub(crate) fn svg(&self) -> Option<String> {
        let height = match &self.marks {
            Marks::Rows { rows, .. } => 50 + ROW * rows.len() as u32,
            _ => HEIGHT,
        };
        if self.is_empty() {
            return None;
        }
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = match &self.marks {
            Marks::Curves(curves) => self.curves(&area, curves),
            Marks::Shares(curves) => self.shares(&area, curves),
            Marks::Groups { categories, series } => self.groups(&area, categories, series),
            Marks::Rows { rows, differences } => self.rows(&area, rows, *differences),
        };
        drawn.and_then(|()| area.present()).expect("a text takes every mark");
        drop(area);
        Some(svg)
    }

    fn is_empty(&self) -> bool {
        match &self.marks {
            Marks::Curves(curves) | Marks::Shares(curves) => {
                curves.iter().all(|curve| curve.points.is_empty())
            }
            Marks::Groups { series, .. } => {
                series.iter().all(|series| series.values.iter().all(Option::is_none))
            }
            Marks::Rows { rows, .. } => rows.iter().all(|row| row.value.is_none()),
        }
    }

    fn curves(&self, area: &Area<'_>, curves: &[Curve]) -> Drawn {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let (x, y) = (Span::around(points().map(|p| p.x)), Span::around(points().map(|p| p.y)));
        let mut plane = self.plane(area, x, y)?;
        draw_curves(&mut plane, curves)
    }

    fn shares(&self, area: &Area<'_>, curves: &[Curve]) -> Drawn {
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let span = Span::around(points().flat_map(|p| [p.x, p.y]).chain([0.0]));
        let span = Span { low: span.low.max(0.0), ..span };
        let mut plane = self.plane(area, span, span)?;
        let diagonal = [(span.low, span.low), (span.high, span.high)];
        plane.draw_series(LineSeries::new(diagonal, LINE.stroke_width(1)))?;
        draw_curves(&mut plane, curves)
    }

    /// The axes of a chart of two numbers.
    fn plane<'a, 'b>(
        &self,
        area: &'a Area<'b>,
        x: Span,
        y: Span,
    ) -> Result<Plane<'a, 'b>, Refused> {
        let mut plane = ChartBuilder::on(area)
            .margin(4)
            .margin_right(12)
            .x_label_area_size(38)
            .y_label_area_size(52)
            .build_cartesian_2d(x.range(), y.range())?;
        let label = |size: f64| ("sans-serif", size).into_font().color(&INK);
        plane
            .configure_mesh()
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(label(LETTERS))
            .axis_desc_style(label(LETTERS))
            .x_labels(5)
            .y_labels(6)
            .x_label_formatter(&|at| tick(*at, x))
            .y_label_formatter(&|at| tick(*at, y))
            .x_desc(&self.x)
            .draw()?;
        Ok(plane)
    }

    fn groups(&self, area: &Area<'_>, categories: &[String], series: &[GroupSeries]) -> Drawn {
        let values = series.iter().flat_map(|series| series.values.iter().flatten());
        let y = Span::around(values.flat_map(ends));
        let mut plane = ChartBuilder::on(area)
            .margin(4)
            .margin_right(12)
            .x_label_area_size(38)
            .y_label_area_size(52)
            .build_cartesian_2d(-0.5..categories.len() as f64 - 0.5, y.range())?;
        let label = || ("sans-serif", LETTERS).into_font().color(&INK);
        plane
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(label())
            .axis_desc_style(label())
            .x_labels(0)
            .y_labels(6)
            .y_label_formatter(&|at| tick(*at, y))
            .x_desc(&self.x)
            .draw()?;
        let below = label().pos(Pos::new(HPos::Center, VPos::Top));
        for (at, name) in categories.iter().enumerate() {
            let (x, bottom) = plane.backend_coord(&(at as f64, y.low));
            area.draw(&Text::new(name.clone(), (x, bottom + 6), below.clone()))?;
        }
        // Beside one another, so that equal values are seen.
        let apart = 0.7 / series.len().max(1) as f64;
        for (number, series) in series.iter().enumerate() {
            for (at, value) in series.values.iter().enumerate() {
                let Some(value) = value else { continue };
                let x = at as f64 - 0.35 + apart * (number as f64 + 0.5);
                mark(&mut plane, color(number), value, &|y| (x, y))?;
            }
        }
        Ok(())
    }

    fn rows(&self, area: &Area<'_>, rows: &[RowMark], differences: bool) -> Drawn {
        let values = rows.iter().filter_map(|row| row.value.as_ref());
        let zero = differences.then_some(0.0);
        let x = Span::around(values.flat_map(ends).chain(zero));
        let count = rows.len() as f64;
        let mut plane = ChartBuilder::on(area)
            .margin(4)
            .margin_left(14)
            .margin_right(14)
            .x_label_area_size(38)
            .build_cartesian_2d(x.range(), count..0.0)?;
        let label = || ("sans-serif", LETTERS).into_font().color(&INK);
        plane
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(label())
            .axis_desc_style(label())
            .x_labels(5)
            .x_label_formatter(&|at| tick(*at, x))
            .x_desc(&self.x)
            .draw()?;
        if differences {
            let zero = [(0.0, 0.0), (0.0, count)];
            plane.draw_series(LineSeries::new(zero, LINE.stroke_width(1)))?;
        }
        for (at, row) in rows.iter().enumerate() {
            let (_, top) = plane.backend_coord(&(x.low, at as f64));
            area.draw(&Text::new(row.name.clone(), (18, top + 3), label()))?;
            let Some(value) = row.value else { continue };
            let y = at as f64 + 0.74;
            mark(&mut plane, color(0), &value, &|x| (x, y))?;
        }
        Ok(())
    }
}

/// A point with its interval; `place` says where a value is.
fn mark(
    plane: &mut Plane<'_, '_>,
    ink: RGBColor,
    value: &Interval,
    place: &dyn Fn(f64) -> (f64, f64),
) -> Drawn {
    if let (Some(low), Some(high)) = (value.low, value.high) {
        let ends = [place(low), place(high)];
        plane.draw_series(LineSeries::new(ends, ink.stroke_width(2)))?;
    }
    plane.draw_series([Circle::new(place(value.mean), 4, ink.filled())])?;
    Ok(())
}

fn draw_curves(plane: &mut Plane<'_, '_>, curves: &[Curve]) -> Drawn {
    for (number, curve) in curves.iter().enumerate() {
        let points = || curve.points.iter().map(|point| (point.x, point.y));
        let ink = color(number);
        plane.draw_series(LineSeries::new(points(), ink.stroke_width(2)))?;
        // A curve of one point is no line.
        let size = if curve.points.len() <= 12 { 3 } else { 0 };
        if size > 0 {
            plane.draw_series(points().map(|at| Circle::new(at, size, ink.filled())))?;
        }
    }
    Ok(())
}

/// The value and the ends of its interval.
fn ends(value: &Interval) -> impl Iterator<Item = f64> {
    [Some(value.mean), value.low, value.high].into_iter().flatten()
}

/// A label of an axis.
fn tick(at: f64, span: Span) -> String {
    const UNITS: [(f64, &str); 2] = [(1e6, " M"), (1e3, " k")];
    for (unit, name) in UNITS {
        if span.high >= 10.0 * unit {
            return format!("{:.*}{name}", usize::from(span.high < 50.0 * unit), at / unit);
        }
    }
    let text = format!("{:.*}", span.decimals(), at);
    // A label of nothing has no sign.
    let is_zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    if is_zero { text.replace('-', "") } else { text }
}

/// A value with its interval, such as `0.7305 [0.7201, 0.7412]`.
pub(crate) fn value(value: Option<Interval>) -> String {
    let Some(Interval { mean, low, high }) = value else { return "-".to_owned() };
    let ends = low.zip(high).map(|(low, high)| format!(" [{low:.4}, {high:.4}]"));
    format!("{mean:.4}{}", ends.unwrap_or_default())
}

/// A row for each x of any curve.
fn curves_as_cells(x: &str, curves: &[Curve]) -> Cells {
    let mut all: Vec<f64> =
        curves.iter().flat_map(|curve| curve.points.iter().map(|point| point.x)).collect();
    all.sort_by(f64::total_cmp);
    all.dedup();
    let number = |x: f64| match x.fract() == 0.0 {
        true => format!("{x:.0}"),
        false => format!("{x:.4}"),
    };
    let at = |curve: &Curve, x: f64| {
        let of: Vec<&Point> = curve.points.iter().filter(|point| point.x == x).collect();
        let text = of.iter().map(|point| format!("{:.4}", point.y)).collect::<Vec<_>>();
        if text.is_empty() { "-".to_owned() } else { text.join(", ") }
    };
    let row = |&x: &f64| {
        std::iter::once(number(x)).chain(curves.iter().map(|curve| at(curve, x))).collect()
    };
    Cells {
        header: std::iter::once(x.to_owned())
            .chain(curves.iter().map(|curve| curve.name.clone()))
            .collect(),
        rows: all.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(mean: f64, low: f64, high: f64) -> Option<Interval> {
        Some(Interval { mean, low: Some(low), high: Some(high) })
    }

    fn chart(marks: Marks) -> Chart {
        let text = |text: &str| text.to_owned();
        Chart { title: text("t"), x: text("x"), y: text("run"), marks }
    }

    fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        let points = points.iter().map(|&(x, y)| Point { x, y }).collect();
        Curve { name: name.to_owned(), points }
    }

    #[test]
    fn a_chart_has_the_table_of_its_numbers() {
        let cells = |marks| {
            let Cells { header, rows } = chart(marks).cells();
            let lines = std::iter::once(header).chain(rows);
            lines.map(|line| line.join(" | ")).collect::<Vec<String>>()
        };
        let curves = [curve("a", &[(1.0, 0.5), (2.0, 0.25)]), curve("b", &[(2.0, 1.0)])];
        let expected = ["x | a | b", "1 | 0.5000 | -", "2 | 0.2500 | 1.0000"];
        assert_eq!(cells(Marks::Curves(curves.to_vec())), expected);
        let series =
            vec![GroupSeries { name: "a".to_owned(), values: vec![interval(0.5, 0.4, 0.6), None] }];
        let categories = vec!["0".to_owned(), "1-9".to_owned()];
        let expected = ["x | a", "0 | 0.5000 [0.4000, 0.6000]", "1-9 | -"];
        assert_eq!(cells(Marks::Groups { categories, series }), expected);
        let row = RowMark { name: "a".to_owned(), value: interval(0.5, 0.4, 0.6) };
        let rows = |differences| Marks::Rows { rows: vec![row.clone()], differences };
        assert_eq!(cells(rows(false)), ["run | x", "a | 0.5000 [0.4000, 0.6000]"]);
        assert_eq!(cells(rows(true)), ["run | x", "a | +0.5000 [+0.4000, +0.6000]"]);
    }

    /// What came of a run is drawn whatever it is: one point, equal ones, none.
    #[test]
    fn every_chart_is_drawn_or_known_to_be_empty() {
        let some = interval(0.7, 0.7, 0.7);
        let row = |value| RowMark { name: "<b>&\"".to_owned(), value };
        let rows = |value, differences| Marks::Rows { rows: vec![row(value)], differences };
        let groups = |value| Marks::Groups {
            categories: vec!["<0".to_owned()],
            series: vec![GroupSeries { name: "a".to_owned(), values: vec![value] }],
        };
        let one = vec![curve("a", &[(3.0, 0.7)])];
        let flat = vec![curve("a", &[(0.0, 0.0), (0.0, 0.0)]), curve("b", &[])];
        let cases = [
            (Marks::Curves(one.clone()), true),
            (Marks::Shares(one), true),
            (Marks::Curves(flat.clone()), true),
            (Marks::Shares(flat), true),
            (Marks::Curves(vec![curve("a", &[])]), false),
            (Marks::Curves(Vec::new()), false),
            (groups(some), true),
            (groups(None), false),
            (rows(some, true), true),
            (rows(some, false), true),
            (rows(None, true), false),
        ];
        for (marks, expected) in cases {
            let svg = chart(marks.clone()).svg();
            assert_eq!(svg.is_some(), expected, "{marks:?}");
            if let Some(svg) = svg {
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(!svg.contains("<b>") && !svg.contains("<0"), "{svg}");
                assert_eq!(svg, chart(marks.clone()).svg().unwrap());
            }
        }
    }
}
