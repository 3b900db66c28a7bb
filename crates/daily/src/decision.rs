//! By what a version may serve: a file of its bundle, for servers and people.

use ams_bundle::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::day::Day;
use crate::facts::Facts;
use crate::gate::Comparison;
use crate::state::{Entry, Making};

/// `format` of the decisions this build reads and writes.
const FORMAT: &str = "ams-decision/1";

/// The version that served when another one was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compared {
    /// Its number.
    pub version: u64,
    /// blake3 over its files.
    pub hash: String,
}

/// Why the model of a day may serve. A function of the data and of what was set: it names no time
/// at which something was done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    format: String,
    /// The day of the data.
    pub day: Day,
    /// The version that it was held against; none if none served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving: Option<Compared>,
    /// The first instant of the impressions that judged it, in Unix seconds.
    pub judged_from: i64,
    /// The instant behind the last of them.
    pub judged_until: i64,
    /// Number of these impressions; 0 if none served.
    pub judged: u64,
    /// Both models.
    pub compared: Vec<Comparison>,
    /// Why it may serve.
    pub reasons: Vec<String>,
    /// The day in numbers.
    pub facts: Facts,
}

impl Decision {
    /// That the model of a day may serve, of which `entry` knows the numbers; `judged` impressions
    /// held it against `serving`, and the day was held against `before` earlier ones, of which at
    /// least `least` say something.
    pub fn of(
        making: &Making,
        entry: &Entry,
        serving: Option<&Model>,
        judged: u64,
        [before, least]: [usize; 2],
    ) -> Decision {
        let by_gate = match serving {
            Some(serving) => format!(
                "no metric of {judged} impressions is worse than that of version {} by more than its margin",
                serving.version()
            ),
            None => "no version served, so there was nothing to hold it against".to_owned(),
        };
        let by_days = if before < least {
            format!(
                "its day was held against nothing: {before} sound days before it, of {least} that are needed"
            )
        } else {
            format!("its day is as the {before} days before it")
        };
        Decision {
            format: FORMAT.to_owned(),
            day: making.day,
            serving: serving.map(|serving| Compared {
                version: serving.version(),
                hash: serving.hash().to_owned(),
            }),
            judged_from: making.judged_from,
            judged_until: making.until,
            judged,
            compared: entry.compared.clone(),
            reasons: vec![by_gate, by_days],
            facts: entry.facts.clone().unwrap_or_default(),
        }
    }

    /// Reads that of a bundle.
    ///
    /// # Errors
    /// If it is of another format, or a key is not as it should be.
    pub fn read(object: &Map<String, Value>) -> Result<Decision, String> {
        let format = object.get("format");
        if format.and_then(Value::as_str) != Some(FORMAT) {
            let format = format.map_or("missing".to_owned(), Value::to_string);
            return Err(format!("format is {format}, expected {FORMAT:?}"));
        }
        serde_json::from_value(Value::Object(object.clone())).map_err(|error| error.to_string())
    }

    /// As a bundle has it.
    pub fn object(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            other => unreachable!("a decision is an object: {other:?}"),
        }
    }

    /// What was compared by `metric`.
    pub fn comparison(&self, metric: &str) -> Option<&Comparison> {
        self.compared.iter().find(|of| of.metric == metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_as_it_was_written() {
        let making = Making {
            day: "2024-03-05".parse().unwrap(),
            rows: 10,
            judged_from: 1_709_683_200,
            until: 1_709_769_600,
            version: 2,
            serving: None,
        };
        let compared = Comparison {
            metric: "GAUC".to_owned(),
            new: Some(0.7),
            serving: Some(0.69),
            gain: Some(0.01),
            interval: Some([-0.01, 0.03]),
            margin: Some(0.002),
        };
        let facts = Some(Facts { rows: 10, ..Facts::default() });
        let entry = Entry { facts, compared: vec![compared.clone()], ..Entry::of(&making) };
        let decision = Decision::of(&making, &entry, None, 0, [1, 3]);
        let object = decision.object();
        assert_eq!(Decision::read(&object).unwrap(), decision);
        assert_eq!((&object["day"], object.get("serving")), (&Value::from("2024-03-05"), None));
        assert_eq!(decision.comparison("GAUC"), Some(&compared));
        assert!(decision.reasons[1].contains("1 sound days before it, of 3"), "{decision:?}");
        let held = Decision::of(&making, &entry, None, 0, [3, 3]);
        assert_eq!(held.reasons[1], "its day is as the 3 days before it");

        let mut other = object.clone();
        other.insert("format".to_owned(), "ams-decision/2".into());
        let error = Decision::read(&other).unwrap_err();
        assert_eq!(error, "format is \"ams-decision/2\", expected \"ams-decision/1\"");
        other = object;
        other.insert("day".to_owned(), "yesterday".into());
        assert!(Decision::read(&other).unwrap_err().contains("is no day"));
    }
}
