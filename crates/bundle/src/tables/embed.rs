//! The towers of a bundle, for pictures that are newer than the bundle.

use std::sync::OnceLock;

use ams_model::linalg::{Codebooks, Packed, Projection};
use ams_model::tower::TowerScratch;
use ams_model::{RankNetwork, Tower};
use half::f16;

use crate::error::{Error, Result};
use crate::files::folder::Folder;
use crate::files::layout::BundleMeta;
use crate::spec::{Spec, TowerSpec};
use crate::tables::contents::{self, ImageRecord};
use crate::tables::dense;

/// All towers of a model.
#[derive(Debug)]
pub(crate) struct Embedder {
    towers: Vec<LoadedTower>,
    /// By content: what its towers see of a feature, unless that is all of it.
    projections: Vec<Option<Projection>>,
    /// Of the first content, if the model sees semantic ids.
    codebooks: Option<Codebooks>,
}

#[derive(Debug)]
struct LoadedTower {
    spec: TowerSpec,
    tower: Tower,
    /// Weights E of the tower, by its layout.
    e: Vec<f32>,
    /// Packed when the first image comes: many models never see one.
    first: OnceLock<Packed>,
}

/// Reads the weights W and the towers.
///
/// # Errors
/// If a tensor is missing or has another shape.
pub(crate) fn read_dense(
    folder: &Folder<BundleMeta>,
    spec: &Spec,
    network: &RankNetwork,
) -> Result<(Vec<f32>, Embedder)> {
    let mut parts = dense::read(folder, spec, network)?.into_iter();
    let w = parts.next().expect("the network comes first");
    let ready = |(spec, e): (TowerSpec, Vec<f32>)| {
        let tower = Tower::new(spec.config.clone());
        LoadedTower { spec, tower, e, first: OnceLock::new() }
    };
    let towers = spec.towers().into_iter().zip(parts).map(ready).collect();
    let projections = contents::read_projections(folder, spec)?;
    Ok((w, Embedder { towers, projections, codebooks: contents::read_codebooks(folder, spec)? }))
}

impl Embedder {
    /// What each tower of content `content` makes of `feature`, and its codes, as publishing the
    /// model with that image would.
    ///
    /// # Errors
    /// If the model has no such content, or the feature is of another length or not finite.
    pub(crate) fn embed(
        &self,
        spec: &Spec,
        content: usize,
        feature: &[f32],
    ) -> Result<ImageRecord> {
        let contents = spec.contents();
        let Some((name, source)) = contents.get(content) else {
            let what = "sees no pictures: it was trained without a feature store".to_owned();
            return Err(Error::Model { what });
        };
        if feature.len() != source.dim {
            let what = format!(
                "a feature of {name} has {} numbers, expected {} of encoder {}",
                feature.len(),
                source.dim,
                source.encoder
            );
            return Err(Error::request(what));
        }
        // Stores keep halfs.
        let halfs: Vec<f16> = feature.iter().map(|&value| f16::from_f32(value)).collect();
        if let Some(at) = halfs.iter().position(|half| !half.is_finite()) {
            let what = format!("a feature of {name} is {} at {at}, expected a half", feature[at]);
            return Err(Error::request(what));
        }
        let mut codes = Vec::new();
        if let Some(codebooks) = self.codebooks.as_ref().filter(|_| content == 0) {
            codebooks.codes(&halfs, &mut codes);
        }
        let seen = match &self.projections[content] {
            Some(projection) => projection.apply(&halfs),
            None => halfs,
        };
        let towers = self.towers.iter().filter(|ready| ready.spec.content == content);
        let embeddings = towers.map(|ready| ready.embed(&seen, source.scale)).collect();
        Ok(ImageRecord { embeddings, codes })
    }
}

impl LoadedTower {
    fn embed(&self, seen: &[f16], scale: f32) -> Vec<f32> {
        let first = self.first.get_or_init(|| {
            let mut packed = Packed::default();
            self.tower.pack(&self.e, &mut packed);
            packed
        });
        let (mut scratch, mut out) = (TowerScratch::default(), Vec::new());
        self.tower.forward(&self.e, first.panels(), &[seen][..], scale, &mut scratch, &mut out);
        out
    }
}
