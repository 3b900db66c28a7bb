//! From a page view to one group: names become ids, and items bring their pictures and fields.
//!
//! Every error names the JSON path of what is wrong.

use ams_data::schema::{ITEM, USER};
use ams_data::{Field, FieldKind, Groups, Id, PictureName, Ragged, Side};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::request::{Cell, FeatureColumns, Features, Options, PageView, Text};
use crate::tables::items::{Item, Items};

/// Most candidates of one request.
pub(crate) const CANDIDATES_MAX: usize = 10_000;

/// Most behaviors of one request, of which the model keeps the newest.
pub(crate) const BEHAVIORS_MAX: usize = 10_000;

/// A page view as one group.
pub(crate) struct Resolved<'a> {
    pub(crate) groups: Groups,
    pub(crate) behaviors: ResolvedItems<'a>,
    pub(crate) candidates: ResolvedItems<'a>,
}

/// The items of behaviors or of candidates, with their ids.
pub(crate) struct ResolvedItems<'a> {
    /// Where the columns are in the request.
    path: &'static str,
    /// Which row of the request each is.
    order: Vec<usize>,
    /// The item of each, as the request spells it.
    pub(crate) texts: Vec<&'a str>,
    ids: Vec<Id>,
    /// Where the bundle lists each item.
    pub(crate) items: Vec<Option<Item>>,
    features: &'a FeatureColumns,
}

/// The page view as the model reads it.
pub(crate) fn resolve<'a>(model: &Model, page: &'a PageView) -> Result<Resolved<'a>> {
    let past = &page.user.behaviors;
    check_candidates(page)?;
    let order = newest_first(model, page)?;
    let known = model.items();
    let behaviors = ResolvedItems::new("user.behaviors", known, &past.item, order, &past.features)?;
    let candidates = ResolvedItems::shown(known, page)?;

    let fields = |side| model.spec().fields.side(side).collect::<Vec<&Field>>();
    let mut groups = Groups::new(&model.spec().fields);
    let user = user_id(&fields(Side::User), page)?;
    groups.users.push(user.unwrap_or_default());
    groups.behaviors.push(behaviors.len());
    groups.user_fields = user_fields(&fields(Side::User), page, user)?;
    behaviors.push_to(&fields(Side::Behavior), known, &mut groups.behavior_fields)?;
    groups.behavior_pictures = behaviors.pictures(known).collect();
    groups.behavior_times = times_before(page, &behaviors.order);
    fill_shown(model, page, &candidates, &mut groups)?;
    Ok(Resolved { groups, behaviors, candidates })
}

/// Adds the candidates of a page view, in its context, to the impressions of the only group of
/// `groups`, which is of no use after an error.
pub(crate) fn add_shown(model: &Model, page: &PageView, groups: &mut Groups) -> Result<()> {
    check_candidates(page)?;
    let candidates = ResolvedItems::shown(model.items(), page)?;
    fill_shown(model, page, &candidates, groups)
}

/// Adds candidates to the impressions of the only group of `groups`.
fn fill_shown(
    model: &Model,
    page: &PageView,
    candidates: &ResolvedItems<'_>,
    groups: &mut Groups,
) -> Result<()> {
    let fields = |side| model.spec().fields.side(side).collect::<Vec<&Field>>();
    let count = candidates.len();
    repeat(&fields(Side::Context), &page.context, count, &mut groups.context_fields)?;
    candidates.push_to(&fields(Side::Ad), model.items(), &mut groups.ad_fields)?;
    groups.ad_pictures.extend(candidates.pictures(model.items()));
    groups.times.extend(std::iter::repeat_n(page.time.unwrap_or(0), count));
    groups.labels.extend(std::iter::repeat_n(0, count));
    groups.impressions.clear();
    groups.impressions.push(groups.labels.len());
    Ok(())
}

impl<'a> ResolvedItems<'a> {
    /// The candidates, in their order.
    fn shown(known: &Items, page: &'a PageView) -> Result<ResolvedItems<'a>> {
        let shown = &page.candidates;
        let all = (0..shown.item.len()).collect();
        ResolvedItems::new("candidates", known, &shown.item, all, &shown.features)
    }

    fn new(
        path: &'static str,
        known: &Items,
        items: &'a [Text],
        order: Vec<usize>,
        features: &'a FeatureColumns,
    ) -> Result<ResolvedItems<'a>> {
        if let Some(&at) = order.iter().find(|&&at| items[at].0.is_empty()) {
            return Err(Error::request(format!("{path}.item[{at}] is empty, expected an item")));
        }
        for (name, column) in features {
            check_len(&format!("{path}.features.{name}"), column.len(), path, items.len())?;
        }
        let texts: Vec<&str> = order.iter().map(|&row| &items[row].0[..]).collect();
        let id = |(&row, text): (&usize, &&str)| {
            let text = known.text(text).map_err(|what| {
                Error::request(format!("{path}.item[{row}]: {what}, expected an item"))
            })?;
            Ok(Id::of(ITEM, &text))
        };
        let ids = order.iter().zip(&texts).map(id).collect::<Result<Vec<_>>>()?;
        let items = ids.iter().map(|id| known.find_id(*id)).collect();
        Ok(ResolvedItems { path, order, texts, ids, items, features })
    }

    fn len(&self) -> usize {
        self.order.len()
    }

    /// Adds rows to the columns of `fields`, which are those of this side: what the request says,
    /// otherwise what the bundle knows of the items.
    fn push_to(&self, fields: &[&Field], known: &Items, columns: &mut [Ragged<Id>]) -> Result<()> {
        let path = format!("{}.features", self.path);
        let own = |field: &&&Field| field.name != ITEM;
        check_names(&path, self.features.keys(), fields.iter().copied().filter(|f| own(&f)))?;
        let mut each = fields.iter().zip(columns);
        each.try_for_each(|(field, column)| self.push_column(field, &path, known, column))
    }

    fn push_column(
        &self,
        field: &Field,
        path: &str,
        known: &Items,
        column: &mut Ragged<Id>,
    ) -> Result<()> {
        let (given, of_items) = (self.features.get(&field.name), known.field(&field.name));
        for ((&row, &id), &item) in self.order.iter().zip(&self.ids).zip(&self.items) {
            let cell = given.and_then(|given| given[row].as_ref());
            match (cell, item, of_items) {
                _ if field.name == ITEM => column.push(&[id]),
                (Some(cell), ..) => {
                    let path = || format!("{path}.{}[{row}]", field.name);
                    push_ids(field, cell, path, column)?;
                }
                (None, Some(item), Some(place)) => column.push(known.values(place, item)),
                _ => column.push(&[]),
            }
        }
        Ok(())
    }

    fn pictures(&self, known: &Items) -> impl Iterator<Item = PictureName> {
        let picture =
            |item: &Option<Item>| item.map_or(PictureName::NONE, |item| known.picture(item));
        self.items.iter().map(picture)
    }
}

fn check_candidates(page: &PageView) -> Result<()> {
    let (count, bids) = (page.candidates.item.len(), page.candidates.bid.as_deref());
    if count == 0 || count > CANDIDATES_MAX {
        let what = format!("candidates.item has {count} items, expected 1 to {CANDIDATES_MAX}");
        return Err(Error::request(what));
    }
    if let Some(bids) = bids {
        check_len("candidates.bid", bids.len(), "candidates", count)?;
        if let Some(at) = bids.iter().position(|bid| !bid.is_finite() || bid.is_sign_negative()) {
            let what = format!("candidates.bid[{at}] is {}, expected 0 or more", bids[at]);
            return Err(Error::request(what));
        }
    }
    match &page.options {
        Options { top_k: Some(0), .. } => {
            Err(Error::request("options.top_k is 0, expected at least 1"))
        }
        Options { deadline_ms: Some(0), .. } => {
            Err(Error::request("options.deadline_ms is 0, expected at least 1"))
        }
        _ => Ok(()),
    }
}

/// The rows of the newest behaviors that the model sees, newest first; of one time, those that come
/// first. ResolvedItems without an item are padding.
pub(crate) fn newest_first(model: &Model, page: &PageView) -> Result<Vec<usize>> {
    let behaviors = &page.user.behaviors;
    let count = behaviors.item.len();
    if count > BEHAVIORS_MAX {
        let what = format!("user.behaviors.item has {count} items, expected up to {BEHAVIORS_MAX}");
        return Err(Error::request(what));
    }
    let mut order: Vec<usize> =
        (0..count).filter(|&row| !model.items().is_missing(&behaviors.item[row].0)).collect();
    if let Some(times) = &behaviors.time {
        check_len("user.behaviors.time", times.len(), "user.behaviors", count)?;
        if let Some(row) = order.iter().find(|&&row| times[row].is_none()) {
            let what = format!(
                "user.behaviors.time[{row}] is missing, expected a time as the row has an item"
            );
            return Err(Error::request(what));
        }
        order.sort_by_key(|&row| std::cmp::Reverse(times[row]));
    }
    order.truncate(model.spec().max_behaviors);
    Ok(order)
}

/// When the behaviors of the rows `order` were: at least a second before the page view, as in
/// samples, whatever the clocks of the client. Without the time of the page view, or without
/// theirs, they have the page view's, which is an unknown age.
fn times_before(page: &PageView, order: &[usize]) -> Vec<i64> {
    let (now, times) = (page.time.unwrap_or(0), page.user.behaviors.time.as_deref());
    let before =
        |time: i64| if page.time.is_some() { time.min(now.saturating_sub(1)) } else { now };
    let of = |&row: &usize| times.and_then(|times| times[row]).map_or(now, before);
    order.iter().map(of).collect()
}

/// The user, if the request names one.
fn user_id(fields: &[&Field], page: &PageView) -> Result<Option<Id>> {
    let field = fields.iter().find(|field| field.name == USER);
    let (Some(field), Some(id)) = (field, &page.user.id) else { return Ok(None) };
    field.id(&id.0).map_err(|what| Error::request(format!("user.id: {what}")))
}

fn user_fields(fields: &[&Field], page: &PageView, user: Option<Id>) -> Result<Vec<Ragged<Id>>> {
    let (path, features) = ("user.features", &page.user.features);
    let own = fields.iter().copied().filter(|field| field.name != USER);
    check_names(path, features.keys(), own)?;
    let column = |field: &&Field| {
        let mut column = Ragged::default();
        match &field.name[..] {
            USER => column.push(user.as_slice()),
            _ => push_single(field, path, features, &mut column)?,
        }
        Ok(column)
    };
    fields.iter().map(column).collect()
}

/// Adds the context to the columns of its fields: the same values for each of `count` candidates,
/// at least one.
fn repeat(
    fields: &[&Field],
    features: &Features,
    count: usize,
    columns: &mut [Ragged<Id>],
) -> Result<()> {
    check_names("context", features.keys(), fields.iter().copied())?;
    for (field, column) in fields.iter().zip(columns) {
        push_single(field, "context", features, column)?;
        let one = column.values[column.offsets.range(column.len() - 1)].to_vec();
        (1..count).for_each(|_| column.push(&one));
    }
    Ok(())
}

fn push_single(
    field: &Field,
    path: &str,
    features: &Features,
    column: &mut Ragged<Id>,
) -> Result<()> {
    match features.get(&field.name) {
        Some(Some(cell)) => {
            push_ids(field, cell, || format!("{path}.{}", field.name), column)?;
        }
        _ => column.push(&[]),
    }
    Ok(())
}

/// Appends a row of the ids of one cell, which is read as a cell of the samples is.
fn push_ids(
    field: &Field,
    cell: &Cell,
    path: impl Fn() -> String,
    column: &mut Ragged<Id>,
) -> Result<()> {
    let before = column.values.len();
    let mut push = |text: &str| -> Result<()> {
        let id = field.id(text).map_err(|what| Error::request(format!("{}: {what}", path())))?;
        column.values.extend(id);
        Ok(())
    };
    match cell {
        // A text alone may be a whole list, as a cell of a log is; a list is its values.
        Cell::One(one) if matches!(field.kind, Some(FieldKind::List { .. })) => {
            field.cut(&one.0).iter().try_for_each(|text| push(text))?;
        }
        cell => cell.texts().iter().try_for_each(|text| push(&text.0))?,
    }
    let count = column.values.len() - before;
    if count > 1 && !field.multi {
        let what = format!("{} has {count} values; this field has one", path());
        return Err(Error::request(what));
    }
    column.offsets.push(count);
    Ok(())
}

fn check_len(path: &str, got: usize, rows: &str, expected: usize) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    let what = format!("{path} has {got} values, expected {expected} as {rows}.item");
    Err(Error::request(what))
}

fn check_names<'a>(
    path: &str,
    mut names: impl Iterator<Item = &'a String>,
    fields: impl Iterator<Item = &'a Field>,
) -> Result<()> {
    let known: Vec<&str> = fields.map(|field| &field.name[..]).collect();
    let Some(name) = names.find(|name| !known.contains(&&name[..])) else { return Ok(()) };
    let advice = match nearest(name, &known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "the model has no fields here".to_owned(),
        None => format!("the model has {}", known.join(", ")),
    };
    Err(Error::request(format!("{path}.{name}: no such field; {advice}")))
}

/// The known name that `name` may be a slip of.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |known: &&&str| strsim::damerau_levenshtein(name, known);
    let near = known.iter().min_by_key(distance)?;
    (distance(&near) <= (name.chars().count() / 3).max(1)).then_some(*near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Fixture, ROWS, Row};
    use ams_model::ImageArm;

    fn groups_of(fixture: &Fixture, json: &str) -> Result<Groups, String> {
        let model = fixture.model();
        let page = PageView::parse(json.as_bytes()).map_err(|error| error.to_string())?;
        resolve(&model, &page).map(|resolved| resolved.groups).map_err(|error| error.to_string())
    }

    #[test]
    fn a_page_view_is_the_group_that_samples_hold() {
        let fixture = Fixture::new(ImageArm::Joint);
        let requests = [
            r#"{"user": {"id": "u1", "features": {"age": 25, "tags": ["a", "b"]},
                "behaviors": {"item": [1, 5, "1"]}},
                "context": {"hour": 12}, "candidates": {"item": ["3", 4]}}"#,
            r#"{"user": {"id": "u2", "features": {"age": null, "tags": []}},
                "context": {"hour": "7"}, "candidates": {"item": ["1"]}}"#,
            r#"{"user": {"id": "nobody", "features": {"age": "99", "tags": ["z", "", "a"]},
                "behaviors": {"item": ["2", "77", "4", "6"]}},
                "context": {"hour": "8"}, "candidates": {"item": ["5", "78", "2"]}}"#,
        ];
        for (json, row) in requests.into_iter().zip(ROWS) {
            let fixture = Fixture::new(ImageArm::Joint);
            assert_eq!(groups_of(&fixture, json), Ok(fixture.groups(&[row])), "{json}");
        }
        let nobody = groups_of(&fixture, r#"{"candidates": {"item": ["1"]}}"#).unwrap();
        let expected: Row<'_> = ("", "", &[], &[], &[("1", "")]);
        assert_eq!(nobody.user_fields, fixture.groups(&[expected]).user_fields);
    }

    #[test]
    fn the_newest_behaviors_are_kept_in_order() {
        let fixture = Fixture::new(ImageArm::Joint);
        let json = r#"{"user": {"id": "u1", "behaviors": {
            "item": ["1", "2", "3", "4", "5", "6"], "time": [10, 60, 30, 30, 5, 20],
            "features": {"category": [null, null, "first", "second", null, null]}}},
            "candidates": {"item": ["1"]}}"#;
        let groups = groups_of(&fixture, json).unwrap();
        let items = ["2", "3", "4", "6"].map(|item| Id::of("item", item));
        let categories = ["shoes", "first", "second", "hats"].map(|c| Id::of("category", c));
        assert_eq!(groups.behavior_fields[0].values, items);
        assert_eq!(groups.behavior_fields[1].values, categories);
        let pictures = ["", "3.png", "4.png", "1.png"].map(PictureName::of);
        assert_eq!(groups.behavior_pictures, pictures);
    }

    /// Behaviors are older than the page view, or of an unknown age, which is 0.
    #[test]
    fn ages_are_counted_from_the_time_of_the_page_view() {
        let model = Fixture::new(ImageArm::Joint).model();
        let cases = [
            (
                r#"{"user": {"behaviors": {"item": ["1", "2"], "time": [900, 998]}}, "time": 1000,"#,
                [2, 100],
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1", "2"], "time": [1000, 2000]}}, "time": 1000,"#,
                [1, 1],
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1", "2"], "time": [900, 998]}}, "time": null,"#,
                [0, 0],
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1", "2"]}}, "time": "1970-01-01T00:16:40","#,
                [0, 0],
            ),
        ];
        for (json, expected) in cases {
            let json = format!(r#"{json} "candidates": {{"item": ["3"]}}}}"#);
            let page = PageView::parse(json.as_bytes()).unwrap();
            let groups = resolve(&model, &page).map_err(|error| error.to_string()).unwrap().groups;
            assert_eq!(groups.ages(0).collect::<Vec<_>>(), expected, "{json}");
        }
    }

    #[test]
    fn rows_without_an_item_count_for_nothing() {
        let model = Fixture::new(ImageArm::Joint).model();
        let groups_of = |behaviors: &str| {
            let json = format!(
                r#"{{"user": {{"behaviors": {behaviors}}}, "candidates": {{"item": ["3"]}}}}"#
            );
            let page = PageView::parse(json.as_bytes()).unwrap();
            let resolved = resolve(&model, &page).map_err(|error| error.to_string());
            resolved.map(|resolved| resolved.groups)
        };
        let expected = groups_of(r#"{"item": ["5", "1"]}"#).unwrap();
        for behaviors in [
            r#"{"item": ["5", "1", "", ""]}"#,
            r#"{"item": ["", "5", null, "1"]}"#,
            r#"{"item": ["1", "", "5", ""], "time": [100, 300, 200, null]}"#,
            r#"{"item": ["5", "", "1"], "features": {"category": [null, ["a", "b"], null]}}"#,
        ] {
            assert_eq!(groups_of(behaviors).as_ref(), Ok(&expected), "{behaviors}");
        }
        let expected =
            "request: user.behaviors.time[0] is missing, expected a time as the row has an item";
        assert_eq!(groups_of(r#"{"item": ["1", "5"], "time": [null, 7]}"#).unwrap_err(), expected);
    }

    #[test]
    fn what_the_request_says_wins_over_the_bundle() {
        let fixture = Fixture::new(ImageArm::Joint);
        let json = r#"{"candidates": {"item": ["1", "4", "1", "78"],
            "features": {"category": [null, "boots", [], "boots"]}}}"#;
        let groups = groups_of(&fixture, json).unwrap();
        let of = |row: usize| groups.ad_fields[1].row(row).to_vec();
        let [shoes, boots] = ["shoes", "boots"].map(|name| vec![Id::of("category", name)]);
        assert_eq!([of(0), of(1), of(2), of(3)], [shoes, boots.clone(), vec![], boots]);
    }

    #[test]
    fn errors_name_the_path() {
        let many = vec!["1"; CANDIDATES_MAX + 1];
        let many = serde_json::json!({"candidates": {"item": many}}).to_string();
        let long = vec!["1"; BEHAVIORS_MAX + 1];
        let long = serde_json::json!({
            "user": {"behaviors": {"item": long}}, "candidates": {"item": ["1"]}
        });
        let cases = [
            (r#"{"candidates": {"item": []}}"#, "candidates.item has 0 items, expected 1 to 10000"),
            (&many, "candidates.item has 10001 items, expected 1 to 10000"),
            (&long.to_string(), "user.behaviors.item has 10001 items, expected up to 10000"),
            (
                r#"{"candidates": {"item": ["1", ""]}}"#,
                "candidates.item[1] is empty, expected an item",
            ),
            (
                r#"{"candidates": {"item": ["1", "2"], "bid": [1]}}"#,
                "candidates.bid has 1 values, expected 2 as candidates.item",
            ),
            (
                r#"{"candidates": {"item": ["1", "2"], "bid": [1, -0.5]}}"#,
                "candidates.bid[1] is -0.5, expected 0 or more",
            ),
            (
                r#"{"candidates": {"item": ["1"], "features": {"category": []}}}"#,
                "candidates.features.category has 0 values, expected 1 as candidates.item",
            ),
            (
                r#"{"candidates": {"item": ["1"], "features": {"categroy": ["a"]}}}"#,
                "candidates.features.categroy: no such field; did you mean `category`?",
            ),
            (
                r#"{"candidates": {"item": ["1"], "features": {"category": [["a", "b"]]}}}"#,
                "candidates.features.category[0] has 2 values; this field has one",
            ),
            (
                r#"{"user": {"behaviors": {"item": ["1"], "time": [1, 2]}}, "candidates": {"item": ["1"]}}"#,
                "user.behaviors.time has 2 values, expected 1 as user.behaviors.item",
            ),
            (
                r#"{"user": {"features": {"gender": "f"}}, "candidates": {"item": ["1"]}}"#,
                "user.features.gender: no such field; the model has age, tags",
            ),
            (
                r#"{"user": {"features": {"age": ["1", "2"]}}, "candidates": {"item": ["1"]}}"#,
                "user.features.age has 2 values; this field has one",
            ),
            (
                r#"{"context": {"hours": 3}, "candidates": {"item": ["1"]}}"#,
                "context.hours: no such field; did you mean `hour`?",
            ),
            (
                r#"{"candidates": {"item": ["1"]}, "options": {"top_k": 0}}"#,
                "options.top_k is 0, expected at least 1",
            ),
            (
                r#"{"candidates": {"item": ["1"]}, "options": {"deadline_ms": 0}}"#,
                "options.deadline_ms is 0, expected at least 1",
            ),
        ];
        let fixture = Fixture::new(ImageArm::None);
        let model = fixture.model();
        for (json, expected) in cases {
            let page = PageView::parse(json.as_bytes()).unwrap();
            let error = resolve(&model, &page).map(|_| ()).expect_err(expected).to_string();
            assert_eq!(error, format!("request: {expected}"));
        }
        let mut page = PageView::parse(br#"{"candidates": {"item": ["1"]}}"#).unwrap();
        for bid in [f64::NAN, f64::INFINITY] {
            page.candidates.bid = Some(vec![bid]);
            let error = resolve(&model, &page).map(|_| ()).unwrap_err().to_string();
            assert_eq!(error, format!("request: candidates.bid[0] is {bid}, expected 0 or more"));
        }
    }
}
