//! The weights W and those of the towers, as tensors with a name each.
//!
//! ```text
//! dense.safetensors   f32 by name: rank.mlp.0.group.weight, tower.ad.0.weight, ...
//! ```

use ams_model::{Layout, RankNetwork, Tower};

use crate::error::Result;
use crate::files::folder::{Folder, FolderWriter, Tensor};
use crate::files::layout::{BundleMeta, DENSE};
use crate::spec::{Spec, TowerSpec};

/// The names of the dense tensors of a model, with layouts, in order of the weights.
fn layouts(spec: &Spec, network: &RankNetwork) -> Vec<(String, Layout)> {
    let tower = |tower: TowerSpec| {
        (format!("tower.{}.", tower.name), Tower::new(tower.config).layout().clone())
    };
    let network = ("rank.".to_owned(), network.layout().clone());
    std::iter::once(network).chain(spec.towers().into_iter().map(tower)).collect()
}

/// Writes `weights`: W, then each tower of [`Spec::towers`].
pub(crate) fn write(spec: &Spec, weights: &[f32], folder: &mut FolderWriter) -> Result<()> {
    let network = RankNetwork::new(spec.rank_config());
    let layouts = layouts(spec, &network);
    let mut rest = weights;
    let mut named = Vec::new();
    for (prefix, layout) in &layouts {
        let (part, after) = rest.split_at(layout.len());
        rest = after;
        named.extend(
            layout.entries.iter().map(|entry| {
                (format!("{prefix}{}", entry.name), &entry.shape, entry.view.of(part))
            }),
        );
    }
    assert!(rest.is_empty(), "{} dense weights too many", rest.len());
    let tensors: Vec<Tensor> =
        named.iter().map(|(name, shape, values)| Tensor::f32(name, shape, values)).collect();
    folder.add_tensors(DENSE, &tensors)
}

/// Reads what [`write`] wrote for `network`, which is that of `spec`: W, then each tower.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub(crate) fn read(
    folder: &Folder<BundleMeta>,
    spec: &Spec,
    network: &RankNetwork,
) -> Result<Vec<Vec<f32>>> {
    let file = folder.tensors(DENSE)?;
    let mut parts = Vec::new();
    for (prefix, layout) in layouts(spec, network) {
        let mut part = Vec::with_capacity(layout.len());
        for entry in &layout.entries {
            part.extend_from_slice(&file.f32(&format!("{prefix}{}", entry.name), &entry.shape)?);
        }
        parts.push(part);
    }
    Ok(parts)
}
