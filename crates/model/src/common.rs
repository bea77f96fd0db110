//! What the records of one batch share: text, attributes, nested values, resources and scopes.

use crate::arena::{Arena, Text};

/// A value of an attribute or of a log body (OTLP `AnyValue`), 16 bytes; text and nested values
/// lie in the [`Common`] of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Value {
    /// No value is set.
    #[default]
    Empty,
    /// UTF-8 text.
    String(Text),
    /// A boolean.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double; NaN and infinities are legal.
    Double(f64),
    /// Bytes.
    Bytes(Text),
    /// A list of values: a range of [`Common::values`].
    Array(ValueRange),
    /// A list of key and value pairs.
    KeyValues(Attributes),
}

/// A range of [`Common::values`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueRange {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

/// A range of [`Common::attributes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub(crate) start: u32,
    pub(crate) length: u32,
}

impl Attributes {
    /// No attributes.
    pub const EMPTY: Attributes = Attributes { start: 0, length: 0 };

    /// How many there are.
    pub fn len(self) -> usize {
        self.length as usize
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }
}

/// A key and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attribute {
    /// The key, for example `service.name`.
    pub key: Text,
    /// Its value.
    pub value: Value,
}

/// What produced the records: a host, a service, a cloud resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resource {
    /// Identifying and describing attributes.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Wire bytes of fields that this version of the schema does not name (`entity_refs`), kept as they came.
    pub unknown: Text,
    /// Schema of the resource's attributes.
    pub schema_url: Text,
}

/// The instrumentation scope that recorded, always below one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scope {
    /// Index into [`Common::resources`].
    pub resource: u32,
    /// Whether the sender sent a scope message at all (an absent and an empty one differ on the wire).
    pub present: bool,
    /// Name of the instrumentation library.
    pub name: Text,
    /// Its version.
    pub version: Text,
    /// Attributes of the scope.
    pub attributes: Attributes,
    /// How many attributes the sender left out.
    pub dropped_attributes_count: u32,
    /// Schema of the records' attributes.
    pub schema_url: Text,
}

/// The shared part of a batch. Indices and ranges in records point in here.
#[derive(Clone, Debug, Default)]
pub struct Common {
    /// All text.
    pub arena: Arena,
    /// All attributes; records hold ranges.
    pub attributes: Vec<Attribute>,
    /// Elements of array values.
    pub values: Vec<Value>,
    /// Resources in the order of arrival.
    pub resources: Vec<Resource>,
    /// Scopes in the order of arrival; the scopes of one resource are neighbours.
    pub scopes: Vec<Scope>,
}

/// An index as stored in records. Counts are bounded by the receivers' byte limits, far below 2^32.
pub(crate) fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

impl Common {
    /// The text of a range.
    pub fn text(&self, text: Text) -> &str {
        self.arena.text(text)
    }

    /// The attributes of a range.
    pub fn list(&self, attributes: Attributes) -> &[Attribute] {
        let start = attributes.start as usize;
        self.attributes.get(start..start + attributes.len()).unwrap_or_default()
    }

    /// The elements of an array value.
    pub fn elements(&self, range: ValueRange) -> &[Value] {
        let start = range.start as usize;
        self.values.get(start..start + range.length as usize).unwrap_or_default()
    }

    /// The value of the first attribute with this key.
    pub fn find(&self, attributes: Attributes, key: &str) -> Option<Value> {
        self.list(attributes).iter().find(|a| self.arena.bytes(a.key) == key.as_bytes()).map(|a| a.value)
    }

    /// Adds text attributes as one range.
    pub fn add_texts<'a>(&mut self, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Attributes {
        let start = self.attributes.len();
        for (key, value) in pairs {
            let key = self.arena.add(key.as_bytes());
            let value = Value::String(self.arena.add(value.as_bytes()));
            self.attributes.push(Attribute { key, value });
        }
        self.attributes_since(start)
    }

    /// The range of the attributes pushed since `start`.
    pub fn attributes_since(&self, start: usize) -> Attributes {
        Attributes { start: index(start), length: index(self.attributes.len() - start) }
    }

    /// The range of the array elements pushed since `start`.
    pub fn values_since(&self, start: usize) -> ValueRange {
        ValueRange { start: index(start), length: index(self.values.len() - start) }
    }

    /// Sets text attributes on every resource, replacing keys that are there.
    pub fn set_on_resources(&mut self, pairs: &[(String, String)]) {
        for at in 0..self.resources.len() {
            let Some(range) = self.resources.get(at).map(|r| r.attributes) else { continue };
            let start = self.attributes.len();
            let kept: Vec<Attribute> = self
                .list(range)
                .iter()
                .filter(|a| !pairs.iter().any(|(key, _)| self.arena.bytes(a.key) == key.as_bytes()))
                .copied()
                .collect();
            self.attributes.extend(kept);
            for (key, value) in pairs {
                let key = self.arena.add(key.as_bytes());
                let value = Value::String(self.arena.add(value.as_bytes()));
                self.attributes.push(Attribute { key, value });
            }
            let range = self.attributes_since(start);
            if let Some(resource) = self.resources.get_mut(at) {
                resource.attributes = range;
            }
        }
    }

    /// Writes a value as people read it: text bare, numbers, `[a, b]`, `{k: v}`, bytes as hexadecimal.
    pub fn write_value(&self, value: Value, out: &mut dyn std::fmt::Write) -> std::fmt::Result {
        match value {
            Value::Empty => Ok(()),
            Value::String(text) => out.write_str(self.text(text)),
            Value::Bool(v) => write!(out, "{v}"),
            Value::Int(v) => write!(out, "{v}"),
            Value::Double(v) => write!(out, "{v}"),
            Value::Bytes(bytes) => self.arena.bytes(bytes).iter().try_for_each(|b| write!(out, "{b:02x}")),
            Value::Array(range) => {
                out.write_char('[')?;
                for (at, element) in self.elements(range).iter().enumerate() {
                    if at > 0 {
                        out.write_str(", ")?;
                    }
                    self.write_value(*element, out)?;
                }
                out.write_char(']')
            }
            Value::KeyValues(range) => {
                out.write_char('{')?;
                for (at, attribute) in self.list(range).iter().enumerate() {
                    if at > 0 {
                        out.write_str(", ")?;
                    }
                    write!(out, "{}: ", self.text(attribute.key))?;
                    self.write_value(attribute.value, out)?;
                }
                out.write_char('}')
            }
        }
    }

    /// [`Common::write_value`] into a new string.
    pub fn value_text(&self, value: Value) -> String {
        let mut out = String::new();
        // Writing into a String cannot fail.
        let _ = self.write_value(value, &mut out);
        out
    }

    /// Bytes that this part of a batch holds in memory.
    pub fn size_bytes(&self) -> usize {
        self.arena.len()
            + self.attributes.len() * size_of::<Attribute>()
            + self.values.len() * size_of::<Value>()
            + self.resources.len() * size_of::<Resource>()
            + self.scopes.len() * size_of::<Scope>()
    }
}
