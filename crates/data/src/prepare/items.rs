//! The catalogue while it is being collected: items as they come, named by numbers; sorted in the
//! end.

use arrow_array::LargeStringArray;
use arrow_array::builder::LargeStringBuilder;
use hashbrown::HashTable;

use crate::Field;
use crate::catalogue::Catalogue;

/// Texts end to end; text `i` is named by its number.
#[derive(Default)]
pub(crate) struct Texts {
    bytes: String,
    ends: Vec<usize>,
}

impl Texts {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn push(&mut self, text: &str) {
        self.bytes.push_str(text);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn get(&self, at: usize) -> &str {
        let begin = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[begin..self.ends[at]]
    }
}

#[derive(Default)]
pub(crate) struct Interner {
    texts: Texts,
    numbers: HashTable<u32>,
}

impl Interner {
    /// The number of `text`, and whether it is new.
    pub(crate) fn intern(&mut self, text: &str) -> (u32, bool) {
        let hash = |text: &str| xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        let texts = &mut self.texts;
        let same = |&number: &u32| texts.get(number as usize) == text;
        if let Some(&number) = self.numbers.find(hash(text), same) {
            return (number, false);
        }
        let number = u32::try_from(texts.len()).expect("fewer than 2^32 texts");
        texts.push(text);
        self.numbers.insert_unique(hash(text), number, |&other| hash(texts.get(other as usize)));
        (number, true)
    }

    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }

    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The numbers in order of their texts.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.texts.len() as u32).collect();
        order.sort_unstable_by(|&a, &b| self.texts.get(a as usize).cmp(self.texts.get(b as usize)));
        order
    }
}

/// What a row of the items table was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    /// The first of its item.
    New,
    /// The same as the first.
    Same,
    /// Another than the first.
    Other,
}

/// Items as they come: those of the items table first, with their images and fields, then those
/// only the events know.
#[derive(Default)]
pub(crate) struct Items {
    names: Interner,
    images: Texts,
    columns: Vec<Texts>,
    fields: Vec<Field>,
}

impl Items {
    pub(crate) fn new(fields: Vec<Field>) -> Items {
        let columns = fields.iter().map(|_| Texts::default()).collect();
        Items { names: Interner::default(), images: Texts::default(), columns, fields }
    }

    /// Adds a row of the items table; the first row of an item counts.
    pub(crate) fn add(&mut self, item: &str, image: &str, values: &[String]) -> Added {
        let (number, new) = self.names.intern(item);
        let at = number as usize;
        if new {
            self.images.push(image);
            self.columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            return Added::New;
        }
        let same = self.images.get(at) == image
            && self.columns.iter().zip(values).all(|(column, value)| column.get(at) == value);
        if same { Added::Same } else { Added::Other }
    }

    /// The text of item `number`.
    pub(crate) fn text(&self, number: usize) -> &str {
        self.names.texts.get(number)
    }

    /// The number of an item of the events.
    pub(crate) fn number(&mut self, item: &str) -> u32 {
        self.names.intern(item).0
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// The catalogue, and for each number its row there.
    pub(crate) fn finish(self) -> (Catalogue, Vec<u32>) {
        let order = self.names.sorted();
        let mut rows = vec![0; order.len()];
        for (row, &number) in order.iter().enumerate() {
            rows[number as usize] = row as u32;
        }
        let items: LargeStringArray =
            order.iter().map(|&number| Some(self.names.texts.get(number as usize))).collect();
        let images = column(&self.images, &order);
        let columns = self.columns.iter().map(|texts| column(texts, &order)).collect();
        (Catalogue::new(items, images, self.fields, columns), rows)
    }
}

/// The texts in the order of `order`; empty texts, and those of items without a row, are null.
fn column(texts: &Texts, order: &[u32]) -> LargeStringArray {
    let mut builder = LargeStringBuilder::new();
    for &number in order {
        let text = if (number as usize) < texts.len() { texts.get(number as usize) } else { "" };
        builder.append_option((!text.is_empty()).then_some(text));
    }
    builder.finish()
}
