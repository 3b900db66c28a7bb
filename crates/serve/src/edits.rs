//! Changes of a served model, as the admin port is told them: new pictures and items, and what is gone.
//!
//! ```text
//! POST /admin/models/{model}/changes            JSON, see `Edit`
//! PUT  /admin/models/{model}/pictures/{name}    the bytes of a picture, for a server that was given the encoder
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;

use ams_bundle::request::{Features, Text};
use ams_bundle::{Changes, Model};
use ams_data::{ImageKey, PictureName};
use serde::Deserialize;

use crate::models::Refusal;

/// What turns pictures into the features a model was trained on.
pub trait Pictures: Send + Sync + Debug {
    /// blake3, in hex, of all that defines the encoder.
    fn hash(&self) -> &str;

    /// The image's key, and its feature (F).
    ///
    /// # Errors
    /// What is wrong with the picture.
    fn encode(&self, bytes: &[u8]) -> Result<(ImageKey, Vec<f32>), String>;
}

/// What changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Edit {
    /// New pictures, or new features of known ones.
    pub pictures: Vec<EditPicture>,
    /// New items, or what is new of known ones.
    pub items: Vec<EditItem>,
    /// Names of pictures that are gone.
    pub remove_pictures: Vec<String>,
    /// Items that are gone.
    pub remove_items: Vec<Text>,
}

/// A picture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditPicture {
    /// Its name, as the items spell it.
    pub name: String,
    /// What the model's encoder makes of it (F).
    pub feature: Vec<f32>,
}

/// An item.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditItem {
    /// The item.
    pub item: Text,
    /// The name of its picture.
    #[serde(default)]
    pub picture: Option<String>,
    /// Its fields, by name; what is not given has no value.
    #[serde(default)]
    pub features: Features,
}

impl Edit {
    /// The edit as changes of `model`.
    ///
    /// # Errors
    /// If something does not fit the model.
    pub fn changes(&self, model: &Model) -> Result<Changes, Refusal> {
        let mut changes = Changes::default();
        for EditPicture { name, feature } in &self.pictures {
            changes.picture(model, 0, PictureName::of(name), key_of(feature), feature)?;
        }
        for EditItem { item, picture, features } in &self.items {
            let values = |cell: &ams_bundle::request::Cell| {
                cell.0.iter().map(|text| text.0.clone()).collect()
            };
            let fields: BTreeMap<String, Vec<String>> = (features.iter())
                .map(|(name, cell)| (name.clone(), cell.as_ref().map_or_else(Vec::new, values)))
                .collect();
            changes.item(model, &item.0, picture.as_deref(), &fields)?;
        }
        for name in &self.remove_pictures {
            changes.remove_picture(model, PictureName::of(name));
        }
        for item in &self.remove_items {
            changes.remove_item(model, &item.0)?;
        }
        Ok(changes)
    }
}

/// One picture's change.
///
/// # Errors
/// If the encoder is not the model's, or the picture is bad.
pub fn picture(
    model: &Model,
    encoder: &dyn Pictures,
    name: &str,
    bytes: &[u8],
) -> Result<Changes, Refusal> {
    let expected = model.spec().image_source.as_ref().map(|source| &source.encoder_hash[..]);
    if expected != Some(encoder.hash()) {
        let what = format!(
            "the server's encoder is {}, but the model's {}",
            encoder.hash(),
            expected.unwrap_or("none")
        );
        return Err(Refusal::State(what));
    }
    let bad = |what: String| Refusal::Bundle(ams_bundle::Error::request(format!("{name}: {what}")));
    let (key, feature) = encoder.encode(bytes).map_err(bad)?;
    let mut changes = Changes::default();
    changes.picture(model, 0, PictureName::of(name), key, &feature)?;
    Ok(changes)
}

/// A key for a feature whose picture is not seen: equal features are one image.
fn key_of(feature: &[f32]) -> ImageKey {
    let bytes: Vec<u8> = feature.iter().flat_map(|value| value.to_le_bytes()).collect();
    ImageKey::of_content(blake3::hash(&bytes).as_bytes())
}
