//! A tower at work on one half of a lane: on the shard with the placement `ams`, else on the worker.

use ams_data::ImageKey;
use ams_image::FeatureStore;
use ams_model::dropout;
use ams_model::tower::TowerScratch;
use half::f16;

use crate::config::FeatureFormat;
use crate::plan::{Plan, PlannedTower};

/// What one tower keeps from its forward to its backward pass, and how much it did.
#[derive(Default)]
pub struct TowerRun {
    scratch: TowerScratch,
    /// Images of the last forward pass.
    pub forwards: usize,
    /// Images of the last backward pass.
    pub backwards: usize,
}

impl TowerRun {
    /// Embeds the images `keys`, whose features are `rows`, (U) each, into `out`, (U, D); `dense` are all
    /// dense weights. In training with dropout, `masks` is the seed of the step's masks.
    pub fn forward(
        &mut self,
        plan: &Plan,
        tower: usize,
        dense: &[f32],
        (keys, rows): (&[u64], &[&[f16]]),
        masks: Option<u64>,
        out: &mut Vec<f32>,
    ) {
        let PlannedTower { spec, model, range, scale } = &plan.towers[tower];
        let dropout = self.scratch.dropout();
        match masks.filter(|_| spec.is_trained()) {
            Some(masks) => {
                let seeds = keys.iter().map(|&key| dropout::row_seed(masks, tower, key));
                dropout.set(plan.tower_dropout, seeds);
            }
            None => dropout.clear(),
        }
        model.forward(&dense[range.clone()], rows, *scale, &mut self.scratch, out);
        self.forwards = rows.len();
        self.backwards = 0;
    }

    /// Adds the gradient of the tower to its place in `dense_grad`, given `dout`, (U, D).
    pub fn backward(
        &mut self,
        plan: &Plan,
        tower: usize,
        dense: &[f32],
        rows: &[&[f16]],
        dout: &[f32],
        dense_grad: &mut [f32],
    ) {
        let PlannedTower { model, range, scale, .. } = &plan.towers[tower];
        let (e, de) = (&dense[range.clone()], &mut dense_grad[range.clone()]);
        model.backward(e, rows, *scale, &mut self.scratch, dout, de);
        self.backwards = rows.len();
    }
}

/// The features of `keys` in the store of tower `tower`; (U) features.
pub fn features<'a>(
    plan: &Plan,
    stores: &'a [FeatureStore],
    tower: usize,
    keys: &[u64],
) -> Vec<&'a [f16]> {
    let store = &stores[plan.towers[tower].spec.content];
    let row = |&key| store.row(ImageKey(key)).expect("the store named this key");
    keys.iter().map(row).collect()
}

/// Appends a feature as words: two halfs each, or one float.
pub fn push_feature(row: &[f16], format: FeatureFormat, words: &mut Vec<u32>) {
    match format {
        FeatureFormat::F16 => words.extend(row.chunks(2).map(|pair| {
            let high = pair.get(1).map_or(0, |half| u32::from(half.to_bits()));
            u32::from(pair[0].to_bits()) | high << 16
        })),
        FeatureFormat::F32 => words.extend(row.iter().map(|half| half.to_f32().to_bits())),
    }
}

/// Appends the features of `dim` numbers in `words`, as [`push_feature`] wrote them, to `into`.
pub fn read_features(words: &[u32], dim: usize, format: FeatureFormat, into: &mut Vec<f16>) {
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
    fn features_survive_the_way() {
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
