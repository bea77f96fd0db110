//! From what lines say to a batch of log records.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use weir_model::logs::{LogRecord, Logs};
use weir_model::{Attribute, Attributes, Payload, Records, Resource, Scope, Text, Value};

use super::encoding::Decoded;
use super::parse::line::{Field, Line};

/// Which file records come from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Its name (`log.file.name`).
    pub name: Arc<str>,
    /// Its path (`log.file.path`).
    pub path: Arc<str>,
}

/// Log records in the making.
#[derive(Debug, Default)]
pub struct Gathered {
    logs: Logs,
    keys: HashMap<Box<str>, Text>,
    file: Option<(Arc<str>, Attributes)>,
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
}

impl Gathered {
    /// No records yet, from a source with these resource attributes.
    pub fn new(resource: &[(String, String)]) -> Self {
        let mut logs = Logs::default();
        let pairs = resource.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let attributes = logs.common.add_texts(pairs);
        logs.common.resources.push(Resource { attributes, ..Resource::default() });
        let name = logs.common.arena.add(b"logs");
        logs.common.scopes.push(Scope { present: true, name, ..Scope::default() });
        Gathered { logs, ..Gathered::default() }
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.logs.records.len()
    }

    /// The batch, if there are records.
    pub fn finish(self) -> Option<Payload> {
        (!self.logs.records.is_empty()).then(|| Payload::from_records(Records::Logs(self.logs)))
    }

    /// Adds a record.
    pub fn add(&mut self, origin: &Origin, read: &Read<'_>) {
        let (text, line) = (read.text, read.line);
        let body = match (text, &line.body) {
            (Decoded::Bytes(bytes, _), _) => Value::Bytes(self.logs.common.arena.add(bytes)),
            (Decoded::Text(_), Some(body)) => Value::String(self.logs.common.arena.add(body.as_bytes())),
            (Decoded::Text(text), None) => Value::String(self.logs.common.arena.add(text.as_bytes())),
        };
        let attributes = self.attributes(origin, read);
        let id = |logs: &mut Logs, id: Option<&[u8]>| id.map_or(Text::EMPTY, |id| logs.common.arena.add(id));
        let trace_id = id(&mut self.logs, line.trace_id.as_ref().map(<[u8; 16]>::as_slice));
        let span_id = id(&mut self.logs, line.span_id.as_ref().map(<[u8; 8]>::as_slice));
        // Words of levels repeat: they are kept once per batch.
        let severity_text = if line.severity_text.is_empty() { Text::EMPTY } else { self.key(&line.severity_text) };
        self.logs.records.push(LogRecord {
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
        let file = self.file(origin);
        let line = read.line;
        let (is_bytes, is_cut) = (matches!(read.text, Decoded::Bytes(..)), read.cut > 0);
        if line.attributes.is_empty() && !is_bytes && !is_cut && line.error.is_none() && !read.original {
            return file;
        }
        let mut attributes: Vec<Attribute> = self.logs.common.list(file).to_vec();
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

    /// The attributes of a file; neighbours mostly come from the same one.
    fn file(&mut self, origin: &Origin) -> Attributes {
        if let Some((path, attributes)) = &self.file
            && Arc::ptr_eq(path, &origin.path)
        {
            return *attributes;
        }
        let (name_key, path_key) = (self.key("log.file.name"), self.key("log.file.path"));
        let name = Value::String(self.key(&origin.name));
        let path = Value::String(self.key(&origin.path));
        let pair = vec![Attribute { key: name_key, value: name }, Attribute { key: path_key, value: path }];
        let attributes = self.push(pair);
        self.file = Some((origin.path.clone(), attributes));
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
