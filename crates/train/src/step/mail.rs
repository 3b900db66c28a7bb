//! The messages between the workers and the shards of a step, as words.
//!
//! ```text
//! queries      worker -> shard   keys of ads                                  with a search by pictures
//! vectors      shard -> worker   their unit vectors of S                      (f32)
//! histories    worker -> shard   a, k, a vectors of S, k keys, then of each group:
//!                                p, q, p positions among the keys, q among the vectors
//! hits         shard -> worker   of each group and each of its q ads: min(p, keep) of
//!                                (position among the p, likeness as f32)
//! ask          worker -> shard   impressions, n, k_0.., n ids, k_0 keys, ..   (ids, keys: 2 words)
//!                                [newest day, n (day, count)]                 in training, where shards see ids
//! answer       shard -> worker   n rows of D, [n bits], k_0 embeddings, ..    (f32; bits: words)
//! gradients    worker -> shard   losses (f64: 1, or 5 with auxiliary ones), then as the answer, but
//!                                for what does not learn now
//! occurrences  worker -> shard   (id, count, field) ..     once, before the first step
//! ```
//! The bits say which ids have a row; they are there where the row of unknown ids is learned.
//! n is the number of ids and k_t that of the image keys of tower t which the shard owns. That is
//! the placement `ams`. The two others run the towers at the worker: with `store-in-server` the
//! answer holds features (f16, two a word, or f32) in place of embeddings, with `store-in-worker`
//! every k_t is 0 and features are at hand; neither sends gradients of embeddings.
//!
//! A message that does not add up is a defect: reading it panics.

use ams_fabric::{sum, words};
use half::f16;

use crate::settings::FeatureFormat;
use crate::step::sighting::Sighting;

/// The address of a lane: which it is, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its number, from 0.
    pub lane: usize,
    /// All lanes of the job.
    pub lanes: usize,
}

/// The ids and image keys that a worker needs of one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ask<'a> {
    /// Impressions of the worker's micro-batch.
    pub impressions: u64,
    counts: &'a [u32],
    keys: &'a [u32],
    /// The newest day, then the sightings of each id; or nothing.
    seen: &'a [u32],
}

impl<'a> Ask<'a> {
    /// Appends an ask for `lists`: the ids, then the image keys of every tower.
    pub(crate) fn write<'b>(
        impressions: usize,
        lists: impl Iterator<Item = &'b [u64]> + Clone,
        to: &mut Vec<u32>,
    ) {
        to.push(impressions as u32);
        to.extend(lists.clone().map(|list| list.len() as u32));
        lists.flatten().for_each(|&key| words::push(to, key));
    }

    /// Reads an ask of `lists` lists.
    pub(crate) fn read(message: &'a [u32], lists: usize) -> Ask<'a> {
        let (header, rest) = message.split_at(1 + lists);
        let counts = &header[1..];
        let (keys, seen) = rest.split_at(counts.iter().map(|&count| 2 * count as usize).sum());
        let all = 1 + 2 * counts[0] as usize;
        assert!(seen.is_empty() || seen.len() == all, "{} words of sightings", seen.len());
        Ask { impressions: u64::from(header[0]), counts, keys, seen }
    }

    /// Appends to an ask the newest day of its samples and the sightings of its ids.
    pub(crate) fn write_sightings(newest: i32, sightings: &[Sighting], to: &mut Vec<u32>) {
        to.push(newest.cast_unsigned());
        to.extend(sightings.iter().flat_map(|of| [of.day.cast_unsigned(), of.count]));
    }

    /// The newest day of the samples, if the ask has sightings.
    pub(crate) fn newest(&self) -> Option<i32> {
        self.seen.first().map(|day| day.cast_signed())
    }

    /// The sightings of the ids, if the ask has some.
    pub(crate) fn sightings(&self) -> impl Iterator<Item = Sighting> + use<'a> {
        let words = self.seen.get(1..).unwrap_or_default().chunks_exact(2);
        words.map(|words| Sighting { day: words[0].cast_signed(), count: words[1] })
    }

    /// The lists, two words a key.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &'a [u32]> {
        let mut rest = self.keys;
        self.counts.iter().map(move |&count| {
            let (list, tail) = rest.split_at(2 * count as usize);
            rest = tail;
            list
        })
    }
}

/// What is left to read of an answer, or of gradients behind their loss.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a>(pub &'a [u32]);

impl<'a> Values<'a> {
    /// The next `len` words.
    pub(crate) fn words(&mut self, len: usize) -> &'a [u32] {
        let (part, rest) = self.0.split_at(len);
        self.0 = rest;
        part
    }

    /// The next `len` floats.
    pub(crate) fn floats(&mut self, len: usize) -> &'a [f32] {
        bytemuck::cast_slice(self.words(len))
    }

    /// Checks that all was read of the message of lane `from`.
    pub(crate) fn end(self, from: usize) {
        assert!(self.0.is_empty(), "lane {from}'s message has {} trailing words", self.0.len());
    }
}

/// Appends floats, a word each.
pub(crate) fn push_floats(values: &[f32], to: &mut Vec<u32>) {
    to.extend_from_slice(bytemuck::cast_slice(values));
}

/// Appends `len` zeros, a word each.
pub(crate) fn push_zeros(len: usize, to: &mut Vec<u32>) {
    to.resize(to.len() + len, 0);
}

/// Sums over the micro-batch of a worker, or over several of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Losses {
    /// Losses of the impressions.
    pub clicks: f64,
    /// Losses of the sampled softmax, and clicks that have one.
    pub in_batch: [f64; 2],
    /// Weighted losses of pairs of images, and their weights.
    pub contrastive: [f64; 2],
}

impl Losses {
    /// The sum of all lanes, along the tree of all sums.
    pub(crate) fn sum(lanes: &[Losses]) -> Losses {
        let of = |which: fn(&Losses) -> f64| {
            sum::tree_f64(&mut lanes.iter().map(which).collect::<Vec<_>>())
        };
        Losses {
            clicks: of(|losses| losses.clicks),
            in_batch: [of(|losses| losses.in_batch[0]), of(|losses| losses.in_batch[1])],
            contrastive: [of(|losses| losses.contrastive[0]), of(|losses| losses.contrastive[1])],
        }
    }

    /// Appends the losses that gradients begin with; the auxiliary ones if there are any.
    pub(crate) fn push(&self, auxiliary: bool, to: &mut Vec<u32>) {
        words::push(to, self.clicks.to_bits());
        if auxiliary {
            let both = [self.in_batch, self.contrastive];
            both.as_flattened().iter().for_each(|number| words::push(to, number.to_bits()));
        }
    }
}

/// The gradients that a worker sends to one shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gradients<'a> {
    /// Losses of the worker's micro-batch.
    pub losses: Losses,
    /// Gradients of rows, then of embeddings.
    pub values: Values<'a>,
}

impl<'a> Gradients<'a> {
    /// Reads the losses, with auxiliary ones or without, and leaves the gradients in `values`.
    pub(crate) fn read(message: &'a [u32], auxiliary: bool) -> Gradients<'a> {
        let (losses, values) = message.split_at(if auxiliary { 10 } else { 2 });
        let mut numbers = words::numbers(losses).map(f64::from_bits);
        let mut next = || numbers.next().unwrap_or(0.0);
        let losses =
            Losses { clicks: next(), in_batch: [next(), next()], contrastive: [next(), next()] };
        Gradients { losses, values: Values(values) }
    }
}

/// How often an id occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occurrences {
    /// The id.
    pub id: u64,
    /// References to it.
    pub count: u32,
    /// The field that it is a value of.
    pub field: u32,
}

/// Appends how often an id occurs.
pub(crate) fn push_occurrences(occurrences: Occurrences, to: &mut Vec<u32>) {
    words::push(to, occurrences.id);
    to.extend([occurrences.count, occurrences.field]);
}

/// Ids and how often each occurs.
pub(crate) fn occurrences(message: &[u32]) -> impl Iterator<Item = Occurrences> {
    message.chunks_exact(4).map(|words| Occurrences {
        id: words::number(words),
        count: words[2],
        field: words[3],
    })
}

/// Appends one bit for each of `bits`, 32 a word.
pub(crate) fn push_bits(bits: impl Iterator<Item = bool>, to: &mut Vec<u32>) {
    for (at, bit) in bits.enumerate() {
        if at.is_multiple_of(32) {
            to.push(0);
        }
        *to.last_mut().expect("a word was pushed") |= u32::from(bit) << (at % 32);
    }
}

/// The first `len` bits of `words`.
pub(crate) fn bits(words: &[u32], len: usize) -> impl Iterator<Item = bool> {
    (0..len).map(|at| words[at / 32] >> (at % 32) & 1 == 1)
}

/// Appends a feature as words: two halfs each, or one float.
pub(crate) fn push_feature(row: &[f16], format: FeatureFormat, to: &mut Vec<u32>) {
    match format {
        FeatureFormat::F16 => to.extend(row.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, |half| u32::from(half.to_bits()));
            u32::from(pair[0].to_bits()) | high << 16
        })),
        FeatureFormat::F32 => to.extend(row.iter().map(|half| half.to_f32().to_bits())),
    }
}

/// Appends the features of `dim` numbers in `words`, as [`push_feature`] wrote them, to `into`.
pub(crate) fn read_features(words: &[u32], dim: usize, format: FeatureFormat, into: &mut Vec<f16>) {
    for row in words.chunks_exact(format.words(dim)) {
        match format {
            FeatureFormat::F16 => {
                let halfs = row.iter().flat_map(|word| [*word as u16, (word >> 16) as u16]);
                into.extend(halfs.take(dim).map(f16::from_bits));
            }
            FeatureFormat::F32 => {
                into.extend(row.iter().map(|word| f16::from_f32(f32::from_bits(*word))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_are_read_as_written() {
        let lists: [&[u64]; 3] = [&[7, u64::MAX], &[], &[1 << 40]];
        let mut message = Vec::new();
        Ask::write(5, lists.into_iter(), &mut message);
        assert_eq!(message[..4], [5, 2, 0, 1]);
        let ask = Ask::read(&message, 3);
        let read: Vec<Vec<u64>> = ask.lists().map(|list| words::numbers(list).collect()).collect();
        assert_eq!((ask.impressions, read), (5, lists.map(<[u64]>::to_vec).to_vec()));
        assert_eq!((ask.newest(), ask.sightings().count()), (None, 0));
        let seen = [Sighting::NONE, Sighting { day: -5, count: u32::MAX }];
        Ask::write_sightings(-4, &seen, &mut message);
        let ask = Ask::read(&message, 3);
        assert_eq!((ask.newest(), ask.sightings().collect()), (Some(-4), seen.to_vec()));
    }

    #[test]
    fn answers_and_gradients_are_read_as_written() {
        let some = Losses { clicks: -1.5e-300, ..Losses::default() };
        let all = Losses { in_batch: [0.25, 3.0], contrastive: [1e300, 0.5], ..some };
        for (auxiliary, sent) in [(false, some), (true, all)] {
            let mut message = Vec::new();
            all.push(auxiliary, &mut message);
            push_floats(&[0.5, f32::MIN_POSITIVE], &mut message);
            push_zeros(2, &mut message);
            let Gradients { losses, mut values } = Gradients::read(&message, auxiliary);
            assert_eq!(losses, sent);
            assert_eq!(values.floats(3), [0.5, f32::MIN_POSITIVE, 0.0]);
            assert_eq!(values.words(1), [0]);
            values.end(0);
        }
        let sum = Losses::sum(&[some, all]);
        assert_eq!(sum, Losses { clicks: -3e-300, ..all });
    }

    #[test]
    #[should_panic(expected = "lane 3's message has 1 trailing words")]
    fn a_message_that_is_too_long_is_a_defect() {
        Values(&[1]).end(3);
    }

    #[test]
    fn occurrences_are_read_as_written() {
        let all = [(u64::MAX, 1, 0), (3, u32::MAX, 7)];
        let all = all.map(|(id, count, field)| Occurrences { id, count, field });
        let mut message = Vec::new();
        all.iter().for_each(|&one| push_occurrences(one, &mut message));
        assert_eq!(occurrences(&message).collect::<Vec<_>>(), all);
    }

    #[test]
    fn bits_are_read_as_written() {
        for len in [0_usize, 1, 31, 32, 33, 70] {
            let all: Vec<bool> = (0..len).map(|at| at % 3 == 1).collect();
            let mut words = Vec::new();
            push_bits(all.iter().copied(), &mut words);
            assert_eq!(words.len(), len.div_ceil(32));
            assert_eq!(bits(&words, len).collect::<Vec<_>>(), all);
        }
    }

    #[test]
    fn features_are_read_as_written() {
        for (dim, format) in [1, 2, 5, 8]
            .into_iter()
            .flat_map(|dim| [(dim, FeatureFormat::F16), (dim, FeatureFormat::F32)])
        {
            let numbers = (0..3 * dim).map(|at| f16::from_f32((at as f32 - 2.5) / 7.0));
            let rows: Vec<f16> = numbers.collect();
            let mut words = Vec::new();
            rows.chunks(dim).for_each(|row| push_feature(row, format, &mut words));
            assert_eq!(words.len(), 3 * format.words(dim));
            let mut back = Vec::new();
            read_features(&words, dim, format, &mut back);
            assert_eq!(back, rows);
        }
    }
}
