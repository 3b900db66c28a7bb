//! The items a bundle knows: picture and fields of each, so that a request only has to name them.
//!
//! ```text
//! items.safetensors     items u64 (i) hashed, ascending; pictures u64 (i) hashed names, 0 none;
//!                       names.lengths u32 (i), names.bytes u8: their texts, absent from bundles of before;
//!                       field.<name>.lengths u32 (i) and .ids u64 for each item field
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use ams_data::catalogue::Catalogue;
use ams_data::schema::ITEM;
use ams_data::{Field, Id, PictureName, Ragged, Schema, Side};

use crate::error::{Error, Result};
use crate::files::folder::{FolderWriter, Tensor};
use crate::files::tensors::{TensorFile, Texts, lengths};
use crate::tables::layer::{Layered, MergeSource, Position, SortedTable, Values};

/// Name of the file in a bundle or delta.
pub(crate) const ITEMS: &str = "items.safetensors";

/// The tensors of the items' texts, for answers that name other items than the request.
pub(crate) const NAMES: [&str; 2] = ["names.lengths", "names.bytes"];

/// All items by hash.
#[derive(Clone, Debug)]
pub struct Items {
    /// How the texts of items are read.
    key: Field,
    fields: Vec<Field>,
    table: Layered<ItemFields>,
}

/// An item that is known, of the [`Items`] that found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item(Position);

/// Pictures, names and fields of items, in the order of their hashes.
#[derive(Clone, Debug, Default)]
pub(crate) struct ItemFields {
    pictures: Vec<PictureName>,
    /// Absent from bundles of before.
    names: Option<Texts>,
    /// In the order of [`Items::fields`].
    fields: Vec<Ragged<Id>>,
}

impl Values for ItemFields {
    fn merged(&self, newer: &ItemFields, order: &[MergeSource]) -> ItemFields {
        let of = |from: &MergeSource| match *from {
            MergeSource::Older(at) => (self, at),
            MergeSource::Newer(at) => (newer, at),
        };
        let pictures = order.iter().map(of).map(|(of, at)| of.pictures[at]).collect();
        let fields = (0..self.fields.len()).map(|field| {
            let mut column = Ragged::default();
            order.iter().map(of).for_each(|(of, at)| column.push(of.fields[field].row(at)));
            column
        });
        // What lies over a bundle comes from deltas, which have names.
        let name = |(of, at): (&ItemFields, usize)| {
            of.names.as_ref().map_or(String::new(), |names| names.row(at).to_owned())
        };
        let names = Some(order.iter().map(of).map(name).collect());
        ItemFields { pictures, names, fields: fields.collect() }
    }
}

impl Items {
    /// An item given by its text, in any spelling of it.
    pub fn find(&self, item: &str) -> Option<Item> {
        self.find_id(self.key.id(item).ok()??)
    }

    /// An item given by its id.
    pub fn find_id(&self, item: Id) -> Option<Item> {
        self.table.find(item.0).map(Item)
    }

    /// The text of an item as the bundle spells it.
    ///
    /// # Errors
    /// If it is missing, or cannot be an item.
    pub fn text<'a>(&self, item: &'a str) -> std::result::Result<Cow<'a, str>, String> {
        let text = self.key.value(item)?;
        if text.is_empty() { Err(format!("`{item}` is no item")) } else { Ok(text) }
    }

    /// Whether a text says that there is no item, as where a history is filled up to some length.
    pub fn is_missing(&self, item: &str) -> bool {
        self.key.value(item).is_ok_and(|text| text.is_empty())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.table.all().len()
    }

    /// The picture of an item.
    pub fn picture(&self, item: Item) -> PictureName {
        let (fields, at) = self.table.at(item.0);
        fields.pictures[at]
    }

    /// The place of the item field `name`, for [`Items::values`].
    pub fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|known| known.name == name)
    }

    /// The values of an item in the field at `place`.
    pub fn values(&self, place: usize, item: Item) -> &[Id] {
        let (fields, at) = self.table.at(item.0);
        fields.fields[place].row(at)
    }

    /// The text of an item, if the bundle has it.
    pub fn name(&self, item: Item) -> Option<&str> {
        let (fields, at) = self.table.at(item.0);
        fields.names.as_ref().map(|names| names.row(at))
    }

    /// All items, and their hashes.
    pub fn all(&self) -> impl Iterator<Item = (u64, Item)> {
        self.table.all().into_iter().map(|(hash, found)| (hash, Item(found)))
    }

    /// What deltas brought: hashes, and the items, or none for those that are gone.
    pub(crate) fn changes(&self) -> impl Iterator<Item = (u64, Option<Item>)> {
        self.table.changes().map(|(hash, found)| (hash, found.map(Item)))
    }

    /// The field that items are named by.
    pub(crate) fn key(&self) -> &Field {
        &self.key
    }

    /// The fields of items, in the order of their places.
    pub(crate) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// A copy with the changes of a delta.
    pub(crate) fn apply(&self, delta: &Arc<SortedTable<ItemFields>>) -> Items {
        let (key, fields) = (self.key.clone(), self.fields.clone());
        Items { key, fields, table: self.table.apply(delta) }
    }

    /// Writes `items.safetensors`: the items of `catalogue`, read as `schema` says. Returns how
    /// many there are.
    ///
    /// # Errors
    /// If it cannot be written, two items have one hash, or a value cannot be read.
    pub fn write(
        catalogue: &Catalogue,
        schema: &Schema,
        folder: &mut FolderWriter,
    ) -> Result<usize> {
        let key = key(schema);
        let hash = |row| {
            let item: &str = catalogue.item(row);
            let id = key.id(item).map_err(|what| Error::content(ITEMS, what))?;
            let id = id.ok_or_else(|| Error::content(ITEMS, format!("{item:?} is no item")))?;
            Ok((id.0, row))
        };
        let mut order = (0..catalogue.len()).map(hash).collect::<Result<Vec<(u64, usize)>>>()?;
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
        let texts = || order.iter().map(|&(_, row)| catalogue.item(row));
        let name_lengths: Vec<u32> = texts().map(|text| text.len() as u32).collect();
        let name_bytes: String = texts().collect();
        tensors.push(Tensor::u32(NAMES[0], &name_lengths));
        tensors.push(Tensor::u8(NAMES[1], name_bytes.as_bytes()));
        let columns: Vec<([String; 2], Vec<u32>, Vec<Id>)> = (0..catalogue.fields().len())
            .map(|place| {
                let column = column(catalogue, place, &order)?;
                let names = names(&catalogue.fields()[place].name);
                Ok((names, lengths(&column.offsets), column.values))
            })
            .collect::<Result<_>>()?;
        for (names, lengths, ids) in &columns {
            tensors.push(Tensor::u32(&names[0], lengths));
            tensors.push(Tensor::u64(&names[1], bytemuck::cast_slice(ids)));
        }
        folder.add_tensors(ITEMS, &tensors)?;
        Ok(items.len())
    }

    /// Reads what [`Items::write`] wrote, with the item fields of `schema`.
    ///
    /// # Errors
    /// If a tensor is missing or of another length, or the items are not ascending.
    pub fn read(file: &TensorFile, schema: &Schema) -> Result<Items> {
        let fields = schema.side(Side::Ad).filter(|field| field.name != ITEM);
        let fields: Vec<Field> = fields.cloned().collect();
        let table = Layered::new(read(file, &fields)?);
        Ok(Items { key: key(schema), fields, table })
    }
}

/// The field that items are named by.
fn key(schema: &Schema) -> Field {
    let key = schema.side(Side::Ad).find(|field| field.name == ITEM);
    key.cloned().unwrap_or_else(|| Field::verbatim(ITEM, Side::Ad, false))
}

/// Reads items with the fields `fields`.
pub(crate) fn read(file: &TensorFile, fields: &[Field]) -> Result<SortedTable<ItemFields>> {
    let (index, gone) = file.keys("items")?;
    let pictures = file.u64s("pictures", index.len())?;
    let fields = fields.iter().map(|field| file.ragged(&names(&field.name), index.len()));
    let fields = fields.collect::<Result<Vec<_>>>()?;
    let pictures = pictures.iter().copied().map(PictureName).collect();
    let texts = file.texts(NAMES, index.len())?;
    Ok(SortedTable::new(index, gone, ItemFields { pictures, names: texts, fields }))
}

pub(crate) fn names(field: &str) -> [String; 2] {
    [format!("field.{field}.lengths"), format!("field.{field}.ids")]
}

/// One item field in the order of the hashes.
fn column(catalogue: &Catalogue, place: usize, order: &[(u64, usize)]) -> Result<Ragged<Id>> {
    let field = &catalogue.fields()[place];
    let mut column = Ragged::default();
    for &(_, row) in order {
        let before = column.values.len();
        for text in catalogue.values(place, row) {
            let id = field.id(text).map_err(|what| {
                let item = catalogue.item(row);
                Error::content(ITEMS, format!("item {item:?}, field `{}`: {what}", field.name))
            })?;
            column.values.extend(id);
        }
        column.offsets.push(column.values.len() - before);
    }
    Ok(column)
}
