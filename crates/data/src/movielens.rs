//! MovieLens 100K, 1M and the small or latest CSV layout as tables for `prepare`. Knows their files
//! and what their columns mean; grouping, splitting and sampling is `prepare`'s.
//!
//! ```text
//! 100K (Latin-1) u.data       user, item, rating, timestamp            separated by tabs
//!                u.item       id|title (year)|release|video release|address|19 genres, 0 or 1 each
//!                u.user       id|age|gender|occupation|zip
//! 1M (Latin-1)   ratings.dat  UserID::MovieID::Rating::Timestamp
//!                movies.dat   MovieID::Title (Year)::Genre|Genre
//!                users.dat    UserID::Gender::Age::Occupation::Zip-code
//! CSV (UTF-8)    ratings.csv  userId,movieId,rating,timestamp
//!                movies.csv   movieId,title,genres
//! ```

use std::path::Path;

use crate::negatives::NegativeOptions;
use crate::prepare::{FieldColumn, Inputs, Kind, PrepareOptions, SplitBy};
use crate::source::{self, Batches, Encoding, MemoryTable, Quoting, Table, TableOptions};
use crate::{Error, Result};

/// What counts as a click.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Clicks {
    /// A rating of 4 or more; lower ones are impressions without a click.
    #[default]
    Ratings,
    /// Every rating; negatives are sampled.
    Implicit(NegativeOptions),
}

/// Ratings per group: users rate everything in one sitting, and a group's impressions share a
/// history.
pub(crate) const GROUP_MAX: usize = 5;

/// The options of [`crate::prepare::plan`] that suit these data: small groups, the last tenth of
/// the time as test.
pub fn options(clicks: &Clicks) -> PrepareOptions {
    let mut options = PrepareOptions {
        name: Some("movielens".to_string()),
        group_max: GROUP_MAX,
        split: SplitBy::Last(0.1),
        ..PrepareOptions::default()
    };
    match clicks {
        Clicks::Ratings => {
            options.columns.label = Some("rating".to_string());
            options.positive_from = Some(4.0);
        }
        Clicks::Implicit(negatives) => {
            // As many ratings per group as otherwise, each with its negatives.
            options.group_max *= 1 + negatives.count as usize;
            options.negatives = Some(negatives.clone());
        }
    }
    options
}

/// The tables of the MovieLens folder `dir`, and `options` with their columns filled in. Movie m
/// has the picture `m.jpg` if that file is in `images` (not given: the folder `images` of `dir`).
///
/// # Errors
/// [`Error::Content`] if `dir` has neither layout or a row is not what it should be; [`Error::Io`].
pub fn inputs(
    dir: &Path,
    images: Option<&Path>,
    mut options: PrepareOptions,
) -> Result<(Inputs, PrepareOptions)> {
    let images = match images {
        Some(images) if !images.is_dir() => {
            return Err(Error::content(
                images,
                "no such folder; expected pictures called 1.jpg, 2.jpg, ...",
            ));
        }
        Some(images) => images.to_path_buf(),
        None => dir.join("images"),
    };
    let field = |name: &str, kind| FieldColumn { name: name.into(), column: name.into(), kind };
    let columns = &mut options.columns;
    columns.user = Some("user".to_string());
    columns.item = Some("item".to_string());
    columns.time = Some("timestamp".to_string());
    columns.item_fields =
        Some(vec![field("genres", Kind::Multi("|".to_string())), field("year", Kind::Categorical)]);
    columns.context_fields = Some(Vec::new());
    let (events, movies, users): (Box<dyn Table>, _, _) = if dir.join("u.data").is_file() {
        let ratings = ["user", "item", "rating", "timestamp"];
        let ratings = text_table(&dir.join("u.data"), "\\t", &ratings)?;
        let columns = [&["item", "title", "released", "video", "address"], &GENRES[..]].concat();
        let movies = text_table(&dir.join("u.item"), "|", &columns)?;
        let users = ["user", "age", "gender", "occupation", "zip"];
        let users = text_table(&dir.join("u.user"), "|", &users)?;
        let movies = flagged_movies_table(movies.as_ref(), &images)?;
        (ratings, movies, Some(users_table(users.as_ref(), |age| age_group(age))?))
    } else if dir.join("ratings.dat").is_file() {
        let ratings =
            text_table(&dir.join("ratings.dat"), "::", &["user", "item", "rating", "timestamp"])?;
        let movies = text_table(&dir.join("movies.dat"), "::", &["item", "title", "genres"])?;
        let users = text_table(
            &dir.join("users.dat"),
            "::",
            &["user", "gender", "age", "occupation", "zip"],
        )?;
        let users = users_table(users.as_ref(), |age| age)?;
        (ratings, movies_table(movies.as_ref(), &images)?, Some(users))
    } else if dir.join("ratings.csv").is_file() {
        let ratings = source::open(&dir.join("ratings.csv"), &TableOptions::default())?;
        let movies = source::open(&dir.join("movies.csv"), &TableOptions::default())?;
        let ratings = Renamed::new(ratings, &[("userId", "user"), ("movieId", "item")]);
        let movies = Renamed::new(movies, &[("movieId", "item")]);
        (Box::new(ratings), movies_table(&movies, &images)?, None)
    } else {
        let what = "none of u.data (100K), ratings.dat (1M), ratings.csv (small, latest) is there; expected a \
                    MovieLens folder";
        return Err(Error::content(dir, what));
    };
    let fields = ["gender", "age", "occupation", "zip"].map(|name| field(name, Kind::Categorical));
    columns.user_fields = Some(if users.is_some() { fields.to_vec() } else { Vec::new() });
    let users = users.map(|table| Box::new(table) as Box<dyn Table>);
    Ok((Inputs { events, items: Some(Box::new(movies)), users }, options))
}

/// `item`, `image`, `genres`, `year` from a table with `item`, `title`, `genres`.
fn movies_table(movies: &dyn Table, images: &Path) -> Result<MemoryTable> {
    let mut rows = Vec::new();
    for_each_row(movies, &["item", "title", "genres"], |cells| {
        let [item, title, genres] = [0, 1, 2].map(|at| cells[at]);
        let image = picture(images, item);
        let genres = if genres == "(no genres listed)" { "" } else { genres };
        rows.push(vec![item.to_string(), image, genres.to_string(), year(title).to_string()]);
    })?;
    Ok(MemoryTable::new(movies.path(), &["item", "image", "genres", "year"], rows))
}

/// The genres of 100K in the order of their columns; the first says that none is known.
const GENRES: [&str; 19] = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
];

/// As [`movies_table`], from a table with a column of 0 and 1 for every genre.
fn flagged_movies_table(movies: &dyn Table, images: &Path) -> Result<MemoryTable> {
    let columns = [&["item", "title", "released"], &GENRES[..]].concat();
    let mut rows = Vec::new();
    for_each_row(movies, &columns, |cells| {
        let [item, title, released] = [0, 1, 2].map(|at| cells[at]);
        let flagged = GENRES.iter().zip(&cells[3..]).skip(1).filter(|(_, flag)| **flag == "1");
        let genres: Vec<&str> = flagged.map(|(genre, _)| *genre).collect();
        // 01-Jan-1995, where the title does not say it.
        let year = match (year(title), released.rsplit_once('-')) {
            ("", Some((_, year))) => year,
            (year, _) => year,
        };
        let image = picture(images, item);
        rows.push(vec![item.to_string(), image, genres.join("|"), year.to_string()]);
    })?;
    Ok(MemoryTable::new(movies.path(), &["item", "image", "genres", "year"], rows))
}

/// `7.jpg` if there is such a file, else nothing.
fn picture(images: &Path, item: &str) -> String {
    let picture = format!("{item}.jpg");
    if images.join(&picture).is_file() { picture } else { String::new() }
}

/// The group of 1M that an age in years is in, by its lower end; what is no age stays.
fn age_group(age: &str) -> &str {
    let Ok(years) = age.parse::<u32>() else { return age };
    match years {
        0..18 => "1",
        18..25 => "18",
        25..35 => "25",
        35..45 => "35",
        45..50 => "45",
        50..56 => "50",
        _ => "56",
    }
}

/// The users with their zip codes cut to the region, and their ages as `age` has them.
fn users_table(users: &dyn Table, age: impl Fn(&str) -> &str) -> Result<MemoryTable> {
    let columns = ["user", "gender", "age", "occupation", "zip"];
    let mut rows = Vec::new();
    for_each_row(users, &columns, |cells| {
        let mut row: Vec<String> = cells.iter().map(|cell| cell.to_string()).collect();
        row[2] = age(cells[2]).to_string();
        row[4] = row[4].chars().take(3).collect();
        rows.push(row);
    })?;
    Ok(MemoryTable::new(users.path(), &columns, rows))
}

/// The year at the end of a title such as `Toy Story (1995)`, or nothing.
fn year(title: &str) -> &str {
    let year = title.trim_end().strip_suffix(')').and_then(|title| title.rsplit_once('('));
    let year = year.map_or("", |(_, year)| year);
    if year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()) { year } else { "" }
}

fn for_each_row(table: &dyn Table, names: &[&str], mut take: impl FnMut(&[&str])) -> Result<()> {
    let mut columns = Vec::new();
    for name in names {
        let position = table.columns().iter().position(|column| column == name);
        columns.push(position.ok_or_else(|| {
            let found = table.columns().join(", ");
            Error::content(table.path(), format!("no column for the {name}; found: {found}"))
        })?);
    }
    for batch in table.batches(&columns)? {
        let batch = batch?;
        for row in 0..batch.rows() {
            let cells: Vec<_> = (0..names.len()).map(|column| batch.get(column, row)).collect();
            take(&cells);
        }
    }
    Ok(())
}

/// A table with some columns under other names.
struct Renamed {
    table: Box<dyn Table>,
    columns: Vec<String>,
}

impl Renamed {
    fn new(table: Box<dyn Table>, names: &[(&str, &str)]) -> Renamed {
        let rename = |column: &String| match names.iter().find(|(from, _)| from == column) {
            Some((_, to)) => to.to_string(),
            None => column.clone(),
        };
        let columns = table.columns().iter().map(rename).collect();
        Renamed { table, columns }
    }
}

impl Table for Renamed {
    fn path(&self) -> &Path {
        self.table.path()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn batches(&self, columns: &[usize]) -> Result<Batches<'_>> {
        self.table.batches(columns)
    }

    fn column_type(&self, column: usize) -> Option<String> {
        self.table.column_type(column)
    }

    fn unusable(&self, column: usize) -> Option<String> {
        self.table.unusable(column)
    }

    fn notes(&self) -> Vec<String> {
        self.table.notes()
    }
}

/// A file of lines such as `a::b::c` in Latin-1, without a header.
fn text_table(path: &Path, delimiter: &str, columns: &[&str]) -> Result<Box<dyn Table>> {
    let options = TableOptions {
        delimiter: Some(delimiter.parse().map_err(Error::option)?),
        encoding: Encoding::Latin1,
        quoting: Quoting::None,
        header: Some(columns.iter().map(|name| name.to_string()).collect()),
        ..TableOptions::default()
    };
    source::open(path, &options)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::prepare::{Existing, plan};
    use crate::schema::Labels;
    use crate::{Catalogue, Dataset};

    /// Imports a folder of these files (and an image for movie 1) and opens the dataset.
    fn import(files: &[(&str, &[u8])], clicks: Clicks) -> Result<Dataset, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        fs::write(dir.path().join("images/1.jpg"), b"").unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(dir.path().join(name), bytes).unwrap());
        let out = dir.path().join("out");
        let run = || {
            let mut options = options(&clicks);
            options.split = SplitBy::Last(0.3);
            options.accept = vec![crate::prepare::Accept::Times];
            options.parts = 2;
            let (inputs, options) = inputs(dir.path(), None, options)?;
            plan(inputs, options)?.run(&out, Existing::Refuse, &mut |_| {})?;
            let dataset = Dataset::open(&out)?;
            let catalogue = Catalogue::open(&dataset)?;
            assert_eq!((catalogue.item(0), catalogue.image(0)), ("1", Some("1.jpg")));
            assert_eq!(catalogue.values(0, 0).collect::<Vec<_>>(), ["Action", "Drama"]);
            assert_eq!(catalogue.values(1, 0).collect::<Vec<_>>(), ["1995"]);
            assert_eq!(catalogue.image(1), None);
            Ok(dataset)
        };
        run().map_err(|error: Error| {
            error.to_string().replace(&dir.path().display().to_string(), "DIR")
        })
    }

    const MOVIES: &[u8] = b"1::Caf\xe9 (1995)::Action|Drama\n2::Heat::Comedy\n";
    const USERS: &[u8] = b"1::F::1::10::48067\n2::M::56::16::70072\n";
    const RATINGS: &[u8] = b"1::1::5::100\n1::2::3::200\n2::2::4::100\n2::1::1::300\n";

    #[test]
    fn one_m() {
        let files = [("ratings.dat", RATINGS), ("movies.dat", MOVIES), ("users.dat", USERS)];
        let dataset = import(&files, Clicks::Ratings).unwrap();
        let counts = &dataset.card().counts;
        assert_eq!((counts.users, counts.impressions, counts.clicks, counts.test), (2, 4, 2, 1));
        let names: Vec<_> =
            dataset.schema().fields.iter().map(|field| field.name.as_str()).collect();
        let expected = "user gender age occupation zip item genres year item genres year";
        assert_eq!(names.join(" "), expected);
    }

    #[test]
    fn films_of_100k() {
        let mut columns = vec!["item", "title", "released"];
        columns.extend(GENRES);
        let film = |item: &str, title: &str, released: &str, genres: &[&str]| {
            let mut row: Vec<_> = [item, title, released].map(String::from).into();
            row.extend(GENRES.map(|genre| u8::from(genres.contains(&genre)).to_string()));
            row
        };
        let rows = vec![
            film("1", "Toy (1995)", "01-Jan-1990", &["Action", "War"]),
            film("2", "Heat", "09-Jan-1996", &["unknown"]),
            film("3", "Heat", "", &[]),
        ];
        let movies = MemoryTable::new("u.item", &columns, rows);
        let films = flagged_movies_table(&movies, Path::new("nowhere")).unwrap();
        let mut found = Vec::new();
        for_each_row(&films, &["item", "image", "genres", "year"], |cells| {
            found.push(cells.join(";"));
        })
        .unwrap();
        assert_eq!(found, ["1;;Action|War;1995", "2;;;1996", "3;;;"]);
    }

    #[test]
    fn one_hundred_k() {
        let ratings = b"1\t1\t5\t100\n1\t2\t3\t200\n2\t2\t4\t100\n2\t1\t1\t300\n";
        let flags = |on: &[usize]| -> String {
            (0..19).map(|at| if on.contains(&at) { "|1" } else { "|0" }).collect()
        };
        let mut movies = b"1|Caf\xe9 (1995)|01-Jan-1990||http://x".to_vec();
        movies.extend(format!("{}\n2|Heat|09-Jan-1996||{}\n", flags(&[1, 8]), flags(&[0])).bytes());
        let users = b"1|24|M|technician|85711\n2|5|F|other|94043\n";
        let files = [("u.data", &ratings[..]), ("u.item", &movies), ("u.user", users)];
        let dataset = import(&files, Clicks::Ratings).unwrap();
        let counts = &dataset.card().counts;
        assert_eq!((counts.users, counts.impressions, counts.clicks, counts.test), (2, 4, 2, 1));
        let groups: Vec<_> = ["0", "17", "18", "49", "50", "73", "x"].map(age_group).into();
        assert_eq!(groups, ["1", "1", "18", "45", "50", "56", "x"]);
    }

    #[test]
    fn csv_and_implicit() {
        let ratings = b"userId,movieId,rating,timestamp\n1,1,0.5,100\n2,2,4.0,300\n";
        let movies = b"movieId,title,genres\n1,\"Film, A (1995)\",Action|Drama\n2,B,(no genres listed)\n3,C (1999),X\n";
        let negatives = NegativeOptions { count: 1, ..NegativeOptions::default() };
        let files = [("ratings.csv", &ratings[..]), ("movies.csv", movies)];
        let dataset = import(&files, Clicks::Implicit(negatives)).unwrap();
        let counts = &dataset.card().counts;
        assert_eq!((counts.impressions, counts.clicks, counts.train, counts.test), (4, 2, 2, 2));
        let labels = Labels::Sampled { negatives: 1, method: "popularity".into(), seed: 1 };
        assert_eq!(dataset.card().labels, labels);
    }

    #[test]
    fn a_broken_line_and_another_folder() {
        let ratings = b"1::1::5::100\n1::2::3\n";
        let files = [("ratings.dat", &ratings[..]), ("movies.dat", MOVIES), ("users.dat", USERS)];
        let error = import(&files, Clicks::Ratings).unwrap_err();
        assert_eq!(
            error,
            "DIR/ratings.dat: line 2: 3 cells; expected 4: user, item, rating, timestamp"
        );
        let error = import(&[], Clicks::Ratings).unwrap_err();
        assert!(error.starts_with("DIR: none of u.data (100K), ratings.dat (1M)"), "{error}");
    }

    /// Likewise, counted by hand with awk: all films but the one without a title have a year.
    #[test]
    fn the_real_ml_100k() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml100k-posters");
        if !dir.is_dir() {
            eprintln!("skipped: no {}", dir.display());
            return;
        }
        let (inputs, _) = inputs(&dir, None, options(&Clicks::Ratings)).unwrap();
        let movies = inputs.items.unwrap();
        let (mut years, mut genres) = (0, 0);
        for_each_row(movies.as_ref(), &["item", "year", "genres"], |cells| {
            years += usize::from(cells[1].len() == 4);
            genres += cells[2].split('|').filter(|genre| !genre.is_empty()).count();
        })
        .unwrap();
        assert_eq!((years, genres), (1681, 2891));
    }

    /// The real data, where they are: counted by hand with awk.
    #[test]
    fn the_real_ml_1m() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/ml1m-posters");
        if !dir.is_dir() {
            eprintln!("skipped: no {}", dir.display());
            return;
        }
        let (inputs, _) = inputs(&dir, None, options(&Clicks::Ratings)).unwrap();
        let movies = inputs.items.unwrap();
        let mut count = 0;
        for_each_row(movies.as_ref(), &["item", "year"], |cells| {
            count += usize::from(cells[1].len() == 4)
        })
        .unwrap();
        assert_eq!(count, 3883);
    }
}
