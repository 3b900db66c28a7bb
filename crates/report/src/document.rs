//! A report before it has a form: sections of texts, tables and charts.
//!
//! [`crate::html`] and [`crate::markdown`] write the same document. A chart carries the table of
//! its numbers, so no number is in the page alone.

use ams_model::metrics::Interval;
use ams_train::ablate::Cells;

/// The content of a report, before it has a form.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Title of the page.
    pub title: String,
    /// What the page is about, a paragraph each.
    pub lead: Vec<String>,
    /// The sections in reading order.
    pub sections: Vec<Section>,
}

/// A part of a report with a title.
#[derive(Clone, Debug, PartialEq)]
pub struct Section {
    /// The anchor of the section, unique in the document.
    pub id: String,
    /// Title of the page, without markup.
    pub title: String,
    /// The content in reading order.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// A paragraph of plain text.
    Text(String),
    /// A paragraph about something that is missing or restricts what is said.
    Note(String),
    /// A table whose first column names the row.
    Table(Cells),
    /// A long table that a page shows when it is asked for.
    Folded { summary: String, cells: Cells },
    /// Charts beside one another.
    Charts(Vec<Chart>),
    /// A text to copy, with what it is.
    Code { caption: String, text: String },
    /// Page views with what drew each score.
    Pages(Vec<Page>),
    /// Pictures with those near them.
    Sheets(Vec<Sheet>),
}

/// A chart with its axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Words above the chart, without markup.
    pub title: String,
    /// Quantity on the horizontal axis.
    pub x: String,
    /// Quantity on the vertical axis.
    pub y: String,
    /// Curves, groups or rows, in data units.
    pub marks: Marks,
}

/// The marks of a chart.
#[derive(Clone, Debug, PartialEq)]
pub enum Marks {
    /// A curve for each series.
    Curves(Vec<Curve>),
    /// Curves of observed over predicted shares, beside the diagonal; their numbers are in a table
    /// of their own.
    Shares(Vec<Curve>),
    /// A value with its interval for each series in each category.
    Groups {
        /// Names of the categories.
        categories: Vec<String>,
        /// A value for each category, if there is one.
        series: Vec<GroupSeries>,
    },
    /// A value with its interval for each row.
    Rows {
        /// The rows from top to bottom.
        rows: Vec<RowMark>,
        /// Whether the values are differences, to be compared with 0.
        differences: bool,
    },
}

/// A curve with the name that its legend has.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Points by ascending x.
    pub points: Vec<Point>,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal position, in units of the axis.
    pub x: f64,
    /// Vertical position, in units of the axis.
    pub y: f64,
}

/// The values of a series in each category.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSeries {
    /// Name in the legend.
    pub name: String,
    /// A value for each category; none where it is not defined.
    pub values: Vec<Option<Interval>>,
}

/// A named value with its interval.
#[derive(Clone, Debug, PartialEq)]
pub struct RowMark {
    /// Name of the row.
    pub name: String,
    /// The value; none where it is not defined.
    pub value: Option<Interval>,
}

/// An item as a person recognizes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// The item as the log spells it.
    pub item: String,
    /// Its fields, and other words.
    pub about: String,
    /// A small picture as a `data:` address, if there is one.
    pub picture: Option<String>,
}

/// A page view with what drew the score of its best candidates.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The user as the log spells it; none for an unknown user.
    pub user: Option<String>,
    /// Number of candidates of the page view.
    pub candidates_in_all: usize,
    /// Number of behaviors that the model looked at.
    pub behaviors_in_all: usize,
    /// The behaviors that are shown, newest first.
    pub behaviors: Vec<Shown>,
    /// The best candidates, best first.
    pub candidates: Vec<Candidate>,
}

/// A candidate with what drew its score.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Item and picture of the candidate.
    pub shown: Shown,
    /// Its predicted click-through rate.
    pub ctr: f32,
    /// The rate for a user without history.
    pub ctr_without_history: f32,
    /// By how much each behavior that is shown raises the rate.
    pub raises: Vec<f32>,
    /// Weights of the behaviors that are shown, for each attention of the network.
    pub attention: Vec<Weights>,
}

/// The weights of one attention.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// What was attended to.
    pub over: String,
    /// A weight for each behavior that is shown.
    pub weights: Vec<f32>,
}

/// A picture with those near it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sheet {
    /// Item and picture that is near.
    pub shown: Shown,
    /// Its neighbors by each kind of vector.
    pub by: Vec<Neighbors>,
}

/// The neighbors of a picture by one kind of vector, nearest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// `encoder`, or the name of a tower.
    pub vector: String,
    /// The neighbors, the nearest first.
    pub nearest: Vec<Neighbor>,
}

/// A picture near another one.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbor {
    /// The picture, by its name.
    pub shown: Shown,
    /// The cosine of the two vectors.
    pub cosine: f32,
}
