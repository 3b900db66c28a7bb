//! What an examination says: a verdict with its reason and the way out.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As expected.
    Ok,
    /// It may be meant; look at it before a model learns from it.
    Look,
    /// Metrics of a model that learns from it mean nothing.
    Bad,
}

impl Verdict {
    /// The word for it: `ok`, `look` or `bad`.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Look => "look",
            Verdict::Bad => "bad",
        }
    }

    /// Of a value that is worse the greater it is.
    pub(super) fn of(value: f64, look: f64, bad: f64) -> Verdict {
        match value {
            value if value >= bad => Verdict::Bad,
            value if value >= look => Verdict::Look,
            _ => Verdict::Ok,
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// The check: `labels`, `days`, `duplicates`, `pictures`, `leak`, `past`, `once`, `drift`.
    pub check: &'static str,
    /// The field it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was measured.
    pub said: String,
    /// What to do; none if nothing has to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    /// A finding whose advice matters unless all is well.
    pub(super) fn new(
        check: &'static str,
        verdict: Verdict,
        said: String,
        advice: &str,
    ) -> Finding {
        let advice = (verdict != Verdict::Ok).then(|| advice.to_owned());
        Finding { check, field: None, verdict, said, advice }
    }

    pub(super) fn of_field(self, field: &str) -> Finding {
        Finding { field: Some(field.to_owned()), ..self }
    }
}
