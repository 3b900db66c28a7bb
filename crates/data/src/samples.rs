//! Sample files: groups in Parquet, one row per group. Knows the layout; does not know how groups
//! are made.
//!
//! ```text
//! train/part-PP.parquet, test/part-PP.parquet     PP = part_of(Id::of("user", user), card.parts)
//!
//! user             utf8, never empty
//! <user field>     utf8, or list<utf8> if the field is multi          one column per field of side user
//! behaviors        list<struct<                                       newest first
//!     item         utf8, never empty
//!     image        utf8, null: the item has no picture
//!     time         int64 unix seconds, before the group's first impression
//!     <item field> utf8 or list<utf8>                                 one per field of side behavior
//! >>
//! impressions      list<struct<                                       oldest first, at least one
//!     item         utf8, never empty
//!     image        utf8, null: the item has no picture
//!     label        int, 0 or 1
//!     time         int64 unix seconds
//!     <item field> utf8 or list<utf8>                                 one per field of side ad
//!     <context field> utf8 or list<utf8>                              one per field of side context
//! >>
//! ```
//! Written with zstd level 1 in row groups ("blocks") of at most 1,024 groups. Fields are found by
//! name and other columns ignored. Null and the empty text mean "no value". Readers also take other
//! text encodings, any integer (or boolean label), and timestamps or dates for times.
//! `docs/samples.md` says the same to people who write these files with other tools.

mod layout;
mod read;
mod text;
mod write;

pub use crate::schema::{BEHAVIORS, IMAGE, TIME};
pub(crate) use layout::BLOCK_GROUPS;
pub use read::{GroupTime, SampleFile};
pub use text::{NumberOfImpression, TextGroup, TextItem, Texts, for_each_number, read_texts};
pub use write::{Behavior, GroupRow, Impression, SampleWriter};
