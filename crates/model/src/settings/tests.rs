//! Settings among other keys, in both forms.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Beside, Form, NetworkSettings, range};
use crate::{Aggregator, Base, RankConfig};

/// A table with keys of its own.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
struct Table {
    before: u8,
    #[serde(flatten, skip_deserializing)]
    network: NetworkSettings,
    after: Option<String>,
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Table, D::Error> {
        let mut network = NetworkSettings::default();
        let table = Table::deserialize(Beside::new(from, Form::Typed, &mut network))?;
        Ok(Table { network, ..table })
    }
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Table::serialize(self, to)
    }
}

fn typed(json: &str) -> Result<Table, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

#[test]
fn keys_of_the_network_stand_among_others_in_any_order() {
    let network = NetworkSettings {
        aggregator: Aggregator::Concatenate,
        mlp: vec![7],
        ..NetworkSettings::default()
    };
    let table = Table { before: 3, network, after: Some("x".to_owned()) };
    let orders = [
        r#"{"before": 3, "mlp": [7], "aggregator": "concatenate", "after": "x"}"#,
        r#"{"aggregator": "concatenate", "after": "x", "before": 3, "mlp": [7]}"#,
    ];
    for json in orders {
        assert_eq!(typed(json).as_ref(), Ok(&table), "{json}");
    }
    assert_eq!(typed("{}"), Ok(Table::default()));
    // What is written has every key, in the order of the declaration.
    let json = serde_json::to_string(&table).unwrap();
    let value: serde_json::Map<_, _> = serde_json::from_str(&json).unwrap();
    let keys: Vec<&str> = value.keys().map(String::as_str).collect();
    assert_eq!(keys, [&["before"], NetworkSettings::KEYS, &["after"]].concat());
    assert_eq!(typed(&json), Ok(table));
}

#[test]
fn what_is_wrong_with_a_table_is_said_with_its_place() {
    let all = "`before`, `after`, `images`, `aggregator`, `embedding_dim`";
    let cases = [
        (r#"{"agregator": "sum"}"#, format!("unknown field `agregator`, expected one of {all}")),
        (r#"{"dim": 3}"#, format!("unknown field `dim`, expected one of {all}")),
        (r#"{"mlp": [1], "mlp": [2]}"#, "duplicate field `mlp` at line 1 column".to_owned()),
        (r#"{"before": 1, "before": 2}"#, "duplicate field `before`".to_owned()),
        (r#"{"mlp": 7}"#, "invalid type: integer `7`, expected a sequence at line 1".to_owned()),
        (r#"{"base": "dnn"}"#, "unknown variant `dnn`, expected one of `mlp`, `log".to_owned()),
        ("[1]", "invalid type: sequence, expected struct Table".to_owned()),
    ];
    for (json, expected) in cases {
        let error = typed(json).expect_err(&expected);
        assert!(error.starts_with(&expected), "{json}: {error}");
    }
}

#[test]
fn a_description_has_the_keys_of_the_first_format() {
    let shape = r#""group_fields": 1, "impression_fields": 2, "query_fields": [0]"#;
    let network = r#""images": "ad", "aggregator": "sum", "dim": 3, "attention": [1, 2]"#;
    let read = |rest: &str| {
        let json = format!("{{{shape}, {network}{rest}}}");
        serde_json::from_str::<RankConfig>(&json).map_err(|error| error.to_string())
    };
    let config = read(r#", "mlp": []"#).unwrap();
    assert_eq!((config.network.embedding_dim, config.network.base), (3, Base::Mlp));
    for (rest, expected) in [
        ("", "missing field `mlp`"),
        (r#", "embedding_dim": 3"#, "unknown field `embedding_dim`, expected one of"),
    ] {
        let error = read(rest).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_value_outside_its_range_is_named() {
    type Change<'a> = &'a dyn Fn(&mut NetworkSettings);
    let cases: [(Change, _); 7] = [
        (&|n| n.semantic_ids = 9, ("semantic_ids", "9 levels, expected 0 to 8")),
        (
            &|n| n.behavior_age_buckets = 65,
            ("behavior_age_buckets", "65 buckets, expected 0 to 64"),
        ),
        (&|n| n.embedding_dim = 0, ("embedding_dim", "a width is 0, expected 1 to 16777216")),
        (
            &|n| n.attention[1] = range::WIDTH_MAX + 1,
            ("attention", "a width is 16777217, expected 1 to 16777216"),
        ),
        (&|n| n.mlp = vec![3, 0], ("mlp", "a width is 0, expected 1 to 16777216")),
        (&|n| n.pre_rank.clear(), ("pre_rank", "[], expected at least one layer")),
        (&|n| n.concatenate_length = 0, ("concatenate_length", "0, expected at least 1")),
    ];
    for (change, (key, what)) in cases {
        let mut network = NetworkSettings::default();
        change(&mut network);
        assert_eq!(network.check(), Err((key, what.to_owned())));
    }
    let narrow = NetworkSettings { mlp: vec![], ..NetworkSettings::default() };
    assert_eq!(narrow.check(), Ok(()));
}
