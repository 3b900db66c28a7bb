//! One training step as one would write it down: no lanes, no exchange, nothing merged, sums in
//! f64.
//!
//! Every id of every list has a row of its own, and every reference to an image its own run through
//! a tower, in plain loops. Only the network W is the trainer's, over one batch of all lanes'
//! impressions; its kernels have their own twins in `model`.

use std::collections::BTreeMap;

use ams_bundle::{ContentTowers, Input, Keys, Semantic};
use ams_data::dataset::{Dataset, SplitName};
use ams_data::samples::SampleFile;
use ams_data::{Groups, Id, ImageKey, Ragged, Side, part_of};
use ams_image::FeatureStore;
use ams_model::dropout;
use ams_model::init::row_init;
use ams_model::rank::{
    ContentBatch, ContentGrads, InputGrads, Lists, Moments, NO_IMAGE, Negatives, RankBatch,
    RankScratch, Sketches,
};
use ams_model::settings::IdRates;
use ams_model::tower::Tower;
use ams_train::Config;
use ams_train::setup::components;
use ams_train::setup::network::{ContrastiveSettings, Network, TowerDefinition};
use ams_train::step::draws::{Draws, Purpose};
use ams_train::step::feed::{Feed, Order};
use ams_train::step::selection::Period;
use ams_train::step::share::Share;

/// The impressions that each lane learns from in the first step.
pub(super) fn first_step(config: &Config) -> Vec<Groups> {
    let dataset = Dataset::open(&config.data.samples).unwrap();
    let card = dataset.card();
    let (lanes, steps) = (config.train.lanes, Share::steps(card.counts.train, config.train.batch));
    let parts = card.parts / lanes;
    let of_lane = |lane| {
        let open = |part| {
            let path = dataset.part_path(SplitName::Train, part);
            SampleFile::open(&path, dataset.schema()).unwrap()
        };
        let files = (lane * parts..(lane + 1) * parts).map(open).collect();
        let order = Order::Shuffled { seed: config.seed, lane };
        let mut feed =
            Feed::new(files, dataset.schema(), order, config.train.shuffle_groups, Period::Always)
                .unwrap();
        let mut groups = Groups::new(dataset.schema());
        feed.start(0);
        let share = Share { numerator: 1, denominator: steps };
        feed.take(share.of(feed.impressions()), &mut groups).unwrap();
        groups
    };
    (0..lanes).map(of_lane).collect()
}

/// The images of `groups`; none without a store.
pub(super) fn keys_of(
    groups: &Groups,
    store: Option<&FeatureStore>,
    semantic: Option<Semantic>,
) -> Keys {
    let mut keys = Keys::default();
    keys.resolve(groups, |name| store.map_or(ImageKey::NONE, |store| store.key(name)));
    if let (Some(semantic), Some(codes)) = (semantic, store.and_then(FeatureStore::codes)) {
        keys.resolve_codes(semantic, |key, to| {
            to.extend(codes.of(key).unwrap().iter().map(|code| u32::from(*code)));
        });
    }
    keys
}

/// The ids of one input of the network, list by list.
pub(super) fn ids_of(input: Input, groups: &Groups, keys: &Keys, newest: usize) -> Ragged<Id> {
    let mut lists = Ragged::default();
    input.collect(groups, keys, newest, &mut lists);
    lists
}

/// What a step computes.
pub(super) struct Step {
    /// Mean loss.
    pub loss: f64,
    /// Mean loss of clicks beside their negatives, if they have some.
    pub in_batch: Option<f64>,
    /// Mean contrastive loss of pairs of images, if there is one.
    pub contrastive: Option<f64>,
    /// Gradients of W, then of every tower.
    pub dense: Vec<f64>,
    /// The gradient of every id's row.
    pub rows: BTreeMap<u64, Vec<f64>>,
}

/// The first step of a model that begins at `seed`, over the impressions of all lanes; only ids
/// that are `admitted` have a row of their own, and items are `shown` so often in all.
pub(super) fn step(
    network: &Network,
    stores: &[FeatureStore],
    seed: u64,
    lanes: &[Groups],
    admitted: &dyn Fn(u64) -> bool,
    shown: &BTreeMap<u64, u32>,
) -> Step {
    let mut groups = Groups::new(&network.spec.fields);
    for lane in lanes {
        (0..lane.len()).for_each(|group| groups.push_from(lane, group));
    }
    let keys: Vec<Keys> = (0..stores.len().max(1))
        .map(|at| keys_of(&groups, stores.get(at), network.spec.semantic()))
        .collect();
    let mut w = network.dense_init(seed);
    components::write_weights(network, stores, &mut w);
    let dim = network.spec.dim();

    // A row for every id of every list.
    let newest = network.spec.pooled();
    let lists: Vec<_> =
        network.inputs().map(|input| ids_of(input, &groups, &keys[0], newest)).collect();
    let kept = kept(network, stores, (&w, seed), &groups, &keys[0]);
    let drops = Drops::new(network, seed, lanes);
    let numbered = network.inputs().zip(&lists).enumerate();
    let own = |(number, (input, lists)): (usize, (Input, &Ragged<Id>))| {
        let unknown = network.unknown.get(number).map(|id| id.0);
        let mut ids: Vec<Option<u64>> = drops
            .kept(number, input, lists)
            .into_iter()
            .map(|id| id.filter(|id| admitted(*id)).or(unknown))
            .collect();
        if let (Some(kept), Input::EachBehavior(_) | Input::EachBehaviorCode(_)) = (&kept, input) {
            leave_out(&groups, newest, kept, lists, &mut ids);
        }
        ids
    };
    let ids: Vec<Option<u64>> = numbered.flat_map(own).collect();
    let mut rows = vec![0.0; ids.len() * dim];
    for (id, row) in ids.iter().zip(rows.chunks_exact_mut(dim)) {
        if let Some(id) = id.filter(|id| !network.unknown.contains(&Id(*id))) {
            row_init(seed, "embedding", id, row);
        }
    }
    let mut next = 0;
    let numbers: Vec<Vec<u32>> = lists.iter().map(|lists| numbers(lists, &mut next)).collect();
    let views: Vec<Lists<'_>> = lists
        .iter()
        .zip(&numbers)
        .map(|(lists, rows)| Lists { offsets: lists.offsets.as_slice(), rows })
        .collect();
    let (group_fields, rest) = views.split_at(network.group_inputs.len());
    let (impression_fields, behavior_fields) = rest.split_at(network.impression_inputs.len());

    // An embedding for every reference to an image, and a sketch for each of an ad, then of a
    // behavior.
    let content = |(towers, keys): (&ContentTowers, &Keys)| {
        let all = [&keys.ads[..], &keys.behaviors].concat();
        [
            References::new(network, stores, (&w, seed), towers.ad, &keys.ads),
            References::new(network, stores, (&w, seed), towers.behavior, &keys.behaviors),
            References::new(network, stores, (&w, seed), towers.sketch, &all),
        ]
    };
    let references: Vec<[References; 3]> =
        network.contents.iter().zip(&keys).map(content).collect();
    let mut contents = Vec::new();
    for ([ads, behaviors, sketches], keys) in references.iter().zip(&keys) {
        let split = sketches.images.len().min(keys.ads.len());
        contents.push(ContentBatch {
            ad_embeddings: &ads.embeddings,
            ad_images: &ads.images,
            behavior_embeddings: &behaviors.embeddings,
            behavior_images: &behaviors.images,
            sketches: Sketches {
                vectors: &sketches.embeddings,
                dim: network.towers.get(sketches.tower).map_or(0, TowerDefinition::dim),
                ads: &sketches.images[..split],
                behaviors: &sketches.images[split..],
            },
        });
    }
    let mut recency = Vec::new();
    ams_bundle::recency(network.spec.network.similarity, &groups, &mut recency);
    let batch = RankBatch {
        kept: kept
            .as_ref()
            .map(|kept| Lists { offsets: kept.offsets.as_slice(), rows: &kept.values }),
        impressions: groups.impressions.as_slice(),
        behaviors: groups.behaviors.as_slice(),
        group_fields,
        impression_fields,
        behavior_fields,
        rows: &rows,
        contents: &contents,
        recency: &recency,
    };
    let (mut scratch, mut logits) = (RankScratch::default(), Vec::new());
    if network.rank.standardizes() {
        // By this batch, which has to be the whole epoch.
        let mut moments = vec![Moments::default(); contents.len()];
        network.rank.add_moments(&batch, &mut scratch, &mut moments);
        network.rank.standardize(&moments, &mut w[network.rank_range()]);
    }
    let rank = &w[network.rank_range()];
    network.rank.forward(rank, &batch, &mut scratch, &mut logits);

    // -log p(label), and p - label, each over the number of impressions.
    let count = logits.len() as f64;
    let (mut loss, mut dlogits) = (0.0, Vec::new());
    for (&logit, &label) in logits.iter().zip(&groups.labels) {
        let p = 1.0 / (1.0 + (-f64::from(logit)).exp());
        loss -= if label == 1 { p.ln() } else { (1.0 - p).ln() } / count;
        dlogits.push(((p - f64::from(label)) / count) as f32);
    }
    let in_batch = network.in_batch.map(|settings| {
        let negatives = negatives(network, seed, lanes, settings.negatives, shown);
        let scale = settings.weight / count as f32;
        let sum = network.rank.sampled_softmax(&negatives, scale, &mut scratch);
        sum / negatives.clicks.len() as f64
    });
    let (mut dw, mut grads) = (vec![0.0; rank.len()], InputGrads::default());
    network.rank.backward(rank, &batch, &mut scratch, &dlogits, &mut dw, &mut grads);

    let contrastive = network.contrastive.map(|settings| {
        contrast(&settings, seed, lanes, &keys[0], &references[0], &mut grads.contents[0])
    });

    let mut dense: Vec<f64> = dw.into_iter().map(f64::from).collect();
    dense.resize(network.dense_len(), 0.0);
    for ([ads, behaviors, _], grads) in references.iter().zip(&grads.contents) {
        ads.backward(network, &w, &grads.dad_embeddings, &mut dense);
        behaviors.backward(network, &w, &grads.dbehavior_embeddings, &mut dense);
    }

    // The rows of unknown ids are part of every step.
    let unknown = network.unknown.iter().map(|id| (id.0, vec![0.0; dim]));
    let mut sums: BTreeMap<u64, Vec<f64>> = unknown.collect();
    for (id, drow) in ids.iter().zip(grads.drows.chunks_exact(dim)) {
        let Some(id) = id else { continue };
        let sum = sums.entry(*id).or_insert_with(|| vec![0.0; dim]);
        sum.iter_mut().zip(drow).for_each(|(sum, d)| *sum += f64::from(*d));
    }
    Step { loss, in_batch, contrastive, dense, rows: sums }
}

/// A pair of images: its user, their keys, their references and its weight.
struct Pair {
    user: Id,
    keys: [ImageKey; 2],
    references: [usize; 2],
    weight: f64,
}

/// Adds the gradients of the contrastive loss of every lane, and returns its mean over all pairs.
fn contrast(
    settings: &ContrastiveSettings,
    seed: u64,
    lanes: &[Groups],
    keys: &Keys,
    references: &[References; 3],
    grads: &mut ContentGrads,
) -> f64 {
    let draws = |lane| Draws { step_seed: dropout::step_seed(seed, 1), lane };
    let (mut sum, mut weights, mut before) = (0.0, 0.0, [0, 0]);
    for (lane, groups) in lanes.iter().enumerate() {
        let mut pairs: Vec<Pair> = Vec::new();
        for group in 0..groups.len() {
            for at in groups.impressions.range(group).filter(|&at| groups.labels[at] == 1) {
                let ad = keys.ads[before[0] + at];
                let fits = |&b: &usize| {
                    let image = keys.behaviors[before[1] + b];
                    ad.is_some() && image.is_some() && image != ad
                };
                let past: Vec<usize> = groups.behaviors.range(group).filter(fits).collect();
                if past.is_empty() {
                    continue;
                }
                let throw = draws(lane).throw(Purpose::Pairs, at, 0);
                let behavior = past[part_of(throw, past.len())];
                let days = (groups.times[at] - groups.behavior_times[behavior]) as f64 / 86_400.0;
                pairs.push(Pair {
                    user: groups.users[group],
                    keys: [ad, keys.behaviors[before[1] + behavior]],
                    references: [before[0] + at, before[1] + behavior],
                    weight: (-days.max(0.0) / f64::from(settings.decay_days)).exp(),
                });
            }
        }
        let of_user = |user| pairs.iter().filter(|pair| pair.user == user).count() as f64;
        let roots: Vec<f64> = pairs.iter().map(|pair| of_user(pair.user).sqrt()).collect();
        pairs.iter_mut().zip(roots).for_each(|(pair, root)| pair.weight /= root);
        let share = groups.labels.len() as f64 / keys.ads.len() as f64;
        let factor = f64::from(settings.weight) * share;
        let lane = contrast_lane(settings, &pairs, references, factor, grads);
        (sum, weights) = (sum + lane[0], weights + lane[1]);
        before = [before[0] + groups.labels.len(), before[1] + groups.behavior_times.len()];
    }
    sum / weights
}

/// The same for the pairs of one lane: their weighted losses, and their weights.
fn contrast_lane(
    settings: &ContrastiveSettings,
    pairs: &[Pair],
    references: &[References; 3],
    factor: f64,
    grads: &mut ContentGrads,
) -> [f64; 2] {
    let image =
        |which: usize, pair: &Pair| references[which].images[pair.references[which]] as usize;
    let vector = |which: usize, pair: &Pair| -> Vec<f64> {
        let of = &references[which];
        let dim = of.embeddings.len() / (of.images.iter().filter(|at| **at != NO_IMAGE).count());
        let at = image(which, pair);
        of.embeddings[at * dim..][..dim].iter().map(|x| f64::from(*x)).collect()
    };
    let length = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
    let z: Vec<[Vec<f64>; 2]> =
        pairs.iter().map(|pair| [vector(0, pair), vector(1, pair)]).collect();
    let unit = |x: &Vec<f64>| x.iter().map(|y| y / length(x)).collect::<Vec<f64>>();
    let e: Vec<[Vec<f64>; 2]> = z.iter().map(|z| z.each_ref().map(unit)).collect();
    let (n, temperature) = (pairs.len(), f64::from(settings.temperature));
    let q = |i: usize, j: usize| -> f64 {
        let (one, two) = (&pairs[i], &pairs[j]);
        let related = one.user == two.user || one.keys.iter().any(|key| two.keys.contains(key));
        let cosine: f64 = e[i][0].iter().zip(&e[j][1]).map(|(a, b)| a * b).sum();
        if i == j || !related { (cosine / temperature).exp() } else { 0.0 }
    };
    let r: Vec<f64> = (0..n).map(|i| (0..n).map(|j| q(i, j)).sum()).collect();
    let s: Vec<f64> = (0..n).map(|j| (0..n).map(|i| q(i, j)).sum()).collect();
    let all: f64 = pairs.iter().map(|pair| pair.weight).sum();
    let loss = |i: usize| pairs[i].weight * 0.5 * (r[i] * s[i] / (q(i, i) * q(i, i))).ln();
    for (i, pair) in pairs.iter().enumerate() {
        let mut de = [vec![0.0; z[i][0].len()], vec![0.0; z[i][1].len()]];
        for j in 0..n {
            let of = |i: usize, j: usize| {
                let both = pairs[i].weight * q(i, j) / r[i] + pairs[j].weight * q(i, j) / s[j];
                let own = if i == j { 2.0 * pairs[i].weight } else { 0.0 };
                0.5 * factor * (both - own) / (all * temperature)
            };
            de[0].iter_mut().zip(&e[j][1]).for_each(|(d, e)| *d += of(i, j) * e);
            de[1].iter_mut().zip(&e[j][0]).for_each(|(d, e)| *d += of(j, i) * e);
        }
        let to = [&mut grads.dad_embeddings, &mut grads.dbehavior_embeddings];
        for (which, to) in to.into_iter().enumerate() {
            let (de, e) = (&de[which], &e[i][which]);
            let along: f64 = de.iter().zip(e).map(|(d, e)| d * e).sum();
            let to = &mut to[image(which, pair) * de.len()..][..de.len()];
            for ((to, d), e) in to.iter_mut().zip(de).zip(e) {
                *to += ((d - along * e) / length(&z[i][which])) as f32;
            }
        }
    }
    [(0..n).map(loss).sum(), all]
}

/// The negatives of every click, among the impressions of all lanes.
fn negatives(
    network: &Network,
    seed: u64,
    lanes: &[Groups],
    count: usize,
    shown: &BTreeMap<u64, u32>,
) -> Negatives {
    const TRIES: u64 = 32;
    let column = |side| {
        let mut fields = network.spec.fields.side(side);
        fields.position(|field| field.name == "item").unwrap()
    };
    let (ad, behavior) = (column(Side::Ad), column(Side::Behavior));
    let all = f64::from(shown.values().sum::<u32>());
    let step_seed = dropout::step_seed(seed, 1);
    let mut negatives = Negatives::default();
    let (mut groups_before, mut before) = (0, 0);
    for (lane, groups) in lanes.iter().enumerate() {
        let item = |at: usize| groups.ad_fields[ad].row(at)[0];
        let len = groups.labels.len();
        let shares = (0..len).map(|at| (f64::from(shown[&item(at).0]) / all).ln() as f32);
        negatives.log_shares.extend(shares);
        let group_of = |at| (0..groups.len()).find(|&g| groups.impressions.range(g).contains(&at));
        for click in (0..len).filter(|&at| groups.labels[at] == 1) {
            let own = group_of(click).unwrap();
            let mut drawn: Vec<usize> = Vec::new();
            for nth in 0..count as u64 {
                let fits = |at: &usize| {
                    let of_own =
                        groups.impressions.range(own).any(|other| item(other) == item(*at));
                    let history = groups.behaviors.range(own);
                    let past = &groups.behavior_fields[behavior];
                    let had = history.clone().any(|b| past.row(b).contains(&item(*at)));
                    let other = groups.users[group_of(*at).unwrap()] != groups.users[own];
                    other && !of_own && !had && !drawn.contains(at)
                };
                let draws = Draws { step_seed, lane };
                let place = |of: u64| {
                    part_of(draws.throw(Purpose::Negatives, click, nth * (TRIES + 1) + of), len)
                };
                let tried = (0..TRIES).map(place).find(|at| fits(at));
                let next = || (0..len).map(|on| (place(TRIES) + on) % len).find(|at| fits(at));
                let found = tried.or_else(next);
                drawn.extend(found);
            }
            negatives.drawn.extend(drawn.iter().map(|at| (before + at) as u32));
            negatives.seal([(groups_before + own) as u32, (before + click) as u32]);
        }
        before += len;
        groups_before += groups.len();
    }
    negatives
}

/// The behaviors that a search keeps for each impression, as one would sort them; (B) rows of
/// indices into all behaviors.
fn kept(
    network: &Network,
    stores: &[FeatureStore],
    weights: (&[f32], u64),
    groups: &Groups,
    keys: &Keys,
) -> Option<Ragged<u32>> {
    let keep = network.spec.network.search.as_ref()?.keep;
    let tower = network.contents.first().and_then(|towers| towers.search);
    let sketches = [&keys.ads, &keys.behaviors]
        .map(|keys| References::new(network, stores, weights, tower, keys));
    let vector = |of: usize, at: usize| {
        let image = sketches[of].images[at] as usize;
        let dim = network.towers[tower.unwrap()].dim();
        sketches[of].embeddings.get(image * dim..(image + 1) * dim)
    };
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let likeness = |ad: usize, behavior: usize| -> f64 {
        let Some(field) = network.spec.search_field() else {
            return match (vector(0, ad), vector(1, behavior)) {
                (None, _) => 0.0,
                (_, None) => -2.0,
                (Some(a), Some(b)) => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
            };
        };
        let values = groups.ad_fields[field.ad].row(ad);
        let mut past = groups.behavior_fields[field.behavior].row(behavior).iter();
        f64::from(u8::from(past.any(|value| values.contains(value))))
    };
    let mut kept = Ragged::default();
    for group in 0..groups.len() {
        for ad in groups.impressions.range(group) {
            let mut order: Vec<usize> = groups.behaviors.range(group).collect();
            order.sort_by(|a, b| likeness(ad, *b).total_cmp(&likeness(ad, *a)));
            order.truncate(keep);
            order.sort_unstable();
            kept.push(&order.into_iter().map(|at| at as u32).collect::<Vec<u32>>());
        }
    }
    Some(kept)
}

/// Leaves out the ids of behaviors that are neither kept for an impression nor among the newest.
fn leave_out(
    groups: &Groups,
    newest: usize,
    kept: &Ragged<u32>,
    lists: &Ragged<Id>,
    ids: &mut [Option<u64>],
) {
    for group in 0..groups.len() {
        let behaviors = groups.behaviors.range(group);
        for behavior in behaviors.clone().skip(newest) {
            let mut shown = groups.impressions.range(group);
            if !shown.any(|ad| kept.row(ad).contains(&(behavior as u32))) {
                ids[lists.offsets.range(behavior)].fill(None);
            }
        }
    }
}

/// Which ids are dropped in the first step: those of users and ads, whose rows are zeros instead.
struct Drops<'a> {
    network: &'a Network,
    step_seed: u64,
    /// The lane of each group and of each impression, and its place there.
    groups: Vec<(usize, usize)>,
    impressions: Vec<(usize, usize)>,
}

impl Drops<'_> {
    fn new<'a>(network: &'a Network, seed: u64, lanes: &[Groups]) -> Drops<'a> {
        let places = |count: fn(&Groups) -> usize| {
            let of_lane = |(lane, groups)| (0..count(groups)).map(move |at| (lane, at));
            lanes.iter().enumerate().flat_map(of_lane).collect()
        };
        let (groups, impressions) = (places(Groups::len), places(|groups| groups.labels.len()));
        Drops { network, step_seed: dropout::step_seed(seed, 1), groups, impressions }
    }

    /// The ids of the input `number`, list by list; nothing for one that is dropped.
    fn kept(&self, number: usize, input: Input, lists: &Ragged<Id>) -> Vec<Option<u64>> {
        let places = match input {
            Input::User(_) => Some(&self.groups),
            Input::Ad(_) | Input::AdImage | Input::AdCode(_) => Some(&self.impressions),
            _ => None,
        };
        let name = self.network.spec.input_name(input);
        let field = name.split_once('.').unwrap().1;
        // A table of rates has one draw for all fields of an ad, and one for those of a user.
        let (rate, together) = match &self.network.spec.network.id_dropout {
            IdRates::All(rate) => (*rate, false),
            IdRates::Fields(rates) => (rates.get(field).copied().unwrap_or(0.0), true),
        };
        let side = usize::MAX / 2 - if matches!(input, Input::User(_)) { 0 } else { 1 };
        let mut kept = Vec::new();
        for list in 0..lists.len() {
            for (value, id) in lists.row(list).iter().enumerate() {
                let dropped = places.is_some_and(|places| {
                    let (lane, at) = places[list];
                    let key = (lane as u64) << 32 | at as u64;
                    let network = if together { side } else { usize::MAX - number };
                    let row_seed = dropout::row_seed(self.step_seed, network, key);
                    dropout::mask(rate, row_seed, 0, if together { 0 } else { value }) == 0.0
                });
                kept.push((!dropped).then_some(id.0));
            }
        }
        kept
    }
}

/// The next number for every value of `lists`.
fn numbers<T>(lists: &Ragged<T>, next: &mut u32) -> Vec<u32> {
    let first = *next;
    *next += lists.values.len() as u32;
    (first..*next).collect()
}

/// The images of all impressions, or of all behaviors, each on its own.
#[derive(Default)]
struct References {
    tower: usize,
    /// For each impression or behavior, which reference.
    images: Vec<u32>,
    /// What every layer of the tower saw, per reference.
    runs: Vec<Vec<Seen>>,
    embeddings: Vec<f32>,
}

impl References {
    fn new(
        network: &Network,
        stores: &[FeatureStore],
        (w, seed): (&[f32], u64),
        tower: Option<usize>,
        keys: &[ImageKey],
    ) -> References {
        let Some(tower) = tower else { return References::default() };
        let TowerDefinition { spec, model, range, scale } = &network.towers[tower];
        let mut references = References { tower, ..References::default() };
        for &key in keys {
            if !key.is_some() {
                references.images.push(NO_IMAGE);
                continue;
            }
            references.images.push(references.runs.len() as u32);
            let row = stores[spec.content].row(key).unwrap().halfs();
            let x = row.iter().map(|x| f64::from(*scale) * f64::from(x.to_f32())).collect();
            let row_seed = dropout::row_seed(dropout::step_seed(seed, 1), tower, key.0);
            let rate = if spec.is_trained() { network.tower_dropout } else { 0.0 };
            let mask = |layer, unit| f64::from(dropout::mask(rate, row_seed, layer, unit));
            let (run, embedding) = forward(model, &w[range.clone()], x, mask);
            references.runs.push(run);
            references.embeddings.extend(embedding.into_iter().map(|x| x as f32));
        }
        references
    }

    /// Adds the gradient of the tower to `dense`.
    fn backward(&self, network: &Network, w: &[f32], dembeddings: &[f32], dense: &mut [f64]) {
        for (run, dout) in self.runs.iter().zip(dembeddings.chunks_exact(network.spec.dim())) {
            let TowerDefinition { spec, model, range, .. } = &network.towers[self.tower];
            let dout = dout.iter().map(|d| f64::from(*d)).collect();
            if spec.is_trained() {
                backward(model, &w[range.clone()], run, dout, &mut dense[range.clone()]);
            }
        }
    }
}

/// What a layer of a tower took, and its output before the PReLU.
struct Seen {
    x: Vec<f64>,
    z: Vec<f64>,
    /// What each output of the PReLU was multiplied with.
    masks: Vec<f64>,
}

/// One feature through a tower: z = W x + b, then PReLU and dropout but after the last layer.
fn forward(
    tower: &Tower,
    e: &[f32],
    mut x: Vec<f64>,
    mask: impl Fn(usize, usize) -> f64,
) -> (Vec<Seen>, Vec<f64>) {
    let part = |name: String| tower.layout().get(&name).map(|entry| entry.view.of(e));
    let mut run = Vec::new();
    for layer in 0..tower.config().widths.len() {
        let weight = part(format!("{layer}.weight")).unwrap();
        let bias = part(format!("{layer}.bias")).unwrap();
        let dot = |row: &[f32]| row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        let rows = weight.chunks_exact(x.len()).zip(bias);
        let z: Vec<f64> = rows.map(|(row, bias)| f64::from(*bias) + dot(row)).collect();
        let masks: Vec<f64> = (0..z.len()).map(|unit| mask(layer, unit)).collect();
        let out = match part(format!("{layer}.slope")) {
            Some(slope) => {
                let out = z.iter().zip(slope).zip(&masks);
                out.map(|((&z, &slope), mask)| prelu(z, slope) * mask).collect()
            }
            None => z.clone(),
        };
        run.push(Seen { x, z, masks });
        x = out;
    }
    (run, x)
}

/// Adds the gradients of one feature's run to `de`; `dout` is the gradient of its embedding.
fn backward(tower: &Tower, e: &[f32], run: &[Seen], dout: Vec<f64>, de: &mut [f64]) {
    let place = |name: String| tower.layout().get(&name).map(|entry| entry.view);
    let mut dz = dout;
    for (layer, Seen { x, z, masks }) in run.iter().enumerate().rev() {
        if let Some(slope) = place(format!("{layer}.slope")) {
            for (at, (z, mask)) in z.iter().zip(masks).enumerate() {
                dz[at] *= mask;
                de[slope.offset + at] += if *z > 0.0 { 0.0 } else { dz[at] * z };
                dz[at] *= if *z > 0.0 { 1.0 } else { f64::from(slope.of(e)[at]) };
            }
        }
        let weight = place(format!("{layer}.weight")).unwrap();
        let bias = place(format!("{layer}.bias")).unwrap();
        let mut dx = vec![0.0; x.len()];
        for (row, dz) in dz.iter().enumerate() {
            de[bias.offset + row] += dz;
            for (column, x) in x.iter().enumerate() {
                let at = row * dx.len() + column;
                de[weight.offset + at] += dz * x;
                dx[column] += dz * f64::from(weight.of(e)[at]);
            }
        }
        dz = dx;
    }
}

fn prelu(z: f64, slope: f32) -> f64 {
    if z > 0.0 { z } else { f64::from(slope) * z }
}
