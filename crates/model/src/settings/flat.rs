//! Settings of a network among the keys of a table that has keys of its own.
//!
//! serde's `flatten` would do it, but not with `deny_unknown_fields`, and errors in values would
//! lose their place in the file. Here the table is read once: a key of the network is read where
//! it stands, any other goes to the table's own struct, and a key of neither is an error that lists
//! all there are.

use serde::de::value::StringDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::settings::network::NetworkSettings;

/// How a table spells the settings of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As people type them: any key may be absent, and all are written.
    Typed,
    /// As the description of a model has them, whose bytes are hashed: the keys of the first format
    /// are required, and a later one is written only where it is not as usual.
    Described,
}

/// Keys that a description has always had.
const FIRST: [&str; 5] = ["images", "aggregator", "embedding_dim", "attention", "mlp"];

impl Form {
    /// What the setting `key` is called.
    pub fn name(self, key: &'static str) -> &'static str {
        match (self, key) {
            (Form::Described, "embedding_dim") => "dim",
            _ => key,
        }
    }

    fn requires(self, key: &str) -> bool {
        self == Form::Described && FIRST.contains(&key)
    }
}

impl NetworkSettings {
    /// Writes those of `keys` that `form` has into `map`.
    ///
    /// # Errors
    /// Those of `map`.
    pub fn write_keys<M: SerializeMap>(
        &self,
        keys: &[&'static str],
        form: Form,
        map: &mut M,
    ) -> Result<(), M::Error> {
        let written =
            |key: &&&str| form == Form::Typed || form.requires(key) || !self.is_usual(key);
        keys.iter().filter(written).try_for_each(|key| self.write(key, form.name(key), map))
    }
}

impl Serialize for NetworkSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.write_keys(NetworkSettings::KEYS, Form::Typed, &mut map)?;
        map.end()
    }
}

/// The deserializer of a struct beside whose fields the settings of a network stand.
pub struct Beside<'a, D> {
    inner: D,
    form: Form,
    network: &'a mut NetworkSettings,
}

impl<'a, 'de, D: Deserializer<'de>> Beside<'a, D> {
    /// Deserializes a struct from `inner`, and the settings beside its fields into `network`. A key
    /// that neither has is an error, and so is a key of the network that stands there twice or that
    /// `form` requires and is absent.
    pub fn new(inner: D, form: Form, network: &'a mut NetworkSettings) -> Beside<'a, D> {
        Beside { inner, form, network }
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Beside<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let Beside { inner, form, network } = self;
        inner.deserialize_struct(name, fields, Table { visitor, fields, form, network })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Visits the table for `visitor`, whose struct has `fields`.
struct Table<'a, V> {
    visitor: V,
    fields: &'static [&'static str],
    form: Form,
    network: &'a mut NetworkSettings,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Table<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.visitor.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        let Table { visitor, fields, form, network } = self;
        let mut seen = Vec::new();
        let own = visitor.visit_map(Own { map, fields, form, network, seen: &mut seen })?;
        let keys = NetworkSettings::KEYS.iter();
        let mut absent = keys.filter(|key| form.requires(key) && !seen.contains(*key));
        absent.next().map_or(Ok(own), |key| Err(A::Error::missing_field(form.name(key))))
    }
}

/// The entries of a table that are not the network's, which are read in passing.
struct Own<'a, A> {
    map: A,
    fields: &'static [&'static str],
    form: Form,
    network: &'a mut NetworkSettings,
    /// The keys of the network so far.
    seen: &'a mut Vec<&'static str>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Own<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let (fields, form) = (self.fields, self.form);
        let mut seed = Some(seed);
        while let Some(key) = self.map.next_key_seed(Key { seed: &mut seed, fields, form })? {
            match key {
                Found::Own(key) => return Ok(Some(key)),
                Found::Network(key) if self.seen.contains(&key) => {
                    return Err(A::Error::duplicate_field(form.name(key)));
                }
                Found::Network(key) => {
                    self.seen.push(key);
                    self.network.read(key, &mut self.map)?;
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Whose a key is.
enum Found<T> {
    Network(&'static str),
    Own(T),
}

/// Reads a key, and gives one that is not the network's to `seed`.
struct Key<'a, K> {
    seed: &'a mut Option<K>,
    fields: &'static [&'static str],
    form: Form,
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for Key<'_, K> {
    type Value = Found<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        let name = String::deserialize(from)?;
        let names = NetworkSettings::KEYS.iter().map(|key| (self.form.name(key), *key));
        if let Some((_, key)) = names.clone().find(|(of_network, _)| *of_network == name) {
            return Ok(Found::Network(key));
        }
        if !self.fields.contains(&&name[..]) {
            let known = self.fields.iter().copied().chain(names.map(|(name, _)| name));
            let known: Vec<String> = known.map(|name| format!("`{name}`")).collect();
            let known = known.join(", ");
            return Err(D::Error::custom(format!(
                "unknown field `{name}`, expected one of {known}"
            )));
        }
        let seed = self.seed.take().expect("a struct's key is read once a call");
        let name: StringDeserializer<D::Error> = name.into_deserializer();
        seed.deserialize(name).map(Found::Own)
    }
}
