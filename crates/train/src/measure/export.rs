//! A step as plain tensors, for another program to take the very same step.
//!
//! One batch of all lanes together, in lane order: what it refers to, each once, and which of these
//! every use is. Ids are numbered as rows, images as features. The format is told by
//! `bench/peers/step.py`, which reads it.

use std::collections::BTreeMap;
use std::path::Path;

use ams_data::ImageKey;
use ams_data::staging::write_whole;
use ams_model::init::row_init;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::error::{Error, Result};
use crate::run::trainer::Trainer;
use crate::step::batch::MicroBatch;

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
/// `step.json` into the folder `dir`, which is there; for models of one trained tower. The training
/// goes on from its beginning.
///
/// # Errors
/// If samples cannot be read, the files cannot be written, or the model is another.
pub fn step(trainer: &mut Trainer, dir: &Path) -> Result<()> {
    let groups = trainer.first_batch()?;
    let lanes = trainer.lanes();
    let plan = &lanes.plan;
    let [tower] = &plan.towers[..] else {
        let what = format!("{} towers; a step is exported with one", plan.towers.len());
        return Err(Error::Config { key: "model.towers".to_owned(), what });
    };
    let mut batch = MicroBatch::new(plan);
    (0..groups.len()).for_each(|group| batch.groups.push_from(&groups, group));
    batch.deduplicate(plan, lanes.stores(), 1);

    let mut tensors = BTreeMap::new();
    let dim = plan.spec.dim;
    let rows: Vec<f32> =
        batch.ids.by_owner().iter().flat_map(|&id| row(trainer, id, dim)).collect();
    tensors.insert("rows".to_owned(), Tensor::f32(vec![rows.len() / dim, dim], &rows));
    let store = &lanes.stores()[tower.spec.content];
    let keys = batch.images[0].by_owner();
    let mut features = Vec::new();
    for &key in keys {
        let feature = store.row(ImageKey(key)).expect("the store named this key");
        features.extend_from_slice(bytemuck::cast_slice(&feature.halfs()));
    }
    let shape = vec![keys.len(), tower.input()];
    tensors.insert("features".to_owned(), Tensor { dtype: Dtype::F16, shape, bytes: features });
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
        plan.group_inputs.len(),
        plan.impression_inputs.len(),
        plan.behavior_inputs.len(),
    ]);
    let mut lists = batch.lists();
    for (kind, count) in inputs {
        for (at, (offsets, rows)) in lists.by_ref().take(count).enumerate() {
            tensors.insert(format!("{kind}_field.{at}.offsets"), Tensor::u32(offsets));
            tensors.insert(format!("{kind}_field.{at}.rows"), Tensor::u32(rows));
        }
    }
    let (ads, behaviors) = batch.image_uses();
    tensors.insert("ad_images".to_owned(), Tensor::u32(ads));
    tensors.insert("behavior_images".to_owned(), Tensor::u32(behaviors));
    let networks =
        [("w", plan.network.layout(), 0), ("tower", tower.model.layout(), tower.range.start)];
    for (prefix, layout, start) in networks {
        for entry in &layout.entries {
            let values = entry.view.of(&lanes.dense.w[start..]);
            let tensor = Tensor::f32(entry.shape.clone(), values);
            tensors.insert(format!("{prefix}.{}", entry.name), tensor);
        }
    }

    let train = &trainer.config().train;
    let description = json!({
        "impressions": batch.len(),
        "groups": batch.groups.len(),
        "behaviors": behaviors.len(),
        "images": keys.len(),
        "feature_dim": tower.input(),
        "dim": dim,
        "rows": rows.len() / dim,
        "scale": tower.scale,
        "tower": tower.model.config().widths,
        "attention": plan.spec.attention,
        "mlp": plan.spec.mlp,
        "group_fields": plan.group_inputs.len(),
        "impression_fields": plan.impression_inputs.len(),
        "query_fields": plan.network.config().query_fields,
        "learning_rate": train.learning_rate,
        "rows_learning_rate": train.learning_rate * plan.rows_rate,
    });
    let views = tensors.iter().map(|(name, tensor)| {
        let Tensor { dtype, shape, bytes } = tensor;
        (name, TensorView::new(*dtype, shape.clone(), bytes).expect("as long as its shape"))
    });
    let bytes = safetensors::serialize(views, None).expect("tensors of one name each");
    write_whole(&dir.join("step.safetensors"), bytes)?;
    let text = serde_json::to_string_pretty(&description).expect("numbers and names");
    write_whole(&dir.join("step.json"), text)?;
    Ok(())
}

/// The first value of the row of `id`.
fn row(trainer: &Trainer, id: u64, dim: usize) -> Vec<f32> {
    let mut row = vec![0.0; dim];
    row_init(trainer.config().seed, crate::step::shard::ROWS, id, &mut row);
    row
}
