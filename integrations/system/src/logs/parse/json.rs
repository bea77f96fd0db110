//! JSON: one object per line.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};

use super::line::{Field, Line};

/// Nesting beyond this is refused: exporters and people both stop reading long before.
const DEEPEST: usize = 32;

/// Reads an object; its members become attributes.
pub fn parse(text: &str) -> Line<'_> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = deserializer.deserialize_any(Depth(DEEPEST)).and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Field::Map(attributes)) => Line { attributes, ..Line::default() },
        Ok(_) => Line::unreadable("no JSON object"),
        Err(_) => Line::unreadable("no JSON"),
    }
}

/// How much deeper values may nest.
#[derive(Clone, Copy)]
struct Depth(usize);

impl<'de> de::DeserializeSeed<'de> for Depth {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Depth {
    fn inside<E: de::Error>(self) -> Result<Depth, E> {
        self.0.checked_sub(1).map(Depth).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Field<'de>, E> {
        Ok(Field::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Field<'de>, E> {
        Ok(Field::Int(value))
    }

    /// Numbers that OTLP has no integer for stay exact as text.
    fn visit_u64<E>(self, value: u64) -> Result<Field<'de>, E> {
        Ok(i64::try_from(value).map_or_else(|_| Field::Text(value.to_string().into()), Field::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Field<'de>, E> {
        Ok(Field::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::text(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(value.to_owned().into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Field<'de>, A::Error> {
        let (inside, mut list) = (self.inside()?, Vec::new());
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Field::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Field<'de>, A::Error> {
        let inside = self.inside()?;
        let mut map: Vec<(Cow<'de, str>, Field<'de>)> = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            let value = entries.next_value_seed(inside)?;
            // Of two members with one name the last wins, as in every common reader.
            let members = map.len();
            match map.iter_mut().find(|(name, _)| *name == key) {
                Some(member) => member.1 = value,
                None if members >= MOST_MEMBERS => return Err(A::Error::custom("too many members")),
                None => map.push((key, value)),
            }
        }
        Ok(Field::Map(map))
    }
}

/// An object with more members is no log record; looking for names twice would take too long.
const MOST_MEMBERS: usize = 2_000;

struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// What a line of Docker's `json-file` driver holds.
#[derive(Debug, Deserialize)]
pub struct DockerLine<'a> {
    /// What the container wrote; without a line end it goes on in the next line (split at 16 KiB).
    #[serde(borrow)]
    pub log: Cow<'a, str>,
    /// `stdout` or `stderr`.
    #[serde(borrow, default)]
    pub stream: Cow<'a, str>,
    /// RFC 3339.
    #[serde(borrow, default)]
    pub time: Cow<'a, str>,
}

/// Reads a line of Docker's `json-file` driver.
pub fn docker(text: &str) -> Option<DockerLine<'_>> {
    serde_json::from_str(text).ok()
}
