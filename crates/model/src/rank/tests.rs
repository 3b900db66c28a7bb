//! Every arm with every aggregator and every base network, against differences and against the
//! formulas.

use super::*;
use crate::aggregate::Aggregator;
use crate::aggregate::tests::obvious;
use crate::check::{assert_close, assert_gradient, values};
use crate::linalg;
use crate::loss::cross_entropy;
use crate::settings::{NetworkSettings, SearchSettings};

const D: usize = 3;

/// What the aggregator `concatenate` has room for: more than some histories have, less than others.
const LENGTH: usize = 2;

/// Offsets and rows of one field.
type Column = (&'static [u32], &'static [u32]);

/// A batch apart from its floats. R = 5, Ua = 2, Ub = 3.
struct Case {
    impressions: &'static [u32],
    behaviors: &'static [u32],
    group_fields: [Column; 2],
    impression_fields: [Column; 3],
    behavior_fields: [Column; 2],
    ad_images: &'static [u32],
    behavior_images: &'static [u32],
}

/// Groups with 3, 1, 0 and 2 impressions and 2, 0, 3 and 1 behaviors; fields with no, one and
/// several values; images shared, missing and used twice in one history.
const MIXED: Case = Case {
    impressions: &[0, 3, 4, 4, 6],
    behaviors: &[0, 2, 2, 5, 6],
    group_fields: [(&[0, 1, 2, 3, 4], &[0, 1, 0, 2]), (&[0, 3, 3, 4, 6], &[4, 4, 1, 0, 3, 2])],
    impression_fields: [
        (&[0, 1, 2, 3, 4, 5, 6], &[3, 4, 3, 0, 1, 2]),
        (&[0, 2, 2, 3, 3, 6, 7], &[1, 2, 0, 0, 1, 4, 3]),
        (&[0, 1, 2, 3, 4, 5, 6], &[2, 2, 2, 1, 1, 1]),
    ],
    behavior_fields: [
        (&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 3, 3, 4, 2]),
        (&[0, 1, 1, 3, 4, 4, 5], &[4, 0, 2, 1, 1]),
    ],
    ad_images: &[0, 1, NO_IMAGE, 0, 0, NO_IMAGE],
    behavior_images: &[2, NO_IMAGE, 1, 1, NO_IMAGE, 0],
};

/// Likewise without an image on any impression or behavior.
const WITHOUT_IMAGES: Case =
    Case { ad_images: &[NO_IMAGE; 6], behavior_images: &[NO_IMAGE; 6], ..MIXED };

const EMPTY: Case = Case {
    impressions: &[0],
    behaviors: &[0],
    group_fields: [(&[0], &[]); 2],
    impression_fields: [(&[0], &[]); 3],
    behavior_fields: [(&[0], &[]); 2],
    ad_images: &[],
    behavior_images: &[],
};

/// The floats a loss is a function of.
#[derive(Clone, Debug, Default, PartialEq)]
struct Floats {
    w: Vec<f32>,
    rows: Vec<f32>,
    ads: Vec<f32>,
    behaviors: Vec<f32>,
}

fn config(images: ImageArm, aggregator: Aggregator) -> RankConfig {
    RankConfig {
        network: NetworkSettings {
            images,
            aggregator,
            embedding_dim: D,
            attention: [4, 3],
            concatenate_length: LENGTH,
            mlp: vec![5, 4],
            pre_rank: vec![4, 2],
            ..NetworkSettings::default()
        },
        group_fields: 2,
        impression_fields: 3,
        query_fields: vec![2, 0],
        behavior_fields: vec![],
        contents: RankConfig::contents(),
    }
}

/// `config` with other settings.
fn with(config: &RankConfig, change: impl FnOnce(&mut NetworkSettings)) -> RankConfig {
    let mut config = config.clone();
    change(&mut config.network);
    config
}

fn network(images: ImageArm, aggregator: Aggregator) -> RankNetwork {
    RankNetwork::new(config(images, aggregator))
}

fn floats(network: &RankNetwork) -> Floats {
    // Away from kinks that differences would cross.
    let seed = if network.config().network.search.is_some() { 11 } else { 1 };
    let w = values(seed, network.layout().len()).iter().map(|w| 0.65 * w).collect();
    let contents = network.config().contents.len();
    let (ads, behaviors) = (values(3, contents * 2 * D), values(4, contents * 3 * D));
    Floats { w, rows: values(2, 5 * D), ads, behaviors }
}

/// What a search keeps in these tests: about two thirds of a history, others for each impression.
fn kept(impressions: &[u32], behaviors: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut starts, mut kept) = (vec![0], Vec::new());
    for (shown, history) in impressions.windows(2).zip(behaviors.windows(2)) {
        for impression in shown[0]..shown[1] {
            kept.extend((history[0]..history[1]).filter(|at| (at + impression) % 3 != 0));
            starts.push(kept.len() as u32);
        }
    }
    (starts, kept)
}

/// A search, which the caller of a network has done.
fn search() -> Option<SearchSettings> {
    Some(SearchSettings { keep: 2, by: SearchBy::Category, field: SearchSettings::category() })
}

/// Logits, and the gradients for `dlogits`.
fn run(network: &RankNetwork, case: &Case, x: &Floats, dlogits: &[f32]) -> (Vec<f32>, Floats) {
    run_with(network, case, x, dlogits, &mut RankScratch::default())
}

fn run_with(
    network: &RankNetwork,
    case: &Case,
    x: &Floats,
    dlogits: &[f32],
    scratch: &mut RankScratch,
) -> (Vec<f32>, Floats) {
    run_between(network, case, x, dlogits, scratch, &mut |_| ())
}

/// The same with `between` forward and backward pass.
fn run_between(
    network: &RankNetwork,
    case: &Case,
    x: &Floats,
    dlogits: &[f32],
    scratch: &mut RankScratch,
    between: &mut dyn FnMut(&mut RankScratch),
) -> (Vec<f32>, Floats) {
    let lists = |&(offsets, rows): &Column| Lists { offsets, rows };
    let vectors = values(7, 3 * 4);
    let content = |(ad_embeddings, behavior_embeddings)| ContentBatch {
        ad_embeddings,
        ad_images: case.ad_images,
        behavior_embeddings,
        behavior_images: case.behavior_images,
        sketches: Sketches {
            vectors: &vectors,
            dim: 4,
            ads: case.ad_images,
            behaviors: case.behavior_images,
        },
    };
    let contents = x.ads.chunks(2 * D).zip(x.behaviors.chunks(3 * D)).map(content);
    let (starts, kept) = kept(case.impressions, case.behaviors);
    let kept = Lists { offsets: &starts, rows: &kept };
    let batch = RankBatch {
        kept: network.config().network.search.is_some().then_some(kept),
        impressions: case.impressions,
        behaviors: case.behaviors,
        group_fields: &case.group_fields.each_ref().map(lists),
        impression_fields: &case.impression_fields.each_ref().map(lists),
        behavior_fields: &case.behavior_fields.each_ref().map(lists)
            [..network.config().each_behavior_fields()],
        rows: &x.rows,
        contents: &contents.collect::<Vec<_>>(),
        recency: &[1.0, 0.5, 0.9, 0.2, 0.1, 0.7][..case.behavior_images.len()],
    };
    let (mut logits, mut dw) = (Vec::new(), vec![0.0; x.w.len()]);
    let mut grads = InputGrads::default();
    network.forward(&x.w, &batch, scratch, &mut logits);
    between(scratch);
    network.backward(&x.w, &batch, scratch, dlogits, &mut dw, &mut grads);
    let of = |part: fn(&ContentGrads) -> &Vec<f32>| grads.contents.iter().flat_map(part).copied();
    let ads = of(|content| &content.dad_embeddings).collect();
    let behaviors = of(|content| &content.dbehavior_embeddings).collect();
    (logits, Floats { w: dw, rows: grads.drows, ads, behaviors })
}

/// Every arm and aggregator as the paper has them, and with each of the other settings that can be
/// had with it.
fn every_network() -> impl Iterator<Item = RankNetwork> {
    let shapes = ImageArm::ALL
        .into_iter()
        .flat_map(|arm| Aggregator::ALL.map(|aggregator| config(arm, aggregator)));
    let with_settings = shapes.flat_map(|paper| {
        [
            paper.clone(),
            with(&paper, |n| n.base = Base::LogisticRegression),
            with(&paper, |n| n.base = Base::PreRank),
            with(&RankConfig { behavior_fields: vec![2, 0], ..paper.clone() }, |n| {
                n.base = Base::Din
            }),
            with(&RankConfig { behavior_fields: vec![0], ..paper.clone() }, |n| {
                (n.base, n.behavior_age_buckets) = (Base::Din, 4);
            }),
            with(&paper, |n| n.interactions = Interactions::Product),
            with(&paper, |n| n.similarity = Similarity::Histogram),
            with(&paper, |n| n.similarity = Similarity::Statistics),
            with(&paper, |n| n.attention_cosine = true),
            with(&RankConfig { behavior_fields: vec![2, 0], ..paper.clone() }, |n| {
                (n.base, n.attention_cosine) = (Base::Din, true);
            }),
            with(&paper, |n| (n.search, n.interactions) = (search(), Interactions::Product)),
            everything(&paper),
            // Of another width: no unit is near the bend of its PReLU.
            with(&everything(&paper), |n| (n.search, n.mlp) = (search(), vec![6, 4])),
        ]
    });
    with_settings.filter(|config| config.check().is_ok()).map(RankNetwork::new)
}

/// `paper` with two contents and most other settings.
fn everything(paper: &RankConfig) -> RankConfig {
    let config = RankConfig {
        contents: vec!["image".to_owned(), "text".to_owned()],
        behavior_fields: vec![1],
        ..paper.clone()
    };
    with(&config, |n| {
        n.base = Base::Din;
        n.interactions = Interactions::Product;
        n.similarity = Similarity::Cosine;
    })
}

fn check_gradients(network: &RankNetwork, name: &str, case: &Case) {
    let (x, dlogits) = (floats(network), values(5, 6));
    let (_, d) = run(network, case, &x, &dlogits);
    let loss = |change: &dyn Fn(&mut Floats)| {
        let mut x = x.clone();
        change(&mut x);
        let (logits, _) = run(network, case, &x, &dlogits);
        logits.iter().zip(&dlogits).map(|(y, dy)| f64::from(y * dy)).sum()
    };
    let name = format!("{:?}, {name}", network.config());
    // How similarities are standardized is not learned.
    let is_fixed =
        |name: &str| name.ends_with("similarity.shift") || name.ends_with("similarity.scale");
    let learned = |v: &[f32]| {
        let mut w = v.to_vec();
        for entry in network.layout.entries.iter().filter(|entry| is_fixed(&entry.name)) {
            entry.view.of_mut(&mut w).copy_from_slice(entry.view.of(&x.w));
        }
        w
    };
    assert_gradient(&name, &x.w, &d.w, |v| loss(&|x| x.w = learned(v)));
    assert_gradient(&name, &x.rows, &d.rows, |v| loss(&|x| x.rows = v.to_vec()));
    assert_gradient(&name, &x.ads, &d.ads, |v| loss(&|x| x.ads = v.to_vec()));
    assert_gradient(&name, &x.behaviors, &d.behaviors, |v| loss(&|x| x.behaviors = v.to_vec()));
}

#[test]
fn gradients_match_differences() {
    for network in every_network() {
        check_gradients(&network, "mixed", &MIXED);
        check_gradients(&network, "without images", &WITHOUT_IMAGES);
    }
}

#[test]
fn a_sampled_softmax_adds_its_gradient() {
    let mut negatives = Negatives { log_shares: values(9, 6), ..Negatives::default() };
    for (click, drawn) in [([0, 2], &[3, 4, 5][..]), ([3, 4], &[1, 0])] {
        negatives.drawn.extend(drawn);
        negatives.seal(click);
    }
    for arm in [ImageArm::None, ImageArm::Joint] {
        let config = with(&config(arm, Aggregator::Sum), |n| n.base = Base::PreRank);
        let network = RankNetwork::new(config);
        let (x, dlogits) = (floats(&network), values(5, 6));
        let mut scratch = RankScratch::default();
        let mut pass = |x: &Floats, scale: f32| {
            let mut sampled = 0.0;
            let add = &mut |s: &mut RankScratch| {
                sampled = network.sampled_softmax(&negatives, scale, s);
            };
            let (logits, d) = run_between(&network, &MIXED, x, &dlogits, &mut scratch, add);
            let clicks: f64 = logits.iter().zip(&dlogits).map(|(y, dy)| f64::from(y * dy)).sum();
            (clicks + f64::from(scale) * sampled, d)
        };
        let (_, d) = pass(&x, 0.7);
        let mut loss = |change: &dyn Fn(&mut Floats)| {
            let mut x = x.clone();
            change(&mut x);
            pass(&x, 0.7).0
        };
        assert_gradient("w", &x.w, &d.w, |v| loss(&|x| x.w = v.to_vec()));
        assert_gradient("rows", &x.rows, &d.rows, |v| loss(&|x| x.rows = v.to_vec()));
        assert_gradient("ads", &x.ads, &d.ads, |v| loss(&|x| x.ads = v.to_vec()));
        // The next batch has its own, or none.
        let plain = run_between(&network, &MIXED, &x, &dlogits, &mut scratch, &mut |_| ());
        assert_eq!(plain, run(&network, &MIXED, &x, &dlogits));
    }
}

/// The rows of `list` of a column, end to end, with their offsets.
fn column(column: &Column, list: impl Iterator<Item = u32>) -> Column {
    let (mut offsets, mut rows) = (vec![0], Vec::new());
    for at in list {
        let [first, end] = [at, at + 1].map(|at| column.0[at as usize] as usize);
        rows.extend_from_slice(&column.1[first..end]);
        offsets.push(rows.len() as u32);
    }
    (offsets.leak(), rows.leak())
}

/// `case` as a search sees it: every impression is a group of its own with the history that is kept
/// for it.
fn split(case: &Case) -> Case {
    let count = case.ad_images.len() as u32;
    let group = |at: u32| case.impressions.iter().rposition(|&first| first <= at).unwrap() as u32;
    let (starts, kept) = kept(case.impressions, case.behaviors);
    let images: Vec<u32> = kept.iter().map(|&at| case.behavior_images[at as usize]).collect();
    Case {
        impressions: (0..=count).collect::<Vec<u32>>().leak(),
        behaviors: starts.leak(),
        group_fields: case.group_fields.each_ref().map(|of| column(of, (0..count).map(group))),
        impression_fields: case.impression_fields,
        behavior_fields: case.behavior_fields.each_ref().map(|of| column(of, kept.iter().copied())),
        ad_images: case.ad_images,
        behavior_images: images.leak(),
    }
}

#[test]
fn a_search_is_a_history_of_its_own_for_every_impression() {
    let (split, dlogits) = (split(&MIXED), values(5, 6));
    for aggregator in [Aggregator::Attentive, Aggregator::MultiQueryAttentive] {
        for arm in ImageArm::ALL {
            let without = everything(&config(arm, aggregator));
            let searched = RankNetwork::new(with(&without, |n| n.search = search()));
            let without = RankNetwork::new(without);
            let x = floats(&searched);
            let (logits, d) = run(&searched, &MIXED, &x, &dlogits);
            let (expected, dexpected) = run(&without, &split, &x, &dlogits);
            assert_eq!(logits, expected, "{:?}", searched.config());
            assert_close(&d.w, &dexpected.w, 1e-5);
            assert_close(&d.rows, &dexpected.rows, 1e-5);
            assert_close(&d.behaviors, &dexpected.behaviors, 1e-5);
        }
    }
}

#[test]
fn an_empty_batch_changes_nothing() {
    for network in every_network() {
        let x = floats(&network);
        let (logits, d) = run(&network, &EMPTY, &x, &[]);
        assert_eq!(logits, Vec::<f32>::new());
        let zeros = |x: &[f32]| vec![0.0; x.len()];
        let (w, rows) = (zeros(&x.w), zeros(&x.rows));
        let (ads, behaviors) = (zeros(&x.ads), zeros(&x.behaviors));
        assert_eq!(d, Floats { w, rows, ads, behaviors });
    }
}

/// One group of one impression without history, fields or image.
const BARE: Case = Case {
    impressions: &[0, 1],
    behaviors: &[0, 0],
    group_fields: [(&[0, 0], &[]); 2],
    impression_fields: [(&[0, 0], &[]); 3],
    behavior_fields: [(&[0], &[]); 2],
    ad_images: &[NO_IMAGE],
    behavior_images: &[],
};

#[test]
fn scratch_does_not_remember() {
    let dlogits = values(5, 6);
    for network in every_network() {
        let (x, mut scratch) = (floats(&network), RankScratch::default());
        for case in [&MIXED, &BARE, &EMPTY, &WITHOUT_IMAGES, &MIXED, &BARE] {
            let dlogits = &dlogits[..case.ad_images.len()];
            let again = run_with(&network, case, &x, dlogits, &mut scratch);
            assert_eq!(again, run(&network, case, &x, dlogits), "{:?}", network.config);
        }
    }
}

#[test]
fn an_arm_sees_its_images_alone() {
    for network in every_network() {
        let (arm, x) = (network.config.network.images, floats(&network));
        let logits = |x: &Floats| run(&network, &MIXED, x, &[0.0; 6]).0;
        let (ads, behaviors) = (values(8, x.ads.len()), values(9, x.behaviors.len()));
        let other_ads = logits(&Floats { ads, ..x.clone() });
        let other_behaviors = logits(&Floats { behaviors, ..x.clone() });
        assert_eq!(logits(&x) != other_ads, arm.has_ad(), "{:?}", network.config);
        assert_eq!(logits(&x) != other_behaviors, arm.has_behavior(), "{:?}", network.config);
    }
}

/// The network of arm joint and an aggregator that does not look at the ad, for one impression, as
/// the formulas are written.
fn logit_by_hand(network: &RankNetwork, x: &Floats, inputs: &[f32]) -> f32 {
    let get = |name: &str| network.layout.get(name).expect("a weight").view.of(&x.w);
    let (group, impression) = (get("mlp.0.group.weight"), get("mlp.0.impression.weight"));
    let (u, a) = inputs.split_at(group.len() / 5);
    let prelu = |z: f32, slope: f32| if z > 0.0 { z } else { slope * z };
    let layer = |weights: &[f32], bias: &[f32], x: &[f32]| -> Vec<f32> {
        weights.chunks(x.len()).zip(bias).map(|(w, b)| linalg::dot(w, x) + b).collect()
    };
    let mut z = layer(group, get("mlp.0.group.bias"), u);
    linalg::add(&layer(impression, &[0.0; 5], a), &mut z);
    let activate = |z: &[f32], slope: &[f32]| -> Vec<f32> {
        z.iter().zip(slope).map(|(&z, &s)| prelu(z, s)).collect()
    };
    let z = layer(get("mlp.1.weight"), get("mlp.1.bias"), &activate(&z, get("mlp.0.slope")));
    layer(get("mlp.2.weight"), get("mlp.2.bias"), &activate(&z, get("mlp.1.slope")))[0]
}

/// What that network is given for one impression of `group`.
fn inputs_by_hand(
    network: &RankNetwork,
    case: &Case,
    x: &Floats,
    group: usize,
    impression: usize,
) -> Vec<f32> {
    let weight = |name: &str| network.layout.get(name).expect("a weight").view.of(&x.w);
    let pooled = |&(offsets, rows): &Column, list: usize| {
        let mut sum = vec![0.0; D];
        for &row in &rows[offsets[list] as usize..offsets[list + 1] as usize] {
            linalg::add(&x.rows[row as usize * D..][..D], &mut sum);
        }
        sum
    };
    let no_behavior = weight("behavior.no_image");
    let behavior = |&image: &u32| match image {
        NO_IMAGE => no_behavior,
        _ => &x.behaviors[image as usize * D..][..D],
    };
    let ad = match case.ad_images[impression] {
        NO_IMAGE => weight("ad.no_image"),
        image => &x.ads[image as usize * D..][..D],
    };
    let behaviors = case.behaviors[group] as usize..case.behaviors[group + 1] as usize;
    let history: Vec<&[f32]> = case.behavior_images[behaviors].iter().map(behavior).collect();
    let aggregate = obvious(network.config.network.aggregator, D, LENGTH, &history);
    let user = case.group_fields.iter().flat_map(|field| pooled(field, group));
    let shown = case.impression_fields.iter().flat_map(|field| pooled(field, impression));
    user.chain(aggregate).chain(shown).chain(ad.to_vec()).collect()
}

#[test]
fn logits_match_the_formulas() {
    for aggregator in [Aggregator::Concatenate, Aggregator::Max, Aggregator::Sum] {
        let network = network(ImageArm::Joint, aggregator);
        let x = floats(&network);
        for case in [&MIXED, &WITHOUT_IMAGES] {
            let (logits, _) = run(&network, case, &x, &[0.0; 6]);
            for (impression, group) in [0, 0, 0, 1, 3, 3].into_iter().enumerate() {
                let inputs = inputs_by_hand(&network, case, &x, group, impression);
                let expected = logit_by_hand(&network, &x, &inputs);
                assert_close(&[logits[impression]], &[expected], 1e-5);
            }
        }
    }
}

/// What attention says it weighed, times what was weighed, is what the network goes on with.
#[test]
fn attention_weighs_what_it_says() {
    for network in every_network().filter(|network| network.config.network.search.is_none()) {
        let (x, mut scratch) = (floats(&network), RankScratch::default());
        run_with(&network, &MIXED, &x, &[0.0; 6], &mut scratch);
        let config = &network.config;
        let queries = if config.network.images.has_behavior() {
            config.network.aggregator.queries().len()
        } else {
            0
        };
        let interest = config.network.base == Base::Din;
        let attention = network.attention(&scratch);
        assert_eq!(attention.len(), queries * config.contents.len() + usize::from(interest));
        for (at, Attended { over, query, weights }) in attention.into_iter().enumerate() {
            // Pairs: 3 impressions with 2 behaviors, 1 without, 2 with 1.
            assert_eq!(weights.len(), 3 * 2 + 2);
            assert!(weights.iter().any(|weight| *weight != 1.0), "{config:?}");
            let ids = over == "ids";
            let content = config.contents.iter().position(|name| name == over);
            let channel = if ids { 0 } else { at % queries };
            assert_eq!(query, if ids { "ids" } else { ["image", "fields"][channel] });
            let (dim, numbers, embeddings) = match content {
                Some(content) => {
                    let behaviors = &scratch.contents[content].behaviors;
                    (D, &behaviors.images, &behaviors.embeddings)
                }
                None => {
                    let (numbers, keys) = scratch.interest.weighed();
                    (keys.len() / numbers.len(), numbers, keys)
                }
            };
            let mut pair = weights.iter();
            for (impression, group) in [0, 0, 0, 1, 3, 3].into_iter().enumerate() {
                let mut expected = vec![0.0; dim];
                let behaviors =
                    MIXED.behaviors[group] as usize..MIXED.behaviors[group + 1] as usize;
                for &number in &numbers[behaviors] {
                    let e = &embeddings[number as usize * dim..][..dim];
                    linalg::axpy(*pair.next().unwrap(), e, &mut expected);
                }
                let got = match content {
                    Some(content) => {
                        let aggregate = &scratch.contents[content].aggregate;
                        let width = queries * D;
                        &aggregate[impression * width + channel * D..][..D]
                    }
                    None => {
                        let first = network.widths.a - dim;
                        &scratch.a[impression * network.widths.a + first..][..dim]
                    }
                };
                assert_close(got, &expected, 1e-5);
            }
        }
    }
}

#[test]
fn impossible_shapes_are_explained() {
    let good = network(ImageArm::Joint, Aggregator::MultiQueryAttentive).config;
    let pre_rank = with(&good, |n| n.base = Base::PreRank);
    let sum = with(&pre_rank, |n| n.aggregator = Aggregator::Sum);
    let cases: [(RankConfig, &str); 10] = [
        (with(&good, |n| n.embedding_dim = 0), "dim: a width is 0"),
        (with(&good, |n| n.mlp = vec![3, 0]), "mlp: a width is 0, expected 1 to 16777216"),
        (with(&good, |n| n.pre_rank = vec![]), "pre_rank: [], expected at least one layer"),
        (with(&good, |n| n.base = Base::Din), "query_fields names none of them"),
        (pre_rank, "expected one of sum, max, concatenate"),
        (with(&sum, |n| n.interactions = Interactions::Product), "interactions = none"),
        (with(&sum, |n| n.similarity = Similarity::Cosine), "similarity = none"),
        (with(&good, |n| n.concatenate_length = 0), "concatenate_length: 0, expected at least 1"),
        (RankConfig { query_fields: vec![3], ..good.clone() }, "query field 3 does not exist"),
        (RankConfig { query_fields: vec![], ..good.clone() }, "name at least one"),
    ];
    for (config, expected) in cases {
        let error = config.check().expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
    // Not every aggregator asks for fields, nor does the attentive one where there is an ad image.
    for aggregator in Aggregator::ALL {
        let config = with(&RankConfig { query_fields: vec![], ..good.clone() }, |n| {
            n.aggregator = aggregator
        });
        let asks = |config: RankConfig| config.check().is_err();
        let attentive = aggregator == Aggregator::Attentive;
        let both = aggregator == Aggregator::MultiQueryAttentive;
        assert_eq!(asks(config.clone()), both, "{aggregator:?}");
        let behavior = with(&config, |n| n.images = ImageArm::Behavior);
        assert_eq!(asks(behavior), both || attentive, "{aggregator:?}");
        assert!(!asks(with(&config, |n| n.images = ImageArm::Ad)), "{aggregator:?}");
    }
}

/// A history of 1,000 behaviors, of one and of none; an ad with an image and one without; labels
/// all alike.
#[test]
fn histories_of_any_length_and_labels_all_alike_are_defined() {
    let long = |order: &dyn Fn(u32) -> u32| -> (Vec<u32>, Vec<u32>) {
        let images = (0..1000).map(|i| [2, 0, NO_IMAGE, 1][order(i) as usize % 4]);
        let rows = (0..1000).map(|i| order(i) * 7 % 5);
        (images.chain([1]).collect(), rows.chain([3]).collect())
    };
    for network in every_network() {
        let config = network.config().clone();
        let x = floats(&network);
        let run_with = |order: &dyn Fn(u32) -> u32, label: u8| {
            let (images, rows) = long(order);
            let each: Vec<u32> = (0..=1001).collect();
            let field = Lists { offsets: &each, rows: &rows };
            let (no_list, none) = ([0_u32; 4], []);
            let lists = Lists { offsets: &no_list, rows: &none };
            let shown = Lists { offsets: &[0, 1, 2, 3, 4, 5, 6], rows: &[0, 1, 0, 1, 0, 1] };
            let ads = [0, NO_IMAGE, 0, NO_IMAGE, 0, NO_IMAGE];
            let vectors = values(7, 3 * 4);
            let content = |(ad_embeddings, behavior_embeddings)| ContentBatch {
                ad_embeddings,
                ad_images: &ads,
                behavior_embeddings,
                behavior_images: &images,
                sketches: Sketches { vectors: &vectors, dim: 4, ads: &ads, behaviors: &images },
            };
            let contents = x.ads.chunks(2 * D).zip(x.behaviors.chunks(3 * D)).map(content);
            let (starts, kept) = kept(&[0, 2, 4, 6], &[0, 1000, 1001, 1001]);
            let kept = Lists { offsets: &starts, rows: &kept };
            let batch = RankBatch {
                kept: config.network.search.is_some().then_some(kept),
                impressions: &[0, 2, 4, 6],
                behaviors: &[0, 1000, 1001, 1001],
                group_fields: &[lists; 2],
                impression_fields: &[shown; 3],
                behavior_fields: &[field; 2][..config.each_behavior_fields()],
                rows: &x.rows,
                contents: &contents.collect::<Vec<_>>(),
                recency: &vec![0.5; 1001],
            };
            let (mut scratch, mut logits) = (RankScratch::default(), Vec::new());
            network.forward(&x.w, &batch, &mut scratch, &mut logits);
            let (mut dlogits, mut dw) = (Vec::new(), vec![0.0; x.w.len()]);
            let loss = cross_entropy(&logits, &[label; 6], 1.0 / 6.0, &mut dlogits);
            let mut grads = InputGrads::default();
            network.backward(&x.w, &batch, &mut scratch, &dlogits, &mut dw, &mut grads);
            assert!(loss.is_finite() && loss >= 0.0, "{config:?}: {loss}");
            let sign = if label == 1 { -1.0 } else { 1.0 };
            assert!(dlogits.iter().all(|d| d * sign >= 0.0), "{config:?}: {dlogits:?}");
            let gradients = dw.iter().chain(&grads.drows);
            assert!(gradients.chain(&logits).all(|x| x.is_finite()), "{config:?}");
            logits
        };
        let logits = run_with(&|i| i, 0);
        assert_eq!(run_with(&|i| i, 1), logits, "{config:?}");
        // The order of a history means something to those who look at the newest alone.
        let newest_counts = config.network.similarity != Similarity::None
            || config.network.search.is_some()
            || (config.network.aggregator == Aggregator::Concatenate
                && config.network.images.has_behavior());
        if !newest_counts {
            let turned = run_with(&|i| 999 - i, 0);
            for (turned, logit) in turned.iter().zip(&logits) {
                assert_close(&[*turned], &[*logit], 1e-3);
            }
        }
        // Without history only the ads tell the impressions of the last group apart.
        assert!(logits[4..].iter().all(|logit| logit.abs() < 100.0), "{config:?}: {logits:?}");
    }
}

/// The settings of the networks beside the paper's, as the formulas have them.
#[test]
fn a_network_without_hidden_layers_is_a_sum() {
    let network = RankNetwork::new(with(&config(ImageArm::Joint, Aggregator::Sum), |n| {
        n.base = Base::LogisticRegression
    }));
    let x = floats(&network);
    let (logits, _) = run(&network, &MIXED, &x, &[0.0; 6]);
    let get = |name: &str| network.layout.get(name).expect("a weight").view.of(&x.w);
    let weights = [get("mlp.0.group.weight"), get("mlp.0.impression.weight")].concat();
    for (impression, group) in [0, 0, 0, 1, 3, 3].into_iter().enumerate() {
        let inputs = inputs_by_hand(&network, &MIXED, &x, group, impression);
        let expected = linalg::dot(&weights, &inputs) + get("mlp.0.group.bias")[0];
        assert_close(&[logits[impression]], &[expected], 1e-5);
    }
}

#[test]
fn logits_of_the_pre_rank_network_are_products_of_its_vectors() {
    let network = RankNetwork::new(with(&config(ImageArm::Joint, Aggregator::Sum), |n| {
        n.base = Base::PreRank
    }));
    let (x, mut scratch) = (floats(&network), RankScratch::default());
    let (logits, _) = run_with(&network, &MIXED, &x, &[0.0; 6], &mut scratch);
    let (users, ads) = scratch.vectors();
    for (impression, group) in [0, 0, 0, 1, 3, 3].into_iter().enumerate() {
        let product = linalg::dot(&users[2 * group..][..2], &ads[2 * impression..][..2]);
        assert_eq!(logits[impression], product);
    }
    // What a user's vector is does not depend on the ads.
    let others = Floats { ads: values(9, 2 * D), ..x.clone() };
    let (users, ads) = (users.to_vec(), ads.to_vec());
    run_with(&network, &MIXED, &others, &[0.0; 6], &mut scratch);
    assert_eq!(scratch.vectors().0, users);
    assert_ne!(scratch.vectors().1, ads);
}

#[test]
fn settings_are_spelled_in_lowercase() {
    let arms = serde_json::to_string(&ImageArm::ALL).unwrap();
    assert_eq!(arms, r#"["none","ad","behavior","joint"]"#);
    for aggregator in Aggregator::ALL {
        assert_eq!(serde_json::json!(aggregator), aggregator.as_str());
    }
    for base in Base::ALL {
        assert_eq!(serde_json::json!(base), base.as_str());
    }
    let aggregators = serde_json::to_string(&Aggregator::ALL).unwrap();
    let expected = r#"["concatenate","max","sum","attentive","multi-query-attentive"]"#;
    assert_eq!(aggregators, expected);
}
