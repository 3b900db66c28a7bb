//! The items a bundle knows: picture and fields of each, so that a request only has to name them.
//!
//! ```text
//! items.safetensors     items u64 (i) hashed, ascending; pictures u64 (i) hashed names, 0 none;
//!                       field.<name>.lengths u32 (i) and .ids u64 for each item field
//! ```

use ams_data::catalogue::Catalogue;
use ams_data::schema::ITEM;
use ams_data::{Id, PictureName, Ragged};

use crate::error::{Error, Result};
use crate::folder::{FolderWriter, Tensor};
use crate::index::Index;
use crate::tensors::{TensorFile, lengths};

/// The file's name.
pub const ITEMS: &str = "items.safetensors";

/// All items by hash. An item is named by its position ("row").
#[derive(Clone, Debug)]
pub struct Items {
    index: Index,
    pictures: Vec<PictureName>,
    fields: Vec<(String, Ragged<Id>)>,
}

impl Items {
    /// Number of items.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The row of an item given by its text.
    pub fn find(&self, item: &str) -> Option<usize> {
        self.index.find(Id::of(ITEM, item).0).map(|row| row as usize)
    }

    /// The picture of item `row`.
    pub fn picture(&self, row: usize) -> PictureName {
        self.pictures[row]
    }

    /// The values of the item field `name`, by row.
    pub fn field(&self, name: &str) -> Option<&Ragged<Id>> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// Writes `items.safetensors`: the items of `catalogue`. Returns how many there are.
    ///
    /// # Errors
    /// If it cannot be written, or two items have one hash.
    pub fn write(catalogue: &Catalogue, folder: &mut FolderWriter) -> Result<usize> {
        let mut order: Vec<(u64, usize)> =
            (0..catalogue.len()).map(|row| (Id::of(ITEM, catalogue.item(row)).0, row)).collect();
        order.sort_unstable();
        if let Some(pair) = order.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [first, second] = [pair[0].1, pair[1].1].map(|row| catalogue.item(row));
            let what = format!("the items {first:?} and {second:?} have one hash; rename one");
            return Err(Error::content(ITEMS, what));
        }
        let items: Vec<u64> = order.iter().map(|&(item, _)| item).collect();
        let picture = |row| catalogue.image(row).map_or(PictureName::NONE, PictureName::of);
        let pictures: Vec<u64> = order.iter().map(|&(_, row)| picture(row).0).collect();
        let mut tensors = vec![Tensor::u64("items", &items), Tensor::u64("pictures", &pictures)];
        let columns: Vec<([String; 2], Vec<u32>, Vec<Id>)> = (0..catalogue.fields().len())
            .map(|place| {
                let column = column(catalogue, place, &order);
                let names = names(&catalogue.fields()[place].name);
                (names, lengths(&column.offsets), column.values)
            })
            .collect();
        for (names, lengths, ids) in &columns {
            tensors.push(Tensor::u32(&names[0], lengths));
            tensors.push(Tensor::u64(&names[1], bytemuck::cast_slice(ids)));
        }
        folder.add_tensors(ITEMS, &tensors)?;
        Ok(items.len())
    }

    /// Reads what [`Items::write`] wrote, with the item fields of these names.
    ///
    /// # Errors
    /// If a tensor is missing or of another length, or the items are not ascending.
    pub fn read<'a>(file: &TensorFile, fields: impl Iterator<Item = &'a str>) -> Result<Items> {
        let index = file.index("items")?;
        let pictures = file.u64s("pictures", index.len())?.into_iter().map(PictureName).collect();
        let fields = fields
            .map(|name| Ok((name.to_owned(), file.ragged(&names(name), index.len())?)))
            .collect::<Result<_>>()?;
        Ok(Items { index, pictures, fields })
    }
}

fn names(field: &str) -> [String; 2] {
    [format!("field.{field}.lengths"), format!("field.{field}.ids")]
}

/// One item field in the order of the hashes.
fn column(catalogue: &Catalogue, place: usize, order: &[(u64, usize)]) -> Ragged<Id> {
    let name = &catalogue.fields()[place].name;
    let mut column = Ragged::default();
    for &(_, row) in order {
        let before = column.values.len();
        column.values.extend(catalogue.values(place, row).map(|raw| Id::of(name, raw)));
        column.offsets.push(column.values.len() - before);
    }
    column
}
