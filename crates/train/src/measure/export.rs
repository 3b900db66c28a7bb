//! A step as plain tensors, for another program to take the very same step.
//!
//! One batch of all lanes together, in lane order: its distinct ids and images, and the number of
//! the one that each use refers to. Ids are numbered as rows, images as features.
//! `bench/peers/step.py`, which reads the format, describes it.

use std::collections::BTreeMap;
use std::path::Path;

use ams_data::staging::write_whole;
use ams_data::{Id, ImageKey};
use ams_model::init::row_init;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::run::trainer::Trainer;
use crate::setup::network::{Network, TowerDefinition};
use crate::step::Lanes;
use crate::step::batch::MicroBatch;

/// Tensors by name, in the order of the file.
type Tensors = BTreeMap<String, Tensor>;

/// A tensor to be written.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    fn f32(shape: Vec<usize>, values: &[f32]) -> Tensor {
        Tensor { dtype: Dtype::F32, shape, bytes: bytemuck::cast_slice(values).to_vec() }
    }

    fn u32(values: &[u32]) -> Tensor {
        // As signed numbers, which every reader has: "none" becomes -1.
        Tensor {
            dtype: Dtype::I32,
            shape: vec![values.len()],
            bytes: bytemuck::cast_slice(values).to_vec(),
        }
    }
}

/// Writes the first batch of `trainer`, whose training has not begun, as `step.safetensors` and
/// `step.json` into the folder `dir`, which exists; for models of one trained tower. The training
/// goes on from its beginning.
///
/// # Errors
/// If samples cannot be read, the files cannot be written, or the model is another.
pub fn export_step(trainer: &mut Trainer, dir: &Path) -> Result<()> {
    let groups = trainer.first_batch()?;
    let lanes = trainer.lanes();
    let network = &lanes.network;
    let [tower] = &network.towers[..] else {
        let what = format!("{} towers; a step is exported with one", network.towers.len());
        return Err(Error::Config { key: "model.towers".to_owned(), what });
    };
    let mut batch = MicroBatch::new(network);
    (0..groups.len()).for_each(|group| batch.groups.push_from(&groups, group));
    batch.deduplicate(network, lanes.stores(), 1, None);

    let mut tensors = BTreeMap::new();
    answers(trainer, tower, &batch, &mut tensors);
    references(network, &batch, &mut tensors);
    weights(lanes, tower, &mut tensors);
    let views = tensors.iter().map(|(name, tensor)| {
        let Tensor { dtype, shape, bytes } = tensor;
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as long as its shape"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors of one name each");
    write_whole(&dir.join("step.safetensors"), bytes)?;
    let description = description(trainer, tower, &batch);
    let text = serde_json::to_string_pretty(&description).expect("numbers and names");
    write_whole(&dir.join("step.json"), text)?;
    Ok(())
}

/// Adds the rows and features that `batch` asks for, by their numbers.
fn answers(trainer: &Trainer, tower: &TowerDefinition, batch: &MicroBatch, tensors: &mut Tensors) {
    let (lanes, dim) = (trainer.lanes(), trainer.lanes().network.spec.dim());
    let ids = batch.ids.by_owner();
    let rows: Vec<f32> = ids.iter().flat_map(|&id| row(trainer, id, dim)).collect();
    tensors.insert("rows".to_owned(), Tensor::f32(vec![ids.len(), dim], &rows));
    let store = &lanes.stores()[tower.spec.content];
    let keys = batch.images[0].by_owner();
    let mut features = Vec::new();
    for &key in keys {
        let feature = store.row(ImageKey(key)).expect("the store named this key");
        features.extend_from_slice(bytemuck::cast_slice(&feature.halfs()));
    }
    let shape = vec![keys.len(), tower.input()];
    tensors.insert("features".to_owned(), Tensor { dtype: Dtype::F16, shape, bytes: features });
}

/// Adds labels, groups, and the rows and images that every impression and behavior refers to.
fn references(network: &Network, batch: &MicroBatch, tensors: &mut Tensors) {
    let labels = batch.groups.labels.clone();
    let shape = vec![labels.len()];
    tensors.insert("labels".to_owned(), Tensor { dtype: Dtype::U8, shape, bytes: labels });
    let offsets = [
        ("impressions", batch.groups.impressions.as_slice()),
        ("behaviors", batch.groups.behaviors.as_slice()),
    ];
    for (name, offsets) in offsets {
        tensors.insert(name.to_owned(), Tensor::u32(offsets));
    }
    let inputs = ["group", "impression", "behavior"].into_iter().zip([
        network.group_inputs.len(),
        network.impression_inputs.len(),
        network.behavior_inputs.len(),
    ]);
    let mut lists = batch.lists().iter();
    for (kind, count) in inputs {
        for (at, list) in lists.by_ref().take(count).enumerate() {
            let offsets = Tensor::u32(list.offsets.as_slice());
            tensors.insert(format!("{kind}_field.{at}.offsets"), offsets);
            tensors.insert(format!("{kind}_field.{at}.rows"), Tensor::u32(&list.values));
        }
    }
    let (ads, behaviors) = batch.image_positions();
    tensors.insert("ad_images".to_owned(), Tensor::u32(ads));
    tensors.insert("behavior_images".to_owned(), Tensor::u32(behaviors));
}

/// Adds the dense weights by their names, with `w.` or `tower.` before them.
fn weights(lanes: &Lanes, tower: &TowerDefinition, tensors: &mut Tensors) {
    let networks =
        [("w", lanes.network.rank.layout(), 0), ("tower", tower.model.layout(), tower.range.start)];
    for (prefix, layout, start) in networks {
        for entry in &layout.entries {
            let values = entry.view.of(&lanes.dense.w[start..]);
            let tensor = Tensor::f32(entry.shape.clone(), values);
            tensors.insert(format!("{prefix}.{}", entry.name), tensor);
        }
    }
}

/// Sizes and settings of the step.
fn description(trainer: &Trainer, tower: &TowerDefinition, batch: &MicroBatch) -> Value {
    let (network, train) = (&trainer.lanes().network, &trainer.config().train);
    json!({
        "impressions": batch.len(),
        "groups": batch.groups.len(),
        "behaviors": batch.image_positions().1.len(),
        "images": batch.images[0].len(),
        "feature_dim": tower.input(),
        "dim": network.spec.dim(),
        "rows": batch.ids.len(),
        "scale": tower.scale,
        "tower": tower.model.config().widths,
        "attention": network.spec.network.attention,
        "mlp": network.spec.network.mlp,
        "group_fields": network.group_inputs.len(),
        "impression_fields": network.impression_inputs.len(),
        "query_fields": network.rank.config().query_fields,
        "learning_rate": train.learning_rate,
        "rows_learning_rate": train.rows_learning_rate.unwrap_or(train.learning_rate),
    })
}

/// The first value of the row of `id`.
fn row(trainer: &Trainer, id: u64, dim: usize) -> Vec<f32> {
    let mut row = vec![0.0; dim];
    if !trainer.lanes().network.unknown.contains(&Id(id)) {
        row_init(trainer.config().seed, crate::step::shard::ROWS, id, &mut row);
    }
    row
}
