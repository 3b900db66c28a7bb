//! Rates that are one number for all fields, or one for each of some.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::settings::range;

/// How often ids are replaced by unknown ones in training.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum IdRates {
    /// Every field of ads and of users at this rate, each drawn by itself.
    All(f32),
    /// These fields at their rates, others never. The fields of an ad are drawn together, and so
    /// are those of a user.
    Fields(BTreeMap<String, f32>),
}

impl IdRates {
    /// Whether no id is ever replaced.
    pub fn is_none(&self) -> bool {
        match self {
            IdRates::All(rate) => *rate == 0.0,
            IdRates::Fields(rates) => rates.values().all(|rate| *rate == 0.0),
        }
    }

    /// The rate of `field`.
    pub fn of(&self, field: &str) -> f32 {
        match self {
            IdRates::All(rate) => *rate,
            IdRates::Fields(rates) => rates.get(field).copied().unwrap_or(0.0),
        }
    }

    /// The fields that are named.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        let named = match self {
            IdRates::All(_) => None,
            IdRates::Fields(rates) => Some(rates.keys().map(String::as_str)),
        };
        named.into_iter().flatten()
    }

    /// Checks that every rate is a share.
    ///
    /// # Errors
    /// Those of [`range::share`], with the field that it is the rate of.
    pub fn check(&self) -> Result<(), String> {
        match self {
            IdRates::All(rate) => range::share(rate),
            IdRates::Fields(rates) => rates.iter().try_for_each(|(field, rate)| {
                range::share(rate).map_err(|e| format!("{field} = {e}"))
            }),
        }
    }
}

impl From<f32> for IdRates {
    fn from(rate: f32) -> IdRates {
        IdRates::All(rate)
    }
}

impl<'de> Deserialize<'de> for IdRates {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<IdRates, D::Error> {
        from.deserialize_any(Rates)
    }
}

struct Rates;

impl<'de> Visitor<'de> for Rates {
    type Value = IdRates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a table of fields with a number each")
    }

    fn visit_f64<E: Error>(self, rate: f64) -> Result<IdRates, E> {
        Ok(IdRates::All(rate as f32))
    }

    fn visit_i64<E: Error>(self, rate: i64) -> Result<IdRates, E> {
        Ok(IdRates::All(rate as f32))
    }

    fn visit_u64<E: Error>(self, rate: u64) -> Result<IdRates, E> {
        Ok(IdRates::All(rate as f32))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<IdRates, A::Error> {
        let mut rates = BTreeMap::new();
        while let Some((field, rate)) = map.next_entry::<String, f32>()? {
            rates.insert(field, rate);
        }
        Ok(IdRates::Fields(rates))
    }
}
