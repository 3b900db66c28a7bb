//! A dataset folder: its card and where its files are. Does not read or write samples.

use std::fs;
use std::path::{Path, PathBuf};

use crate::schema::{
    BEHAVIORS, Card, FORMAT, FieldKind, IMAGE, IMPRESSIONS, ITEM, LABEL, Schema, Side, TIME, USER,
};
use crate::{Error, Result, staging};

/// File name of the card.
pub const CARD: &str = "dataset.json";

/// File name of the catalogue.
pub const ITEMS: &str = "items.parquet";

/// The two halves of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SplitName {
    /// What models learn from.
    Train,
    /// What they are judged by; later in time.
    Test,
}

impl SplitName {
    /// Both splits, train before test.
    pub const ALL: [SplitName; 2] = [SplitName::Train, SplitName::Test];

    /// The name of the split's folder in a dataset.
    pub fn as_str(self) -> &'static str {
        match self {
            SplitName::Train => "train",
            SplitName::Test => "test",
        }
    }
}

/// A dataset on disk: a folder with a card that this build understands.
#[derive(Clone, Debug)]
pub struct Dataset {
    dir: PathBuf,
    card: Card,
}

impl Dataset {
    /// Reads the card of `dir`. The card is written last: a folder without one is no dataset.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Content`] if there is no card, or it has another format version,
    /// an unknown or missing key, or contradicts itself.
    pub fn open(dir: impl AsRef<Path>) -> Result<Dataset> {
        let dir = dir.as_ref();
        let path = dir.join(CARD);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound if !dir.is_dir() => {
                Error::content(dir, "no such folder; expected a dataset, as `prepare` makes it")
            }
            std::io::ErrorKind::NotFound => Error::content(
                dir,
                format!("not a dataset: it has no {CARD}, which `prepare` writes last"),
            ),
            _ => Error::Io { path: path.clone(), source: error },
        })?;
        Ok(Dataset { dir: dir.to_path_buf(), card: parse_card(&path, &text)? })
    }

    /// The folder that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The contents of `dataset.json`.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// The fields, in the order of the sample files' columns.
    pub fn schema(&self) -> &Schema {
        &self.card.fields
    }

    /// The sample file of part `part`. A part without groups still has its file.
    pub fn part_path(&self, split: SplitName, part: usize) -> PathBuf {
        part_path(&self.dir, split, part)
    }

    /// Path of `items.parquet`, whether or not it exists.
    pub(crate) fn items_path(&self) -> PathBuf {
        self.dir.join(ITEMS)
    }
}

/// The sample file of part `part` of the dataset in `dir`.
pub fn part_path(dir: &Path, split: SplitName, part: usize) -> PathBuf {
    dir.join(split.as_str()).join(format!("part-{part:02}.parquet"))
}

/// Writes the card into `dir`, which thereby becomes a dataset. To be called last.
///
/// # Errors
/// [`Error::Io`] if the folder cannot be written.
pub fn write_card(dir: &Path, card: &Card) -> Result<()> {
    let mut text = serde_json::to_string_pretty(card).expect("a card has string keys only");
    text.push('\n');
    staging::write_whole(&dir.join(CARD), &text)
}

fn parse_card(path: &Path, text: &str) -> Result<Card> {
    let wrong = |what: String| Error::content(path, what);
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| wrong(format!("not JSON: {error}")))?;
    match value.get("format").and_then(serde_json::Value::as_str) {
        None => {
            return Err(wrong(format!("not a dataset card: no `format`; expected \"{FORMAT}\"")));
        }
        Some(FORMAT) => {}
        Some(other) => {
            return Err(wrong(format!(
                "format \"{other}\"; this build reads \"{FORMAT}\": prepare the dataset again"
            )));
        }
    }
    // Parsed from the text again, for the line and column in the message.
    let card: Card = serde_json::from_str(text)
        .map_err(|error| wrong(format!("not a dataset card: {error}")))?;
    check_card(&card).map_err(wrong)?;
    Ok(card)
}

fn check_card(card: &Card) -> Result<(), String> {
    if !card.parts.is_power_of_two() {
        return Err(format!("parts is {}; expected a power of two", card.parts));
    }
    check_schema(&card.fields)
}

/// That `user` and `item` are there, nothing is there twice, and no field has a reserved name.
pub(crate) fn check_schema(schema: &Schema) -> Result<(), String> {
    for (side, name) in [(Side::User, USER), (Side::Behavior, ITEM), (Side::Ad, ITEM)] {
        if !schema.side(side).any(|field| field.name == name && !field.multi) {
            return Err(format!("no field `{name}` of side {side:?}"));
        }
    }
    for (at, field) in schema.fields.iter().enumerate() {
        let twice = |other: &&crate::Field| {
            other.name == field.name && columns_of(other.side) == columns_of(field.side)
        };
        if schema.fields[..at].iter().any(|other| twice(&other)) {
            return Err(format!("two fields `{}` among {}", field.name, columns_of(field.side)));
        }
        if let Some(why) = reserved(field.side, &field.name) {
            return Err(why);
        }
        let kind = match &field.kind {
            Some(FieldKind::List { .. }) if !field.multi => Some("a list, but not multi"),
            Some(FieldKind::Numeric { .. } | FieldKind::Categorical) if field.multi => {
                Some("multi, so its kind is list")
            }
            Some(FieldKind::Numeric { .. }) if matches!(&field.name[..], USER | ITEM) => {
                Some("numeric; expected categorical")
            }
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(format!("field `{}` of side {:?} is {kind}", field.name, field.side));
        }
        let other = schema.fields[..at].iter().find(|other| other.name == field.name);
        if other.is_some_and(|other| other.kind != field.kind || other.multi != field.multi) {
            return Err(format!(
                "field `{}` is of one kind on one side and of another on the other; the same name means the same ids",
                field.name
            ));
        }
    }
    Ok(())
}

/// Where the columns of a side stand in a sample file; fields of the same place need different
/// names.
fn columns_of(side: Side) -> &'static str {
    match side {
        Side::User => "the columns",
        Side::Behavior => "`behaviors`",
        Side::Ad | Side::Context => "`impressions`",
    }
}

fn reserved(side: Side, name: &str) -> Option<String> {
    let taken: &[&str] = match side {
        Side::User => &[BEHAVIORS, IMPRESSIONS],
        Side::Behavior => &[IMAGE, TIME],
        Side::Ad => &[IMAGE, TIME, LABEL],
        Side::Context => &[ITEM, IMAGE, TIME, LABEL],
    };
    let clash = taken.contains(&name) || name.is_empty();
    clash.then(|| {
        format!("a field of side {side:?} cannot be called `{name}`; give it another name")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> String {
        let fields = r#"[{"name":"user","side":"user"},{"name":"item","side":"behavior"},
            {"name":"item","side":"ad"}]"#;
        format!(
            r#"{{"format":"{FORMAT}","name":"t","parts":4,"fields":{fields},"split":{{"time":{{"test_from":7}}}},
            "labels":"observed","max_behaviors":50,"counts":{{"users":1,"items":1,"items_with_image":0,"groups":1,
            "impressions":1,"clicks":1,"behaviors_mean":0.0,"train":1,"test":0}}}}"#
        )
    }

    fn error(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CARD), text).unwrap();
        let error = Dataset::open(dir.path()).expect_err("a wrong card").to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    }

    #[test]
    fn opens_a_card_and_writes_it_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CARD), card()).unwrap();
        let dataset = Dataset::open(dir.path()).unwrap();
        assert_eq!(dataset.card().parts, 4);
        write_card(dir.path(), dataset.card()).unwrap();
        assert_eq!(Dataset::open(dir.path()).unwrap().card(), dataset.card());
        let part = dataset.part_path(SplitName::Test, 3);
        assert_eq!(part, dir.path().join("test").join("part-03.parquet"));
    }

    #[test]
    fn a_folder_without_a_card() {
        let dir = tempfile::tempdir().unwrap();
        let error = Dataset::open(dir.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("not a dataset: it has no dataset.json, which `prepare` writes last")
        );
    }

    #[test]
    fn another_format_version() {
        let found = error(&card().replace("ams-dataset/1", "ams-dataset/9"));
        assert_eq!(
            found,
            "DIR/dataset.json: format \"ams-dataset/9\"; this build reads \"ams-dataset/1\": prepare the dataset again"
        );
    }

    #[test]
    fn an_unknown_key() {
        let found = error(&card().replace("max_behaviors", "max_behaviours"));
        assert!(found.contains("unknown field `max_behaviours`"), "{found}");
        assert!(found.contains("line 3 column"), "{found}");
    }

    #[test]
    fn a_missing_user_field() {
        let found = error(&card().replace(r#"{"name":"user","side":"user"},"#, ""));
        assert_eq!(found, "DIR/dataset.json: no field `user` of side User");
    }

    #[test]
    fn a_field_twice() {
        let twice =
            r#"{"name":"hour","side":"ad"},{"name":"hour","side":"context"},{"name":"user""#;
        let found = error(&card().replace(r#"{"name":"user""#, twice));
        assert_eq!(found, "DIR/dataset.json: two fields `hour` among `impressions`");
    }
}
