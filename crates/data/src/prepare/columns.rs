//! Which column means what: explicit names, else aliases, and fields with their kinds. Knows names
//! and examples; does not read a table beyond its first rows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::source::Table;
use crate::value::buckets::MOST_BUCKETS;
use crate::value::{self, Buckets, Decimal, SEPARATOR};
use crate::{Error, FieldKind, Result};

/// The mapping as a user states it; what is not stated is found by alias.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Columns {
    /// Who; in the events and the users table.
    pub user: Option<String>,
    /// What; in the events and the items table.
    pub item: Option<String>,
    /// Clicked or not; a log without it holds positives only.
    pub label: Option<String>,
    /// The column of times at which items were shown.
    pub time: Option<String>,
    /// How much a positive event weighs (dwell time, say); only used with a minimum.
    pub weight: Option<String>,
    /// The picture's name, in the items table.
    pub image: Option<String>,
    /// Columns of the users table, or else of the events, that describe the user.
    pub user_fields: Option<Vec<FieldColumn>>,
    /// Columns of the items table that describe the item.
    pub item_fields: Option<Vec<FieldColumn>>,
    /// Columns of the events that describe the circumstances.
    pub context_fields: Option<Vec<FieldColumn>>,
}

/// A column that becomes a field, written `[name=]column[:kind[:separator]]`: `brand`,
/// `genres:multi:|`, `eur=price:numeric`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FieldColumn {
    /// What the field is called in the dataset.
    pub name: String,
    /// The column it comes from.
    pub column: String,
    /// How its cells are read.
    pub kind: Kind,
}

/// How a cell becomes the values of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Each distinct text is a value.
    Categorical,
    /// Several texts, separated by this.
    Multi(String),
    /// A number, whose bucket is its id; see [`value::Buckets`].
    Numeric,
}

impl Kind {
    /// The value of a cell: empty if it is missing; the parts of a multi value end up separated by
    /// [`SEPARATOR`], and a number is plain.
    pub(crate) fn read(&self, cell: &str, decimal: Option<Decimal>) -> Result<String, String> {
        match self {
            Kind::Categorical => value::category(cell).map(|value| value.into_owned()),
            Kind::Multi(separator) => {
                let mut joined = String::new();
                for part in value::parts(cell, Some(separator)) {
                    let part = value::category(&part)?;
                    if !part.is_empty() {
                        joined.extend((!joined.is_empty()).then_some(SEPARATOR));
                        joined.push_str(&part);
                    }
                }
                Ok(joined)
            }
            Kind::Numeric => {
                let number = value::measure(cell, decimal)?;
                Ok(number.map_or(String::new(), value::number_text))
            }
        }
    }

    /// What the dataset's card says of it; the edges of a number are not known yet.
    pub(crate) fn of_card(&self) -> FieldKind {
        match self {
            Kind::Categorical => FieldKind::Categorical,
            Kind::Multi(separator) => FieldKind::List { separator: separator.clone() },
            Kind::Numeric => FieldKind::Numeric { edges: Buckets::default() },
        }
    }

    /// Whether a value is a list.
    pub(crate) fn is_multi(&self) -> bool {
        matches!(self, Kind::Multi(_))
    }

    fn describe(&self) -> String {
        match self {
            Kind::Categorical => "text".to_string(),
            Kind::Multi(separator) => format!("texts separated by `{separator}`"),
            Kind::Numeric => format!("number, in up to {MOST_BUCKETS} buckets of about equal size"),
        }
    }
}

impl FromStr for FieldColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = match text.split_once('=') {
            Some((name, rest)) => (Some(name), rest),
            None => (None, text),
        };
        let mut pieces = rest.splitn(3, ':');
        let column = pieces.next().unwrap_or_default().trim();
        let kind = match (pieces.next(), pieces.next()) {
            (None | Some("categorical" | "text"), None) => Kind::Categorical,
            (Some("multi"), separator) => {
                Kind::Multi(separator.filter(|text| !text.is_empty()).unwrap_or("|").to_string())
            }
            (Some("numeric"), None) => Kind::Numeric,
            _ => {
                return Err(format!(
                    "field `{text}`: expected [name=]column[:kind[:separator]] with kind categorical, multi \
                     or numeric, such as genres:multi:|"
                ));
            }
        };
        let name = name.unwrap_or(column).trim();
        if column.is_empty() || name.is_empty() {
            return Err(format!("field `{text}`: no column name"));
        }
        Ok(FieldColumn { name: name.to_string(), column: column.to_string(), kind })
    }
}

impl TryFrom<String> for FieldColumn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<FieldColumn> for String {
    fn from(field: FieldColumn) -> String {
        field.to_string()
    }
}

impl fmt::Display for FieldColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name != self.column {
            write!(f, "{}=", self.name)?;
        }
        f.write_str(&self.column)?;
        match &self.kind {
            Kind::Categorical => Ok(()),
            Kind::Multi(separator) => write!(f, ":multi:{separator}"),
            Kind::Numeric => f.write_str(":numeric"),
        }
    }
}

/// One row of the "I understood" table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Understood {
    /// What it is taken for: `user`, `label`, `item field`, `ignored`, ...
    pub what: String,
    /// The table's file name.
    pub table: String,
    /// Name of the column in its table.
    pub column: String,
    /// A value of it, the first that is not empty.
    pub example: String,
    /// How its cells are read, or why it is ignored.
    pub reading: String,
}

/// What a column may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    User,
    Item,
    Label,
    Time,
    Weight,
    Image,
}

impl Role {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::User => "user",
            Role::Item => "item",
            Role::Label => "label",
            Role::Time => "time",
            Role::Weight => "weight",
            Role::Image => "image",
        }
    }

    /// Lower case, without `_`, `-` and spaces: `userid` also stands for `user_id` and `userId`.
    pub(crate) fn aliases(self) -> &'static [&'static str] {
        match self {
            Role::User => &[
                "user",
                "userid",
                "uid",
                "visitor",
                "visitorid",
                "customer",
                "customerid",
                "memberid",
            ],
            Role::Item => &[
                "item",
                "itemid",
                "iid",
                "movieid",
                "ad",
                "adid",
                "product",
                "productid",
                "article",
                "articleid",
                "newsid",
                "goodsid",
                "offerid",
                "creativeid",
                "sku",
                "asin",
            ],
            Role::Label => &["label", "click", "clicked", "isclick", "isclicked", "clk"],
            Role::Time => &[
                "timestamp",
                "time",
                "ts",
                "date",
                "datetime",
                "eventtime",
                "tdat",
                "unixtime",
                "createdat",
            ],
            Role::Weight => &["weight", "dwell", "dwelltime", "dwellseconds", "duration"],
            Role::Image => IMAGE_ALIASES,
        }
    }
}

/// Aliases of [`Role::Image`], in lower case.
const IMAGE_ALIASES: &[&str] = &[
    "image",
    "images",
    "imagepath",
    "imagefile",
    "imagefilename",
    "imagename",
    "imageurl",
    "imageuri",
    "filename",
    "filepath",
    "img",
    "imgname",
    "imgfile",
    "imgpath",
    "imgurl",
    "picture",
    "picturepath",
    "picturename",
    "pictures",
    "poster",
    "posterpath",
    "photo",
    "photos",
    "thumbnail",
];

/// A table whose first rows were looked at.
pub(crate) struct Peek<'a> {
    pub(crate) table: &'a dyn Table,
    /// Per column, its values in the first rows, empty ones left out.
    values: Vec<Vec<String>>,
    /// Of every column, whether its first rows could not be read.
    failed: Vec<bool>,
}

/// How many rows are looked at.
const PEEK_ROWS: usize = 1000;

impl<'a> Peek<'a> {
    pub(crate) fn new(table: &'a dyn Table) -> Result<Peek<'a>> {
        let all: Vec<_> =
            (0..table.columns().len()).filter(|&at| table.unusable(at).is_none()).collect();
        let mut peek = Peek {
            table,
            values: vec![Vec::new(); table.columns().len()],
            failed: vec![false; table.columns().len()],
        };
        let rows = match peek.look(&all) {
            Ok(rows) => rows,
            // What nobody asks for may hold what is no text: each is looked at alone.
            Err(error) => {
                let looked: Vec<_> = all.iter().map(|&column| peek.look(&[column]).ok()).collect();
                for (&column, looked) in all.iter().zip(&looked) {
                    peek.failed[column] = looked.is_none();
                }
                looked.into_iter().flatten().max().ok_or(error)?
            }
        };
        if rows == 0 {
            let hint = table.hint().map_or(String::new(), |hint| format!("; {hint}"));
            return Err(Error::content(table.path(), format!("no rows{hint}")));
        }
        Ok(peek)
    }

    /// Looks at the first rows of these columns; how many they are.
    fn look(&mut self, columns: &[usize]) -> Result<usize> {
        let Some(batch) = self.table.batches(columns)?.next() else { return Ok(0) };
        let batch = batch?;
        let rows = batch.rows().min(PEEK_ROWS);
        for (at, &column) in columns.iter().enumerate() {
            let cells = (0..rows).map(|row| batch.get(at, row).trim());
            let cells = cells.filter(|cell| !value::is_missing(cell)).map(str::to_string);
            self.values[column] = cells.collect();
        }
        Ok(rows)
    }

    /// `column`, if it can be read.
    fn usable(&self, column: usize) -> Result<usize> {
        self.table.check_usable(&[column]).map(|()| column)
    }

    /// What a table says about columns that are not there.
    fn hint(&self) -> String {
        self.table.hint().map_or(String::new(), |hint| format!("; {hint}"))
    }

    /// The column that plays `role`: the one `named`, else the only one with an alias as its name.
    pub(crate) fn find(&self, role: Role, named: Option<&str>) -> Result<Option<usize>> {
        if let Some(name) = named {
            return self.column(name, role.name()).map(Some);
        }
        let columns = self.table.columns();
        let found: Vec<_> = (0..columns.len())
            .filter(|&at| role.aliases().contains(&plain(&columns[at]).as_str()))
            .collect();
        let usable = |at: &&usize| self.table.unusable(**at).is_none();
        let found = match found.iter().filter(usable).copied().collect::<Vec<_>>() {
            none if none.is_empty() => found.into_iter().take(1).collect(),
            usable => usable,
        };
        match found[..] {
            [] => Ok(None),
            [at] => self.usable(at).map(Some),
            _ => {
                let names: Vec<_> = found.iter().map(|&at| format!("`{}`", columns[at])).collect();
                let names = names.join(" or ");
                let what =
                    format!("which column is the {0}: {names}? Name one with --{0}", role.name());
                Err(Error::content(self.table.path(), what))
            }
        }
    }

    /// Likewise, of a role that has to be played.
    pub(crate) fn require(&self, role: Role, named: Option<&str>) -> Result<usize> {
        self.find(role, named)?.ok_or_else(|| {
            let what = format!(
                "no column for the {0}; name it with --{0} (known by themselves: {1}); found: {2}{3}",
                role.name(),
                role.aliases().join(", "),
                self.table.columns().join(", "),
                self.hint()
            );
            Error::content(self.table.path(), what)
        })
    }

    /// The column called `name`, which the option `option` asks for.
    pub(crate) fn column(&self, name: &str, option: &str) -> Result<usize> {
        if let Some(at) = self.position(name) {
            return self.usable(at);
        }
        let columns = self.table.columns();
        let close = columns
            .iter()
            .map(|column| (strsim::normalized_damerau_levenshtein(column, name), column))
            .filter(|(likeness, _)| *likeness > 0.6)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let close =
            close.map_or_else(|| self.hint(), |(_, column)| format!("; did you mean `{column}`?"));
        let found = columns.join(", ");
        let what = format!("no column `{name}` (asked for as {option}); found: {found}{close}");
        Err(Error::content(self.table.path(), what))
    }

    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.table.columns().iter().position(|column| column == name)
    }

    /// The values of the first rows, those that are not missing.
    pub(crate) fn values(&self, column: usize) -> &[String] {
        &self.values[column]
    }

    pub(crate) fn example(&self, column: usize) -> &str {
        self.values[column].first().map_or("", String::as_str)
    }

    pub(crate) fn understood(
        &self,
        what: &str,
        column: usize,
        reading: impl Into<String>,
    ) -> Understood {
        let table = self.table.path().file_name().unwrap_or(self.table.path().as_os_str());
        Understood {
            what: what.to_string(),
            table: table.to_string_lossy().into_owned(),
            column: self.table.columns()[column].clone(),
            example: self.example(column).to_string(),
            reading: reading.into() + &self.type_of_ignored(what, column),
        }
    }

    /// The type of a column that is ignored, in brackets.
    fn type_of_ignored(&self, what: &str, column: usize) -> String {
        match self.table.column_type(column).filter(|_| what == "ignored") {
            Some(name) => format!(" ({name})"),
            None => String::new(),
        }
    }

    pub(crate) fn understood_field(
        &self,
        what: &str,
        column: usize,
        field: &FieldColumn,
    ) -> Understood {
        let literals = self.has_lists(column);
        let note = match (&field.kind, literals) {
            (Kind::Multi(_), true) => ", and lists such as ['a', 'b']".to_string(),
            (Kind::Categorical, true) => {
                format!(
                    "; its cells look like lists: to read them so, list it as {}:multi",
                    field.column
                )
            }
            _ => String::new(),
        };
        let name = if field.name == field.column {
            String::new()
        } else {
            format!(", called `{}`", field.name)
        };
        self.understood(what, column, field.kind.describe() + &note + &name)
    }

    /// Whether the cells of a column are list literals.
    fn has_lists(&self, column: usize) -> bool {
        let values = &self.values[column];
        !values.is_empty() && values.iter().all(|value| value::is_literal(value))
    }

    /// The field a column becomes when nobody said which do, or why it becomes none: names and
    /// descriptions are almost all distinct and would only repeat the item's id.
    pub(crate) fn default_field(
        &self,
        column: usize,
        decimal: Option<Decimal>,
    ) -> Result<FieldColumn, &'static str> {
        let values = &self.values[column];
        let name = self.table.columns()[column].clone();
        if self.table.unusable(column).is_some() {
            return Err("ignored: cannot be read");
        }
        if self.failed[column] {
            // Whoever reads all rows says where.
            return Ok(FieldColumn { column: name.clone(), name, kind: Kind::Categorical });
        }
        if values.is_empty() {
            return Err("ignored: empty");
        }
        if RESERVED.contains(&name.as_str()) {
            return Err("ignored: its name is taken; list it under another name to keep it");
        }
        let field = |kind| Ok(FieldColumn { column: name.clone(), name: name.clone(), kind });
        if values.iter().any(|value| value.contains(SEPARATOR)) {
            return field(Kind::Multi(SEPARATOR.to_string()));
        }
        if self.has_lists(column) {
            return field(Kind::Multi("|".to_string()));
        }
        let numbers = values.iter().map(|text| value::measure(text, decimal).ok().flatten());
        if let Some(numbers) = numbers.collect::<Option<Vec<f64>>>()
            && numbers.iter().any(|number| number.is_finite() && number.fract() != 0.0)
        {
            return field(Kind::Numeric);
        }
        let distinct: std::collections::BTreeSet<_> = values.iter().collect();
        if values.len() >= 20 && distinct.len() * 2 > values.len() {
            return Err("ignored: nearly every value is different; list it to keep it");
        }
        field(Kind::Categorical)
    }
}

/// Names that mean something else in a sample file.
pub(crate) const RESERVED: [&str; 7] =
    ["user", "item", "image", "time", "label", "behaviors", "impressions"];

/// A column's name in small letters, without `_`, `-` and spaces.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryTable;

    fn find(role: Role, named: Option<&str>, columns: &[&str]) -> String {
        let row = columns.iter().map(|name| name.to_uppercase()).collect();
        let table = MemoryTable::new("events.csv", columns, vec![row]);
        let peek = Peek::new(&table).unwrap();
        match peek.require(role, named) {
            Ok(at) => columns[at].to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn aliases_in_several_spellings() {
        assert_eq!(find(Role::User, None, &["userId", "x"]), "userId");
        assert_eq!(find(Role::User, None, &["x", "User_ID"]), "User_ID");
        assert_eq!(find(Role::Item, None, &["ad_id", "user"]), "ad_id");
        assert_eq!(find(Role::Time, None, &["t_dat"]), "t_dat");
        assert_eq!(find(Role::Label, None, &["is_click"]), "is_click");
    }

    #[test]
    fn a_named_column_beats_an_alias() {
        assert_eq!(find(Role::User, Some("client"), &["user", "client"]), "client");
    }

    #[test]
    fn two_candidates_none_and_a_typo() {
        assert_eq!(
            find(Role::Time, None, &["date", "user", "ts"]),
            "events.csv: which column is the time: `date` or `ts`? Name one with --time"
        );
        assert_eq!(
            find(Role::Weight, None, &["user", "foo"]),
            "events.csv: no column for the weight; name it with --weight (known by themselves: weight, dwell, \
             dwelltime, dwellseconds, duration); found: user, foo"
        );
        assert_eq!(
            find(Role::User, Some("cleint"), &["user", "client"]),
            "events.csv: no column `cleint` (asked for as user); found: user, client; did you mean `client`?"
        );
    }

    #[test]
    fn fields_as_text() {
        let field =
            |text: &str| text.parse::<FieldColumn>().map(|field| (field.to_string(), field.kind));
        assert_eq!(field("brand"), Ok(("brand".into(), Kind::Categorical)));
        assert_eq!(field("genres:multi"), Ok(("genres:multi:|".into(), Kind::Multi("|".into()))));
        assert_eq!(field("tags:multi:::"), Ok(("tags:multi:::".into(), Kind::Multi("::".into()))));
        assert_eq!(field("eur=price:numeric"), Ok(("eur=price:numeric".into(), Kind::Numeric)));
        assert!(field("a:color").unwrap_err().contains("expected [name=]column"));
        assert!(field("").unwrap_err().contains("no column name"));
    }

    #[test]
    fn cells() {
        let multi = Kind::Multi("|".into());
        assert_eq!(multi.read(" a | b||c", None), Ok("a\u{1f}b\u{1f}c".into()));
        assert_eq!(multi.read("", None), Ok(String::new()));
        assert_eq!(multi.read("['a', 25.0, None]", None), Ok("a\u{1f}25".into()));
        assert_eq!(Kind::Numeric.read("5.50", None), Ok("5.5".into()));
        assert_eq!(Kind::Numeric.read("1.234,5", Some(Decimal::Comma)), Ok("1234.5".into()));
        assert_eq!(Kind::Numeric.read("NaN", None), Ok(String::new()));
        assert_eq!(Kind::Categorical.read(" 007 ", None), Ok("007".into()));
        assert_eq!(Kind::Categorical.read("25.0", None), Ok("25".into()));
        assert_eq!(Kind::Categorical.read("\\N", None), Ok(String::new()));
    }

    #[test]
    fn fields_nobody_listed() {
        let rows = (0..40)
            .map(|n| vec![format!("t{n}"), (n % 3).to_string(), format!("{n}.5"), String::new()]);
        let columns = ["title", "brand", "price", "note"];
        let table = MemoryTable::new("items.csv", &columns, rows.collect());
        let peek = Peek::new(&table).unwrap();
        let field = |at| peek.default_field(at, None).map(|field| field.to_string());
        assert!(field(0).unwrap_err().contains("nearly every value is different"));
        assert_eq!(field(1), Ok("brand".into()));
        assert_eq!(field(2), Ok("price:numeric".into()));
        assert_eq!(field(3), Err("ignored: empty"));
    }
}
