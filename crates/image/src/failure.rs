//! Why a picture could not become a feature.
//!
//! Knows the reasons and their names in files and reports. Does not know how they are found out.

use serde::Serialize;

/// The kinds of failure, by the names that reports and `failed.csv` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is no such file, or no row for this name.
    Missing,
    /// The name leads out of the folder of pictures.
    Outside,
    /// The system refuses to read it: permissions, a folder, a loop of links.
    Unreadable,
    /// The file has no bytes.
    Empty,
    /// More bytes or pixels than the limits allow.
    TooLarge,
    /// Not a picture format (or variant) that can be decoded here.
    Unsupported,
    /// A known format, but damaged or cut short.
    Corrupt,
    /// The encoder gave a value that is NaN, infinite or beyond the range of f16.
    NotFinite,
    /// All numbers of the encoder are too small for f16.
    TooSmall,
    /// The encoder could not compute a row.
    Encoder,
}

impl Reason {
    /// Every reason, in the order of reports.
    pub const ALL: [Reason; 10] = [
        Reason::Missing,
        Reason::Outside,
        Reason::Unreadable,
        Reason::Empty,
        Reason::TooLarge,
        Reason::Unsupported,
        Reason::Corrupt,
        Reason::NotFinite,
        Reason::TooSmall,
        Reason::Encoder,
    ];

    /// The name in reports and files.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Missing => "missing",
            Reason::Outside => "outside",
            Reason::Unreadable => "unreadable",
            Reason::Empty => "empty",
            Reason::TooLarge => "too_large",
            Reason::Unsupported => "unsupported",
            Reason::Corrupt => "corrupt",
            Reason::NotFinite => "not_finite",
            Reason::TooSmall => "too_small",
            Reason::Encoder => "encoder",
        }
    }
}

/// What follows the name of a format in the detail of [`Reason::Unsupported`].
pub(crate) const NOT_DECODED: &str = ": not decoded";

/// The failure of one picture; others of the run are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, by which reports count.
    pub reason: Reason,
    /// What was found, in words.
    pub detail: String,
}

impl Failure {
    /// A failure for `reason`, with what was found.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Failure {
        Failure { reason, detail: detail.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}: {}", self.reason.name(), self.detail)
    }
}
