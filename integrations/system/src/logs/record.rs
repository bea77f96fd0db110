//! From what lines say to a batch of log records.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use weir_model::logs::{LogRecord, Logs};
use weir_model::{Attribute, Attributes, Payload, Records, Resource, Scope, Text, Value};

use super::encoding::Decoded;
use super::parse::line::{Field, Line};

/// Attributes that all records from one place have: a file, a sender.
pub type Origin = Arc<[(&'static str, Field<'static>)]>;

/// Log records in the making.
#[derive(Debug, Default)]
pub struct Gathered {
    logs: Logs,
    keys: HashMap<Box<str>, Text>,
    last_origin: Option<(Origin, Attributes)>,
    /// The source's own resource attributes.
    base: Vec<(String, String)>,
    /// Name of the scope.
    scope: Text,
    /// Scopes of resources with attributes of their own, by these.
    scopes: HashMap<Vec<(&'static str, String)>, u32>,
    /// Bytes of the files that the records stand for.
    pub raw_bytes: usize,
}

/// A record as it was read.
#[derive(Debug)]
pub struct Read<'a> {
    /// Its text, or its bytes.
    pub text: &'a Decoded<'a>,
    /// What it says.
    pub line: &'a Line<'a>,
    /// Bytes that were left out of it.
    pub cut: u64,
    /// When it was read, unix nanoseconds.
    pub observed_unix_nano: u64,
    /// Whether the original is kept in an attribute.
    pub original: bool,
    /// Resource attributes that replace or complete the source's own.
    pub resource: Vec<(&'static str, String)>,
}

impl Gathered {
    /// No records yet, of the integration `scope`, from a source with these resource attributes.
    pub fn new(scope: &str, resource: &[(String, String)]) -> Self {
        let mut gathered = Gathered { base: resource.to_vec(), ..Gathered::default() };
        gathered.scope = gathered.logs.common.arena.add(scope.as_bytes());
        gathered.scope_of(Vec::new());
        gathered
    }

    /// The scope below the resource that has these attributes of its own.
    fn scope_of(&mut self, own: Vec<(&'static str, String)>) -> u32 {
        if let Some(scope) = self.scopes.get(&own) {
            return *scope;
        }
        let common = &mut self.logs.common;
        let base = self.base.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let base = base.filter(|(key, _)| !own.iter().any(|(replaced, _)| replaced == key));
        let attributes = common.add_texts(base.chain(own.iter().map(|(key, value)| (*key, value.as_str()))));
        // Every resource has one scope, so both have the same index.
        let at = u32::try_from(common.resources.len()).unwrap_or(u32::MAX);
        common.resources.push(Resource { attributes, ..Resource::default() });
        common.scopes.push(Scope { resource: at, present: true, name: self.scope, ..Scope::default() });
        self.scopes.insert(own, at);
        at
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.logs.records.len()
    }

    /// Bytes that the records hold in memory.
    pub fn size_bytes(&self) -> usize {
        self.logs.common.size_bytes() + self.logs.records.len() * size_of::<LogRecord>()
    }

    /// The batch, if there are records. Those of one resource are neighbours and in order.
    pub fn finish(mut self) -> Option<Payload> {
        self.logs.records.sort_by_key(|record| record.scope);
        self.logs.shrink_to_fit();
        (!self.logs.records.is_empty()).then(|| Payload::from_records(Records::Logs(self.logs)))
    }

    /// Adds a record.
    pub fn add(&mut self, origin: &Origin, mut read: Read<'_>) {
        let scope = self.scope_of(std::mem::take(&mut read.resource));
        let (text, line) = (read.text, read.line);
        let body = match (text, &line.body) {
            (Decoded::Bytes(bytes, _), _) => Value::Bytes(self.logs.common.arena.add(bytes)),
            (Decoded::Text(_), Some(body)) => Value::String(self.logs.common.arena.add(body.as_bytes())),
            (Decoded::Text(text), None) => Value::String(self.logs.common.arena.add(text.as_bytes())),
        };
        let attributes = self.attributes(origin, &read);
        let id = |logs: &mut Logs, id: Option<&[u8]>| id.map_or(Text::EMPTY, |id| logs.common.arena.add(id));
        let trace_id = id(&mut self.logs, line.trace_id.as_ref().map(<[u8; 16]>::as_slice));
        let span_id = id(&mut self.logs, line.span_id.as_ref().map(<[u8; 8]>::as_slice));
        // Words of levels repeat: they are kept once per batch.
        let severity_text = if line.severity_text.is_empty() { Text::EMPTY } else { self.key(&line.severity_text) };
        self.logs.records.push(LogRecord {
            scope,
            time_unix_nano: line.time_unix_nano,
            observed_time_unix_nano: read.observed_unix_nano,
            severity_number: line.severity_number,
            severity_text,
            body,
            attributes,
            trace_id,
            span_id,
            ..LogRecord::default()
        });
    }

    fn attributes(&mut self, origin: &Origin, read: &Read<'_>) -> Attributes {
        let shared = self.shared(origin);
        let line = read.line;
        let (is_bytes, is_cut) = (matches!(read.text, Decoded::Bytes(..)), read.cut > 0);
        if line.attributes.is_empty() && !is_bytes && !is_cut && line.error.is_none() && !read.original {
            return shared;
        }
        let mut attributes: Vec<Attribute> = self.logs.common.list(shared).to_vec();
        for (key, field) in &line.attributes {
            let key = self.key(key);
            let value = self.value(field);
            attributes.push(Attribute { key, value });
        }
        if is_cut {
            let value = Value::Int(i64::try_from(read.cut).unwrap_or(i64::MAX));
            attributes.push(Attribute { key: self.key("log.record.cut_bytes"), value });
        }
        if is_bytes {
            attributes.push(Attribute { key: self.key("log.record.invalid_text"), value: Value::Bool(true) });
        }
        if let Some(error) = line.error {
            let value = Value::String(self.key(error));
            attributes.push(Attribute { key: self.key("_parse_error"), value });
        }
        if read.original {
            let arena = &mut self.logs.common.arena;
            let value = match read.text {
                Decoded::Text(text) => Value::String(arena.add(text.as_bytes())),
                Decoded::Bytes(bytes, _) => Value::Bytes(arena.add(bytes)),
            };
            attributes.push(Attribute { key: self.key("log.record.original"), value });
        }
        self.push(attributes)
    }

    /// The attributes of an origin; neighbours mostly come from the same one.
    fn shared(&mut self, origin: &Origin) -> Attributes {
        if let Some((last, attributes)) = &self.last_origin
            && Arc::ptr_eq(last, origin)
        {
            return *attributes;
        }
        let mut list = Vec::with_capacity(origin.len());
        for (key, field) in &**origin {
            let value = match field {
                Field::Text(text) => Value::String(self.key(text)),
                other => self.value(other),
            };
            list.push(Attribute { key: self.key(key), value });
        }
        let attributes = self.push(list);
        self.last_origin = Some((origin.clone(), attributes));
        attributes
    }

    fn push(&mut self, attributes: Vec<Attribute>) -> Attributes {
        let common = &mut self.logs.common;
        let start = common.attributes.len();
        common.attributes.extend(attributes);
        common.attributes_since(start)
    }

    /// Text that repeats, kept once per batch.
    fn key(&mut self, key: &str) -> Text {
        if let Some(text) = self.keys.get(key) {
            return *text;
        }
        let text = self.logs.common.arena.add(key.as_bytes());
        self.keys.insert(key.into(), text);
        text
    }

    fn value(&mut self, field: &Field<'_>) -> Value {
        match field {
            Field::Null => Value::Empty,
            Field::Text(text) => Value::String(self.logs.common.arena.add(text.as_bytes())),
            Field::Int(number) => Value::Int(*number),
            Field::Float(number) => Value::Double(*number),
            Field::Bool(value) => Value::Bool(*value),
            Field::Bytes(bytes) => Value::Bytes(self.logs.common.arena.add(bytes)),
            Field::List(list) => {
                let values: Vec<Value> = list.iter().map(|item| self.value(item)).collect();
                let common = &mut self.logs.common;
                let start = common.values.len();
                common.values.extend(values);
                Value::Array(common.values_since(start))
            }
            Field::Map(map) => Value::KeyValues(self.map(map)),
        }
    }

    fn map(&mut self, map: &[(Cow<'_, str>, Field<'_>)]) -> Attributes {
        let mut attributes = Vec::with_capacity(map.len());
        for (key, field) in map {
            let key = self.key(key);
            attributes.push(Attribute { key, value: self.value(field) });
        }
        self.push(attributes)
    }
}
