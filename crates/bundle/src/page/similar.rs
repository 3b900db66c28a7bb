//! Items with similar pictures: known items by the cosine of their image embeddings.
//!
//! Every image is in the bundle's table, embedded by every tower, so this is a pass over the items.
//! It is exact, and its time grows with them. An item without a picture that the model knows is
//! not among the answers.

use serde::{Deserialize, Serialize};

use ams_data::PictureName;

use crate::error::{Error, Result};
use crate::json;
use crate::model::Model;
use crate::request::Text;
use crate::tables::items::Item;

/// Default and maximum of the number of similar items.
const TOP_K: usize = 10;
const TOP_K_MAX: usize = 1000;

/// A request for similar items: by an item or by a picture, exactly one of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimilarRequest {
    /// The item whose picture is looked at; it is not among the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<Text>,
    /// The name of the picture that is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<Text>,
    /// The tower whose embeddings are compared; the model's first by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tower: Option<String>,
    /// Most items of the answer, 1 to 1000; 10 by default.
    #[serde(default, deserialize_with = "json::count", skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
}

/// Items by how much their pictures are like the one asked about, most first; equal ones by their
/// hashes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Similar<'m> {
    /// The tower whose embeddings were compared.
    pub tower: String,
    /// The items, most similar first.
    pub items: Vec<&'m str>,
    /// The cosine of each, -1 to 1; 0 where an embedding is all zeros.
    pub cosine: Vec<f32>,
}

impl SimilarRequest {
    /// Reads a request from JSON.
    ///
    /// # Errors
    /// [`Error::Request`] with path, line and column if the text is no JSON or no request.
    pub fn parse(json: &[u8]) -> Result<SimilarRequest> {
        json::read(json)
    }
}

impl Model {
    /// The known items whose pictures are most like one.
    ///
    /// # Errors
    /// If the model has no images, or does not know what is asked for.
    pub fn similar(&self, request: &SimilarRequest) -> Result<Similar<'_>> {
        let images = &self.contents()[0];
        let (tower, name) = tower(self, request)?;
        let items = self.items();
        let top_k = request.top_k.unwrap_or(TOP_K);
        if !(1..=TOP_K_MAX).contains(&top_k) {
            return Err(Error::request(format!("top_k is {top_k}, expected 1 to {TOP_K_MAX}")));
        }
        let (itself, picture) = asked(self, request)?;
        let Some(vector) = images.embedding(tower, images.key(picture)) else {
            return Err(Error::request("the model has no embedding of the picture"));
        };
        let length = dot(vector, vector).sqrt();
        let mut found: Vec<(f32, u64, Item)> = (items.all())
            .filter(|&(_, item)| Some(item) != itself)
            .filter_map(|(hash, item)| {
                let other = images.embedding(tower, images.key(items.picture(item)))?;
                Some((cosine(vector, length, other), hash, item))
            })
            .collect();
        let first =
            |a: &(f32, u64, Item), b: &(f32, u64, Item)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        if found.len() > top_k {
            found.select_nth_unstable_by(top_k, first);
            found.truncate(top_k);
        }
        found.sort_unstable_by(first);
        let names: Option<Vec<&str>> = found.iter().map(|&(_, _, item)| items.name(item)).collect();
        let Some(names) = names else {
            let what = "its bundle was published before bundles had the names of items".to_owned();
            return Err(Error::Model { what });
        };
        let cosine = found.into_iter().map(|(cosine, ..)| cosine).collect();
        Ok(Similar { tower: name, items: names, cosine })
    }
}

/// The number and the name of the tower that is meant.
fn tower(model: &Model, request: &SimilarRequest) -> Result<(usize, String)> {
    let towers = model.image_towers();
    let at = match &request.tower {
        _ if towers.is_empty() => {
            let what = "it has no image tower; `similar` needs a model trained with model.images = ad, behavior or joint".to_owned();
            return Err(Error::Model { what });
        }
        None => 0,
        Some(name) => towers.iter().position(|tower| tower == name).ok_or_else(|| {
            Error::request(format!("tower: no tower {name:?}; the model has {}", towers.join(", ")))
        })?,
    };
    Ok((at, towers[at].clone()))
}

/// The row of the item that is asked about, if it is one, and the picture.
fn asked(model: &Model, request: &SimilarRequest) -> Result<(Option<Item>, PictureName)> {
    match (&request.item, &request.picture) {
        (Some(Text(item)), None) => {
            let row = model.items().find(item);
            let row = row.ok_or_else(|| {
                Error::request(format!("item: the bundle does not list {item:?}"))
            })?;
            let picture = model.items().picture(row);
            if !picture.is_some() {
                return Err(Error::request(format!("item: {item:?} has no picture")));
            }
            Ok((Some(row), picture))
        }
        (None, Some(Text(picture))) => Ok((None, PictureName::of(picture))),
        (got, _) => {
            let got = if got.is_some() { "both are" } else { "neither is" };
            Err(Error::request(format!("item and picture: {got} there, expected one of them")))
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// The cosine of `vector`, which is so long, and `other`.
fn cosine(vector: &[f32], length: f64, other: &[f32]) -> f32 {
    let lengths = length * dot(other, other).sqrt();
    if lengths > 0.0 { (dot(vector, other) / lengths) as f32 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, with};
    use crate::spec::{Spec, TowerSharing};
    use ams_model::{ImageArm, Similarity};

    /// Items and pictures of the fixture that have embeddings.
    const KNOWN: [(&str, &str); 4] =
        [("1", "1.png"), ("3", "3.png"), ("4", "4.png"), ("6", "1.png")];

    fn request(json: &str) -> SimilarRequest {
        SimilarRequest::parse(json.as_bytes()).unwrap()
    }

    /// The cosines of `picture` and every known item's picture, the slow and obvious way.
    fn slow(model: &Model, tower: usize, picture: &str) -> Vec<(&'static str, f64)> {
        let vector = |picture: &str| {
            let key = model.image(PictureName::of(picture));
            model.embedding(tower, key).unwrap().iter().map(|&x| f64::from(x)).collect::<Vec<_>>()
        };
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        let asked = vector(picture);
        let cosine = |picture: &str| {
            let other = vector(picture);
            let dot: f64 = asked.iter().zip(&other).map(|(a, b)| a * b).sum();
            dot / norm(&asked) / norm(&other)
        };
        let mut all: Vec<_> = KNOWN.iter().map(|(item, of)| (*item, cosine(of))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all
    }

    #[test]
    fn what_is_near_is_what_brute_force_finds() {
        let model = Fixture::new(ImageArm::Joint).model();
        for (tower, name) in ["ad", "behavior"].into_iter().enumerate() {
            for (item, picture) in KNOWN {
                let near = |json: String| {
                    let similar = model.similar(&request(&json)).unwrap();
                    assert_eq!(similar.tower, name);
                    similar
                };
                let by_item = near(format!(r#"{{"item": "{item}", "tower": "{name}"}}"#));
                let by_picture = near(format!(r#"{{"picture": "{picture}", "tower": "{name}"}}"#));
                let expected = slow(&model, tower, picture);
                let others = expected.iter().filter(|(other, _)| *other != item);
                for (got, expected) in [
                    (&by_item, others.collect::<Vec<_>>()),
                    (&by_picture, expected.iter().collect()),
                ] {
                    assert_eq!(got.items.len(), expected.len());
                    for (cosine, (_, expected)) in got.cosine.iter().zip(&expected) {
                        assert!((f64::from(*cosine) - expected).abs() < 1e-6, "{got:?}");
                    }
                    for (item, cosine) in got.items.iter().zip(&got.cosine) {
                        let of = expected.iter().find(|(known, _)| known == item).unwrap().1;
                        assert!((f64::from(*cosine) - of).abs() < 1e-6, "{item}");
                    }
                }
                let two =
                    near(format!(r#"{{"picture": "{picture}", "tower": "{name}", "top_k": 2}}"#));
                assert_eq!(two.items, by_picture.items[..2]);
            }
        }
        // A number means its text, and the first tower is asked.
        let first = model.similar(&request(r#"{"item": 1}"#)).unwrap();
        assert_eq!((&first.tower[..], first.items[0], first.cosine[0]), ("ad", "6", 1.0));
    }

    #[test]
    fn nothing_is_like_an_embedding_of_zeros() {
        let others = [[0.0, 0.0], [6.0, 8.0], [-4.0, 3.0], [-3.0, -4.0]];
        let cosines = others.map(|other| cosine(&[3.0, 4.0], 5.0, &other));
        assert_eq!(cosines, [0.0, 1.0, 0.0, -1.0]);
        assert_eq!(cosine(&[0.0], 0.0, &[1.0]), 0.0);
    }

    #[test]
    fn what_is_asked_has_to_be_known() {
        let model = Fixture::new(ImageArm::Joint).model();
        for (json, expected) in [
            ("{}", "request: item and picture: neither is there, expected one of them"),
            (
                r#"{"item": "1", "picture": "1.png"}"#,
                "request: item and picture: both are there, expected one of them",
            ),
            (r#"{"item": "77"}"#, "request: item: the bundle does not list \"77\""),
            (r#"{"item": "2"}"#, "request: item: \"2\" has no picture"),
            (r#"{"item": "5"}"#, "request: the model has no embedding of the picture"),
            (r#"{"picture": "x.png"}"#, "request: the model has no embedding of the picture"),
            (r#"{"item": "1", "top_k": 0}"#, "request: top_k is 0, expected 1 to 1000"),
            (r#"{"item": "1", "top_k": 1001}"#, "request: top_k is 1001, expected 1 to 1000"),
            (
                r#"{"item": "1", "tower": "both"}"#,
                "request: tower: no tower \"both\"; the model has ad, behavior",
            ),
        ] {
            assert_eq!(model.similar(&request(json)).unwrap_err().to_string(), expected);
        }
        let error = SimilarRequest::parse(br#"{"items": "1"}"#).unwrap_err().to_string();
        assert!(error.starts_with("request: items: unknown field `items`"), "{error}");
        let blind = Fixture::new(ImageArm::None).model();
        let error = blind.similar(&request(r#"{"item": "1"}"#)).unwrap_err().to_string();
        assert!(error.starts_with("the model: it has no image tower"), "{error}");
        let spec = crate::fixture::spec(ImageArm::None);
        let spec = with(&Spec { sharing: TowerSharing::Shared, ..spec }, |n| {
            n.similarity = Similarity::Cosine
        });
        let sketches = Fixture::of(spec).model();
        assert_eq!(sketches.similar(&request(r#"{"item": "1"}"#)).unwrap().tower, "sketch");
    }
}
