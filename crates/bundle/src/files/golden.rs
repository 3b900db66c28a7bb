//! Scores a bundle carries to prove itself: a few groups, and what the trainer's network said of
//! them.
//!
//! ```text
//! golden.safetensors    logits f32 (B); users u64 (G); behaviors, impressions: lengths u32 (G);
//!                       behavior_pictures u64 (N), ad_pictures u64 (B);
//!                       <side>.<place>.lengths u32 and .ids u64 for each field of each side
//! ```
//! Labels and times are not there: no score depends on them. Of a model that sees the ages of
//! behaviors there is `ages` u64 (N), in seconds.

use ams_data::{Groups, Id, PictureName, Ragged};

use crate::error::Result;
use crate::files::folder::{FolderWriter, Tensor};
use crate::files::tensors::{TensorFile, lengths};
use crate::spec::Spec;

/// Name of the file in a bundle.
pub(crate) const GOLDEN: &str = "golden.safetensors";

/// A few groups and the logits of their impressions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Golden {
    /// Groups without labels and times.
    pub groups: Groups,
    /// Logits of the trainer's network; (B).
    pub logits: Vec<f32>,
}

impl Golden {
    /// Writes `golden.safetensors`, with the ages of behaviors if the model of `spec` sees them.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, spec: &Spec, folder: &mut FolderWriter) -> Result<()> {
        let Groups { users, behaviors, impressions, behavior_pictures, ad_pictures, .. } =
            &self.groups;
        let columns: Vec<Column> = sides(&self.groups)
            .flat_map(|(side, columns)| {
                columns.iter().enumerate().map(move |(place, ids)| Column::of(side, place, ids))
            })
            .collect();
        let (behaviors, impressions) = (lengths(behaviors), lengths(impressions));
        let mut tensors = vec![
            Tensor::f32("logits", &[self.logits.len()], &self.logits),
            Tensor::u64("users", bytemuck::cast_slice(users)),
            Tensor::u32("behaviors", &behaviors),
            Tensor::u32("impressions", &impressions),
            Tensor::u64("behavior_pictures", bytemuck::cast_slice(behavior_pictures)),
            Tensor::u64("ad_pictures", bytemuck::cast_slice(ad_pictures)),
        ];
        for column in &columns {
            tensors.push(Tensor::u32(&column.names[0], &column.lengths));
            tensors.push(Tensor::u64(&column.names[1], bytemuck::cast_slice(column.ids)));
        }
        let groups = &self.groups;
        let ages: Vec<u64> = (0..groups.len()).flat_map(|group| groups.ages(group)).collect();
        if spec.sees_ages() {
            tensors.push(Tensor::u64("ages", &ages));
        }
        folder.add_tensors(GOLDEN, &tensors)
    }

    /// Reads what [`Golden::write`] wrote for the model of `spec`. Every impression is at time 0.
    ///
    /// # Errors
    /// If a tensor is missing or does not have the length it must have.
    pub fn read(file: &TensorFile, spec: &Spec) -> Result<Golden> {
        let users = file.u64("users")?;
        let mut groups = Groups::new(&spec.fields);
        groups.behaviors = file.offsets("behaviors", users.len())?;
        groups.impressions = file.offsets("impressions", users.len())?;
        let (behaviors, impressions) = (groups.behaviors.total(), groups.impressions.total());
        groups.behavior_pictures = pictures(file, "behavior_pictures", behaviors)?;
        groups.ad_pictures = pictures(file, "ad_pictures", impressions)?;
        for (side, columns, rows) in [
            ("user", &mut groups.user_fields, users.len()),
            ("behavior", &mut groups.behavior_fields, behaviors),
            ("ad", &mut groups.ad_fields, impressions),
            ("context", &mut groups.context_fields, impressions),
        ] {
            for (place, column) in columns.iter_mut().enumerate() {
                *column = file.ragged(&Column::names(side, place), rows)?;
            }
        }
        groups.users = users.iter().copied().map(Id).collect();
        groups.labels = vec![0; impressions];
        groups.times = vec![0; impressions];
        groups.behavior_times = match spec.sees_ages() {
            true => file
                .u64s("ages", behaviors)?
                .iter()
                .map(|&age| 0_i64.saturating_sub_unsigned(age))
                .collect(),
            false => vec![0; behaviors],
        };
        Ok(Golden { groups, logits: file.f32("logits", &[impressions])?.to_vec() })
    }
}

/// One field's column on its way into the file.
struct Column<'a> {
    names: [String; 2],
    lengths: Vec<u32>,
    ids: &'a [Id],
}

impl Column<'_> {
    fn of<'a>(side: &str, place: usize, column: &'a Ragged<Id>) -> Column<'a> {
        let names = Column::names(side, place);
        Column { names, lengths: lengths(&column.offsets), ids: &column.values }
    }

    fn names(side: &str, place: usize) -> [String; 2] {
        [format!("{side}.{place}.lengths"), format!("{side}.{place}.ids")]
    }
}

fn sides(groups: &Groups) -> impl Iterator<Item = (&'static str, &[Ragged<Id>])> {
    [
        ("user", &groups.user_fields[..]),
        ("behavior", &groups.behavior_fields),
        ("ad", &groups.ad_fields),
        ("context", &groups.context_fields),
    ]
    .into_iter()
}

fn pictures(file: &TensorFile, name: &str, rows: usize) -> Result<Vec<PictureName>> {
    Ok(file.u64s(name, rows)?.iter().copied().map(PictureName).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::files::folder::serialize;
    use crate::files::numbers::Bytes;
    use crate::fixture::{Fixture, spec};
    use ams_model::ImageArm;

    #[test]
    fn groups_and_logits_come_back() {
        let fixture = Fixture::new(ImageArm::Joint);
        fixture.write(1).unwrap();
        let bytes = std::fs::read(fixture.place(1).join(GOLDEN)).unwrap();
        let file = TensorFile::new(Path::new(GOLDEN), Bytes::Owned(bytes)).unwrap();
        assert_eq!(Golden::read(&file, &fixture.spec).unwrap(), fixture.golden);
    }

    #[test]
    fn contradictions_are_refused() {
        let read = |behaviors: &[u32], pictures: &[u64]| {
            let tensors = [
                Tensor::u64("users", &[7]),
                Tensor::u32("behaviors", behaviors),
                Tensor::u32("impressions", &[0]),
                Tensor::u64("behavior_pictures", pictures),
            ];
            let file = TensorFile::new(Path::new("g"), Bytes::Owned(serialize(&tensors).unwrap()))
                .unwrap();
            Golden::read(&file, &spec(ImageArm::None)).unwrap_err().to_string()
        };
        assert_eq!(read(&[1, 2], &[]), "g: tensor `behaviors` has 2 values, expected 1");
        assert_eq!(read(&[2], &[1]), "g: tensor `behavior_pictures` has 1 values, expected 2");
    }
}
