//! Changes of a served model by requests to the admin port: new and removed pictures and items.
//!
//! ```text
//! POST /admin/models/{model}/changes            JSON, see `Edit`
//! PUT  /admin/models/{model}/pictures/{name}    the bytes of a picture, for a server that was given the encoder
//! ```

use std::collections::BTreeMap;
use std::fmt::Debug;

use ams_bundle::json::{named, or_null, read};
use ams_bundle::request::{Cell, Features, Text};
use ams_bundle::{Changes, Error, Model};
use ams_data::{ImageKey, PictureName};
use serde::Deserialize;

use crate::models::Refusal;

/// The encoder of a server: from the bytes of a picture to the feature a model was trained on.
pub trait PictureEncoder: Send + Sync + Debug {
    /// blake3, in hex, of all that defines the encoder.
    fn hash(&self) -> &str;

    /// The image's key, and its feature (F).
    ///
    /// # Errors
    /// If the picture cannot be decoded; the message is for the client.
    fn encode(&self, bytes: &[u8]) -> Result<(ImageKey, Vec<f32>), String>;
}

/// The body of a request for changes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Edit {
    /// New pictures, or new features of known ones.
    #[serde(deserialize_with = "or_null")]
    pub pictures: Vec<EditPicture>,
    /// New items, or new values of known ones.
    #[serde(deserialize_with = "or_null")]
    pub items: Vec<EditItem>,
    /// Names of removed pictures.
    #[serde(deserialize_with = "or_null")]
    pub remove_pictures: Vec<Text>,
    /// Items that the model no longer knows.
    #[serde(deserialize_with = "or_null")]
    pub remove_items: Vec<Text>,
}

/// A name and the feature of its picture.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditPicture {
    /// Its name, as the items spell it.
    pub name: Text,
    /// The feature that the model's encoder computes for it (F).
    pub feature: Vec<f32>,
}

/// An item with all of its values.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EditItem {
    /// The item, as the log spells it.
    pub item: Text,
    /// The name of its picture.
    #[serde(default)]
    pub picture: Option<Text>,
    /// Its fields by name; an absent field has no value.
    #[serde(default, deserialize_with = "named")]
    pub features: Features,
}

impl Edit {
    /// Reads an edit from JSON.
    ///
    /// # Errors
    /// With path, line and column if the text is no JSON or no edit.
    pub(crate) fn parse(json: &[u8]) -> Result<Edit, Error> {
        read(json)
    }

    /// The edit as changes of `model`.
    ///
    /// # Errors
    /// If something does not fit the model.
    pub(crate) fn changes(&self, model: &Model) -> Result<Changes, Refusal> {
        let mut changes = Changes::default();
        for (at, EditPicture { name: Text(name), feature }) in self.pictures.iter().enumerate() {
            let picture = (PictureName::of(name), key_of(feature));
            let change = changes.picture(model, 0, picture.0, picture.1, feature);
            change.map_err(within("pictures", at))?;
        }
        for (at, EditItem { item, picture, features }) in self.items.iter().enumerate() {
            let nothing = || Cell::List(Vec::new());
            let fields: BTreeMap<String, Cell> = (features.iter())
                .map(|(name, cell)| (name.clone(), cell.clone().unwrap_or_else(nothing)))
                .collect();
            let picture = picture.as_ref().map(|name| &name.0[..]).filter(|name| !name.is_empty());
            let within = within("items", at);
            if item.0.is_empty() {
                return Err(within(Error::request("item is empty, expected an item")).into());
            }
            changes.item(model, &item.0, picture, &fields).map_err(within)?;
        }
        for Text(name) in &self.remove_pictures {
            changes.remove_picture(model, PictureName::of(name));
        }
        for (at, item) in self.remove_items.iter().enumerate() {
            changes.remove_item(model, &item.0).map_err(within("remove_items", at))?;
        }
        Ok(changes)
    }
}

/// Puts the element of a list before the message of an error.
fn within(list: &'static str, at: usize) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Request { what } => Error::request(format!("{list}[{at}]: {what}")),
        error => error,
    }
}

/// The changes for one picture.
///
/// # Errors
/// If the encoder is not the model's, or the picture is bad.
pub(crate) fn picture(
    model: &Model,
    encoder: &dyn PictureEncoder,
    name: &str,
    bytes: &[u8],
) -> Result<Changes, Refusal> {
    let expected = model.spec().image_source.as_ref().map(|source| &source.encoder_hash[..]);
    if expected != Some(encoder.hash()) {
        let what = format!(
            "the server's encoder is {}, and the model needs {}",
            encoder.hash(),
            expected.unwrap_or("none")
        );
        return Err(Refusal::State(what));
    }
    let bad = |what: String| Refusal::Bundle(Error::request(format!("{name}: {what}")));
    let (key, feature) = encoder.encode(bytes).map_err(bad)?;
    let mut changes = Changes::default();
    changes.picture(model, 0, PictureName::of(name), key, &feature)?;
    Ok(changes)
}

/// The key of an image that is known by its feature only: equal features are one image.
fn key_of(feature: &[f32]) -> ImageKey {
    let bytes: Vec<u8> = feature.iter().flat_map(|value| value.to_le_bytes()).collect();
    ImageKey::of_content(blake3::hash(&bytes).as_bytes())
}
