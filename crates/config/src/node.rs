//! A YAML document as a tree that remembers where everything stands.

use std::fmt;

/// A value with its place in the file.
///
/// Two nodes are equal when their values are: moving a block down by a line changes nothing. `Debug`
/// shows the shape and never a text, because any text may be a secret.
#[derive(Clone)]
pub struct Node {
    /// The value itself.
    pub value: Value,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Where the key stands that holds this value.
    pub(crate) key_position: Option<(u32, u32)>,
    /// References such as `${VAR}` that made this value.
    pub(crate) variables: Vec<String>,
    /// A part could not be read, such as a variable that is not set, and that is reported already
    /// or does not matter because the block is switched off. Nothing more is said about this value.
    pub(crate) incomplete: bool,
    /// How an unquoted number, boolean or null is written, in the file or in the variable.
    pub(crate) written: Option<Box<str>>,
    /// The text stands without quotes.
    pub(crate) plain: bool,
}

/// The values of YAML's core schema (YAML 1.2.2, section 10.3).
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Nothing, `null` or `~`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above `i64::MAX`.
    UInt(u64),
    /// A number with a fraction, infinite, or not a number.
    Float(f64),
    /// A text.
    String(String),
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the file, each key once.
    Mapping(Vec<(KeyNode, Node)>),
}

/// A key of a mapping with its place in the file.
#[derive(Clone)]
pub struct KeyNode {
    /// The key as text.
    pub name: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

impl Node {
    /// A value at a place.
    #[must_use]
    pub fn new(value: Value, line: u32, column: u32) -> Node {
        Node {
            value,
            line,
            column,
            key_position: None,
            variables: Vec::new(),
            incomplete: false,
            written: None,
            plain: false,
        }
    }

    /// The value of `key`, when this is a mapping that has it.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.name == key).map(|(_, node)| node)
    }

    /// The keys and values of a mapping; of anything else, none.
    #[must_use]
    pub fn entries(&self) -> &[(KeyNode, Node)] {
        match &self.value {
            Value::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The values of a list; of anything else, none.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The text, when this is one.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether the value came from a variable or file, so that its content must not be printed.
    #[must_use]
    pub fn from_variable(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Divides a mapping into the keys in `names` and the rest; positions stay. Of anything but a
    /// mapping, the first half is an empty mapping and the second the value itself.
    #[must_use]
    pub fn split(&self, names: &[&str]) -> (Node, Node) {
        let with = |value| Node { value, ..self.without_value() };
        match &self.value {
            Value::Mapping(entries) => {
                let (named, rest) = entries.iter().cloned().partition(|(key, _)| names.contains(&key.name.as_str()));
                (with(Value::Mapping(named)), with(Value::Mapping(rest)))
            }
            _ => (with(Value::Mapping(Vec::new())), self.clone()),
        }
    }

    fn without_value(&self) -> Node {
        Node { value: Value::Null, key_position: self.key_position, ..Node::new(Value::Null, self.line, self.column) }
    }

    /// Where to point when something is missing inside this value.
    pub(crate) fn owner(&self) -> (u32, u32) {
        self.key_position.unwrap_or((self.line, self.column))
    }

    /// The value as text where text is wanted. What a variable holds is text whatever it looks
    /// like, since whoever writes the file cannot know: a token may be all digits.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ if self.from_variable() => self.written.as_deref(),
            _ => None,
        }
    }

    pub(crate) fn is_empty_text(&self) -> bool {
        self.text().is_some_and(str::is_empty)
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Node) -> bool {
        self.value == other.value
    }
}

impl PartialEq for KeyNode {
    fn eq(&self, other: &KeyNode) -> bool {
        self.name == other.name
    }
}

impl fmt::Debug for KeyNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from_variable() {
            return write!(f, "value of {}", self.variables.join(" and "));
        }
        self.value.fmt(f)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(_) | Value::UInt(_) => f.write_str("integer"),
            Value::Float(_) => f.write_str("number"),
            Value::String(_) => f.write_str("text"),
            Value::Sequence(items) => f.debug_list().entries(items).finish(),
            Value::Mapping(entries) => f.debug_map().entries(entries.iter().map(|(key, node)| (key, node))).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(names: &[&str]) -> Node {
        let entry = |(index, name): (usize, &&str)| {
            let line = u32::try_from(index).expect("small") + 1;
            let key = KeyNode { name: (*name).to_owned(), line, column: 3 };
            (key, Node::new(Value::String("s3cret".into()), line, 9))
        };
        Node::new(Value::Mapping(names.iter().enumerate().map(entry).collect()), 1, 3)
    }

    #[test]
    fn splitting_keeps_order_and_positions() {
        let (common, own) = mapping(&["a", "b", "c", "d"]).split(&["b", "d", "z"]);
        let names =
            |node: &Node| node.entries().iter().map(|(key, _)| (key.name.clone(), key.line)).collect::<Vec<_>>();
        assert_eq!(names(&common), [("b".to_owned(), 2), ("d".to_owned(), 4)]);
        assert_eq!(names(&own), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
        assert_eq!((own.line, own.column), (1, 3));
    }

    #[test]
    fn printing_a_tree_shows_its_shape_and_no_text() {
        assert_eq!(format!("{:?}", mapping(&["a", "b"])), "{a: text, b: text}");
    }
}
