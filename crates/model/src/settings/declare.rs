//! The declaration of settings: a struct whose fields have a default and may have a range.

/// Declares a struct of settings, `pub key: Type = default, in range;` each, with what
/// [`super::flat`] needs of it: its keys, and one key read, written, and compared with its default.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $Name:ident {
            $(
                $(#[$doc:meta])*
                pub $key:ident: $Type:ty = $default:expr $(, in $range:expr)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Name {
            $($(#[$doc])* pub $key: $Type,)*
        }

        impl Default for $Name {
            fn default() -> $Name {
                $Name { $($key: $default,)* }
            }
        }

        impl $Name {
            /// The keys, in the order of their declaration.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// Checks the range of each setting.
            ///
            /// # Errors
            /// The key, and what came and what was expected.
            pub fn check(&self) -> Result<(), (&'static str, String)> {
                $($($range(&self.$key).map_err(|what| (stringify!($key), what))?;)?)*
                Ok(())
            }

            /// Whether the setting `key` has its default.
            pub(super) fn is_usual(&self, key: &str) -> bool {
                let usual = $Name::default();
                match key {
                    $(stringify!($key) => self.$key == usual.$key,)*
                    _ => unreachable!("{key} is not declared"),
                }
            }

            /// Reads the value of `key`, which `map` is at.
            pub(super) fn read<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
            ) -> Result<(), A::Error> {
                match key {
                    $(stringify!($key) => self.$key = map.next_value()?,)*
                    _ => unreachable!("{key} is not declared"),
                }
                Ok(())
            }

            /// Writes the value of `key`, which is called `name` there.
            pub(super) fn write<M: serde::ser::SerializeMap>(
                &self,
                key: &str,
                name: &str,
                map: &mut M,
            ) -> Result<(), M::Error> {
                match key {
                    $(stringify!($key) => map.serialize_entry(name, &self.$key),)*
                    _ => unreachable!("{key} is not declared"),
                }
            }
        }
    };
}
