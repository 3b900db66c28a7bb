//! What became of impressions: whether they were clicked.
//!
//! ```text
//! {"outcomes": [{"version": 4, "ctr": 0.39323053, "label": 1}, ..]}
//! ```
//! An answer has version and rates, so whoever shows it can say both again; no server has to
//! remember what it answered, and any server of the folder may be told.

use ams_bundle::Error;
use ams_bundle::json::read;
use serde::{Deserialize, Serialize};

use crate::promotion::{Counted, billionths};

/// The body of a request.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcomes {
    outcomes: Vec<Outcome>,
}

/// One impression.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outcome {
    /// The version that answered.
    version: u64,
    /// The rate that it answered.
    ctr: f64,
    /// 1 if it was clicked, else 0.
    label: u8,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Received {
    /// Number of outcomes that count.
    pub counted: u64,
    /// Number of those of versions that this server has not in memory.
    pub left_out: u64,
}

/// Reads a body: the version of each impression, and what it counts.
///
/// # Errors
/// If it is not as it should be, with the place of the first that is not.
pub(crate) fn parse(body: &[u8]) -> Result<Vec<(u64, Counted)>, Error> {
    let Outcomes { outcomes } = read(body)?;
    let of = |(at, of): (usize, Outcome)| {
        let wrong = |what: String| Error::Request { what: format!("outcomes[{at}].{what}") };
        if !(0.0..=1.0).contains(&of.ctr) {
            return Err(wrong(format!("ctr is {}, expected 0 to 1", of.ctr)));
        }
        if of.label > 1 {
            return Err(wrong(format!("label is {}, expected 0 or 1", of.label)));
        }
        let (clicks, predicted) = (u64::from(of.label), billionths(of.ctr));
        Ok((of.version, Counted { impressions: 1, clicks, predicted, ..Counted::default() }))
    };
    outcomes.into_iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_or_named() {
        let body = br#"{"outcomes": [{"version": 4, "ctr": 0.25, "label": 1}, {"version": 3, "ctr": 0, "label": 0}]}"#;
        let counted =
            |clicks, predicted| Counted { impressions: 1, clicks, predicted, ..Counted::default() };
        let expected = [(4, counted(1, 250_000_000)), (3, counted(0, 0))];
        assert_eq!(parse(body).unwrap(), expected);
        for (body, expected) in [
            (r#"{"outcomes": [{"version": 4, "ctr": 1.5, "label": 1}]}"#, "outcomes[0].ctr is 1.5"),
            (r#"{"outcomes": [{"version": 4, "ctr": 0.5, "label": 2}]}"#, "outcomes[0].label is 2"),
            (r#"{"outcomes": [{"version": 4, "ctr": 0.5}]}"#, "label"),
            (r#"{"outcome": []}"#, "outcome"),
            ("", "EOF"),
        ] {
            let error = parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
    }
}
