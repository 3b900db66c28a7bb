//! The report of runs in words, tables and charts.

use std::collections::BTreeMap;

use ams_data::schema::{Labels, Split};
use ams_model::metrics::Interval;
use ams_train::ablate::{Cells, interval, thousands};
use ams_train::run::{Environment, Record};
use ams_train::settings::PhaseConfig;
use ams_train::{Config, Counts, FieldIds, RowCounts};
use jiff::Timestamp;
use rayon::ThreadPoolBuilder;

use crate::chart::{COLORS, value};
use crate::choice::choices;
use crate::document::{Block, Chart, Curve, Document, GroupSeries, Marks, Point, RowMark, Section};
use crate::figures::{Bin, Difference, Family, Figures, Over, RunFigures, SLICES, figures};
use crate::gather::{Run, Runs};
use crate::learning::{Trained, learning, too_many};

/// The report of `runs`, with intervals of `replicates` draws of users.
pub fn report(runs: &Runs, replicates: usize, threads: usize) -> Document {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start");
    let figures = pool.install(|| figures(&runs.runs, replicates));
    let about = About { runs, figures: &figures };
    let names: Vec<&str> = runs.runs.iter().map(|run| &run.name[..]).collect();
    let sections = [
        about.result(),
        about.trained(),
        section("choice", "What was switched off", choices(&runs.runs)),
        about.learning(),
        about.pictures(),
        about.history(),
        about.calibration(),
        about.traffic(),
        about.pages(),
        about.sheets(),
        about.again(),
        about.missing(),
    ];
    Document {
        title: title(&names),
        lead: vec![format!(
            "Metrics are of the test impressions. In brackets are the middle 95 % of {} bootstrap draws of the \
                 test's users; of fewer than ten users there is no interval.",
            thousands(replicates as u64)
        )],
        sections: sections.into_iter().flatten().collect(),
    }
}

/// The names of a few runs, and how many more there are.
fn title(names: &[&str]) -> String {
    const SHOWN: usize = 4;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => format!("Report: {shown}"),
        more => format!("Report: {shown} and {more} more"),
    }
}

fn section(id: &str, title: &str, blocks: Vec<Block>) -> Option<Section> {
    let section = Section { id: id.to_owned(), title: title.to_owned(), blocks };
    (!section.blocks.is_empty()).then_some(section)
}

fn chart(title: &str, x: &str, y: &str, marks: Marks) -> Chart {
    Chart { title: title.to_owned(), x: x.to_owned(), y: y.to_owned(), marks }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A number with four decimals; a dash where there is none.
fn number(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.4}"))
}

/// What sections are made of.
struct About<'a> {
    runs: &'a Runs,
    figures: &'a Figures,
}

impl About<'_> {
    fn name(&self, at: usize) -> &str {
        &self.runs.runs[at].name
    }

    /// The runs that were evaluated.
    fn evaluated(&self) -> impl Iterator<Item = (&Run, &RunFigures)> {
        let all = self.runs.runs.iter().zip(&self.figures.runs);
        all.filter_map(|(run, figures)| Some((run, figures.as_ref()?)))
    }

    /// The evaluated runs that a chart has colors for, and a note if there are more.
    fn drawn(&self) -> (Vec<(&Run, &RunFigures)>, Option<Block>) {
        let mut all: Vec<_> = self.evaluated().collect();
        let note = (all.len() > COLORS).then(|| too_many(all.len()));
        all.truncate(COLORS);
        (all, note)
    }

    fn result(&self) -> Option<Section> {
        let mut rows = Vec::new();
        for (run, figures) in self.runs.runs.iter().zip(&self.figures.runs) {
            let mut cells = vec![run.name.clone(), state(&run.record)];
            match figures {
                None => cells.extend(words(&["-"; 6])),
                Some(RunFigures { metrics, slices, .. }) => cells.extend([
                    value(slices[0].gauc),
                    value(slices[0].auc),
                    number(metrics.logloss),
                    number(metrics.ne),
                    number(metrics.calibration),
                    thousands(metrics.users),
                ]),
            }
            rows.push(cells);
        }
        let header = [
            "run",
            "training",
            "GAUC",
            "AUC",
            "log loss",
            "normalized entropy",
            "calibration",
            "users",
        ];
        let mut blocks: Vec<Block> = self.verdicts().into_iter().map(Block::Text).collect();
        blocks.extend(self.notes());
        let charts = self.result_charts();
        if !charts.is_empty() {
            blocks.push(Block::Charts(charts));
        }
        blocks.push(Block::Table(Cells { header: words(&header), rows }));
        if self.evaluated().any(|(_, figures)| figures.metrics.users_without_auc > 0) {
            blocks.push(Block::Text(
                "GAUC is the AUC within each user, weighted by impressions; users with impressions of one class \
                 only have none and are left out of it."
                    .to_owned(),
            ));
        }
        section("result", "Result", blocks)
    }

    fn result_charts(&self) -> Vec<Chart> {
        let row = |(run, figures): (&Run, &RunFigures)| RowMark {
            name: run.name.clone(),
            value: figures.slices[0].gauc,
        };
        let rows: Vec<RowMark> = self.evaluated().map(row).collect();
        if rows.is_empty() {
            return Vec::new();
        }
        let mut charts = vec![chart(
            "GAUC of the test",
            "GAUC",
            "run",
            Marks::Rows { rows, differences: false },
        )];
        let mut rows = Vec::new();
        for (run, over) in self.differences() {
            rows.push(RowMark {
                name: format!("{} over {}", run.name, self.name(over.to)),
                value: over.slices[0].gauc,
            });
        }
        if !rows.is_empty() {
            let marks = Marks::Rows { rows, differences: true };
            charts.push(chart("Differences of GAUC", "difference of GAUC", "runs", marks));
        }
        charts
    }

    /// Every difference: to the base, then to the twin.
    fn differences(&self) -> impl Iterator<Item = (&Run, &Over)> {
        self.evaluated().flat_map(|(run, figures)| {
            let both = figures.over_base.iter().chain(&figures.over_twin);
            both.map(move |over| (run, over))
        })
    }

    /// What the differences say.
    fn verdicts(&self) -> Vec<String> {
        let verdict = |(run, over): (&Run, &Over)| {
            let Difference { gauc, .. } = over.slices[0];
            let (name, other) = (&run.name, self.name(over.to));
            let is = match gauc {
                Some(Interval { low: Some(low), .. }) if low > 0.0 => "is ahead of",
                Some(Interval { high: Some(high), .. }) if high < 0.0 => "is behind",
                Some(Interval { low: None, .. }) | None => "is compared without an interval with",
                _ => "cannot be told apart from",
            };
            let twin = self.runs.runs[over.to].record.config.data.shuffle_images.is_some();
            let why = match twin && Some(over.to) != self.figures.base {
                true => {
                    ", its twin with shuffled pictures; what both gain is not from what pictures show"
                }
                false => "",
            };
            format!("{name} {is} {other}: GAUC {}{why}.", interval(gauc))
        };
        self.differences().map(verdict).collect()
    }

    /// Runs that are not finished, or about other impressions.
    fn notes(&self) -> Vec<Block> {
        let mut notes = Vec::new();
        for run in &self.runs.runs {
            if run.record.finished() == Some(false) {
                notes.push(Block::Note(format!(
                    "{} is not finished: its figures are those of its newest checkpoint or of earlier \
                     predictions.",
                    run.name
                )));
            }
        }
        let Some(base) = self.figures.base else { return notes };
        for (run, _) in self.evaluated().filter(|(_, figures)| !figures.comparable) {
            notes.push(Block::Note(format!(
                "{} was tested on other impressions than {}: there is no difference between them.",
                run.name,
                self.name(base)
            )));
        }
        notes
    }

    fn trained(&self) -> Option<Section> {
        let runs = &self.runs.runs;
        let facts: Vec<Vec<(&str, String)>> = runs.iter().map(|run| facts(&run.record)).collect();
        let (mut alike, mut apart) = (Vec::new(), Vec::new());
        for at in 0..facts.first().map_or(0, Vec::len) {
            let (name, value) = facts[0][at].clone();
            if facts.iter().all(|facts| facts[at].1 == value) {
                alike.push(vec![name.to_owned(), value]);
            } else {
                let values = facts.iter().map(|facts| facts[at].1.clone());
                apart.push(std::iter::once(name.to_owned()).chain(values).collect());
            }
        }
        apart.extend(self.settings());
        let header = if runs.len() > 1 { ["", "all runs"] } else { ["", &runs[0].name] };
        let mut blocks = vec![Block::Table(Cells { header: words(&header), rows: alike })];
        if !apart.is_empty() {
            let header =
                std::iter::once("what differs").chain(runs.iter().map(|run| &run.name[..]));
            let header = words(&header.collect::<Vec<&str>>());
            blocks.push(Block::Table(Cells { header, rows: apart }));
        }
        section("trained", "What was trained on what", blocks)
    }

    /// The settings in which runs differ, with the value of each.
    fn settings(&self) -> Vec<Vec<String>> {
        // Names of folders, and a fact of its own.
        const OTHERS: [&str; 3] = ["name", "runs", "seed"];
        let all: Vec<BTreeMap<String, String>> =
            self.runs.runs.iter().map(|run| settings(&run.record)).collect();
        let mut keys: Vec<&String> = all.iter().flat_map(BTreeMap::keys).collect();
        keys.sort();
        keys.dedup();
        let value = |of: &BTreeMap<String, String>, key: &str| {
            of.get(key).map_or("-".to_owned(), String::clone)
        };
        let row = |key: &String| {
            let values: Vec<String> = all.iter().map(|of| value(of, key)).collect();
            let differ = values.iter().any(|value| *value != values[0]);
            differ.then(|| std::iter::once(key.clone()).chain(values).collect())
        };
        keys.into_iter().filter(|key| !OTHERS.contains(&&key[..])).filter_map(row).collect()
    }

    fn learning(&self) -> Option<Section> {
        let runs = self.runs.runs.iter();
        let trainings: Vec<Trained<'_>> =
            runs.map(|run| Trained { name: &run.name, record: &run.record }).collect();
        section("learning", "Learning", learning(&trainings))
    }

    fn pictures(&self) -> Option<Section> {
        let mut blocks = Vec::new();
        let (drawn, note) = self.drawn();
        let known = drawn.iter().any(|(_, it)| count(it, Family::Shown) > 0);
        let mut charts = Vec::new();
        let seen = self.runs.runs.iter().any(|run| run.record.config.needs_images());
        if known {
            let text = match seen {
                true => "pictures may. So the worth of pictures is in the left of this chart.",
                false => "pictures might, in the left of this chart.",
            };
            let text = format!("Ids say nothing of items that training has hardly shown; {text}");
            blocks.push(Block::Text(text));
            let title = "AUC by how often training showed the item";
            charts.push(groups(
                title,
                "training impressions of the item",
                "AUC",
                Family::Shown,
                &drawn,
            ));
        }
        if drawn.iter().any(|(_, it)| is_divided(it, Family::Picture)) {
            let title = "AUC by whether the item has a picture";
            charts.push(groups(title, "item", "AUC", Family::Picture, &drawn));
        }
        if !charts.is_empty() {
            blocks.push(Block::Charts(charts));
            blocks.extend(note);
        }
        let rows = self.rows_of_differences(&[Family::Shown, Family::Picture]);
        if !rows.is_empty() {
            blocks.push(Block::Text("Differences in the same parts of the test:".to_owned()));
            let header =
                words(&["runs", "items", "impressions", "difference of AUC", "difference of GAUC"]);
            blocks.push(Block::Table(Cells { header, rows }));
        }
        if !seen {
            blocks.push(Block::Note(
                "No run sees pictures; ams ablate trains rows with and without them.".to_owned(),
            ));
        }
        section("pictures", "What pictures are worth", blocks)
    }

    /// The differences of runs in the slices of some families that have impressions.
    fn rows_of_differences(&self, families: &[Family]) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (run, figures) in self.evaluated() {
            for over in figures.over_base.iter().chain(&figures.over_twin) {
                let name = format!("{} over {}", run.name, self.name(over.to));
                for family in families.iter().filter(|family| is_divided(figures, **family)) {
                    for (at, slice) in SLICES.iter().enumerate() {
                        let impressions = figures.slices[at].impressions;
                        if slice.family != *family || impressions == 0 {
                            continue;
                        }
                        let Difference { gauc, auc } = over.slices[at];
                        rows.push(vec![
                            name.clone(),
                            in_words(*family, slice.name),
                            thousands(impressions),
                            interval(auc),
                            interval(gauc),
                        ]);
                    }
                }
            }
        }
        rows
    }

    fn history(&self) -> Option<Section> {
        let (drawn, note) = self.drawn();
        if drawn.is_empty() {
            return None;
        }
        let title = "GAUC by past behaviors of the user";
        let mut blocks = vec![Block::Charts(vec![groups(
            title,
            "past behaviors",
            "GAUC",
            Family::History,
            &drawn,
        )])];
        blocks.extend(note);
        let rows = self.rows_of_differences(&[Family::History]);
        if !rows.is_empty() {
            let header =
                words(&["runs", "users", "impressions", "difference of AUC", "difference of GAUC"]);
            blocks.push(Block::Table(Cells { header, rows }));
        }
        section("activity", "By activity of the user", blocks)
    }

    fn calibration(&self) -> Option<Section> {
        let (drawn, note) = self.drawn();
        if drawn.is_empty() {
            return None;
        }
        let points = |bins: &[Bin]| {
            bins.iter().map(|bin| Point { x: bin.predicted, y: bin.clicked }).collect()
        };
        let curve = |&(run, figures): &(&Run, &RunFigures)| Curve {
            name: run.name.clone(),
            points: points(&figures.calibration),
        };
        let marks = Marks::Shares(drawn.iter().map(curve).collect());
        let mut blocks = vec![
            Block::Text(
                "Impressions in ten parts of equal size, by ascending prediction: the share of clicks over the mean \
                 prediction. On the line they agree; above it, the model predicts too little."
                    .to_owned(),
            ),
            Block::Charts(vec![chart("Clicks over predictions", "mean prediction", "share of clicks", marks)]),
        ];
        blocks.extend(note);
        blocks.extend(self.shown());
        let header = ["run", "part", "impressions", "mean prediction", "share of clicks"];
        let mut rows = Vec::new();
        for (run, figures) in self.evaluated() {
            for (at, bin) in figures.calibration.iter().enumerate() {
                rows.push(vec![
                    run.name.clone(),
                    (at + 1).to_string(),
                    thousands(bin.impressions),
                    number(Some(bin.predicted)),
                    number(Some(bin.clicked)),
                ]);
            }
        }
        blocks.push(Block::Folded {
            summary: "The parts in numbers".to_owned(),
            cells: Cells { header: words(&header), rows },
        });
        section("calibration", "Calibration", blocks)
    }

    /// Predicted clicks over clicks of all impressions, and of those that each model would show.
    fn shown(&self) -> Vec<Block> {
        let text = "Predicted clicks over clicks, of all impressions and of those that the model would show: the first \
                    by prediction of each page view that has more. An error upwards brings some of them there, so \
                    that their rates are too high more often than those of others.";
        let header = ["run", "of", "impressions", "mean prediction", "share of clicks", "ratio"];
        let mut rows = Vec::new();
        for (run, figures) in self.evaluated() {
            for ratio in &figures.shown {
                rows.push(vec![
                    run.name.clone(),
                    match ratio.top {
                        None => "all".to_owned(),
                        Some(top) => format!("first {top} of a page view"),
                    },
                    thousands(ratio.impressions),
                    number(Some(ratio.predicted)),
                    number(Some(ratio.clicked)),
                    value(ratio.calibration),
                ]);
            }
        }
        vec![Block::Text(text.to_owned()), Block::Table(Cells { header: words(&header), rows })]
    }

    fn traffic(&self) -> Option<Section> {
        let runs = || self.runs.runs.iter().filter(|run| !run.record.steps.is_empty());
        let mut header = vec!["mean per step".to_owned()];
        header.extend(runs().map(|run| run.name.clone()));
        let columns: Vec<Vec<(String, String)>> = runs().map(|run| costs(&run.record)).collect();
        let row = |at: usize| {
            let name = columns[0][at].0.clone();
            std::iter::once(name).chain(columns.iter().map(|column| column[at].1.clone())).collect()
        };
        let rows: Vec<Vec<String>> = (0..columns.first().map_or(0, Vec::len)).map(row).collect();
        if rows.is_empty() {
            return None;
        }
        let text = "Bytes from lane to lane count as if every lane were a host of its own. Time is that of the machine \
                    that trained.";
        let mut blocks = vec![Block::Text(text.to_owned()), Block::Table(Cells { header, rows })];
        blocks.extend(self.rows());
        blocks.extend(self.stages());
        section("traffic", "Traffic and time", blocks)
    }

    /// Rows of ids that came and went, of the runs that say so.
    fn rows(&self) -> Vec<Block> {
        let all = self.runs.runs.iter().filter_map(|run| Some((&run.name, rows_of(&run.record)?)));
        let all: Vec<(&String, RowCounts)> = all.collect();
        if all.is_empty() {
            return self.admitted();
        }
        let mut header = vec!["rows of ids".to_owned()];
        header.extend(all.iter().map(|(name, _)| (*name).clone()));
        type Value = fn(&RowCounts) -> String;
        let values: [(&str, Value); 6] = [
            ("at the end", |it| thousands(it.rows)),
            ("bytes", |it| bytes(it.bytes as f64)),
            ("bytes of the largest lane", |it| bytes(it.largest_lane_bytes as f64)),
            ("made", |it| thousands(it.admitted)),
            ("evicted by days", |it| thousands(it.evicted_by_days)),
            ("evicted by bytes", |it| thousands(it.evicted_by_bytes)),
        ];
        let row = |(name, value): (&str, Value)| {
            let cells = all.iter().map(|(_, rows)| value(rows));
            std::iter::once(name.to_owned()).chain(cells).collect()
        };
        let rows = values.into_iter().map(row).collect();
        let text = "Rows of ids, their bytes with optimizer state and index, and those that were made and evicted over \
                    all steps: by train.eviction.days, and to fit into train.eviction.lane_bytes.";
        let mut blocks = vec![Block::Text(text.to_owned()), Block::Table(Cells { header, rows })];
        blocks.extend(self.admitted());
        blocks
    }

    /// Ids that have rows of their own, of the runs in which others have none.
    fn admitted(&self) -> Vec<Block> {
        let mut rows = Vec::new();
        for run in &self.runs.runs {
            for FieldIds { field, ids, admitted } in &run.record.admitted {
                rows.push(vec![
                    run.name.clone(),
                    field.clone(),
                    thousands(*ids),
                    thousands(*admitted),
                ]);
            }
        }
        if rows.is_empty() {
            return Vec::new();
        }
        let text = "Different ids in the training, and those that occur train.min_occurrences times or more: the others \
                    share a row.";
        let header = words(&["run", "field", "different ids", "admitted"]);
        vec![Block::Text(text.to_owned()), Block::Table(Cells { header, rows })]
    }

    /// Where the time of a step goes, of the runs that say so.
    fn stages(&self) -> Vec<Block> {
        let all = self.runs.runs.iter().map(|run| (&run.name, stages(&run.record)));
        let all: Vec<_> = all.filter(|(_, stages)| !stages.is_empty()).collect();
        let Some((_, first)) = all.first() else { return Vec::new() };
        let mut header = vec!["milliseconds of a step".to_owned()];
        header.extend(all.iter().map(|(name, _)| (*name).clone()));
        let mut names: Vec<&String> = first.keys().collect();
        names.sort_by(|a, b| first[*b].total_cmp(&first[*a]).then(a.cmp(b)));
        let cell = |of: &BTreeMap<String, f64>, name: &str| {
            of.get(name).map_or("-".to_owned(), |ms| format!("{ms:.2}"))
        };
        let row = |name: &&String| {
            let values = all.iter().map(|(_, stages)| cell(stages, name));
            std::iter::once(name.replace('_', " ")).chain(values).collect()
        };
        let rows = names.iter().map(row).collect();
        let text = "The stages of a step, the longest of the first run first: the busy time of all threads of the \
                    first process, divided by their number.";
        vec![Block::Text(text.to_owned()), Block::Table(Cells { header, rows })]
    }

    fn pages(&self) -> Option<Section> {
        let Runs { shown, pages, notes, .. } = self.runs;
        let mut blocks = Vec::new();
        if let Some(shown) = shown.filter(|_| !pages.is_empty()) {
            blocks.push(Block::Text(format!(
                "Page views of the test as {} ranks them. A cell says by how many points of percent the past behavior \
                 raises the click-through rate of the candidate: the rate less what it would be without the behavior. \
                 Where the network has attention, its weights stand below. Of a long history, the behaviors that \
                 change a rate most are shown.",
                self.name(shown)
            )));
            blocks.push(Block::Pages(pages.clone()));
        }
        blocks.extend(notes.iter().cloned().map(Block::Note));
        section("why", "Why this ad", blocks)
    }

    fn sheets(&self) -> Option<Section> {
        let Runs { shown, sheets, .. } = self.runs;
        let shown = shown.filter(|_| !sheets.is_empty())?;
        let text = format!(
            "Pictures with those nearest to them, by the cosine of the encoder's vectors and of those that each tower \
             of {} learned: where the rows differ, the model has learned what users mean.",
            self.name(shown)
        );
        section(
            "near",
            "Pictures near one another",
            vec![Block::Text(text), Block::Sheets(sheets.clone())],
        )
    }

    fn again(&self) -> Option<Section> {
        let mut blocks = Vec::new();
        for run in &self.runs.runs {
            let folder = run.record.run.display().to_string();
            let commands = format!(
                "ams train {folder}/config.toml --set name=again\nams eval {}",
                run.record.config.runs.join("again").display()
            );
            blocks.push(Block::Code {
                caption: format!("{}: the same training again", run.name),
                text: commands,
            });
            let caption = format!("{}: {folder}/config.toml", run.name);
            blocks.push(Block::Code { caption, text: run.record.toml.clone() });
        }
        section("again", "To repeat it", blocks)
    }

    fn missing(&self) -> Option<Section> {
        let notes = self.runs.runs.iter().flat_map(|run| {
            run.notes.iter().map(|note| Block::Note(format!("{}: {note}", run.name)))
        });
        section("missing", "What is missing", notes.collect())
    }
}

/// How far a training is.
fn state(record: &Record) -> String {
    let step = thousands(record.last_step());
    match record.finished() {
        Some(true) => "finished".to_owned(),
        Some(false) => format!("stopped at step {step}"),
        None => format!("at step {step}"),
    }
}

/// What was trained on what, as pairs of a name and a value; the names are the same for all runs.
fn facts(record: &Record) -> Vec<(&'static str, String)> {
    let config = &record.config;
    let of = |of: &dyn Fn(&Environment) -> String| {
        record.environment.as_ref().map_or("not known".to_owned(), of)
    };
    let counts = |name, of_counts: fn(&ams_data::Counts) -> u64| {
        (name, of(&|it| thousands(of_counts(&it.dataset.counts))))
    };
    let encoder = |it: &Environment| match &it.images {
        Some(images) if config.needs_images() => {
            format!("{}, {} numbers", images.encoder, images.dim)
        }
        _ => "not seen".to_owned(),
    };
    let share = |it: &Environment| {
        let counts = &it.dataset.counts;
        format!("{:.2} %", 100.0 * counts.clicks as f64 / counts.impressions.max(1) as f64)
    };
    vec![
        ("dataset", of(&|it| it.dataset.name.clone())),
        counts("training impressions", |it| it.train),
        counts("test impressions", |it| it.test),
        ("share of clicks", of(&share)),
        ("labels", of(&|it| labels(&it.dataset.labels))),
        ("test", of(&|it| split(&it.dataset.split))),
        counts("users", |it| it.users),
        counts("items", |it| it.items),
        counts("items with a picture", |it| it.items_with_image),
        (
            "past behaviors of an impression",
            of(&|it| format!("{:.1}", it.dataset.counts.behaviors_mean)),
        ),
        ("pictures", of(&encoder)),
        ("seed", config.seed.to_string()),
        ("epochs", epochs(config)),
        ("impressions of a step", thousands(config.train.batch as u64)),
        ("steps taken", thousands(record.last_step())),
        ("lanes", config.train.lanes.to_string()),
        ("version of ams", of(&|it| it.ams.clone())),
    ]
}

/// Epochs of a training, with those of each phase and what learns in it.
fn epochs(config: &Config) -> String {
    let of = |phase: &PhaseConfig| {
        let learns: Vec<&str> = phase.learns.iter().map(|part| part.as_str()).collect();
        format!("{} of {}", phase.epochs, learns.join(", "))
    };
    let phases: Vec<String> = config.train.phases.iter().map(of).collect();
    let epochs = config.train.epochs;
    if phases.is_empty() { epochs.to_string() } else { format!("{epochs}: {}", phases.join("; ")) }
}

fn labels(labels: &Labels) -> String {
    match labels {
        Labels::Observed => "as logged".to_owned(),
        Labels::Sampled { negatives, method, .. } => {
            format!("{negatives} negatives drawn for each positive ({method})")
        }
    }
}

fn split(split: &Split) -> String {
    match split {
        Split::Time { test_from } => match Timestamp::from_second(*test_from) {
            Ok(time) => format!("from {time} on"),
            Err(_) => format!("from {test_from} on (Unix seconds)"),
        },
        Split::UserTail { fraction } => format!("last {:.0} % of each user", 100.0 * fraction),
    }
}

/// The settings of a run by key.
fn settings(record: &Record) -> BTreeMap<String, String> {
    fn walk(key: &str, value: &serde_json::Value, found: &mut BTreeMap<String, String>) {
        match value {
            serde_json::Value::Object(entries) => {
                for (name, value) in entries {
                    let dot = if key.is_empty() { "" } else { "." };
                    walk(&format!("{key}{dot}{name}"), value, found);
                }
            }
            serde_json::Value::Null => {}
            serde_json::Value::String(text) => {
                found.insert(key.to_owned(), text.clone());
            }
            value => {
                found.insert(key.to_owned(), value.to_string());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk("", &serde_json::json!(record.config), &mut found);
    found
}

/// Impressions in all slices of a family.
fn count(figures: &RunFigures, family: Family) -> u64 {
    let slices = SLICES.iter().zip(&figures.slices);
    slices.filter(|(slice, _)| slice.family == family).map(|(_, it)| it.impressions).sum()
}

/// Whether a family divides the test at all.
fn is_divided(figures: &RunFigures, family: Family) -> bool {
    let slices = SLICES.iter().zip(&figures.slices);
    let some = slices.filter(|(slice, it)| slice.family == family && it.impressions > 0);
    some.count() > 1
}

/// A slice in words.
fn in_words(family: Family, name: &str) -> String {
    match family {
        Family::Shown => format!("shown {name} times"),
        Family::History => format!("{name} past behaviors"),
        Family::All | Family::Picture => name.to_owned(),
    }
}

/// A metric of runs in the slices of a family that have impressions.
fn groups(title: &str, x: &str, y: &str, family: Family, runs: &[(&Run, &RunFigures)]) -> Chart {
    let some = |at: usize| runs.iter().any(|(_, figures)| figures.slices[at].impressions > 0);
    let slices: Vec<usize> =
        (0..SLICES.len()).filter(|&at| SLICES[at].family == family && some(at)).collect();
    let of = |figures: &RunFigures, at: usize| {
        let slice = &figures.slices[at];
        if y == "GAUC" { slice.gauc } else { slice.auc }
    };
    let series = |&(run, figures): &(&Run, &RunFigures)| GroupSeries {
        name: run.name.clone(),
        values: slices.iter().map(|&at| of(figures, at)).collect(),
    };
    let categories = slices.iter().map(|&at| SLICES[at].name.to_owned()).collect();
    chart(title, x, y, Marks::Groups { categories, series: runs.iter().map(series).collect() })
}

/// What the steps of a run cost, as pairs of a name and a value; the names are the same for all
/// runs.
fn costs(record: &Record) -> Vec<(String, String)> {
    let steps = &record.steps;
    let count = steps.len() as f64;
    let mean =
        |of: fn(&Counts) -> f64| steps.iter().map(|it| of(&it.per_step)).sum::<f64>() / count;
    let mut costs: Vec<(String, String)> = Vec::new();
    for (at, (kind, _)) in Counts::default().traffic.kinds().into_iter().enumerate() {
        let sum: f64 = steps.iter().map(|it| it.per_step.traffic.kinds()[at].1).sum();
        if sum > 0.0 {
            costs.push((format!("bytes of {}", kind.replace('_', " ")), bytes(sum / count)));
        }
    }
    let mut add = |name: &str, value: String| costs.push((name.to_owned(), value));
    let whole = |value: f64| thousands(value.round() as u64);
    add("bytes between processes", bytes(mean(|it| it.wire_bytes)));
    add("ids asked for", whole(mean(|it| it.ids.requested)));
    add("distinct ids", whole(mean(|it| it.ids.unique_per_shard)));
    add("pictures asked for", whole(mean(|it| it.images.requested)));
    add("distinct pictures", whole(mean(|it| it.images.unique_per_shard)));
    add("pictures through a tower", whole(mean(|it| it.tower_forwards)));
    let (seconds, impressions, taken) = time(record);
    add("milliseconds", format!("{:.1}", 1e3 * seconds / taken.max(1.0)));
    add("impressions a second, of the training", whole(impressions / seconds.max(1e-9)));
    costs
}

/// Rows after the last step, and how many came and went over all steps; none where no line has
/// them.
fn rows_of(record: &Record) -> Option<RowCounts> {
    let mut lines = record.steps.iter().filter_map(|line| line.rows);
    let mut all = lines.next()?;
    lines.for_each(|line| all.go_on(line));
    Some(all)
}

/// Milliseconds of a step by stage, on average; empty where the lines have none.
fn stages(record: &Record) -> BTreeMap<String, f64> {
    let (mut sums, mut taken, mut before) = (BTreeMap::new(), 0.0, 0);
    for line in &record.steps {
        let steps = line.step.saturating_sub(before) as f64;
        before = line.step;
        taken += if line.stages_ms.is_empty() { 0.0 } else { steps };
        for (name, ms) in &line.stages_ms {
            *sums.entry(name.clone()).or_insert(0.0) += ms * steps;
        }
    }
    sums.values_mut().for_each(|sum| *sum /= f64::max(taken, 1.0));
    sums
}

/// Seconds, impressions and steps of all processes that trained the run one after another.
fn time(record: &Record) -> (f64, f64, f64) {
    let (mut seconds, mut before) = (0.0, 0.0);
    for line in &record.steps {
        // The clock begins anew where another process went on.
        seconds += if line.seconds >= before { line.seconds - before } else { line.seconds };
        before = line.seconds;
    }
    let last = record.steps.last();
    let impressions = last.map_or(0.0, |line| line.impressions as f64);
    (seconds, impressions, last.map_or(0.0, |line| line.step as f64))
}

/// An amount of bytes with three digits.
fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["B", "kB", "MB", "GB"];
    let (mut scaled, mut unit) = (value, 0);
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let decimals = usize::from(unit > 0 && scaled < 99.95);
    format!("{scaled:.decimals$} {}", UNITS[unit])
}
