//! Every rank network, the tower and the alignment against values from PyTorch.
//!
//! `golden/make.py` says what the values are, how they came to be, and how to make them again;
//! nothing here needs Python. A disagreement names the network, the tensor and its worst value.

use std::collections::BTreeMap;

use ams_model::adam::Adam;
use ams_model::align::{self, Pairs};
use ams_model::linalg::Packed;
use ams_model::loss::cross_entropy;
use ams_model::{
    Aggregator, Base, ContentBatch, ImageArm, InputGrads, Interactions, Layout, Lists, NO_IMAGE,
    RankBatch, RankConfig, RankNetwork, RankScratch, Similarity, Sketches, Tower, TowerBuffers,
    TowerConfig, TowerScratch,
};
use half::f16;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// A kind of values, and how far one may be off, relative to the largest of its tensor.
///
/// The values are f64, so these are our rounding: on an AMD EPYC the worst of all networks were
/// 3.3e-7, 4.0e-6 and 5.8e-7 (`-- --nocapture` shows them). Other processors add in other orders.
type Kind = (&'static str, f64);

const FORWARD: Kind = ("forward", 2e-6);
const GRADIENT: Kind = ("gradient", 2e-5);
const AFTER_ADAM: Kind = ("after Adam", 2e-6);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankFile {
    /// The settings that the networks share.
    config: Settings,
    adam: AdamSteps,
    batches: BTreeMap<String, Batch>,
    cases: Vec<RankCase>,
}

/// Some of the fields of a [`RankConfig`].
type Settings = Map<String, Value>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdamSteps {
    lr: f32,
    beta1: f32,
    beta2: f32,
    eps: f32,
    steps: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    impressions: Vec<u32>,
    behaviors: Vec<u32>,
    group_fields: Vec<Field>,
    impression_fields: Vec<Field>,
    behavior_fields: Vec<Field>,
    labels: Vec<u8>,
    rows: Vec<f32>,
    contents: BTreeMap<String, Content>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    ad_embeddings: Vec<f32>,
    #[serde(deserialize_with = "images")]
    ad_images: Vec<u32>,
    behavior_embeddings: Vec<f32>,
    #[serde(deserialize_with = "images")]
    behavior_images: Vec<u32>,
    sketches: ContentSketches,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ContentSketches {
    vectors: Vec<f32>,
    dim: usize,
    #[serde(deserialize_with = "images")]
    ads: Vec<u32>,
    #[serde(deserialize_with = "images")]
    behaviors: Vec<u32>,
}

/// Indices of images, of which the file's `null` is none.
fn images<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u32>, D::Error> {
    let images = Vec::<Option<u32>>::deserialize(from)?;
    Ok(images.into_iter().map(|image| image.unwrap_or(NO_IMAGE)).collect())
}

impl Content {
    fn batch(&self) -> ContentBatch<'_> {
        let ContentSketches { vectors, dim, ads, behaviors } = &self.sketches;
        ContentBatch {
            ad_embeddings: &self.ad_embeddings,
            ad_images: &self.ad_images,
            behavior_embeddings: &self.behavior_embeddings,
            behavior_images: &self.behavior_images,
            sketches: Sketches { vectors, dim: *dim, ads, behaviors },
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    offsets: Vec<u32>,
    rows: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankCase {
    /// The name of its batch.
    batch: String,
    /// Settings beside the shared ones; all of these make this network.
    networks: Vec<Settings>,
    logits: Vec<f64>,
    loss: f64,
    /// Of rows, and of each content's embeddings.
    gradients: BTreeMap<String, Vec<f64>>,
    weights: Weights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TowerFile {
    config: TowerConfig,
    adam: AdamSteps,
    features: Vec<f32>,
    scale: f32,
    dout: Vec<f32>,
    embeddings: Vec<f64>,
    weights: Weights,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlignFile {
    pictures: usize,
    components: usize,
    width: usize,
    temperature: f32,
    penalty: f32,
    adam: AdamSteps,
    users: Vec<u64>,
    pairs: Vec<[usize; 2]>,
    weights: Vec<f32>,
    x: Vec<f32>,
    w: Vec<f32>,
    embeddings: Vec<f64>,
    loss: f64,
    gradient: Vec<f64>,
    after_adam: Vec<f64>,
}

type Weights = BTreeMap<String, Weight>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Weight {
    shape: Vec<usize>,
    values: Vec<f32>,
    gradient: Vec<f64>,
    after_adam: Vec<f64>,
}

fn read<T: for<'a> Deserialize<'a>>(file: &str) -> T {
    let path = format!("{}/tests/golden/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// How one network compares with the file.
struct Comparison {
    network: String,
    disagreements: Vec<String>,
    /// The largest difference of each kind of value.
    worst: BTreeMap<&'static str, f64>,
}

impl Comparison {
    fn new(network: String) -> Comparison {
        Comparison { network, disagreements: Vec::new(), worst: BTreeMap::new() }
    }

    fn disagree(&mut self, what: String) {
        self.disagreements.push(format!("{}: {what}", self.network));
    }

    /// Compares one tensor; a difference counts relative to the largest value expected.
    fn tensor(&mut self, (kind, tolerance): Kind, name: &str, got: &[f32], expected: &[f64]) {
        if got.len() != expected.len() {
            let (got, expected) = (got.len(), expected.len());
            return self.disagree(format!("{kind}, {name}: {got} values, expected {expected}"));
        }
        // All of it is zero where nothing was used: then differences count as they are.
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let unit = if largest > 0.0 { largest } else { 1.0 };
        let off = got.iter().zip(expected).map(|(&x, y)| (f64::from(x) - y).abs() / unit);
        // In total order a NaN is the worst of all.
        let Some((i, off)) = off.enumerate().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let worst = self.worst.entry(kind).or_default();
        *worst = if off > *worst || off.is_nan() { off } else { *worst };
        if off.is_nan() || off > tolerance {
            let (got, expected) = (got[i], expected[i]);
            self.disagree(format!(
                "{kind}, {name}[{i}]: got {got}, expected {expected}, off by {off:.1e} of {unit}"
            ));
        }
    }

    /// The file's weights in the places of `layout`, which has to have the same names and shapes.
    fn place(&mut self, layout: &Layout, weights: &Weights) -> Option<Vec<f32>> {
        let mut w = vec![0.0; layout.len()];
        for entry in &layout.entries {
            match weights.get(&entry.name) {
                Some(weight) if weight.shape == entry.shape => {
                    entry.view.of_mut(&mut w).copy_from_slice(&weight.values);
                }
                Some(Weight { shape, .. }) => self.disagree(format!(
                    "{} is {:?} in the layout and {shape:?} in the file",
                    entry.name, entry.shape
                )),
                None => self.disagree(format!("{} is not in the file", entry.name)),
            }
        }
        for name in weights.keys().filter(|name| layout.get(name).is_none()) {
            self.disagree(format!("{name} is not in the layout"));
        }
        self.disagreements.is_empty().then_some(w)
    }

    /// Compares the gradient of every weight, and every weight after the steps of Adam.
    fn learned(
        &mut self,
        layout: &Layout,
        weights: &Weights,
        adam: &AdamSteps,
        mut w: Vec<f32>,
        mut gradient: impl FnMut(&[f32]) -> Vec<f32>,
    ) {
        let first = gradient(&w);
        let (mut m, mut v) = (vec![0.0; w.len()], vec![0.0; w.len()]);
        let AdamSteps { lr, beta1, beta2, eps, steps } = *adam;
        let adam = Adam { beta1, beta2, eps };
        assert_eq!(adam, Adam::default(), "the file has other constants of Adam");
        for t in 1..=steps {
            let dw = gradient(&w);
            adam.update(t, lr, &mut w, &mut m, &mut v, &dw);
        }
        for entry in &layout.entries {
            let (name, expected) = (&entry.name, &weights[&entry.name]);
            self.tensor(GRADIENT, name, entry.view.of(&first), &expected.gradient);
            self.tensor(AFTER_ADAM, name, entry.view.of(&w), &expected.after_adam);
        }
    }

    /// Shows how far off each kind is, and gives what disagrees.
    fn finish(self) -> Vec<String> {
        let worst: Vec<_> =
            self.worst.iter().map(|(kind, off)| format!("{kind} {off:.1e}")).collect();
        println!("{}: {}", self.network, worst.join(", "));
        self.disagreements
    }
}

/// What a pass forward and backward of a rank network gives.
#[derive(Default)]
struct RankPass {
    logits: Vec<f32>,
    /// Mean over the batch.
    loss: f64,
    dw: Vec<f32>,
    grads: InputGrads,
}

fn rank_pass(network: &RankNetwork, batch: &RankBatch, labels: &[u8], w: &[f32]) -> RankPass {
    let mut pass = RankPass { dw: vec![0.0; w.len()], ..RankPass::default() };
    let (mut scratch, mut dlogits) = (RankScratch::default(), Vec::new());
    let scale = 1.0 / labels.len() as f32;
    network.forward(w, batch, &mut scratch, &mut pass.logits);
    pass.loss = cross_entropy(&pass.logits, labels, scale, &mut dlogits) / labels.len() as f64;
    network.backward(w, batch, &mut scratch, &dlogits, &mut pass.dw, &mut pass.grads);
    pass
}

/// The configuration of a network of `settings`.
fn config(file: &RankFile, settings: &Settings) -> RankConfig {
    let all = file.config.iter().chain(settings).map(|(key, value)| (key.clone(), value.clone()));
    let config = serde_json::from_value(Value::Object(all.collect()));
    config.unwrap_or_else(|e| panic!("{}: {e}", name(settings)))
}

fn name(settings: &Settings) -> String {
    let settings: Vec<_> = settings.iter().map(|(key, value)| format!("{key} {value}")).collect();
    settings.join(", ")
}

/// Compares the network of `settings` with the values of `case`.
fn check_rank(file: &RankFile, case: &RankCase, settings: &Settings) -> Vec<String> {
    let mut compared = Comparison::new(name(settings));
    let network = RankNetwork::new(config(file, settings));
    let Some(w) = compared.place(network.layout(), &case.weights) else {
        return compared.finish();
    };
    let contents = &network.config().contents;
    let batch = &file.batches[&case.batch];
    let labels = &batch.labels;
    let of_contents: Vec<_> = contents.iter().map(|name| batch.contents[name].batch()).collect();
    let batch = RankBatch {
        kept: None,
        impressions: &batch.impressions,
        behaviors: &batch.behaviors,
        group_fields: &lists(&batch.group_fields),
        impression_fields: &lists(&batch.impression_fields),
        behavior_fields: &lists(&batch.behavior_fields)[..network.config().each_behavior_fields()],
        rows: &batch.rows,
        contents: &of_contents,
        recency: &[],
    };
    let RankPass { logits, loss, grads, .. } = rank_pass(&network, &batch, labels, &w);
    compared.tensor(FORWARD, "logits", &logits, &case.logits);
    compared.tensor(FORWARD, "loss", &[loss as f32], &[case.loss]);
    let mut gradients = vec![("rows".to_owned(), &grads.drows)];
    for (name, content) in contents.iter().zip(&grads.contents) {
        gradients.push((format!("{name}.ad_embeddings"), &content.dad_embeddings));
        gradients.push((format!("{name}.behavior_embeddings"), &content.dbehavior_embeddings));
    }
    assert_eq!(gradients.len(), case.gradients.len(), "gradients of {}", compared.network);
    for (name, got) in gradients {
        compared.tensor(GRADIENT, &name, got, &case.gradients[&name]);
    }
    let gradient = |w: &[f32]| rank_pass(&network, &batch, labels, w).dw;
    compared.learned(network.layout(), &case.weights, &file.adam, w, gradient);
    compared.finish()
}

fn lists(fields: &[Field]) -> Vec<Lists<'_>> {
    fields.iter().map(|Field { offsets, rows }| Lists { offsets, rows }).collect()
}

/// Embeddings, and the gradient of the weights.
fn tower_pass(
    tower: &Tower,
    rows: &[&[f16]],
    scale: f32,
    dout: &[f32],
    e: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let (mut scratch, mut out, mut de) = (TowerScratch::default(), Vec::new(), vec![0.0; e.len()]);
    let mut packed = Packed::default();
    tower.pack(e, &mut packed);
    tower.forward(e, packed.panels(), rows, scale, &mut scratch, &mut out);
    tower.backward(e, &mut scratch, dout, &mut de);
    let (inputs, outputs) = (tower.config().input, tower.config().widths[0]);
    let mut transposed = vec![f32::NAN; inputs * outputs];
    let buffers = &mut TowerBuffers::default();
    tower.backward_columns(rows, scale, &scratch, 0..inputs, None, buffers, &mut transposed);
    for (at, value) in tower.first_matrix().of_mut(&mut de).iter_mut().enumerate() {
        *value = transposed[at % inputs * outputs + at / inputs];
    }
    (out, de)
}

#[test]
fn every_rank_network_agrees_with_pytorch() {
    let file: RankFile = read("rank.json");
    let mut disagreements = Vec::new();
    for case in &file.cases {
        for settings in &case.networks {
            disagreements.extend(check_rank(&file, case, settings));
        }
    }
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

#[test]
fn every_kind_of_network_has_values() {
    let file: RankFile = read("rank.json");
    let networks = file.cases.iter().flat_map(|case| &case.networks);
    let networks: Vec<RankConfig> = networks.map(|settings| config(&file, settings)).collect();
    for (i, network) in networks.iter().enumerate() {
        assert!(!networks[..i].contains(network), "two cases of {network:?}");
    }
    let one_of = |what: &str, is: &dyn Fn(&RankConfig) -> bool| {
        assert!(networks.iter().any(is), "no case of {what}");
    };
    let plain =
        |n: &RankConfig| n.network.base == Base::Mlp && n.network.similarity == Similarity::None;
    for images in ImageArm::ALL {
        for aggregator in Aggregator::ALL {
            for interactions in Interactions::ALL {
                let kind = (images, aggregator, interactions);
                let is = |n: &RankConfig| {
                    (n.network.images, n.network.aggregator, n.network.interactions) == kind
                };
                one_of(&format!("{kind:?}"), &|n| plain(n) && n.contents.len() == 1 && is(n));
            }
        }
    }
    for images in [ImageArm::None, ImageArm::Joint] {
        for kind in Base::ALL.map(|base| (base, images)) {
            one_of(&format!("{kind:?}"), &|n| (n.network.base, n.network.images) == kind);
        }
        // Statistics have their values beside the code; the rest is as without them.
        let similarities = Similarity::ALL.iter().filter(|one| !one.sees_ages());
        for kind in similarities.map(|similarity| (*similarity, images)) {
            one_of(&format!("{kind:?}"), &|n| (n.network.similarity, n.network.images) == kind);
        }
    }
    one_of("two contents", &|n| n.contents.len() == 2 && n.network.images == ImageArm::Joint);
}

#[test]
fn the_tower_agrees_with_pytorch() {
    let TowerFile { config, adam, features, scale, dout, embeddings, weights } = read("tower.json");
    let mut compared = Comparison::new("tower".to_owned());
    let halfs: Vec<f16> = features.iter().map(|&x| f16::from_f32(x)).collect();
    assert!(halfs.iter().zip(&features).all(|(half, x)| half.to_f32() == *x), "features as halfs");
    let rows: Vec<&[f16]> = halfs.chunks(config.input).collect();
    let tower = Tower::new(config);
    let e = compared.place(tower.layout(), &weights);
    let e = e.unwrap_or_else(|| panic!("{}", compared.disagreements.join("\n")));
    let (out, _) = tower_pass(&tower, &rows, scale, &dout, &e);
    compared.tensor(FORWARD, "embeddings", &out, &embeddings);
    let gradient = |e: &[f32]| tower_pass(&tower, &rows, scale, &dout, e).1;
    compared.learned(tower.layout(), &weights, &adam, e, gradient);
    let disagreements = compared.finish();
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}

/// Loss and gradient of the map `w`, and the embeddings that it makes.
fn align_pass(file: &AlignFile, w: &[f32]) -> (f64, Vec<f32>, Vec<f32>) {
    let shape @ [width, components] = [file.width, file.components];
    let (mut e, mut lengths) = (Vec::new(), Vec::new());
    align::embed(shape, &file.x, w, &mut e, &mut lengths);
    let of = |side: usize| -> Vec<f32> {
        let places = file.pairs.iter().map(|pair| pair[side] * width);
        places.flat_map(|at| e[at..at + width].to_vec()).collect()
    };
    let pairs = Pairs {
        users: file.users.clone(),
        items: file.pairs.iter().map(|pair| pair.map(|item| item as u64)).collect(),
        weights: file.weights.clone(),
        a: of(0),
        b: of(1),
    };
    let (mut rows, run) = (align::Rows::default(), 0..pairs.len());
    let [loss, weight] = rows.scores(&pairs, run.clone(), width, file.temperature);
    let sums = rows.sums.clone();
    rows.backward(&pairs, run, width, file.temperature, &sums);
    let mut de = vec![0.0; e.len()];
    for (pair, (da, db)) in file.pairs.iter().zip(rows.da.chunks(width).zip(rows.db.chunks(width)))
    {
        for (item, gradient) in pair.iter().zip([da, db]) {
            ams_model::linalg::add(gradient, &mut de[item * width..][..width]);
        }
    }
    let mut dw = vec![f32::NAN; w.len()];
    align::embed_backward(shape, &file.x, &e, &lengths, &mut de, &mut dw);
    let first = align::identity(width, components);
    let penalty = align::pull(file.penalty, w, &first, &mut dw);
    (loss / weight + penalty, dw, e)
}

#[test]
fn the_alignment_agrees_with_pytorch() {
    let file: AlignFile = read("align.json");
    assert_eq!(file.x.len(), file.pictures * file.components);
    let mut compared = Comparison::new("alignment".to_owned());
    let (loss, gradient, embeddings) = align_pass(&file, &file.w);
    compared.tensor(FORWARD, "embeddings", &embeddings, &file.embeddings);
    compared.tensor(FORWARD, "loss", &[loss as f32], &[file.loss]);
    compared.tensor(GRADIENT, "map", &gradient, &file.gradient);
    let (mut w, mut m, mut v) = (file.w.clone(), vec![0.0; file.w.len()], vec![0.0; file.w.len()]);
    for t in 1..=file.adam.steps {
        let (_, dw, _) = align_pass(&file, &w);
        Adam::default().update(t, file.adam.lr, &mut w, &mut m, &mut v, &dw);
    }
    compared.tensor(AFTER_ADAM, "map", &w, &file.after_adam);
    let disagreements = compared.finish();
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n"));
}
