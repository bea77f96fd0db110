//! A tree against the JSON Schema of a type: finds everything that is wrong at once.

use std::str::FromStr;

use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::deserialize;
use crate::duration::Duration;
use crate::endpoint::Endpoint;
use crate::expand::below;
use crate::near::nearest;
use crate::node::{KeyNode, Node, Value};
use crate::problem::{InvalidValue, Problem, Problems};
use crate::schema::{
    Schema, alternatives, common_tag, format_of, in_range, is_name, limit, names_of, property_names_of, tag_name,
    takes, takes_number, types_of,
};
use crate::size::ByteSize;
use crate::socket_address::SocketAddress;
use crate::words;

/// Reads a value of type `T` from `node`, which stands at `path` in `file`.
///
/// # Errors
/// Every unknown key, wrong type, unknown name, missing key and malformed value, each with its
/// position; or, when the type itself refuses the value, its reason at the value that it refuses.
pub fn read<T: DeserializeOwned + JsonSchema>(file: &str, node: &Node, path: &str) -> Result<T, Problems> {
    read_with(file, node, path, &[])
}

/// Like [`read`]; the keys in `also_known` are refused too, but they take part in suggestions. For
/// a mapping of which another part was read before, see [`Node::split`].
///
/// # Errors
/// As [`read`].
pub fn read_with<T: DeserializeOwned + JsonSchema>(
    file: &str,
    node: &Node,
    path: &str,
    also_known: &[&str],
) -> Result<T, Problems> {
    check::<T>(file, node, path, also_known)?;
    deserialize::from_node(file, node, path)
}

/// The first half of [`read_with`]: everything that the schema of `T` can tell. A text whose
/// variable is not set passes, so this also finds the typos of a block that is switched off.
///
/// # Errors
/// All problems.
pub fn check<T: JsonSchema>(file: &str, node: &Node, path: &str, also_known: &[&str]) -> Result<(), Problems> {
    let root = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let mut checker = Checker { file, root: &root, also_known, problems: Vec::new() };
    checker.value(&root, node, path, true);
    Problems::new(checker.problems).or(())
}

/// The keys that a mapping of type `T` may have.
#[must_use]
pub fn property_names<T: JsonSchema>() -> Vec<String> {
    let root = SchemaGenerator::default().into_root_schema_for::<T>().to_value();
    let mut names: Vec<String> = Vec::new();
    for schema in alternatives(&root, &root, 0) {
        for name in property_names_of(schema) {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
    }
    names
}

struct Checker<'a> {
    file: &'a str,
    root: &'a Json,
    also_known: &'a [&'a str],
    problems: Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn value(&mut self, schema: &'a Json, node: &Node, path: &str, is_top: bool) {
        if node.incomplete {
            return;
        }
        let all = alternatives(schema, self.root, 0);
        let is_nullable = all.iter().any(|schema| types_of(schema).contains(&"null"));
        if is_nullable && (node.value == Value::Null || node.is_empty_text()) {
            return;
        }
        let names = names_of(&all);
        if node.text().is_some_and(|text| names.contains(&text)) {
            return;
        }
        let shapes: Vec<&Schema> =
            all.iter().copied().filter(|schema| !is_name(schema) && types_of(schema) != ["null"]).collect();
        let fitting: Vec<&Schema> = shapes.iter().copied().filter(|schema| takes(schema, node)).collect();
        match fitting.as_slice() {
            [] if shapes.is_empty() && names.is_empty() => {}
            [] if is_unknown_name(node, &names) => self.unknown_name(node, path, &names),
            [] => self.wrong_type(&all, node, path),
            [only] => self.shape(only, node, path, is_top),
            several => self.several(several, node, path, is_top),
        }
    }

    /// A value that fits the type of several alternatives: one of them must take all of it.
    fn several(&mut self, schemas: &[&'a Schema], node: &Node, path: &str, is_top: bool) {
        if let Some(tag) = common_tag(schemas).filter(|_| matches!(node.value, Value::Mapping(_))) {
            return self.tagged(tag, schemas, node, path, is_top);
        }
        let mut attempts: Vec<Vec<Problem>> = Vec::new();
        for schema in schemas {
            let before = std::mem::take(&mut self.problems);
            self.shape(schema, node, path, is_top);
            attempts.push(std::mem::replace(&mut self.problems, before));
        }
        if attempts.iter().any(Vec::is_empty) {
            return;
        }
        if matches!(node.value, Value::Mapping(_) | Value::Sequence(_)) {
            // The alternative that fits best is most likely the one that was meant.
            if let Some(best) = attempts.into_iter().min_by_key(Vec::len) {
                self.problems.extend(best);
            }
        } else {
            self.wrong_type(schemas, node, path);
        }
    }

    /// Alternatives that one key tells apart, as serde's `tag` does.
    fn tagged(&mut self, tag: &str, schemas: &[&'a Schema], node: &Node, path: &str, is_top: bool) {
        let Some(chosen) = node.get(tag) else {
            let names = schemas.iter().filter_map(|schema| tag_name(schema, tag));
            let help = format!("add `{tag}:` with one of {}", words::quoted(names));
            let message = format!("missing key `{tag}`");
            let problem = Problem::new(self.file, node.owner(), path, message);
            return self.problems.push(problem.with_help(help));
        };
        let names: Vec<&str> = schemas.iter().filter_map(|schema| tag_name(schema, tag)).collect();
        let text = chosen.text();
        let schema = schemas.iter().find(|schema| text.is_some() && tag_name(schema, tag) == text);
        match schema {
            Some(schema) => self.shape(schema, node, path, is_top),
            None if chosen.incomplete => {}
            None => self.unknown_name(chosen, &below(path, tag), &names),
        }
    }

    /// A value against one schema whose type it has.
    fn shape(&mut self, schema: &'a Schema, node: &Node, path: &str, is_top: bool) {
        match &node.value {
            Value::Mapping(entries) => self.mapping(schema, entries, node, path, is_top),
            Value::Sequence(items) => self.sequence(schema, items, node, path),
            Value::Null if types_of(schema).contains(&"object") => {
                self.mapping(schema, &[], node, path, is_top);
            }
            Value::Null if types_of(schema).contains(&"array") => {
                self.sequence(schema, &[], node, path);
            }
            Value::Int(_) | Value::UInt(_) | Value::Float(_) if takes_number(schema, node) => {
                if !in_range(schema, node) {
                    self.wrong_type(&[schema], node, path);
                }
            }
            _ => self.text(schema, node, path),
        }
    }

    fn text(&mut self, schema: &'a Schema, node: &Node, path: &str) {
        let Some(text) = node.text() else { return };
        let length = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
        if limit(schema, "minLength").is_some_and(|least| length < least) {
            return self.wrong_type(&[schema], node, path);
        }
        if limit(schema, "maxLength").is_some_and(|most| length > most) {
            let most = limit(schema, "maxLength").unwrap_or_default();
            let message = format!("the text is longer than {most} characters");
            return self.problems.push(Problem::at(self.file, node, path, message));
        }
        let Err(reason) = check_format(schema, text) else {
            return;
        };
        if text.is_empty() {
            return self.wrong_type(&[schema], node, path);
        }
        let expected = words::expected(&[schema]);
        let message = if node.from_variable() {
            format!("expected {expected}, found the value of {}: {reason}", words::variables(node))
        } else if format_of(schema) == Some("uri") {
            // A URL may hold a password.
            format!("expected {expected}: {reason}")
        } else {
            format!("expected {expected}, found `{}`: {reason}", words::shown(text))
        };
        self.problems.push(Problem::at(self.file, node, path, message));
    }

    fn sequence(&mut self, schema: &'a Schema, items: &[Node], node: &Node, path: &str) {
        let count = u64::try_from(items.len()).unwrap_or(u64::MAX);
        if limit(schema, "minItems").is_some_and(|least| count < least) {
            return self.wrong_type(&[schema], node, path);
        }
        if let Some(most) = limit(schema, "maxItems").filter(|most| count > *most) {
            let message = format!("the list has {count} items, and at most {most} are allowed");
            return self.problems.push(Problem::at(self.file, node, path, message));
        }
        let fixed = schema.get("prefixItems").and_then(Json::as_array);
        for (index, item) in items.iter().enumerate() {
            let schema = fixed.and_then(|schemas| schemas.get(index)).or_else(|| schema.get("items"));
            if let Some(schema) = schema {
                self.value(schema, item, &format!("{path}[{index}]"), false);
            }
        }
    }

    fn mapping(&mut self, schema: &'a Schema, entries: &[(KeyNode, Node)], node: &Node, path: &str, is_top: bool) {
        let properties = schema.get("properties").and_then(Json::as_object);
        let pattern =
            schema.get("patternProperties").and_then(Json::as_object).and_then(|patterns| patterns.values().next());
        let other = pattern.or_else(|| schema.get("additionalProperties"));
        let mut meant: Vec<&str> = Vec::new();
        for (key, value) in entries {
            match properties.and_then(|properties| properties.get(&key.name)) {
                Some(schema) => self.value(schema, value, &below(path, &key.name), false),
                None if other == Some(&Json::Bool(false)) => {
                    meant.extend(self.unknown_key(schema, key, path, is_top));
                }
                None => {
                    if let Some(schema) = other {
                        self.value(schema, value, &below(path, &key.name), false);
                    }
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array);
        for name in required.into_iter().flatten().filter_map(Json::as_str) {
            // A misspelt key is not missing as well.
            if node.get(name).is_none() && !meant.contains(&name) {
                let property = properties.and_then(|properties| properties.get(name));
                self.missing_key(name, property, node, path);
            }
        }
    }

    /// Reports a key that the schema does not have, and returns the one that was meant.
    fn unknown_key(&mut self, schema: &'a Schema, key: &KeyNode, path: &str, is_top: bool) -> Option<&'a str> {
        let also_known = if is_top { self.also_known } else { &[] };
        let mut names: Vec<&str> = property_names_of(schema).collect();
        names.extend(also_known.iter().filter(|name| !names.contains(name)).copied().collect::<Vec<_>>());
        let mut message = format!("unknown key `{}`", words::shown(&key.name));
        let near = nearest(&key.name, names.iter().copied());
        if let Some(near) = near {
            message.push_str(&format!("; did you mean `{near}`?"));
        }
        let mut problem = Problem::new(self.file, (key.line, key.column), path, message);
        if near.is_none() {
            problem.help = Some(if names.is_empty() {
                "no key is allowed here".to_owned()
            } else {
                format!("the keys here are {}", words::quoted(names))
            });
        }
        self.problems.push(problem);
        near
    }

    fn missing_key(&mut self, name: &str, property: Option<&'a Json>, node: &Node, path: &str) {
        let message = format!("missing key `{name}`");
        let mut problem = Problem::new(self.file, node.owner(), path, message);
        if let Some(property) = property {
            let expected = words::expected(&alternatives(property, self.root, 0));
            let meaning = property
                .get("description")
                .and_then(Json::as_str)
                .and_then(|text| text.lines().next())
                .map(|text| format!(" ({})", text.trim_end_matches('.')));
            problem.help = Some(format!("add `{name}:` with {expected}{}", meaning.unwrap_or_default()));
        }
        self.problems.push(problem);
    }

    fn unknown_name(&mut self, node: &Node, path: &str, names: &[&str]) {
        let list = words::quoted(names.iter().copied());
        let text = node.text().or(node.written.as_deref());
        let (message, help) = match text {
            Some(text) if !node.from_variable() => match nearest(text, names.iter().copied()) {
                Some(near) => (
                    format!("unknown value `{}`; did you mean `{near}`?", words::shown(text)),
                    Some(format!("the values are {list}")),
                ),
                None => (format!("unknown value `{}`", words::shown(text)), Some(format!("the values are {list}"))),
            },
            _ => (format!("expected one of {list}, found {}", words::found(node, false)), None),
        };
        let mut problem = Problem::at(self.file, node, path, message);
        problem.help = help;
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, schemas: &[&Schema], node: &Node, path: &str) {
        let is_secret = schemas.iter().any(|schema| format_of(schema) == Some("secret"));
        let (expected, found) = (words::expected(schemas), words::found(node, is_secret));
        let message = format!("expected {expected}, found {found}");
        let mut problem = Problem::at(self.file, node, path, message);
        problem.help = words::wrong_type_help(schemas, node, is_secret);
        self.problems.push(problem);
    }
}

/// Whether the value is a scalar in the place of a name. A number that would be right in quotes is
/// of the wrong type instead.
fn is_unknown_name(node: &Node, names: &[&str]) -> bool {
    let text = node.text().or(node.written.as_deref()).unwrap_or_default();
    !names.is_empty() && !text.is_empty() && !names.contains(&text)
}

/// A text against the format of its schema, for the formats whose types are defined here.
fn check_format(schema: &Schema, text: &str) -> Result<(), InvalidValue> {
    let Some(format) = format_of(schema) else {
        return Ok(());
    };
    let is_endpoint = schema.get("pattern").and_then(Json::as_str) == Some(Endpoint::PATTERN);
    match format {
        "duration" => Duration::from_str(text).map(drop),
        "byte-size" => ByteSize::from_str(text).map(drop),
        "socket-address" => SocketAddress::from_str(text).map(drop),
        "uri" if is_endpoint => Endpoint::from_str(text).map(drop),
        "uri" => url::Url::parse(text).map(drop).map_err(|error| InvalidValue::new(error.to_string())),
        _ => Ok(()),
    }
}
