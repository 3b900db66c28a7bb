//! Rows of a table as page views, in the layout of samples or flat.
//!
//! ```text
//! samples   user, user fields; behaviors and impressions, lists of structs; a row is a group
//! flat      user, item, user and context fields, item fields; behaviors.item, behaviors.time and
//!           behaviors.<field>, lists of one length; a row is an impression
//! ```
//! Neighboring impressions of one user, history and context are one page view, and neighboring
//! page views of one user and history are one visit, whose history is read once. A row is held
//! against the one before it in the columns, where no text is copied. No score depends on what is
//! beside it.
//!
//! A model that sees the ages of behaviors counts them from the first impression of a group of
//! samples, as in training, or from the column `time` of a flat table; a visit has one time.

use std::ops::Range;

use ams_bundle::Spec;
use ams_bundle::request::{Behaviors, Candidates, Cell, Features, PageView, Text, User, time};
use ams_data::schema::{BEHAVIORS, IMPRESSIONS, ITEM, TIME, USER};
use ams_data::source::column_texts;
use ams_data::{Field, Side};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_cast::cast;
use arrow_schema::{DataType, FieldRef, Fields};

/// Most candidates of one page view.
const CANDIDATES: usize = 1000;

/// What is asked about the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Candidates, each impression once and in order.
    Impressions,
    /// A page view without candidates for every row.
    Users,
}

/// A page view, and the number of the row of the table that it begins at, from 1.
pub(crate) struct Placed {
    pub(crate) row: usize,
    pub(crate) page: PageView,
}

/// Page views of one user and history, which the first one has; the others name no user.
pub(crate) type Visit = Vec<Placed>;

/// The rows of a batch, as page views.
pub(crate) enum Rows {
    Samples(Samples),
    Flat(Flat),
}

impl Rows {
    /// Finds the columns of a batch.
    ///
    /// # Errors
    /// If one is missing, or has no usable type.
    pub(crate) fn of(batch: &RecordBatch, spec: &Spec, shape: Shape) -> Result<Rows, String> {
        let columns = Columns::of(batch.schema_ref().fields(), batch.columns());
        Ok(match columns.list_of_structs(IMPRESSIONS)? {
            Some(impressions) => Rows::Samples(Samples::find(&columns, impressions, spec, shape)?),
            None => Rows::Flat(Flat::find(&columns, spec, shape)?),
        })
    }

    /// Appends the visits of some rows; `before` rows are in batches before this one.
    ///
    /// # Errors
    /// At the first row with a wrong value; the visits of the rows before it are appended.
    pub(crate) fn read(
        &self,
        rows: Range<usize>,
        before: usize,
        visits: &mut Vec<Visit>,
    ) -> Result<(), String> {
        match self {
            Rows::Samples(samples) => samples.read(rows, before + 1, visits),
            Rows::Flat(flat) => flat.read(rows, before + 1, visits),
        }
    }
}

/// The columns of a batch by their names.
struct Columns<'a> {
    /// What the names are in: `impressions.` and the like.
    prefix: String,
    fields: &'a Fields,
    arrays: &'a [ArrayRef],
}

impl<'a> Columns<'a> {
    fn of(fields: &'a Fields, arrays: &'a [ArrayRef]) -> Columns<'a> {
        Columns { prefix: String::new(), fields, arrays }
    }

    fn get(&self, name: &str) -> Option<(&'a FieldRef, &'a ArrayRef)> {
        let at = self.fields.iter().position(|field| field.name() == name)?;
        Some((&self.fields[at], &self.arrays[at]))
    }

    /// The column `name` as cells.
    fn cells(&self, name: &str) -> Result<Cells, String> {
        let found: Vec<&str> = self.fields.iter().map(|field| &field.name()[..]).collect();
        self.cells_if_there(name)?.ok_or_else(|| {
            format!("no column `{}{name}`; found: {}", self.prefix, found.join(", "))
        })
    }

    fn cells_if_there(&self, name: &str) -> Result<Option<Cells>, String> {
        let Some((field, array)) = self.get(name) else { return Ok(None) };
        let cells = Cells::of(field, array);
        cells.map(Some).map_err(|what| format!("column `{}{name}`: {what}", self.prefix))
    }

    /// The columns of `fields` that have to be there, with their names.
    fn all(&self, fields: &[&Field]) -> Result<Vec<FieldCells>, String> {
        let cells = |name: &String| Ok(FieldCells { name: name.clone(), cells: self.cells(name)? });
        fields.iter().map(|field| cells(&field.name)).collect()
    }

    /// Those of `fields` that are there, with their names.
    fn some(&self, fields: &[&Field]) -> Result<Vec<FieldCells>, String> {
        let cells = |field: &&Field| {
            let found = self.cells_if_there(&field.name)?;
            Ok(found.map(|cells| FieldCells { name: field.name.clone(), cells }))
        };
        fields.iter().filter_map(|field| cells(field).transpose()).collect()
    }

    /// The column `name`, if it is a list of structs.
    fn list_of_structs(&self, name: &str) -> Result<Option<Lists>, String> {
        let Some((field, array)) = self.get(name) else { return Ok(None) };
        match item_of(field.data_type()).map(|item| item.data_type()) {
            Some(DataType::Struct(_)) => Lists::of(array).map(Some),
            _ => Ok(None),
        }
    }
}

/// The field of a list's values.
fn item_of(list: &DataType) -> Option<&FieldRef> {
    match list {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// The lists of a column: for each row, where its values are.
struct Lists {
    ranges: Vec<Range<usize>>,
    item: FieldRef,
    values: ArrayRef,
}

impl Lists {
    /// Of a column whose type is a list.
    fn of(array: &ArrayRef) -> Result<Lists, String> {
        let item = item_of(array.data_type()).ok_or("it is no list")?.clone();
        let list = cast(array, &DataType::List(item.clone())).map_err(|error| error.to_string())?;
        let list = list.as_list::<i32>();
        let offsets = list.value_offsets();
        // Only what the rows speak of: a slice of a long array holds all of its values.
        let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
        let range = |row: usize| match list.is_null(row) {
            true => 0..0,
            false => offsets[row] as usize - first..offsets[row + 1] as usize - first,
        };
        let ranges = (0..list.len()).map(range).collect();
        Ok(Lists { ranges, item, values: list.values().slice(first, last - first) })
    }

    /// The columns of the structs that are the values.
    fn columns(&self, name: &str) -> Columns<'_> {
        let structs = self.values.as_struct();
        Columns { prefix: format!("{name}."), fields: structs.fields(), arrays: structs.columns() }
    }
}

/// A column of cells: one text each, or a list of texts.
struct Cells {
    texts: StringArray,
    ranges: Option<Vec<Range<usize>>>,
}

impl Cells {
    fn of(field: &FieldRef, array: &ArrayRef) -> Result<Cells, String> {
        if item_of(field.data_type()).is_none() {
            return Ok(Cells { texts: column_texts(field, array)?, ranges: None });
        }
        let lists = Lists::of(array)?;
        if item_of(lists.item.data_type()).is_some() {
            return Err(format!("it is {}, expected at most a list of values", field.data_type()));
        }
        Ok(Cells { texts: column_texts(&lists.item, &lists.values)?, ranges: Some(lists.ranges) })
    }

    fn at(&self, at: usize) -> Option<Text> {
        (!self.texts.is_null(at)).then(|| Text::from(self.texts.value(at)))
    }

    /// The cell of a row; `None`, if it is null.
    fn cell(&self, row: usize) -> Option<Cell> {
        match &self.ranges {
            None => self.at(row).map(Cell::One),
            Some(ranges) => {
                let values = ranges[row].clone();
                Some(Cell::List(values.filter_map(|at| self.at(at)).collect()))
            }
        }
    }

    /// Whether two values are equal.
    fn same_at(&self, one: usize, other: usize) -> bool {
        let texts = &self.texts;
        texts.is_null(one) == texts.is_null(other)
            && (texts.is_null(one) || texts.value(one) == texts.value(other))
    }

    /// Whether the cells of two rows are equal.
    fn same(&self, one: usize, other: usize) -> bool {
        match &self.ranges {
            None => self.same_at(one, other),
            Some(ranges) => pairwise(ranges, one, other, |a, b| self.same_at(a, b)),
        }
    }

    /// The cell of a row as one text, which an id is.
    fn text(&self, row: usize) -> Option<Text> {
        self.cell(row).and_then(|cell| cell.texts().first().cloned())
    }

    /// The cells of a row's list, if this is a column of lists.
    fn of_list(&self, row: usize, name: &str) -> Result<Range<usize>, String> {
        let ranges = self.ranges.as_ref();
        let ranges =
            ranges.ok_or_else(|| format!("column `{name}` has one value a row, expected lists"))?;
        Ok(ranges[row].clone())
    }
}

/// Whether the values of two rows, which `ranges` say where they are, are equal one by one.
fn pairwise(
    ranges: &[Range<usize>],
    one: usize,
    other: usize,
    same: impl Fn(usize, usize) -> bool,
) -> bool {
    let (one, other) = (ranges[one].clone(), ranges[other].clone());
    one.len() == other.len() && one.zip(other).all(|(a, b)| same(a, b))
}

/// The cells of a field.
struct FieldCells {
    name: String,
    cells: Cells,
}

/// The fields of a side, without the one that names the user or item.
fn fields(spec: &Spec, side: Side) -> Vec<&Field> {
    let named = |field: &&Field| field.name != USER && field.name != ITEM;
    spec.fields.side(side).filter(named).collect()
}

/// The instant of a row, if there is one.
fn instant(times: &Cells, row: usize) -> Result<Option<i64>, String> {
    time(&times.text(row).unwrap_or_default().0)
}

/// The values of fields in a row.
fn features(columns: &[FieldCells], row: usize) -> Features {
    columns.iter().map(|field| (field.name.clone(), field.cells.cell(row))).collect()
}

/// Appends the values of fields in a row.
fn push_features(
    to: &mut ams_bundle::request::FeatureColumns,
    columns: &[FieldCells],
    row: usize,
    absent: fn() -> Option<Cell>,
) {
    for FieldCells { name, cells } in columns {
        to.entry(name.clone()).or_default().push(cells.cell(row).or_else(absent));
    }
}

/// In samples, no value is no value: what a bundle knows of the item does not matter.
fn nothing() -> Option<Cell> {
    Some(Cell::List(Vec::new()))
}

/// Adds an impression to the last page view of a visit if it has the same context, or begins
/// another.
fn show(visit: &mut Visit, placed: Placed) {
    let Placed { row, page } = placed;
    if let Some(Placed { page: last, .. }) = visit.last_mut()
        && last.candidates.item.len() < CANDIDATES
        && last.context == page.context
    {
        last.candidates.item.extend(page.candidates.item);
        for (name, column) in page.candidates.features {
            last.candidates.features.entry(name).or_default().extend(column);
        }
    } else {
        visit.push(Placed { row, page });
    }
}

/// The columns of the layout of samples.
pub(crate) struct Samples {
    user: Cells,
    user_fields: Vec<FieldCells>,
    histories: Vec<Range<usize>>,
    past: ItemRows,
    shown: Vec<Range<usize>>,
    ads: ItemRows,
    context: Vec<FieldCells>,
    shape: Shape,
}

/// The columns of items in lists.
struct ItemRows {
    item: Cells,
    time: Option<Cells>,
    fields: Vec<FieldCells>,
}

impl Samples {
    fn find(
        columns: &Columns<'_>,
        shown: Lists,
        spec: &Spec,
        shape: Shape,
    ) -> Result<Samples, String> {
        let past = columns.list_of_structs(BEHAVIORS)?.ok_or_else(|| {
            format!("no column `{BEHAVIORS}` of lists of structs, which belongs to `{IMPRESSIONS}`")
        })?;
        let (behaviors, impressions) = (past.columns(BEHAVIORS), shown.columns(IMPRESSIONS));
        Ok(Samples {
            user: columns.cells(USER)?,
            user_fields: columns.all(&fields(spec, Side::User))?,
            past: ItemRows {
                item: behaviors.cells(ITEM)?,
                time: behaviors.cells_if_there(TIME)?,
                fields: behaviors.all(&fields(spec, Side::Behavior))?,
            },
            ads: ItemRows {
                item: impressions.cells(ITEM)?,
                time: match spec.sees_ages() {
                    true => impressions.cells_if_there(TIME)?,
                    false => None,
                },
                fields: impressions.all(&fields(spec, Side::Ad))?,
            },
            context: impressions.all(&fields(spec, Side::Context))?,
            histories: past.ranges.clone(),
            shown: shown.ranges.clone(),
            shape,
        })
    }

    fn read(
        &self,
        rows: Range<usize>,
        first: usize,
        visits: &mut Vec<Visit>,
    ) -> Result<(), String> {
        for row in rows {
            let number = first + row;
            let wrong = |what: String| format!("row {number}: {what}");
            let behaviors = self.behaviors(row).map_err(wrong)?;
            let shown = self.shown[row].clone();
            let times = self.ads.time.as_ref().filter(|_| !shown.is_empty());
            let now = times.map_or(Ok(None), |times| instant(times, shown.start)).map_err(wrong)?;
            let user = User {
                id: self.user.text(row),
                features: features(&self.user_fields, row),
                behaviors,
            };
            if self.shape == Shape::Users {
                let page = PageView { user, time: now, ..PageView::default() };
                visits.push(vec![Placed { row: number, page }]);
                continue;
            }
            let (mut visit, mut user) = (Visit::new(), Some(user));
            for at in shown {
                let mut candidates = Candidates::default();
                candidates.item.push(self.ads.item.text(at).unwrap_or_default());
                push_features(&mut candidates.features, &self.ads.fields, at, nothing);
                let context = features(&self.context, at);
                let user = user.take().unwrap_or_default();
                let page = PageView { user, time: now, context, candidates, ..PageView::default() };
                show(&mut visit, Placed { row: number, page });
            }
            if !visit.is_empty() {
                visits.push(visit);
            }
        }
        Ok(())
    }

    fn behaviors(&self, row: usize) -> Result<Behaviors, String> {
        let mut behaviors = Behaviors::default();
        for at in self.histories[row].clone() {
            behaviors.item.push(self.past.item.text(at).unwrap_or_default());
            push_features(&mut behaviors.features, &self.past.fields, at, nothing);
            if let Some(times) = &self.past.time {
                behaviors.time.get_or_insert_default().push(instant(times, at)?);
            }
        }
        Ok(behaviors)
    }
}

/// The columns of a flat table.
pub(crate) struct Flat {
    user: Cells,
    user_fields: Vec<FieldCells>,
    context: Vec<FieldCells>,
    item: Option<Cells>,
    item_fields: Vec<FieldCells>,
    time: Option<Cells>,
    past: Option<Past>,
}

/// The history of a flat table: columns of lists, of one length in each row.
enum Past {
    /// `behaviors.item` and others beside it.
    Columns { item: Cells, time: Option<Cells>, fields: Vec<NestedCells> },
    /// `behaviors`, a list of structs.
    Structs { ranges: Vec<Range<usize>>, rows: ItemRows },
}

/// A column of lists of cells, which may be lists.
struct NestedCells {
    name: String,
    ranges: Vec<Range<usize>>,
    cells: Cells,
}

impl Flat {
    fn find(columns: &Columns<'_>, spec: &Spec, shape: Shape) -> Result<Flat, String> {
        let is_shown = shape == Shape::Impressions;
        Ok(Flat {
            user: columns.cells(USER)?,
            user_fields: columns.all(&fields(spec, Side::User))?,
            context: if is_shown { columns.all(&fields(spec, Side::Context))? } else { Vec::new() },
            item: if is_shown { Some(columns.cells(ITEM)?) } else { None },
            item_fields: columns.some(&fields(spec, Side::Ad))?,
            time: if spec.sees_ages() { columns.cells_if_there(TIME)? } else { None },
            past: Past::find(columns, spec)?,
        })
    }

    fn read(
        &self,
        rows: Range<usize>,
        first: usize,
        visits: &mut Vec<Visit>,
    ) -> Result<(), String> {
        let begin = rows.start;
        for row in rows {
            let number = first + row;
            let wrong = |what: String| format!("row {number}: {what}");
            let now = self.time.as_ref().map_or(Ok(None), |times| instant(times, row));
            let now = now.map_err(wrong)?;
            let goes_on = self.item.is_some() && row > begin && self.is_of_one_user(row - 1, row);
            let user = if goes_on {
                User::default()
            } else {
                let past = self.past.as_ref().map(|past| past.behaviors(row)).transpose();
                let behaviors = past.map_err(wrong)?.unwrap_or_default();
                let features = features(&self.user_fields, row);
                User { id: self.user.text(row), features, behaviors }
            };
            let Some(item) = &self.item else {
                let page = PageView { user, time: now, ..PageView::default() };
                visits.push(vec![Placed { row: number, page }]);
                continue;
            };
            let mut candidates = Candidates::default();
            candidates.item.push(item.text(row).unwrap_or_default());
            push_features(&mut candidates.features, &self.item_fields, row, || None);
            let context = features(&self.context, row);
            let page = PageView { user, time: now, context, candidates, ..PageView::default() };
            match visits.last_mut().filter(|_| goes_on) {
                Some(visit) => show(visit, Placed { row: number, page }),
                None => visits.push(vec![Placed { row: number, page }]),
            }
        }
        Ok(())
    }

    /// Whether two rows have the same user, user fields, history and time.
    fn is_of_one_user(&self, one: usize, other: usize) -> bool {
        let same = |field: &FieldCells| field.cells.same(one, other);
        self.user.same(one, other)
            && self.time.as_ref().is_none_or(|times| times.same(one, other))
            && self.user_fields.iter().all(same)
            && self.past.as_ref().is_none_or(|past| past.same(one, other))
    }
}

impl Past {
    fn find(columns: &Columns<'_>, spec: &Spec) -> Result<Option<Past>, String> {
        let fields = fields(spec, Side::Behavior);
        if let Some(past) = columns.list_of_structs(BEHAVIORS)? {
            let structs = past.columns(BEHAVIORS);
            let rows = ItemRows {
                item: structs.cells(ITEM)?,
                time: structs.cells_if_there(TIME)?,
                fields: structs.some(&fields)?,
            };
            return Ok(Some(Past::Structs { ranges: past.ranges.clone(), rows }));
        }
        let named = |name: &str| format!("{BEHAVIORS}.{name}");
        let item = match columns.cells_if_there(&named(ITEM))? {
            Some(item) => item,
            None => match columns.cells_if_there(BEHAVIORS)? {
                Some(item) => item,
                None => return Ok(None),
            },
        };
        let time = columns.cells_if_there(&named(TIME))?;
        let mut found = Vec::new();
        for field in fields {
            let name = named(&field.name);
            let Some((_, array)) = columns.get(&name) else { continue };
            let nested = Lists::of(array).and_then(|lists| {
                let cells = Cells::of(&lists.item, &lists.values)?;
                Ok(NestedCells { name: field.name.clone(), ranges: lists.ranges, cells })
            });
            found.push(nested.map_err(|what| format!("column `{name}`: {what}"))?);
        }
        Ok(Some(Past::Columns { item, time, fields: found }))
    }

    /// Whether two rows have the same history.
    fn same(&self, one: usize, other: usize) -> bool {
        match self {
            Past::Structs { ranges, rows } => pairwise(ranges, one, other, |a, b| {
                rows.item.same(a, b)
                    && rows.time.as_ref().is_none_or(|times| times.same(a, b))
                    && rows.fields.iter().all(|field| field.cells.same(a, b))
            }),
            Past::Columns { item, time, fields } => {
                item.same(one, other)
                    && time.as_ref().is_none_or(|times| times.same(one, other))
                    && fields.iter().all(|NestedCells { ranges, cells, .. }| {
                        pairwise(ranges, one, other, |a, b| cells.same(a, b))
                    })
            }
        }
    }

    fn behaviors(&self, row: usize) -> Result<Behaviors, String> {
        let mut behaviors = Behaviors::default();
        match self {
            Past::Structs { ranges, rows } => {
                for at in ranges[row].clone() {
                    behaviors.item.push(rows.item.text(at).unwrap_or_default());
                    push_features(&mut behaviors.features, &rows.fields, at, || None);
                    if let Some(times) = &rows.time {
                        behaviors.time.get_or_insert_default().push(instant(times, at)?);
                    }
                }
            }
            Past::Columns { item, time: times, fields } => {
                let items = item.of_list(row, BEHAVIORS)?;
                behaviors.item = items.map(|at| item.at(at).unwrap_or_default()).collect();
                if let Some(times) = times {
                    let of = |at| time(&times.at(at).unwrap_or_default().0);
                    let name = format!("{BEHAVIORS}.{TIME}");
                    let times: Result<_, String> = times.of_list(row, &name)?.map(of).collect();
                    behaviors.time = Some(times?);
                }
                for NestedCells { name, ranges, cells } in fields {
                    let column = ranges[row].clone().map(|at| cells.cell(at)).collect();
                    behaviors.features.insert(name.clone(), column);
                }
            }
        }
        Ok(behaviors)
    }
}
