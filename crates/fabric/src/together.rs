//! What processes do together: everything that can fail on one of them alone.
//!
//! A process that waits for one that gave up waits for ever. So an error of one process (a file
//! that it cannot read, a full disk) becomes an error of all before any of them goes on.

use std::collections::BTreeSet;
use std::fmt::Display;

use crate::{Fabric, Lost, gather};

/// Another process of the job has an error; it says so itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rank {rank}: {what}")]
pub struct Elsewhere {
    /// The lowest rank that has an error.
    pub rank: usize,
    /// The text of that rank's error.
    pub what: String,
}

/// The processes of the job are not of one kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the processes of this job differ:{differences}")]
pub struct Disagreement {
    /// A line for each difference, each after a line break.
    pub differences: String,
}

/// `mine`, if no process has an error; else that error everywhere, as [`Elsewhere`] where it did
/// not happen. All processes call it.
///
/// # Errors
/// The error of the lowest rank that has one, or a lost process.
pub fn together<T, E>(fabric: &mut dyn Fabric, mine: Result<T, E>) -> Result<T, E>
where
    E: Display + From<Lost> + From<Elsewhere>,
{
    if fabric.size() == 1 {
        return mine;
    }
    let text = mine.as_ref().err().map_or(String::new(), ToString::to_string);
    let mut all = gather::texts(fabric, &text)?;
    match all.iter().position(|text| !text.is_empty()) {
        None => mine,
        Some(rank) if rank == fabric.rank() => mine,
        Some(rank) => Err(Elsewhere { rank, what: all.swap_remove(rank) }.into()),
    }
}

/// What `work` gives at the first process, which alone does it; none at the others. All processes
/// call it.
///
/// # Errors
/// As [`together`].
pub fn on_first<T, E>(
    fabric: &mut dyn Fabric,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<Option<T>, E>
where
    E: Display + From<Lost> + From<Elsewhere>,
{
    let mine = if fabric.rank() == 0 { work().map(Some) } else { Ok(None) };
    together(fabric, mine)
}

/// Checks that name and value of all `facts` are the same in every process. All call it.
///
/// # Errors
/// [`Disagreement`] with every difference from the first process, or a lost process.
pub fn agree<E>(fabric: &mut dyn Fabric, facts: &[(String, String)]) -> Result<(), E>
where
    E: From<Lost> + From<Disagreement>,
{
    if fabric.size() == 1 {
        return Ok(());
    }
    // A fact is two lines: names and values have their line breaks escaped.
    let line =
        |text: &str| text.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r") + "\n";
    let text: String = facts.iter().map(|(name, value)| line(name) + &line(value)).collect();
    let all = gather::texts(fabric, &text)?;
    let all: Vec<Vec<(&str, &str)>> = all.iter().map(|text| pairs(text)).collect();
    let mut differences = String::new();
    for (rank, facts) in all.iter().enumerate().skip(1) {
        for (name, here, first) in differences_of(facts, &all[0]) {
            differences += &format!("\n  {name}: rank {rank} has {here}, rank 0 has {first}");
        }
    }
    if differences.is_empty() { Ok(()) } else { Err(Disagreement { differences }.into()) }
}

fn pairs(text: &str) -> Vec<(&str, &str)> {
    let mut lines = text.lines();
    std::iter::from_fn(|| Some((lines.next()?, lines.next()?))).collect()
}

/// Name, value here, value there of every fact that is not the same.
fn differences_of<'a>(
    here: &[(&'a str, &'a str)],
    there: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str, &'a str)> {
    let value = |facts: &[(&'a str, &'a str)], name: &str| {
        facts.iter().find(|(key, _)| *key == name).map_or("nothing", |(_, value)| *value)
    };
    let mut seen = BTreeSet::new();
    let names = here.iter().chain(there).map(|(name, _)| *name).filter(|name| seen.insert(*name));
    let pairs = names.map(|name| (name, value(here, name), value(there, name)));
    pairs.filter(|(_, here, there)| here != there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ThreadFabric;

    #[derive(Debug, PartialEq, thiserror::Error)]
    enum Error {
        #[error("{0}")]
        Own(String),
        #[error(transparent)]
        Elsewhere(#[from] Elsewhere),
        #[error(transparent)]
        Disagreement(#[from] Disagreement),
        #[error(transparent)]
        Lost(#[from] Lost),
    }

    fn facts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn ranks_that_differ_all_say_how() {
        let of_rank = |rank: usize| match rank {
            2 => facts(&[("ams", "0.2"), ("train.batch", "512"), ("data.images", "\"x\"")]),
            _ => facts(&[("ams", "0.1"), ("train.batch", "512")]),
        };
        for error in ThreadFabric::run(4, |mut fabric| {
            let facts = of_rank(fabric.rank());
            agree::<Error>(&mut fabric, &facts).unwrap_err().to_string()
        }) {
            assert!(error.contains("ams: rank 2 has 0.2, rank 0 has 0.1"), "{error}");
            assert!(error.contains("data.images: rank 2 has \"x\", rank 0 has nothing"), "{error}");
            assert!(!error.contains("batch"), "{error}");
        }
        let same = |mut fabric| agree::<Error>(&mut fabric, &of_rank(0));
        assert_eq!(ThreadFabric::run(2, same), [Ok(()), Ok(())]);
        let lines = |rank: usize| facts(&[("a\nb", if rank == 0 { "c\\n" } else { "c\n" })]);
        let differs = |mut fabric: ThreadFabric| {
            let facts = lines(fabric.rank());
            agree::<Error>(&mut fabric, &facts).unwrap_err().to_string()
        };
        let expected =
            "the processes of this job differ:\n  a\\nb: rank 1 has c\\n, rank 0 has c\\\\n";
        assert_eq!(ThreadFabric::run(2, differs), [expected, expected]);
    }

    #[test]
    fn the_error_of_one_is_the_error_of_all() {
        let errors = ThreadFabric::run(4, |mut fabric| {
            let mine = match fabric.rank() {
                rank @ (1 | 3) => Err(Error::Own(format!("the disk is full at {rank}"))),
                rank => Ok(rank),
            };
            together(&mut fabric, mine).unwrap_err().to_string()
        });
        let elsewhere = "rank 1: the disk is full at 1";
        let own = "the disk is full at 1";
        assert_eq!(errors, [elsewhere, own, elsewhere, elsewhere]);
        let fine = |mut fabric: ThreadFabric| together::<_, Error>(&mut fabric, Ok(7));
        assert_eq!(ThreadFabric::run(2, fine), [Ok(7), Ok(7)]);
    }

    #[test]
    fn the_first_alone_works_and_all_hear_of_its_error() {
        let ranks = ThreadFabric::run(2, |mut fabric| {
            let rank = fabric.rank();
            let done = on_first::<_, Error>(&mut fabric, || Ok(rank)).unwrap();
            let failed = on_first::<(), Error>(&mut fabric, || Err(Error::Own("no".to_owned())));
            (done, failed.unwrap_err().to_string())
        });
        let expected = [(Some(0), "no".to_owned()), (None, "rank 0: no".to_owned())];
        assert_eq!(ranks, expected);
    }
}
