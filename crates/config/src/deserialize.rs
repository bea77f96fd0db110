//! A tree of nodes to any type, through serde. Errors point at the node that was refused.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use crate::expand::below;
use crate::node::{KeyNode, Node, Value};
use crate::problem::{Problem, Problems};
use crate::secret::AS_TEXT;
use crate::text::AS_WRITTEN;
use crate::words;

/// Fewer characters of a value than this in a message tell nothing about it.
const REVEALING_CHARACTERS: usize = 4;

/// Reads a `T` from `node`.
///
/// # Errors
/// The first refusal, at its node.
pub(crate) fn from_node<T: DeserializeOwned>(file: &str, node: &Node, path: &str) -> Result<T, Problems> {
    T::deserialize(At(node)).map_err(|refusal| {
        let position = refusal.position.unwrap_or((node.line, node.column));
        let full_path = refusal.steps.iter().rev().fold(path.to_owned(), |path, step| match step {
            Step::Key(key) => below(&path, key),
            Step::Index(index) => format!("{path}[{index}]"),
        });
        Problem::new(file, position, &full_path, refusal.message).into()
    })
}

/// Why a type did not take a value.
#[derive(Debug)]
struct Refusal {
    message: String,
    position: Option<(u32, u32)>,
    /// The way to the node, from the inside out.
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Refusal {
    /// Sets the place, unless a node further inside did, and takes out what must not be shown.
    fn at(mut self, node: &Node) -> Refusal {
        if self.position.is_none() {
            self.position = Some((node.line, node.column));
            if let Some(variables) = revealed_by(&self.message, node) {
                self.message =
                    format!("the value of {variables} is not accepted here (it is not shown, as it may be a secret)");
            }
        }
        self
    }

    fn below(mut self, step: Step) -> Refusal {
        self.steps.push(step);
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Refusal {
        Refusal { message: message.to_string(), position: None, steps: Vec::new() }
    }
}

/// The variables whose value, or a telling part of it, stands in the message.
fn revealed_by(message: &str, node: &Node) -> Option<String> {
    match &node.value {
        Value::Sequence(items) => items.iter().find_map(|item| revealed_by(message, item)),
        Value::Mapping(entries) => entries.iter().find_map(|(_, value)| revealed_by(message, value)),
        _ if !node.from_variable() => None,
        _ => {
            let text = node.text().unwrap_or_default();
            let is_revealing = |part: &str| part.chars().count() >= REVEALING_CHARACTERS && message.contains(part);
            let is_revealed = (!text.is_empty() && message.contains(text))
                || text.split(|c: char| !c.is_alphanumeric()).any(is_revealing);
            is_revealed.then(|| words::variables(node))
        }
    }
}

/// A node as serde sees it.
#[derive(Clone, Copy)]
struct At<'a>(&'a Node);

impl<'a> At<'a> {
    fn any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::UInt(value) => visitor.visit_u64(*value),
            Value::Float(value) => visitor.visit_f64(*value),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Sequence(items) => self.items(items, visitor),
            Value::Mapping(entries) => self.entries(entries, visitor),
        }
    }

    fn items<V: Visitor<'a>>(self, items: &'a [Node], visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_seq(Items { items, index: 0 })
    }

    fn entries<V: Visitor<'a>>(self, entries: &'a [(KeyNode, Node)], visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_map(Entries { entries, value: None })
    }

    fn text<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.0.text() {
            Some(text) => visitor.visit_borrowed_str(text),
            None => self.any(visitor),
        }
    }

    fn as_written<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match (&self.0.value, self.0.written.as_deref()) {
            (Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_), Some(written)) => {
                visitor.visit_borrowed_str(written)
            }
            _ => self.text(visitor),
        }
    }

    fn variant<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if let Some(text) = self.0.text() {
            let name: StrDeserializer<'_, Refusal> = text.into_deserializer();
            return visitor.visit_enum(name);
        }
        match self.0.entries() {
            [(key, value)] => {
                visitor.visit_enum(Variant { key, value }).map_err(|refusal| refusal.below(Step::Key(key.name.clone())))
            }
            _ => Err(de::Error::custom("expected a name, or one key with its value")),
        }
    }
}

impl<'de> Deserializer<'de> for At<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.any(visitor).map_err(|refusal| refusal.at(self.0))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.text(visitor).map_err(|refusal| refusal.at(self.0))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.0.value == Value::Null || self.0.is_empty_text() {
            return visitor.visit_none();
        }
        visitor.visit_some(self).map_err(|refusal: Refusal| refusal.at(self.0))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        let result = match name {
            AS_WRITTEN => self.as_written(visitor),
            AS_TEXT => self.text(visitor),
            _ => visitor.visit_newtype_struct(self),
        };
        result.map_err(|refusal| refusal.at(self.0))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let result = match self.0.value {
            Value::Null => self.items(&[], visitor),
            _ => self.any(visitor),
        };
        result.map_err(|refusal| refusal.at(self.0))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let result = match self.0.value {
            Value::Null => self.entries(&[], visitor),
            _ => self.any(visitor),
        };
        result.map_err(|refusal| refusal.at(self.0))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.variant(visitor).map_err(|refusal| refusal.at(self.0))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64
        bytes byte_buf unit unit_struct identifier ignored_any
    }
}

struct Items<'a> {
    items: &'a [Node],
    index: usize,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Refusal> {
        let Some(item) = self.items.get(self.index) else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        seed.deserialize(At(item)).map(Some).map_err(|refusal| refusal.at(item).below(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len().saturating_sub(self.index))
    }
}

struct Entries<'a> {
    entries: &'a [(KeyNode, Node)],
    value: Option<(&'a KeyNode, &'a Node)>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let Some(((key, value), rest)) = self.entries.split_first() else {
            return Ok(None);
        };
        self.entries = rest;
        self.value = Some((key, value));
        seed.deserialize(Key(key)).map(Some).map_err(|mut refusal| {
            refusal.position.get_or_insert((key.line, key.column));
            refusal
        })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        let Some((key, value)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(At(value)).map_err(|refusal| refusal.at(value).below(Step::Key(key.name.clone())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A key as serde sees it: text, or a number where the type of the key is one.
struct Key<'a>(&'a KeyNode);

impl<'a> Key<'a> {
    fn number<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let name = &self.0.name;
        if let Ok(number) = name.parse::<u64>() {
            return visitor.visit_u64(number);
        }
        match name.parse::<i64>() {
            Ok(number) => visitor.visit_i64(number),
            Err(_) => visitor.visit_borrowed_str(name),
        }
    }
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_borrowed_str(&self.0.name)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.number(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let name: StrDeserializer<'_, Refusal> = self.0.name.as_str().into_deserializer();
        visitor.visit_enum(name)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Refusal> {
        match name {
            AS_WRITTEN | AS_TEXT => self.deserialize_any(visitor),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    forward_to_deserialize_any! {
        bool i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

/// A variant of an enum that has content: one key with its value.
struct Variant<'a> {
    key: &'a KeyNode,
    value: &'a Node,
}

impl<'de> de::EnumAccess<'de> for Variant<'de> {
    type Error = Refusal;
    type Variant = Content<'de>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content<'de>), Refusal> {
        let name = seed.deserialize(Key(self.key))?;
        Ok((name, Content(self.value)))
    }
}

struct Content<'a>(&'a Node);

impl<'de> de::VariantAccess<'de> for Content<'de> {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        match self.0.value {
            Value::Null => Ok(()),
            _ => Err(Refusal::at(de::Error::custom("nothing can stand here"), self.0)),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Refusal> {
        seed.deserialize(At(self.0)).map_err(|refusal| refusal.at(self.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        At(self.0).deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Refusal> {
        At(self.0).deserialize_map(visitor)
    }
}
