//! The second pass: the parts of the users become groups in sample files, each on a thread of its
//! own.

use std::ops::Range;
use std::path::Path;

use hashbrown::HashMap;
use rayon::prelude::*;

use super::chain::{Chain, PastWriter};
use super::collect::Collected;
use super::history::{Bounds, Event, LeftOut, Shown, groups, history};
use super::mapping::{Mapping, Origin};
use super::measured::Measured;
use super::options::PrepareOptions;
use super::part::{Cut, Part, UserLog};
use super::report::{Dropped, Progress};
use super::sample::Sample;
use super::spill::{Row, Spill, rows};
use crate::Result;
use crate::catalogue::Catalogue;
use crate::dataset::{SplitName, part_path};
use crate::negatives::{Drawn, Positive, Sampler};
use crate::samples::{BLOCK_GROUPS, Behavior, GroupRow, Impression, SampleWriter};

/// Bytes of rows that are sorted and cut at a time, unless a piece has more; in memory they take
/// about twice that.
const PORTION: u64 = 16 << 20;

/// What the second pass counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) users: u64,
    pub(crate) groups: u64,
    pub(crate) clicks: u64,
    pub(crate) train: u64,
    pub(crate) test: u64,
    /// Behaviors, counted once for every impression of their group.
    pub(crate) behaviors: u64,
    pub(crate) users_redescribed: u64,
    /// Users without a row in the users table, if there is one.
    pub(crate) users_without_row: u64,
    /// Those of them that come first by their texts.
    pub(crate) unknown_users: Sample,
    /// Numbers of the training impressions.
    pub(crate) measured: Measured,
    /// Events of the training period with items held out of it.
    pub(crate) held_out: u64,
    /// Events of the training period before [`Builder::train_from`].
    pub(crate) before_train: u64,
    pub(crate) drawn: Drawn,
}

impl Tally {
    /// Adds what was counted of another part.
    fn add(&mut self, other: Tally) {
        self.users += other.users;
        self.groups += other.groups;
        self.clicks += other.clicks;
        self.train += other.train;
        self.test += other.test;
        self.behaviors += other.behaviors;
        self.users_redescribed += other.users_redescribed;
        self.users_without_row += other.users_without_row;
        self.unknown_users.merge(&other.unknown_users);
        self.measured.merge(&other.measured);
        self.held_out += other.held_out;
        self.before_train += other.before_train;
        self.drawn.negatives += other.drawn.negatives;
        self.drawn.fallback += other.drawn.fallback;
        self.drawn.short += other.drawn.short;
    }
}

/// Everything the second pass reads.
pub(crate) struct Builder<'a> {
    pub(crate) mapping: &'a Mapping,
    pub(crate) options: &'a PrepareOptions,
    pub(crate) events: &'a Spill,
    pub(crate) users: Option<&'a Spill>,
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) item_rows: &'a [u32],
    /// Of every item of the catalogue, whether it is held out of training.
    pub(crate) held_out: &'a [bool],
    pub(crate) cut: Cut,
    /// Instant before which events of the training are no impressions.
    pub(crate) train_from: Option<i64>,
    /// What the next dataset needs is written where there is one.
    pub(crate) chain: Option<&'a Chain>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(
        mapping: &'a Mapping,
        options: &'a PrepareOptions,
        collected: &'a Collected,
        catalogue: &'a Catalogue,
        item_rows: &'a [u32],
        held_out: &'a [bool],
        cut: Cut,
    ) -> Result<Builder<'a>> {
        let users = collected.users.as_ref();
        let events = &collected.events;
        let train_from = options.train_from()?;
        Ok(Builder {
            mapping,
            options,
            events,
            users,
            catalogue,
            item_rows,
            held_out,
            cut,
            train_from,
            chain: None,
        })
    }

    /// Shows all positives to the sampler, if there is one that has to see them.
    pub(crate) fn survey(&self, progress: &mut dyn FnMut(Progress)) -> Result<Option<Sampler>> {
        let Some(options) = &self.options.negatives else { return Ok(None) };
        let mut sampler = Sampler::new(options, self.held_out);
        let total = self.options.parts;
        let read = if sampler.needs_survey() { total } else { 0 };
        for part in 0..read {
            for portion in self.portions(part) {
                let bytes = self.events.read(portion)?;
                Part::new(&bytes, self.item_rows).for_each_user(
                    self.options.repeats,
                    self.cut,
                    |log| {
                        let positives = (0..log.events.len()).map(|at| positive(log, at));
                        sampler.observe(log.had, positives);
                        Ok(())
                    },
                )?;
            }
            progress(Progress::Surveying { done: part + 1, total });
        }
        sampler.settle();
        Ok(Some(sampler))
    }

    /// Writes every part of train and test below `dir`.
    pub(crate) fn write(
        &self,
        dir: &Path,
        sampler: Option<&Sampler>,
        dropped: &mut Dropped,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Tally> {
        let mut tally = self.tally();
        let total = self.options.parts;
        let parts: Vec<usize> = (0..total).collect();
        // As many at a time as there are threads, so that somebody hears how far it is.
        for parts in parts.chunks(rayon::current_num_threads().max(1)) {
            let written: Vec<Result<(Tally, LeftOut)>> = (parts.par_iter().with_max_len(1))
                .map(|&part| self.write_part(dir, part, sampler))
                .collect();
            for written in written {
                let (more, out) = written?;
                tally.add(more);
                dropped.duplicates += out.duplicates;
                dropped.repeated += out.repeated;
                dropped.light += out.light;
            }
            progress(Progress::Writing { done: parts[parts.len() - 1] + 1, total });
        }
        Ok(tally)
    }

    fn tally(&self) -> Tally {
        let measured = Measured::new(&self.mapping.schema, self.catalogue.len());
        Tally { measured, ..Tally::default() }
    }

    /// Writes one part of train and test.
    fn write_part(
        &self,
        dir: &Path,
        part: usize,
        sampler: Option<&Sampler>,
    ) -> Result<(Tally, LeftOut)> {
        let writer = |split| {
            let path = part_path(dir, split, part);
            SampleWriter::create(&path, &self.mapping.schema, self.catalogue, BLOCK_GROUPS)
        };
        let mut writers = [writer(SplitName::Train)?, writer(SplitName::Test)?];
        let mut past = self.chain.map(|_| PastWriter::create(dir, part)).transpose()?;
        let (mut tally, mut out) = (self.tally(), LeftOut::default());
        for portion in self.portions(part) {
            let bytes = self.events.read(portion.clone())?;
            let user_bytes = self.users.map_or(Ok(Vec::new()), |users| users.read(portion))?;
            let users = user_rows(&user_bytes, &mut tally);
            let events = Part::new(&bytes, self.item_rows);
            let left = events.for_each_user(self.options.repeats, self.cut, |log| {
                if let (Some(past), Some(chain)) = (&mut past, self.chain) {
                    past.push(log, self.catalogue, self.options.max_behaviors, chain)?;
                }
                self.write_user(&events, &users, log, sampler, &mut writers, &mut tally)
            })?;
            out.duplicates += left.duplicates;
            out.repeated += left.repeated;
            out.light += left.light;
        }
        let [train, test] = writers;
        train.finish()?;
        test.finish()?;
        past.map_or(Ok(()), PastWriter::finish)?;
        Ok((tally, out))
    }

    /// The pieces of a part that are in memory at a time: a whole part, unless it is large or
    /// pieces were asked for.
    fn portions(&self, part: usize) -> Vec<Range<usize>> {
        let (each, asked) =
            (self.events.pieces() / self.options.parts, self.options.spill_per_part);
        let run = each / asked;
        let runs = (0..asked).map(|at| part * each + at * run);
        runs.flat_map(|begin| self.events.portions(begin..begin + run, PORTION)).collect()
    }

    fn write_user(
        &self,
        part: &Part,
        users: &HashMap<&str, Row>,
        log: &UserLog,
        sampler: Option<&Sampler>,
        writers: &mut [SampleWriter; 2],
        tally: &mut Tally,
    ) -> Result<()> {
        let held_out = |item: u32| self.held_out[item as usize];
        let (shown, test_begin) = impressions(log, held_out, self.train_from, sampler, tally);
        let behaviors = log.events.iter().filter(|event| event.label == 1 && event.weighs);
        let test_past: Vec<Behavior> =
            behaviors.map(|&Event { item, time, .. }| Behavior { item, time }).collect();
        let train_past: Vec<Behavior> =
            test_past.iter().copied().filter(|behavior| !held_out(behavior.item)).collect();
        let bounds = Bounds { span: self.options.group_span, most: self.options.group_max };
        let described = texts(users.get(log.user), self.described_users());
        let mut known = Vec::new();
        tally.users += u64::from(!shown.is_empty());
        if self.users.is_some() && !shown.is_empty() && !users.contains_key(log.user) {
            tally.users_without_row += 1;
            tally.unknown_users.add(log.user);
        }
        for range in groups(&shown, test_begin, bounds) {
            let test = range.start >= test_begin;
            let group = &shown[range];
            let past = if test { &test_past } else { &train_past };
            history(past, group[0].time, self.options.max_behaviors, &mut known);
            self.write_group(
                part,
                &described,
                log.user,
                &known,
                group,
                &mut writers[usize::from(test)],
                (!test).then_some(&mut tally.measured),
            )?;
            tally.groups += 1;
            tally.behaviors += (known.len() * group.len()) as u64;
            tally.clicks += group.iter().map(|shown| u64::from(shown.label)).sum::<u64>();
            *(if test { &mut tally.test } else { &mut tally.train }) += group.len() as u64;
        }
        Ok(())
    }

    fn write_group(
        &self,
        part: &Part,
        described: &[&str],
        user: &str,
        behaviors: &[Behavior],
        group: &[Shown],
        writer: &mut SampleWriter,
        measured: Option<&mut Measured>,
    ) -> Result<()> {
        let count = self.mapping.event_cells.len();
        let first = texts(Some(&part.texts(group[0].row)), count);
        let user_fields: Vec<_> = self
            .mapping
            .user_origins
            .iter()
            .map(|origin| match *origin {
                Origin::Users(at) => described[at],
                Origin::Events(at) => first[at],
            })
            .collect();
        let width = self.mapping.context.len();
        let mut contexts = Vec::with_capacity(group.len() * width);
        if width > 0 {
            for shown in group {
                let texts = texts(Some(&part.texts(shown.row)), count);
                contexts.extend(self.mapping.context.iter().map(|&at| texts[at]));
            }
        }
        let impressions: Vec<_> = group
            .iter()
            .enumerate()
            .map(|(at, shown)| Impression {
                item: shown.item,
                time: shown.time,
                label: shown.label,
                context: &contexts[at * width..(at + 1) * width],
            })
            .collect();
        if let Some(measured) = measured {
            measured.user(&user_fields, group.len());
            impressions.iter().for_each(|shown| measured.impression(shown.item, shown.context));
        }
        writer.push(&GroupRow {
            user,
            user_fields: &user_fields,
            behaviors,
            impressions: &impressions,
        })
    }

    fn described_users(&self) -> usize {
        self.mapping.users.as_ref().map_or(0, |users| users.cells.len())
    }
}

fn positive(log: &UserLog, at: usize) -> Positive {
    let event = log.events[at];
    Positive { user: log.id, time: event.time, item: event.item, test: at >= log.test_begin }
}

/// A user's impressions, and where the test begins among them: the events, each positive followed
/// by its negatives if there is a sampler. Within one event they are in order of the items, so that
/// the position does not tell the label. Held-out items are shown in the test only, events before
/// `train_from` not at all.
fn impressions(
    log: &UserLog,
    held_out: impl Fn(u32) -> bool,
    train_from: Option<i64>,
    sampler: Option<&Sampler>,
    tally: &mut Tally,
) -> (Vec<Shown>, usize) {
    let mut shown = Vec::with_capacity(log.events.len());
    let mut begin = None;
    let mut negatives = Vec::new();
    for (at, event) in log.events.iter().enumerate() {
        if at == log.test_begin {
            begin = Some(shown.len());
        }
        if begin.is_none() && held_out(event.item) {
            tally.held_out += 1;
            continue;
        }
        if begin.is_none() && train_from.is_some_and(|from| event.time < from) {
            tally.before_train += 1;
            continue;
        }
        let from = shown.len();
        shown.push(Shown {
            time: event.time,
            item: event.item,
            label: event.label,
            row: event.row,
        });
        if let Some(sampler) = sampler {
            sampler.draw(positive(log, at), at, log.had, &mut tally.drawn, &mut negatives);
            shown.extend(negatives.iter().map(|&item| Shown {
                time: event.time,
                item,
                label: 0,
                row: event.row,
            }));
            shown[from..].sort_unstable_by_key(|shown| shown.item);
        }
    }
    let begin = begin.unwrap_or(shown.len());
    (shown, begin)
}

/// The users table of a part; the first row of a user counts.
fn user_rows<'a>(bytes: &'a [u8], tally: &mut Tally) -> HashMap<&'a str, Row<'a>> {
    let mut users = HashMap::new();
    for mut row in rows(bytes) {
        let user = row.text();
        if users.contains_key(user) {
            tally.users_redescribed += 1;
        } else {
            users.insert(user, row);
        }
    }
    users
}

/// The `count` texts of a row; empty ones if there is no row.
fn texts<'a>(row: Option<&Row<'a>>, count: usize) -> Vec<&'a str> {
    match row {
        None => vec![""; count],
        Some(row) => {
            let mut row = *row;
            (0..count).map(|_| row.text()).collect()
        }
    }
}
