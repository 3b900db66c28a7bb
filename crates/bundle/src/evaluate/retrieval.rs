//! How well a pre-rank network finds what users will have among *all* items: Recall@K and NDCG@K,
//! exact.
//!
//! Every user of a split asks once, with the history of their first group there, and what is to be
//! found are all items of their positive impressions in the split. Items are ordered by the product
//! of the user's and the ad's vector, ties by the order of their texts. Items that a user had in
//! training may be left out of the order; then they are not to be found either.
//!
//! The order is never made: the place of an item is the number of items before it. So a user costs
//! a product with each item, and the memory is that of the items' vectors, and of one vector and
//! the positives per user.

use std::collections::{BTreeMap, HashMap};

use ams_data::catalogue::Catalogue;
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::schema::{ITEM, Schema, Side};
use ams_data::{Groups, Id};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::model::{Model, Scratch};
use crate::page::vectors;

/// What to do with items that a user had in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// They are left out.
    Excluded,
    /// They are ranked as any other.
    Ranked,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retrieval {
    /// Users with an item to find; the means are over these.
    pub users: u64,
    /// Users of the split without one.
    pub users_without: u64,
    /// Items that are ranked.
    pub items: u64,
    /// What was done with items of the training.
    pub seen: Seen,
    /// One per K.
    pub at: Vec<At>,
}

/// The figures of one K.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct At {
    /// How many items are shown.
    pub k: usize,
    /// The share of a user's items that is among the first K.
    pub recall: f64,
    /// Discounted gain of a user's items among the first K, over that of the best order.
    pub ndcg: f64,
}

/// Ranks all items of `dataset` for the users of `split`.
///
/// # Errors
/// If the model is no pre-rank network or has other fields than the dataset, or a file cannot be
/// read.
pub fn retrieval(
    model: &Model,
    dataset: &Dataset,
    split: SplitName,
    ks: &[usize],
    seen: Seen,
) -> Result<Retrieval> {
    if !model.spec().fields.reads_alike(dataset.schema()) {
        let what = "has other fields than the data the model was trained on";
        return Err(Error::content(dataset.dir(), what));
    }
    model.require_vectors()?;
    let (items, ads) = vectors::ads(model, &Catalogue::open(dataset)?)?;
    let places = items.iter().zip(0..).map(|(item, at)| (Id::of(ITEM, item), at)).collect();
    let mut queries = queries(model, dataset, split, &places)?;
    if seen == Seen::Excluded && split == SplitName::Test {
        exclude_seen(model, dataset, &places, &mut queries)?;
    }
    let users_of_split = queries.len() as u64;
    // In order of the users: sums do not depend on threads.
    let queries: Vec<_> = queries.into_values().filter(|query| !query.find.is_empty()).collect();
    let found: Vec<Vec<At>> = queries
        .par_iter()
        .map(|query| {
            let places = places_of(&query.vector, &ads, &query.exclude, &query.find);
            ks.iter().map(|&k| at(k, &places)).collect()
        })
        .collect();
    let users = queries.len() as u64;
    let mean = |figure: &dyn Fn(&Vec<At>) -> f64| {
        (found.iter().map(figure).sum::<f64>() + 0.0) / users.max(1) as f64
    };
    let mean_at = |(n, &k): (usize, &usize)| At {
        k,
        recall: mean(&|at| at[n].recall),
        ndcg: mean(&|at| at[n].ndcg),
    };
    Ok(Retrieval {
        users,
        users_without: users_of_split - users,
        items: items.len() as u64,
        seen,
        at: ks.iter().enumerate().map(mean_at).collect(),
    })
}

/// What a user asks.
#[derive(Default)]
struct Query {
    /// When their first group was.
    time: i64,
    vector: Vec<f32>,
    /// Rows of items, ascending.
    find: Vec<u32>,
    exclude: Vec<u32>,
}

/// The place of the field `item` among the fields of the ad.
fn item_field(schema: &Schema) -> usize {
    let place = schema.side(Side::Ad).position(|field| field.name == ITEM);
    place.expect("every schema has the item of an impression")
}

/// Every group of a split, after its block.
fn for_each_group(
    schema: &Schema,
    dataset: &Dataset,
    split: SplitName,
    mut take: impl FnMut(&Groups) -> Result<()>,
) -> Result<()> {
    let mut groups = Groups::new(schema);
    for part in 0..dataset.card().parts {
        let file = SampleFile::open(&dataset.part_path(split, part), schema)?;
        for block in 0..file.blocks() {
            groups.clear();
            file.read(block, &mut groups)?;
            take(&groups)?;
        }
    }
    Ok(())
}

fn queries(
    model: &Model,
    dataset: &Dataset,
    split: SplitName,
    places: &HashMap<Id, u32>,
) -> Result<BTreeMap<u64, Query>> {
    let schema = &model.spec().fields;
    let item = item_field(schema);
    let mut queries = BTreeMap::<u64, Query>::new();
    let mut scratch = Scratch::default();
    for_each_group(schema, dataset, split, |groups| {
        let (vectors, _) = model.vectors(groups, &mut scratch)?;
        let dim = vectors.len() / groups.len().max(1);
        for (group, vector) in vectors.chunks_exact(dim.max(1)).enumerate() {
            let shown = groups.impressions.range(group);
            let time = groups.times[shown.clone()].first().copied().unwrap_or(i64::MAX);
            let query = queries.entry(groups.users[group].0).or_default();
            if query.vector.is_empty() || time < query.time {
                (query.time, query.vector) = (time, vector.to_vec());
            }
            let positives = shown.filter(|&row| groups.labels[row] == 1);
            let ids = positives.flat_map(|row| groups.ad_fields[item].row(row));
            query.find.extend(ids.filter_map(|id| places.get(id)));
        }
        Ok(())
    })?;
    queries.values_mut().for_each(|query| tidy(&mut query.find));
    Ok(queries)
}

fn exclude_seen(
    model: &Model,
    dataset: &Dataset,
    places: &HashMap<Id, u32>,
    queries: &mut BTreeMap<u64, Query>,
) -> Result<()> {
    let schema = &model.spec().fields;
    let item = item_field(schema);
    for_each_group(schema, dataset, SplitName::Train, |groups| {
        for group in 0..groups.len() {
            let Some(query) = queries.get_mut(&groups.users[group].0) else { continue };
            let positives = groups.impressions.range(group).filter(|&row| groups.labels[row] == 1);
            let ids = positives.flat_map(|row| groups.ad_fields[item].row(row));
            query.exclude.extend(ids.filter_map(|id| places.get(id)));
        }
        Ok(())
    })?;
    for query in queries.values_mut() {
        tidy(&mut query.exclude);
        let exclude = &query.exclude;
        query.find.retain(|item| exclude.binary_search(item).is_err());
    }
    Ok(())
}

fn tidy(items: &mut Vec<u32>) {
    items.sort_unstable();
    items.dedup();
}

/// How many items come before each of `find`: those whose product with `user` is larger, or equal
/// and whose row is smaller. `exclude` (ascending) has no place, and none of `find`.
fn places_of(user: &[f32], ads: &[f32], exclude: &[u32], find: &[u32]) -> Vec<usize> {
    // A sum of nothing but -0 is 0, and ties with it.
    let dot = |ad: &[f32]| user.iter().zip(ad).map(|(a, b)| a * b).sum::<f32>() + 0.0;
    let scores: Vec<f32> = ads.chunks_exact(user.len()).map(dot).collect();
    let mut wanted: Vec<(f32, u32)> = find.iter().map(|&at| (scores[at as usize], at)).collect();
    let order = |one: &(f32, u32), two: &(f32, u32)| {
        two.0.total_cmp(&one.0).then_with(|| one.1.cmp(&two.1))
    };
    wanted.sort_unstable_by(order);
    // Every item counts for the wanted ones that come after it.
    let mut before = vec![0; wanted.len() + 1];
    for (&score, at) in scores.iter().zip(0..) {
        let first = wanted.partition_point(|one| order(one, &(score, at)).is_le());
        if first < wanted.len() && exclude.binary_search(&at).is_err() {
            before[first] += 1;
        }
    }
    let mut sum = 0;
    let places = before[..wanted.len()].iter().map(|count| {
        sum += count;
        sum
    });
    places.collect()
}

/// Recall and NDCG of a user whose items are at these places, of which there are some.
fn at(k: usize, places: &[usize]) -> At {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let found = places.iter().filter(|&&place| place < k);
    let best: f64 = (0..k.min(places.len())).map(gain).sum();
    At {
        k,
        recall: found.clone().count() as f64 / places.len() as f64,
        ndcg: (found.map(|&place| gain(place)).sum::<f64>() + 0.0) / best,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random; small and whole, so that products tie.
    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let number = |n: usize| Id::of(&seed.to_string(), &n.to_string()).0 % 5;
        (0..count).map(|n| number(n) as f32 - 2.0).collect()
    }

    /// The whole order, item by item.
    fn sorted(user: &[f32], ads: &[f32], exclude: &[u32]) -> Vec<u32> {
        let score = |item: u32| -> f32 {
            (0..user.len()).map(|n| user[n] * ads[item as usize * user.len() + n]).sum()
        };
        let mut items: Vec<u32> = (0..(ads.len() / user.len()) as u32).collect();
        items.retain(|item| !exclude.contains(item));
        // 0 and -0 are equal here, too.
        items
            .sort_by(|&one, &two| score(two).partial_cmp(&score(one)).unwrap().then(one.cmp(&two)));
        items
    }

    #[test]
    fn places_are_those_of_the_whole_order() {
        for seed in 0..40 {
            let (user, ads) = (numbers(seed, 3), numbers(seed + 100, 3 * 50));
            let exclude: Vec<u32> =
                (0..50).filter(|item| (item + seed as u32).is_multiple_of(7)).collect();
            let mut find: Vec<u32> =
                (0..50).filter(|item| (item + seed as u32) % 11 == 3).collect();
            find.retain(|item| !exclude.contains(item));
            let order = sorted(&user, &ads, &exclude);
            let place = |item: &u32| order.iter().position(|other| other == item).unwrap();
            let mut expected: Vec<usize> = find.iter().map(place).collect();
            expected.sort_unstable();
            assert_eq!(places_of(&user, &ads, &exclude, &find), expected);
        }
    }

    #[test]
    fn figures_by_hand() {
        // First and fourth of three to be found, of which two fit.
        let At { recall, ndcg, .. } = at(4, &[0, 3, 9]);
        let log2 = |x: f64| x.ln() / 2f64.ln();
        assert!((recall - 2.0 / 3.0).abs() < 1e-12);
        let best = 1.0 + 1.0 / log2(3.0) + 1.0 / log2(4.0);
        assert!((ndcg - (1.0 + 1.0 / log2(5.0)) / best).abs() < 1e-12);
        assert_eq!(at(1, &[0, 1]), At { k: 1, recall: 0.5, ndcg: 1.0 });
        assert_eq!(at(5, &[7]), At { k: 5, recall: 0.0, ndcg: 0.0 });
    }
}
