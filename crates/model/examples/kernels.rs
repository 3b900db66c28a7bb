//! Times the kernels of one lane's share of a step: towers and rank network, forward and backward.
//!
//! `cargo run --release -p ams-model --example kernels`. Each line shows the time and a checksum,
//! so that a fast wrong result cannot hide.

use std::time::Instant;

use ams_model::adam::Adam;
use ams_model::init::dense_init;
use ams_model::linalg::Packed;
use ams_model::{
    Aggregator, Base, ContentBatch, ImageArm, InputGrads, Lists, NetworkSettings, RankBatch,
    RankConfig, RankNetwork, RankScratch, Sketches, Tower, TowerBuffers, TowerConfig, TowerScratch,
    init::Init,
};
use half::f16;

/// One lane of eight: 2,000 images, 1,024 impressions in groups of four, 64 behaviors each.
const IMAGES: usize = 250;
const GROUPS: usize = 32;
const PER_GROUP: usize = 4;
const BEHAVIORS: usize = 64;
const D: usize = 12;

fn main() {
    for zeros in [0.0, 0.5, 0.6, 0.7, 0.8, 0.9] {
        tower(zeros);
    }
    adam();
    for aggregator in Aggregator::ALL {
        rank(ImageArm::Joint, aggregator);
    }
    rank(ImageArm::None, Aggregator::Sum);
    for base in [Base::Mlp, Base::Din] {
        page_view(base);
    }
}

fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    dense_init(seed, "", "", Init::Uniform(1.0), &mut out);
    out
}

/// A page view: candidates, and behaviors of its user.
const PAGE: [usize; 2] = [400, 32];

/// Runs `f` some times; prints the least time and what it returns.
fn report(name: &str, mut f: impl FnMut() -> f64) {
    let mut least = f64::INFINITY;
    let mut checksum = 0.0;
    for _ in 0..20 {
        let start = Instant::now();
        checksum = f();
        least = least.min(start.elapsed().as_secs_f64());
    }
    println!("{name:40} {:8.3} ms  checksum {checksum:.6e}", least * 1e3);
}

fn sum(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x)).sum()
}

fn tower(zeros: f32) {
    println!("features of which {:.0} % are zero", 100.0 * zeros);
    let tower = Tower::new(TowerConfig::new(4096));
    let e = tower.init(1, "ad");
    let keep = values(9, IMAGES * 4096);
    let features = values(2, IMAGES * 4096).into_iter().zip(keep);
    let features = features.map(|(x, keep)| if keep.abs() < zeros { 0.0 } else { x });
    let features: Vec<f16> = features.map(f16::from_f32).collect();
    let rows: Vec<&[f16]> = features.chunks(4096).collect();
    let (mut scratch, mut out) = (TowerScratch::default(), Vec::new());
    let dout = values(3, IMAGES * D);
    let mut de = vec![0.0; e.len()];
    let mut packed = Packed::default();
    report("tower pack, once a step", || {
        tower.pack(&e, &mut packed);
        packed.panels().columns() as f64
    });
    report("tower forward", || {
        tower.forward(&e, packed.panels(), &rows[..], 1.0, &mut scratch, &mut out);
        sum(&out)
    });
    tower.backward(&e, &mut scratch, &dout, &mut de);
    let (mut buffers, mut part) = (TowerBuffers::default(), vec![0.0; 256 * 128]);
    report("tower backward, matrix", || {
        let columns = (0..4096).step_by(128).map(|from| from..from + 128);
        let parts = columns.map(|columns| {
            let rows = &rows[..];
            tower.backward_columns(rows, 1.0, &scratch, columns, None, &mut buffers, &mut part);
            f64::from(part[77])
        });
        parts.sum()
    });
    report("tower backward, all the rest", || {
        de.fill(0.0);
        tower.backward(&e, &mut scratch, &dout, &mut de);
        sum(&de)
    });
}

fn adam() {
    let len = 1_066_000;
    let (mut w, dw) = (values(7, len), values(8, len));
    let (mut m, mut v) = (vec![0.0; len], vec![0.0; len]);
    let mut t = 0;
    report("adam of one tower", || {
        t += 1;
        Adam::default().update(t, 1e-3, &mut w, &mut m, &mut v, &dw);
        w.iter().step_by(64).map(|&w| f64::from(w)).sum()
    });
}

fn rank(images: ImageArm, aggregator: Aggregator) {
    let (group_fields, impression_fields) = (14, 13);
    let network = RankNetwork::new(RankConfig {
        network: NetworkSettings {
            images,
            aggregator,
            embedding_dim: D,
            ..NetworkSettings::default()
        },
        group_fields,
        impression_fields,
        query_fields: vec![0, 1],
        behavior_fields: vec![],
        contents: RankConfig::contents(),
    });
    let count = GROUPS * PER_GROUP;
    let steps = |count: usize, by: usize| -> Vec<u32> {
        (0..=count as u32).map(|i| i * by as u32).collect()
    };
    let spread = |count: usize, of: u32| -> Vec<u32> {
        (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) % of).collect()
    };
    let (of_group, of_impression) = (steps(GROUPS, BEHAVIORS), steps(count, 1));
    let (group_rows, impression_rows) = (spread(GROUPS * BEHAVIORS, 2000), spread(count, 2000));
    let group_list = Lists { offsets: &of_group, rows: &group_rows };
    let impression_list = Lists { offsets: &of_impression, rows: &impression_rows };
    let (rows, embeddings) = (values(4, 2000 * D), values(5, 2000 * D));
    let (ad_images, behavior_images) = (spread(count, 100), spread(GROUPS * BEHAVIORS, 2000));
    let batch = RankBatch {
        kept: None,
        impressions: &steps(GROUPS, PER_GROUP),
        behaviors: &of_group,
        group_fields: &vec![group_list; group_fields],
        impression_fields: &vec![impression_list; impression_fields],
        recency: &[],
        behavior_fields: &[],
        rows: &rows,
        contents: &[ContentBatch {
            ad_embeddings: &embeddings,
            ad_images: &ad_images,
            behavior_embeddings: &embeddings,
            behavior_images: &behavior_images,
            sketches: Sketches::default(),
        }],
    };
    let w = network.init(1);
    let (mut scratch, mut logits) = (RankScratch::default(), Vec::new());
    report(&format!("rank forward {images:?} {aggregator:?}"), || {
        network.forward(&w, &batch, &mut scratch, &mut logits);
        sum(&logits)
    });
    let (dlogits, mut dw) = (values(6, count), vec![0.0; w.len()]);
    let mut grads = InputGrads::default();
    report(&format!("rank backward {images:?} {aggregator:?}"), || {
        dw.fill(0.0);
        network.backward(&w, &batch, &mut scratch, &dlogits, &mut dw, &mut grads);
        sum(&dw) + sum(&grads.drows)
    });
}

/// The rank network over one page view: as in training, and for its scores alone.
fn page_view(base: Base) {
    let [candidates, behaviors] = PAGE;
    let (fields, of_behavior) = (6, if base == Base::Din { 3 } else { 0 });
    let network = RankNetwork::new(RankConfig {
        network: NetworkSettings { base, embedding_dim: D, ..NetworkSettings::default() },
        group_fields: fields,
        impression_fields: fields,
        query_fields: vec![0, 1, 2],
        behavior_fields: (0..of_behavior).collect(),
        contents: RankConfig::contents(),
    });
    let ones = |count: usize| -> Vec<u32> { (0..=count as u32).collect() };
    let spread = |count: usize| -> Vec<u32> {
        (0..count as u32).map(|i| i.wrapping_mul(2_654_435_761) % 2000).collect()
    };
    let (of_group, of_impression, of_each) = (ones(1), ones(candidates), ones(behaviors));
    let (group_rows, ads, history) = (spread(1), spread(candidates), spread(behaviors));
    let group_list = Lists { offsets: &of_group, rows: &group_rows };
    let impression_list = Lists { offsets: &of_impression, rows: &ads };
    let behavior_list = Lists { offsets: &of_each, rows: &history };
    let (rows, embeddings) = (values(4, 2000 * D), values(5, 2000 * D));
    let batch = RankBatch {
        kept: None,
        impressions: &[0, candidates as u32],
        behaviors: &[0, behaviors as u32],
        group_fields: &vec![group_list; fields],
        impression_fields: &vec![impression_list; fields],
        recency: &[],
        behavior_fields: &vec![behavior_list; of_behavior],
        rows: &rows,
        contents: &[ContentBatch {
            ad_embeddings: &embeddings,
            ad_images: &ads,
            behavior_embeddings: &embeddings,
            behavior_images: &history,
            sketches: Sketches::default(),
        }],
    };
    let w = network.init(1);
    let (mut scratch, mut logits) = (RankScratch::default(), Vec::new());
    report(&format!("page view, forward {base:?}"), || {
        network.forward(&w, &batch, &mut scratch, &mut logits);
        sum(&logits)
    });
    report(&format!("page view, scores {base:?}"), || {
        network.score(&w, &batch, &mut scratch, &mut logits);
        sum(&logits)
    });
}
