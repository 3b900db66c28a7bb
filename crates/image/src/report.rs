//! What filling a store tells: the report of an encoding and of an import.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::card::{CodesCard, StoreCard};
use crate::manifest::Picture;

/// What came out. Serialized, it is the core of `encode --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeReport {
    /// Distinct images in the store.
    pub images: u64,
    /// Images encoded (or imported) by this run.
    pub encoded: u64,
    /// Images whose row was known: from the store that was there, or an interrupted run.
    pub reused: u64,
    /// Picture names that have no feature, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Pictures of formats that are not decoded, by format: part of `failed`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unsupported: BTreeMap<String, u64>,
    /// Numbers per row (F).
    pub dim: usize,
    /// The encoder in words.
    pub encoder: String,
    /// What computed the rows, where the encoder leaves a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Picture names looked at.
    pub names: u64,
    /// Names that are those of a file but for their spelling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub respelled: Option<Respelled>,
    /// How names were found in a list of precomputed features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<Matched>,
    /// The semantic ids of the store, if it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic_ids: Option<SemanticIdsReport>,
}

/// The semantic ids of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SemanticIdsReport {
    /// What its card says of them.
    #[serde(flatten)]
    pub card: CodesCard,
    /// Images that have codes.
    pub images: u64,
}

impl SemanticIdsReport {
    pub(crate) fn of(card: StoreCard) -> Option<SemanticIdsReport> {
        Some(SemanticIdsReport { card: card.codes?, images: card.images })
    }
}

/// Names that are those of a file but for how they are spelled: whole paths, `\\`, `%20`, other
/// capitals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Respelled {
    /// Number of respelled names.
    pub names: u64,
    /// The first of them.
    pub name: String,
    /// Name of the file that was read for it.
    pub file: String,
}

impl Respelled {
    pub(crate) fn of(pictures: &[Picture]) -> Option<Respelled> {
        let mut found = pictures.iter().filter_map(|it| Some((&it.name, it.file.as_ref()?)));
        let (name, file) = found.next()?;
        let (name, file) = (name.clone(), file.clone());
        Some(Respelled { names: 1 + found.count() as u64, name, file })
    }
}

/// How picture names were found in the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Matched {
    /// Names the list has as they are.
    pub exact: u64,
    /// Names the list has without the extension (`1193` for `1193.jpg`), or without folders as
    /// well.
    pub stem: u64,
    /// Rows of the list that no name asked for.
    pub unused: u64,
    /// Numbers of the rows that are not 0.
    pub numbers: u64,
    /// Those of them that are too small for a half and became 0, in rows whose other numbers are
    /// larger.
    pub zeroed: u64,
}
