//! From stated and found columns to what the later passes read: positions, fields, the schema.

use super::columns::{FieldColumn, Peek, Role, Understood};
use super::options::{Inputs, PrepareOptions};
use crate::dataset::check_schema;
use crate::schema::{Field, FieldKind, ITEM, Schema, Side, USER};
use crate::value::{Decimal, TimeReader, show_time};
use crate::{Error, Result};

/// A column to be read as a field's values.
#[derive(Clone, Debug)]
pub(crate) struct Cells {
    pub(crate) column: usize,
    pub(crate) field: FieldColumn,
}

/// Where the value of a user field comes from: a position among the event texts or the users
/// table's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    Events(usize),
    Users(usize),
}

/// A table that describes users or items.
#[derive(Clone, Debug)]
pub(crate) struct Described {
    pub(crate) key: usize,
    pub(crate) image: Option<usize>,
    pub(crate) cells: Vec<Cells>,
}

/// What is read from where.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    pub(crate) user: usize,
    pub(crate) item: usize,
    pub(crate) time: usize,
    pub(crate) label: Option<usize>,
    pub(crate) weight: Option<usize>,
    /// Event columns kept as text: user fields first, then context fields.
    pub(crate) event_cells: Vec<Cells>,
    pub(crate) items: Option<Described>,
    pub(crate) users: Option<Described>,
    pub(crate) user_origins: Vec<Origin>,
    /// Positions among the event texts.
    pub(crate) context: Vec<usize>,
    pub(crate) item_fields: Vec<Field>,
    pub(crate) schema: Schema,
    pub(crate) understood: Vec<Understood>,
}

pub(crate) fn map(inputs: &Inputs, options: &PrepareOptions) -> Result<Mapping> {
    let columns = &options.columns;
    let unlisted = columns.user_fields.is_none()
        && columns.item_fields.is_none()
        && columns.context_fields.is_none();
    let events = Peek::new(inputs.events.as_ref())?;
    let mut understood = Vec::new();
    let user = events.require(Role::User, columns.user.as_deref())?;
    understood.push(events.understood("user", user, "text"));
    let item = events.require(Role::Item, columns.item.as_deref())?;
    understood.push(events.understood("item", item, "text"));
    let time = events.require(Role::Time, columns.time.as_deref())?;
    let reading = time_reading(events.example(time), options)?;
    understood.push(events.understood("time", time, reading));
    let label = label_column(&events, options, &mut understood)?;
    let weight = weight_column(&events, options, &mut understood)?;
    let (items, item_fields) =
        describe_items(inputs, options, &events, item, unlisted, &mut understood)?;
    let mut event_cells = Vec::new();
    let (users, user_fields, user_origins) = describe_users(
        inputs,
        options,
        &events,
        user,
        unlisted,
        &mut event_cells,
        &mut understood,
    )?;
    let mut context = Vec::new();
    let mut context_fields = Vec::new();
    for field in columns.context_fields.iter().flatten() {
        let column = events.column(&field.column, "context field")?;
        understood.push(events.understood_field("context field", column, field));
        context.push(event_cells.len());
        event_cells.push(Cells { column, field: field.clone() });
        context_fields.push(field.clone());
    }
    let used = [Some(user), Some(item), Some(time), label, weight];
    for column in 0..events.table.columns().len() {
        let taken =
            used.contains(&Some(column)) || event_cells.iter().any(|cells| cells.column == column);
        if !taken {
            understood.push(events.understood("ignored", column, "not listed as a field"));
        }
    }
    let schema = schema(&user_fields, &item_fields, &context_fields);
    check_schema(&schema).map_err(Error::option)?;
    let item_fields = crate::catalogue::item_fields(&schema);
    Ok(Mapping {
        user,
        item,
        time,
        label,
        weight,
        event_cells,
        items,
        users,
        user_origins,
        context,
        item_fields,
        schema,
        understood,
    })
}

fn weight_column(
    events: &Peek<'_>,
    options: &PrepareOptions,
    understood: &mut Vec<Understood>,
) -> Result<Option<usize>> {
    let Some(least) = options.min_weight else { return Ok(None) };
    let weight = events.require(Role::Weight, options.columns.weight.as_deref())?;
    let reading = format!("number; a positive below {least} is no behavior");
    understood.push(events.understood("weight", weight, reading));
    Ok(Some(weight))
}

fn time_reading(example: &str, options: &PrepareOptions) -> Result<String> {
    let mut reader = TimeReader::new(options.time_format.as_deref()).map_err(Error::option)?;
    Ok(match (reader.read(example), reader.form()) {
        (Ok(time), Some(form)) => format!("{}: {} UTC", form.describe(), show_time(time)),
        (Err(what), _) => what,
        (Ok(_), None) => "not understood".to_string(),
    })
}

fn label_column(
    events: &Peek,
    options: &PrepareOptions,
    understood: &mut Vec<Understood>,
) -> Result<Option<usize>> {
    let label = events.find(Role::Label, options.columns.label.as_deref())?;
    match (label, &options.negatives, options.positive_from) {
        (Some(label), _, Some(from)) => {
            understood.push(events.understood(
                "label",
                label,
                format!("number; positive from {from}"),
            ));
        }
        (Some(label), _, None) if !options.positive.is_empty() => {
            let reading = format!("text; positive if {}", options.positive.join(" or "));
            understood.push(events.understood("label", label, reading));
        }
        (Some(label), _, None) => understood.push(events.understood("label", label, "0 or 1")),
        (None, _, None) if !options.positive.is_empty() => {
            events.require(Role::Label, None)?;
        }
        (None, _, Some(_)) => {
            events.require(Role::Label, None)?;
        }
        (None, Some(negatives), None) => understood.push(Understood {
            what: "label".to_string(),
            table: String::new(),
            column: "(none)".to_string(),
            example: String::new(),
            reading: format!(
                "every row is positive; {} {} negatives are drawn for each",
                negatives.count,
                negatives.method.as_str()
            ),
        }),
        (None, None, None) => {
            let what = format!(
                "no label column, so every row is a positive event; ask for sampled negatives (--negatives N), or \
                 name the label; found: {}",
                events.table.columns().join(", ")
            );
            return Err(Error::content(events.table.path(), what));
        }
    }
    Ok(label)
}

fn describe_items(
    inputs: &Inputs,
    options: &PrepareOptions,
    events: &Peek,
    item: usize,
    unlisted: bool,
    understood: &mut Vec<Understood>,
) -> Result<(Option<Described>, Vec<FieldColumn>)> {
    let columns = &options.columns;
    let Some(table) = &inputs.items else {
        if let Some(field) = columns.item_fields.iter().flatten().next() {
            return Err(Error::option(format!("item field `{field}` without an items table")));
        }
        if let Some(image) = &columns.image {
            return Err(Error::option(format!("image column `{image}` without an items table")));
        }
        return Ok((None, Vec::new()));
    };
    let peek = Peek::new(table.as_ref())?;
    let key = key(&peek, Role::Item, columns.item.as_deref(), &events.table.columns()[item])?;
    understood.push(peek.understood("item", key, "text"));
    let image = peek.find(Role::Image, columns.image.as_deref())?;
    understood.push(match image {
        Some(image) => peek.understood("image", image, "name of a picture"),
        None => Understood {
            what: "image".to_string(),
            table: peek.understood("image", key, "").table,
            column: "(none)".to_string(),
            example: String::new(),
            reading: "no column names a picture; if one does, say --image COLUMN".to_string(),
        },
    });
    let taken = [Some(key), image];
    let cells = described(
        &peek,
        "item field",
        columns.item_fields.as_deref(),
        unlisted.then_some(options.decimal),
        &taken,
        understood,
    )?;
    let fields = cells.iter().map(|cells| cells.field.clone()).collect();
    Ok((Some(Described { key, image, cells }), fields))
}

#[allow(clippy::type_complexity)] // Three parts of one mapping, taken apart by the only caller.
fn describe_users(
    inputs: &Inputs,
    options: &PrepareOptions,
    events: &Peek,
    user: usize,
    unlisted: bool,
    event_cells: &mut Vec<Cells>,
    understood: &mut Vec<Understood>,
) -> Result<(Option<Described>, Vec<FieldColumn>, Vec<Origin>)> {
    let columns = &options.columns;
    let listed = columns.user_fields.as_deref();
    let mut users = None;
    let mut known = Vec::new();
    if let Some(table) = &inputs.users {
        let peek = Peek::new(table.as_ref())?;
        let key = key(&peek, Role::User, columns.user.as_deref(), &events.table.columns()[user])?;
        understood.push(peek.understood("user", key, "text"));
        let there: Option<Vec<_>> = listed.map(|fields| {
            fields.iter().filter(|field| peek.position(&field.column).is_some()).cloned().collect()
        });
        let cells = described(
            &peek,
            "user field",
            there.as_deref(),
            unlisted.then_some(options.decimal),
            &[Some(key)],
            understood,
        )?;
        known = cells.iter().map(|cells| cells.field.clone()).collect();
        users = Some(Described { key, image: None, cells });
    }
    let mut origins: Vec<_> = (0..known.len()).map(Origin::Users).collect();
    for field in listed.unwrap_or_default() {
        if known.contains(field) {
            continue;
        }
        let column = events.column(&field.column, "user field")?;
        understood.push(events.understood_field("user field", column, field));
        origins.push(Origin::Events(event_cells.len()));
        event_cells.push(Cells { column, field: field.clone() });
        known.push(field.clone());
    }
    Ok((users, known, origins))
}

/// The key column of a describing table: the stated name or the events' name for it if it is there,
/// else an alias, else `id`.
fn key(peek: &Peek, role: Role, stated: Option<&str>, in_events: &str) -> Result<usize> {
    let same = stated.and_then(|name| peek.position(name)).or_else(|| peek.position(in_events));
    match same {
        Some(column) => Ok(column),
        None => match peek.find(role, None)? {
            Some(column) => Ok(column),
            None => peek.position("id").map_or_else(|| peek.require(role, None), Ok),
        },
    }
}

/// The fields of a describing table: those listed, or, if nothing at all was listed, whatever is
/// fit, its numbers with the decimal mark `unlisted`.
fn described(
    peek: &Peek,
    what: &str,
    listed: Option<&[FieldColumn]>,
    unlisted: Option<Option<Decimal>>,
    taken: &[Option<usize>],
    understood: &mut Vec<Understood>,
) -> Result<Vec<Cells>> {
    let mut cells = Vec::new();
    for field in listed.unwrap_or_default() {
        let column = peek.column(&field.column, what)?;
        understood.push(peek.understood_field(what, column, field));
        cells.push(Cells { column, field: field.clone() });
    }
    for column in 0..peek.table.columns().len() {
        if taken.contains(&Some(column)) || cells.iter().any(|cells: &Cells| cells.column == column)
        {
            continue;
        }
        let field = match unlisted {
            Some(decimal) => peek.default_field(column, decimal),
            None => Err("not listed as a field"),
        };
        match field {
            Ok(field) => {
                understood.push(peek.understood_field(what, column, &field));
                cells.push(Cells { column, field });
            }
            Err(why) => understood.push(peek.understood("ignored", column, why)),
        }
    }
    Ok(cells)
}

fn schema(user: &[FieldColumn], item: &[FieldColumn], context: &[FieldColumn]) -> Schema {
    let plain = |name: &str, side| Field {
        kind: Some(FieldKind::Categorical),
        ..Field::verbatim(name, side, false)
    };
    let field = |column: &FieldColumn, side| Field {
        kind: Some(column.kind.of_card()),
        ..Field::verbatim(&column.name, side, column.kind.is_multi())
    };
    let mut fields = vec![plain(USER, Side::User)];
    fields.extend(user.iter().map(|column| field(column, Side::User)));
    for side in [Side::Behavior, Side::Ad] {
        fields.push(plain(ITEM, side));
        fields.extend(item.iter().map(|column| field(column, side)));
    }
    fields.extend(context.iter().map(|column| field(column, Side::Context)));
    Schema { fields }
}
