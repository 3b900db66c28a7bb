//! How trainings learned: curves of their loss, and of metrics of users held out.

use ams_train::run::{Record, Validation};

use crate::chart::COLORS;
use crate::document::{Block, Chart, Curve, Marks, Point};

/// Points of a curve at most; more are averaged.
const POINTS: usize = 40;

/// A training with its name in the legend.
pub(crate) struct Trained<'a> {
    pub name: &'a str,
    pub record: &'a Record,
}

/// The curves of the first trainings, as many as a chart has colors for; what is missing is said.
pub(crate) fn learning(trainings: &[Trained<'_>]) -> Vec<Block> {
    let drawn = &trainings[..trainings.len().min(COLORS)];
    let mut charts = Vec::new();
    let mut add = |title: &str, y: &str, of: &dyn Fn(&Record) -> Vec<Point>| {
        let curve = |it: &Trained<'_>| Curve { name: it.name.to_owned(), points: of(it.record) };
        let curves: Vec<Curve> =
            drawn.iter().map(curve).filter(|curve| !curve.points.is_empty()).collect();
        if !curves.is_empty() {
            charts.push(Chart {
                title: title.to_owned(),
                x: "step".to_owned(),
                y: y.to_owned(),
                marks: Marks::Curves(curves),
            });
        }
    };
    add("Loss of the training", "loss", &|record| {
        thinned(record.steps.iter().map(|it| (it.step, it.loss)))
    });
    type Of = fn(&Validation) -> Option<f64>;
    let metrics: [(&str, Of); 3] =
        [("GAUC", |it| it.gauc), ("AUC", |it| it.auc), ("log loss", |it| it.logloss)];
    for (name, of) in metrics {
        add(&format!("{name} of users held out"), name, &|record| {
            let lines = record.validations.iter();
            let points = lines.filter_map(|line| Some((line.step, of(&line.validation)?)));
            points.map(|(step, y)| Point { x: step as f64, y }).collect()
        });
    }
    if charts.is_empty() {
        return vec![Block::Note("metrics.jsonl has no line yet.".to_owned())];
    }
    let mut text =
        format!("The loss is the mean of consecutive steps, at most {POINTS} points a run.");
    if drawn.iter().all(|it| it.record.validations.is_empty()) {
        text +=
            " No users were held out (train.validation_parts), so there is no curve of their GAUC.";
    }
    let mut blocks = vec![Block::Text(text), Block::Charts(charts)];
    blocks.extend((trainings.len() > COLORS).then(|| too_many(trainings.len())));
    blocks
}

/// A note that charts show less than tables.
pub(crate) fn too_many(count: usize) -> Block {
    Block::Note(format!("Charts show the first {COLORS} of {count} runs; tables show all."))
}

/// Steps and losses as at most [`POINTS`] means of consecutive ones.
fn thinned(lines: impl Iterator<Item = (u64, f64)>) -> Vec<Point> {
    let lines: Vec<(u64, f64)> = lines.collect();
    let mean = |lines: &[(u64, f64)]| Point {
        x: lines.last().map_or(0.0, |(step, _)| *step as f64),
        y: lines.iter().map(|(_, loss)| loss).sum::<f64>() / lines.len() as f64,
    };
    lines.chunks(lines.len().div_ceil(POINTS).max(1)).map(mean).collect()
}
