//! `ams prepare`: from an event log to samples.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use ams_data::check::{CheckReport, check};
use ams_data::negatives::{Method, NegativeOptions};
use ams_data::prepare::{
    Accept, Decimal, Existing, FieldColumn, Inputs, Plan, PrepareOptions, PrepareReport, Progress,
    Repeats, SplitBy, plan,
};
use ams_data::schema::HoldOut;
use ams_data::source::{Delimiter, Encoding, Quoting, Table, TableOptions, open_all};
use ams_location::Locations;
use clap::{Args, FromArgMatches};

use crate::commands::own_past;
use crate::config_file;
use crate::failure::Failure;
use crate::output::{Output, count, fitted, width};

/// Turn an event log and an items table into a dataset, or check a dataset.
///
/// A table is one or more files, folders or patterns such as 'logs/*.parquet', here or in a bucket:
/// CSV, TSV, JSON lines (also with gzip or zstd), Parquet or Arrow IPC.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The event log: one row per impression (with a label) or per positive event.
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "check")]
    events: Vec<PathBuf>,
    /// One row per item: its picture and fields.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    items: Vec<PathBuf>,
    /// One row per user.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    users: Vec<PathBuf>,
    /// The folder of the new dataset.
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    out: Option<PathBuf>,
    /// Check the dataset in this folder instead, row by row; for datasets other programs wrote.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["events", "out"])]
    check: Option<PathBuf>,
    /// Replace a dataset that is there already.
    #[arg(long)]
    replace: bool,
    /// Settings in a TOML file; a flag overrides its setting.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    tables: TableArguments,
    #[command(flatten)]
    columns: ColumnArguments,
    #[command(flatten)]
    samples: SampleArguments,
}

/// How text files are read, where their bytes do not say.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tables")]
struct TableArguments {
    /// The separator of CSV cells in every table: `,` `;` `|` `::`, tab, `\t`, `^A`, `\x01`; found
    /// in the header unless given.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    delimiter: Option<Delimiter>,
    /// The same of the events alone.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    events_delimiter: Option<Delimiter>,
    /// The separator of CSV cells in the table of items.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    items_delimiter: Option<Delimiter>,
    /// The separator of CSV cells in the table of users.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    users_delimiter: Option<Delimiter>,
    /// How the text of every table is encoded: utf-8 (UTF-16 with its mark is recognized),
    /// latin-1, windows-1252, utf-16le or utf-16be.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    encoding: Option<Encoding>,
    /// The same of the events alone.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    events_encoding: Option<Encoding>,
    /// The encoding of the table of items.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    items_encoding: Option<Encoding>,
    /// The encoding of the table of users.
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    users_encoding: Option<Encoding>,
    /// The same as `--encoding latin-1`.
    #[arg(long, hide = true, conflicts_with = "encoding")]
    latin1: bool,
    /// The meaning of `"` in every table: checked (begins and ends a cell; one that seems to
    /// swallow rows is an error), trusted (without that check), backslash (`\"` is a mark within
    /// a cell) or none.
    #[arg(long, value_name = "HOW", value_parser = quoting)]
    quoting: Option<Quoting>,
    /// The same of the events alone.
    #[arg(long, value_name = "HOW", value_parser = quoting)]
    events_quoting: Option<Quoting>,
    /// The quoting of the table of items.
    #[arg(long, value_name = "HOW", value_parser = quoting)]
    items_quoting: Option<Quoting>,
    /// The quoting of the table of users.
    #[arg(long, value_name = "HOW", value_parser = quoting)]
    users_quoting: Option<Quoting>,
    /// The column names of events without a header: user,item,time,label.
    #[arg(long, visible_alias = "header", value_name = "NAMES", value_delimiter = ',')]
    events_header: Option<Vec<String>>,
    /// The column names of items without a header.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    items_header: Option<Vec<String>>,
    /// The column names of users without a header.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    users_header: Option<Vec<String>>,
}

/// The options of one table alone.
struct OwnOptions<'a> {
    delimiter: &'a Option<Delimiter>,
    encoding: Option<Encoding>,
    quoting: Option<Quoting>,
    header: &'a Option<Vec<String>>,
}

/// The value that `name` stands for.
fn named<T: Copy>(all: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
        format!("expected {}", names.join(", "))
    })
}

fn encoding(name: &str) -> Result<Encoding, String> {
    named(&Encoding::ALL, name)
}

fn quoting(name: &str) -> Result<Quoting, String> {
    named(&Quoting::ALL, name)
}

impl TableArguments {
    /// How the table called `name` is read; its `own` options first.
    fn of(&self, name: &str, own: OwnOptions<'_>) -> TableOptions {
        let OwnOptions { delimiter, encoding, quoting, header } = own;
        let all = if self.latin1 { Some(Encoding::Latin1) } else { self.encoding };
        TableOptions {
            name: name.to_owned(),
            delimiter: delimiter.as_ref().or(self.delimiter.as_ref()).cloned(),
            encoding: encoding.or(all).unwrap_or_default(),
            quoting: quoting.or(self.quoting).unwrap_or_default(),
            header: header
                .as_ref()
                .map(|names| names.iter().map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn events(&self) -> TableOptions {
        let own = OwnOptions {
            delimiter: &self.events_delimiter,
            encoding: self.events_encoding,
            quoting: self.events_quoting,
            header: &self.events_header,
        };
        self.of("events", own)
    }

    fn items(&self) -> TableOptions {
        let own = OwnOptions {
            delimiter: &self.items_delimiter,
            encoding: self.items_encoding,
            quoting: self.items_quoting,
            header: &self.items_header,
        };
        self.of("items", own)
    }

    fn users(&self) -> TableOptions {
        let own = OwnOptions {
            delimiter: &self.users_delimiter,
            encoding: self.users_encoding,
            quoting: self.users_quoting,
            header: &self.users_header,
        };
        self.of("users", own)
    }
}

/// The columns of the tables; found by common names unless given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns")]
struct ColumnArguments {
    /// The column of users, who saw the impression.
    #[arg(long, value_name = "COLUMN")]
    user: Option<String>,
    /// The column of items, which were shown.
    #[arg(long, value_name = "COLUMN")]
    item: Option<String>,
    /// The column of labels: 1 is a click, 0 is none.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// The column of times at which items were shown.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// The picture's name, in the items table.
    #[arg(long, value_name = "COLUMN")]
    image: Option<String>,
    /// The column of weights (dwell time, amount), for `--min-weight`.
    #[arg(long, value_name = "COLUMN")]
    weight: Option<String>,
    /// User fields, `[name=]column[:kind[:separator]]`, kind categorical, multi or numeric.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    user_fields: Option<Vec<FieldColumn>>,
    /// Item fields, in the form of --user-fields.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    item_fields: Option<Vec<FieldColumn>>,
    /// Context fields (hour, page, device), in the form of --user-fields.
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    context_fields: Option<Vec<FieldColumn>>,
    /// The decimal mark of numbers.
    #[arg(long, value_name = "MARK", value_enum)]
    decimal: Option<DecimalName>,
}

/// How samples are made of events.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Samples")]
pub(crate) struct SampleArguments {
    /// The test split begins at this instant.
    #[arg(long, value_name = "TIME")]
    test_from: Option<String>,
    /// Share of the log that is the test, unless `--test-from` is given.
    #[arg(long, value_name = "SHARE", conflicts_with = "test_from")]
    test_fraction: Option<f64>,
    /// Rows from this instant on do not count, as if the log ended there.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Training impressions begin at this instant; events before it are behaviors of later ones.
    #[arg(long, value_name = "TIME")]
    train_from: Option<String>,
    /// Cut the log at one instant, or each user's events at their tail.
    #[arg(long, value_name = "HOW", value_enum, default_value_t = SplitName::Time)]
    split: SplitName,
    /// Seconds a group may span.
    #[arg(long, value_name = "SECONDS")]
    group_span: Option<i64>,
    /// Impressions a group may have.
    #[arg(long, value_name = "N")]
    group_max: Option<usize>,
    /// Behaviors a group keeps.
    #[arg(long, value_name = "N")]
    max_behaviors: Option<usize>,
    /// Positive events below this weight are no behaviors.
    #[arg(long, value_name = "NUMBER")]
    min_weight: Option<f64>,
    /// Labels are numbers, positive from this one on.
    #[arg(long, value_name = "NUMBER")]
    positive_from: Option<f64>,
    /// Labels are words, positive if one of these (`click,buy`), in any case.
    #[arg(long, value_name = "WORD", value_delimiter = ',', conflicts_with = "positive_from")]
    positive: Vec<String>,
    /// How times are written: a format as of strptime (`%d/%m/%Y %H:%M`), or unix, unix-ms,
    /// unix-us, unix-ns.
    #[arg(long, value_name = "FORMAT")]
    time_format: Option<String>,
    /// Findings that are errors unless they are accepted.
    #[arg(long, value_name = "FINDING", value_enum, value_delimiter = ',')]
    accept: Vec<AcceptName>,
    /// Keep only the first positive event of a user and an item.
    #[arg(long)]
    first_only: bool,
    /// Negatives to draw per positive, for logs of positives only.
    #[arg(long, value_name = "N")]
    negatives: Option<u32>,
    /// How negatives are drawn.
    #[arg(long, value_name = "HOW", value_enum, requires = "negatives", default_value_t = MethodName::Popularity)]
    negatives_from: MethodName,
    /// Days after (for `around`: before and after) that count as the same time.
    #[arg(long, value_name = "DAYS", default_value_t = 3)]
    negatives_days: u32,
    /// Seed of the draw.
    #[arg(long, value_name = "N", default_value_t = 1)]
    negatives_seed: u64,
    /// Share of the items that training never sees, neither shown, drawn nor in histories; the
    /// test stays as it is, so that its cold items have impressions.
    #[arg(long, value_name = "SHARE")]
    hold_out_items: Option<f64>,
    /// Seed of the choice of items that are held out.
    #[arg(long, value_name = "N", requires = "hold_out_items", default_value_t = 1)]
    hold_out_seed: u64,
    /// Pieces each part is divided into while it is made (a power of two); more need less memory.
    #[arg(long, value_name = "N")]
    spill_per_part: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DecimalName {
    Point,
    Comma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SplitName {
    Time,
    UserTail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AcceptName {
    /// Times before 1990 or after 2099; such rows are kept then.
    Times,
    /// More than half of the rows left out.
    DroppedRows,
    /// Most items without a row in the items table, or some whose row seems to be written in
    /// another form.
    ItemsWithoutRow,
    /// The same of users and the users table.
    UsersWithoutRow,
    /// Most rows of the items table contradict an earlier row of the same item.
    RepeatedRows,
}

impl From<AcceptName> for Accept {
    fn from(name: AcceptName) -> Accept {
        match name {
            AcceptName::Times => Accept::Times,
            AcceptName::DroppedRows => Accept::DroppedRows,
            AcceptName::ItemsWithoutRow => Accept::ItemsWithoutRow,
            AcceptName::UsersWithoutRow => Accept::UsersWithoutRow,
            AcceptName::RepeatedRows => Accept::RepeatedRows,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum MethodName {
    /// Every item alike.
    Uniform,
    /// In proportion to the positives of the training period.
    Popularity,
    /// The same, each negative of a positive from another of N strata of popularity.
    Stratified,
    /// The items of other users' next positives: no count of an item's own past tells the label.
    Contemporary,
    /// Other users' positives within some days before and after, as version 0.1 drew them; an
    /// item's recent past tells the label.
    Around,
}

pub(crate) fn run(
    mut arguments: Arguments,
    locations: &Locations,
    output: Output<'_>,
) -> Result<(), Failure> {
    if let Some(dir) = &arguments.check {
        return check_dataset(dir, &locations.input(dir)?, output);
    }
    let out = arguments.out.clone().expect("clap asks for it");
    // Before anything is fetched.
    let place = locations.destination(&out, arguments.replace)?;
    if let Some(config) = &mut arguments.config {
        *config = locations.input(config)?;
    }
    let options = options(&arguments)?;
    let inputs = inputs(&arguments, locations)?;
    output.say(&was_read(&inputs));
    let existing = if arguments.replace { Existing::Replace } else { Existing::Refuse };
    let report = prepare(inputs, options, place.local(), existing, output)?;
    place.publish()?;
    output.finish(&report, || text(&report, &out));
    Ok(())
}

/// The tables that `arguments` name.
fn inputs(arguments: &Arguments, locations: &Locations) -> Result<Inputs, Failure> {
    let tables = &arguments.tables;
    let optional = |named: &[PathBuf], tables: TableOptions| match named {
        [] => Ok(None),
        named => open_all(locations, named, &tables).map(Some),
    };
    Ok(Inputs {
        events: open_all(locations, &arguments.events, &tables.events())?,
        items: optional(&arguments.items, tables.items())?,
        users: optional(&arguments.users, tables.users())?,
    })
}

/// The tables and options that flags of this command mean.
pub(crate) fn read(
    flags: &[OsString],
    locations: &Locations,
) -> Result<(Inputs, PrepareOptions), Failure> {
    let command = Arguments::augment_args(clap::Command::new("prepare").no_binary_name(true));
    let arguments = command.try_get_matches_from(flags);
    let arguments = arguments.and_then(|matches| Arguments::from_arg_matches(&matches));
    let arguments = arguments.map_err(|error| Failure::user(error.render().to_string()))?;
    Ok((inputs(&arguments, locations)?, options(&arguments)?))
}

/// Prepares a dataset; prints the plan and the progress.
pub(crate) fn prepare(
    inputs: Inputs,
    options: PrepareOptions,
    out: &Path,
    existing: Existing,
    output: Output<'_>,
) -> Result<PrepareReport, Failure> {
    let plan = plan(inputs, options)?;
    output.say(&understood(&plan));
    let bar = output.bar("prepare", 0, "{prefix:>10} {bar:32} {pos}/{len} {msg}");
    let report = plan.run(out, existing, &mut |progress| match progress {
        Progress::Reading { rows } => bar.set_message(format!("{} rows read", count(rows))),
        Progress::Surveying { done, total } => {
            bar.set_message("looking for negatives");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        Progress::Writing { done, total } => {
            bar.set_message("parts written");
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn options(arguments: &Arguments) -> Result<PrepareOptions, Failure> {
    let mut options: PrepareOptions = match &arguments.config {
        Some(path) => config_file::read(path, &[])?,
        None => PrepareOptions::default(),
    };
    let columns = &mut options.columns;
    let given = &arguments.columns;
    for (to, from) in [
        (&mut columns.user, &given.user),
        (&mut columns.item, &given.item),
        (&mut columns.label, &given.label),
        (&mut columns.time, &given.time),
        (&mut columns.image, &given.image),
        (&mut columns.weight, &given.weight),
    ] {
        if from.is_some() {
            to.clone_from(from);
        }
    }
    for (to, from) in [
        (&mut columns.user_fields, &given.user_fields),
        (&mut columns.item_fields, &given.item_fields),
        (&mut columns.context_fields, &given.context_fields),
    ] {
        if from.is_some() {
            to.clone_from(from);
        }
    }
    if let Some(decimal) = given.decimal {
        options.decimal = Some(match decimal {
            DecimalName::Point => Decimal::Point,
            DecimalName::Comma => Decimal::Comma,
        });
    }
    arguments.samples.apply(&mut options);
    Ok(options)
}

impl SampleArguments {
    /// Overrides `options` with the flags that were given.
    pub(crate) fn apply(&self, options: &mut PrepareOptions) {
        match (self.split, &self.test_from, self.test_fraction) {
            (SplitName::UserTail, _, fraction) => {
                options.split = SplitBy::UserTail(fraction.unwrap_or(0.1));
            }
            (_, Some(time), _) => options.split = SplitBy::TestFrom(time.clone()),
            (_, None, Some(fraction)) => options.split = SplitBy::Last(fraction),
            (_, None, None) => {}
        }
        for (to, from) in
            [(&mut options.until, &self.until), (&mut options.train_from, &self.train_from)]
        {
            if from.is_some() {
                to.clone_from(from);
            }
        }
        options.group_span = self.group_span.unwrap_or(options.group_span);
        options.group_max = self.group_max.unwrap_or(options.group_max);
        options.max_behaviors = self.max_behaviors.unwrap_or(options.max_behaviors);
        options.spill_per_part = self.spill_per_part.unwrap_or(options.spill_per_part);
        options.min_weight = self.min_weight.or(options.min_weight);
        options.positive_from = self.positive_from.or(options.positive_from);
        if !self.positive.is_empty() {
            options.positive.clone_from(&self.positive);
        }
        if self.time_format.is_some() {
            options.time_format.clone_from(&self.time_format);
        }
        options.accept.extend(self.accept.iter().map(|&name| Accept::from(name)));
        if self.first_only {
            options.repeats = Repeats::FirstOnly;
        }
        if let Some(share) = self.hold_out_items {
            options.hold_out_items = Some(HoldOut { share, seed: self.hold_out_seed });
        }
        if let Some(negatives) = self.negatives() {
            options.negatives = Some(negatives);
        }
    }

    /// The negatives asked for.
    pub(crate) fn negatives(&self) -> Option<NegativeOptions> {
        Some(NegativeOptions {
            count: self.negatives?,
            method: match self.negatives_from {
                MethodName::Uniform => Method::Uniform,
                MethodName::Popularity => Method::Popularity,
                MethodName::Stratified => Method::Stratified,
                MethodName::Contemporary => Method::Contemporary,
                MethodName::Around => Method::Around,
            },
            days: self.negatives_days,
            seed: self.negatives_seed,
        })
    }
}

/// A line of text for each table.
fn was_read(inputs: &Inputs) -> String {
    let tables = [
        ("events", Some(&inputs.events)),
        ("items", inputs.items.as_ref()),
        ("users", inputs.users.as_ref()),
    ];
    let line = |(name, table): (&str, Option<&Box<dyn Table>>)| {
        let table = table?;
        Some(format!("{name}: {} ({})", table.path().display(), table.notes().join("; ")))
    };
    tables.into_iter().filter_map(line).collect::<Vec<_>>().join("\n")
}

fn understood(plan: &Plan) -> String {
    let rows: Vec<Vec<String>> = plan
        .understood()
        .iter()
        .map(|row| {
            let column = if row.table.is_empty() {
                row.column.clone()
            } else {
                format!("{}: {}", row.table, row.column)
            };
            vec![row.what.clone(), column, row.example.clone(), row.reading.clone()]
        })
        .collect();
    let text = fitted(&["role", "column", "example", "read as"], &rows, 2, width());
    format!("I understood\n{text}")
}

/// The report as text.
pub(crate) fn text(report: &PrepareReport, out: &Path) -> String {
    let counts = &report.counts;
    let mut text = format!(
        "{}: {} users, {} items ({} with a picture), {} groups, {} impressions ({} train, {} test), {} clicks, \
         {:.1} behaviors per impression\n",
        out.display(),
        count(counts.users),
        count(counts.items),
        count(counts.items_with_image),
        count(counts.groups),
        count(counts.impressions),
        count(counts.train),
        count(counts.test),
        count(counts.clicks),
        counts.behaviors_mean,
    );
    let dropped = &report.dropped;
    for (what, rows) in [
        ("duplicate rows, kept once", dropped.duplicates),
        ("repeated positives, left out", dropped.repeated),
        ("positives too light to be behaviors", dropped.light),
        ("rows below positive_from, left out", dropped.not_positive),
        ("items held out of training", counts.items_held_out),
        ("training rows of held-out items, left out", dropped.held_out),
        ("rows without user, left out", dropped.without_user),
        ("rows without item, left out", dropped.without_item),
        ("rows without time, left out", dropped.without_time),
        ("rows with a time before 1990 or after 2099, left out", dropped.implausible_time),
        ("rows after the end that was asked for, left out", dropped.after_until),
        ("events before the training, behaviors only", dropped.before_train),
        ("cells that say NULL, nan or the like, read as missing", report.null_words),
        ("items that only the events know", report.items_without_row),
        ("users that the users table does not know", report.users_without_row),
        ("further rows of one item, ignored", report.items_redescribed),
        ("further rows of one user, ignored", report.users_redescribed),
    ] {
        if rows > 0 {
            text += &format!("  {what}: {}\n", count(rows));
        }
    }
    if let Some(drawn) = &report.drawn {
        text += &format!("  negatives drawn: {}\n", count(drawn.negatives));
        if drawn.short > 0 {
            text += &format!("  positives with fewer than asked for: {}\n", count(drawn.short));
        }
    }
    if let Some(own_past) = &report.own_past {
        text += &own_past::lines(own_past);
    }
    report.warnings.iter().for_each(|warning| text += &format!("warning: {warning}\n"));
    text
}

fn check_dataset(dir: &Path, local: &Path, output: Output<'_>) -> Result<(), Failure> {
    let bar = output.bar("check", 0, "{prefix:>10} {bar:32} {pos}/{len} files");
    let report = check(local, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    let report: CheckReport = report?;
    output.finish(&report, || {
        if report.is_sound() {
            format!(
                "{}: sound; {} groups, {} impressions in {} files\n",
                dir.display(),
                count(report.counts.groups),
                count(report.counts.impressions),
                report.files
            )
        } else {
            String::new()
        }
    });
    if report.is_sound() {
        Ok(())
    } else {
        Err(Failure::user(format!(
            "{}: {} problems, such as\n{}",
            dir.display(),
            count(report.problem_count),
            report.problems.join("\n")
        )))
    }
}
