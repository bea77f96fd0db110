//! YAML text to a tree of nodes, within bounds.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use crate::expand::{self, Lookup};
use crate::node::{KeyNode, Node, Value};
use crate::problem::{Problem, Problems};
use crate::scalar::plain_value;
use crate::syntax;

/// Lists and mappings inside each other, at most.
const DEPTH_LIMIT: usize = 64;
/// Values in a document after aliases, at most.
const NODE_LIMIT: usize = 1_000_000;
/// Bytes of text in a document after aliases and variables, at most.
pub(crate) const TEXT_LIMIT_BYTES: usize = 64 << 20;

/// A YAML 1.2 document.
#[derive(Clone, Copy, Debug)]
pub struct Document;

impl Document {
    /// Reads the one document of a file and expands its variables. An empty file is
    /// [`Value::Null`].
    ///
    /// # Errors
    /// Everything that is wrong with the YAML and the variables. A file that is not YAML yields the
    /// first place where reading stops; all other problems come together.
    pub fn parse(file_name: &str, text: &str, lookup: &dyn Lookup) -> Result<Node, Problems> {
        let (node, problems) = load(file_name, text, lookup);
        match node {
            Some(node) => problems.or(node),
            None => Err(problems),
        }
    }
}

/// Like [`Document::parse`], but keeps the tree when something in it is wrong, so that the next
/// step can report its problems too. No tree means that the text is not YAML.
pub(crate) fn load(file: &str, text: &str, lookup: &dyn Lookup) -> (Option<Node>, Problems) {
    let mut reader = Reader {
        file,
        text,
        parser: Parser::new_from_str(text),
        problems: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        text_bytes: 0,
    };
    match reader.document() {
        Ok(mut node) => {
            let budget_bytes = TEXT_LIMIT_BYTES.saturating_sub(reader.text_bytes);
            let mut problems = reader.problems;
            problems.extend(expand::expand(file, &mut node, lookup, budget_bytes));
            (Some(node), Problems::new(problems))
        }
        Err(fatal) => {
            let mut problems = reader.problems;
            problems.push(*fatal);
            (None, Problems::new(problems))
        }
    }
}

/// A problem after which reading cannot go on.
type Fatal = Box<Problem>;

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    problems: Vec<Problem>,
    anchors: HashMap<usize, Rc<Anchored>>,
    nodes: usize,
    text_bytes: usize,
}

/// A value that aliases can repeat, with what each repetition costs.
struct Anchored {
    node: Node,
    height: usize,
    nodes: usize,
    text_bytes: usize,
}

/// A value and how many levels it has below it.
struct Built {
    node: Node,
    height: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<Node, Fatal> {
        let mut document: Option<Node> = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if document.is_some() => {
                    return Err(self.second_document(span));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    document = Some(self.node(event, span, 0)?.node);
                }
                other => document = Some(self.node(other, span, 0)?.node),
            }
        }
        Ok(document.unwrap_or_else(|| Node::new(Value::Null, 1, 1)))
    }

    fn second_document(&self, span: Span) -> Fatal {
        Box::new(
            Problem::new(self.file, position(span), "", "a second document starts here, after `---`")
                .with_help("one file holds one document: remove the `---` line, or use a second file"),
        )
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(Box::new(syntax::explain(self.file, self.text, &error))),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn fatal(&self, span: Span, message: String, help: &str) -> Fatal {
        Box::new(Problem::new(self.file, position(span), "", message).with_help(help))
    }

    fn problem(&mut self, at: (u32, u32), message: String, help: &str) {
        let problem = Problem::new(self.file, at, "", message).with_help(help);
        self.problems.push(problem);
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Built, Fatal> {
        let (nodes_before, bytes_before) = (self.nodes, self.text_bytes);
        self.count(span, 1, 0)?;
        let (built, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                self.count(span, 0, text.len())?;
                let node = self.scalar(&text, style, tag.as_deref(), span);
                (Built { node, height: 0 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "seq", span);
                (self.sequence(span, depth + 1)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), "map", span);
                (self.mapping(span, depth + 1)?, anchor)
            }
            _ => {
                let message = "a value was expected here".to_owned();
                return Err(self.fatal(span, message, "write a value, or remove the line"));
            }
        };
        if anchor != 0 {
            let anchored = Anchored {
                node: built.node.clone(),
                height: built.height,
                nodes: self.nodes - nodes_before,
                text_bytes: self.text_bytes - bytes_before,
            };
            self.anchors.insert(anchor, Rc::new(anchored));
        }
        Ok(built)
    }

    fn count(&mut self, span: Span, nodes: usize, text_bytes: usize) -> Result<(), Fatal> {
        self.nodes = self.nodes.saturating_add(nodes);
        self.text_bytes = self.text_bytes.saturating_add(text_bytes);
        if self.nodes > NODE_LIMIT || self.text_bytes > TEXT_LIMIT_BYTES {
            let message = format!(
                "the file is too large: more than {NODE_LIMIT} values or {} MiB of text",
                TEXT_LIMIT_BYTES >> 20
            );
            return Err(self.fatal(span, message, "aliases (`*name`) count as often as they repeat"));
        }
        Ok(())
    }

    fn check_depth(&self, span: Span, depth: usize) -> Result<(), Fatal> {
        if depth <= DEPTH_LIMIT {
            return Ok(());
        }
        let message = format!("more than {DEPTH_LIMIT} lists or mappings stand inside each other");
        Err(self.fatal(span, message, "no setting needs that: look for brackets that are never closed"))
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Built, Fatal> {
        let Some(anchored) = self.anchors.get(&anchor) else {
            let message = "this alias stands inside the value that it repeats".to_owned();
            return Err(self.fatal(span, message, "write the value out instead of `*name`"));
        };
        let anchored = Rc::clone(anchored);
        self.check_depth(span, depth + anchored.height)?;
        self.count(span, anchored.nodes.saturating_sub(1), anchored.text_bytes)?;
        Ok(Built { node: anchored.node.clone(), height: anchored.height })
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Node {
        let plain = style == ScalarStyle::Plain;
        let typed = match tag {
            None => plain,
            Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => false,
            Some(tag) if tag.handle.is_empty() && tag.suffix == "!" => false,
            Some(tag) => {
                self.check_tag(Some(tag), "int float bool null", span);
                true
            }
        };
        let mut is_complete = true;
        let value = if typed {
            plain_value(text).unwrap_or_else(|| {
                self.problem(
                    position(span),
                    "this whole number is too large".to_owned(),
                    "if it is a name or an identifier, put it in quotes",
                );
                is_complete = false;
                Value::Null
            })
        } else {
            Value::String(text.to_owned())
        };
        let mut node = at(value, span);
        node.incomplete = !is_complete;
        node.plain = plain && typed;
        if node.plain && node.as_str().is_none() {
            node.written = Some(text.into());
        }
        node
    }

    fn check_tag(&mut self, tag: Option<&Tag>, allowed: &str, span: Span) {
        let Some(tag) = tag else { return };
        let known = tag.is_yaml_core_schema() && allowed.split(' ').any(|name| name == tag.suffix);
        if !known {
            self.problem(
                position(span),
                "a tag (a word that starts with `!`) stands before this value".to_owned(),
                "remove the tag; if the `!` is part of the text, put the text in quotes",
            );
        }
    }

    fn sequence(&mut self, span: Span, depth: usize) -> Result<Built, Fatal> {
        self.check_depth(span, depth)?;
        let (mut items, mut height) = (Vec::new(), 0);
        loop {
            let (event, item_span) = self.next()?;
            if event == Event::SequenceEnd {
                break;
            }
            let built = self.node(event, item_span, depth)?;
            height = height.max(built.height);
            items.push(built.node);
        }
        let node = at(Value::Sequence(items), span);
        Ok(Built { node, height: height + 1 })
    }

    fn mapping(&mut self, span: Span, depth: usize) -> Result<Built, Fatal> {
        self.check_depth(span, depth)?;
        let mut entries: Vec<(KeyNode, Node)> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut merges = Vec::new();
        let (mut height, mut is_complete) = (0, true);
        loop {
            let (event, key_span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let is_plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, _, _));
            let key = self.node(event, key_span, depth)?.node;
            let (event, value_span) = self.next()?;
            let is_empty = value_span.is_empty();
            let built = self.node(event, value_span, depth)?;
            height = height.max(built.height);
            let Some(key) = self.key(key, key_span) else {
                is_complete = false;
                continue;
            };
            let mut value = built.node;
            value.key_position = Some((key.line, key.column));
            if is_empty && value.value == Value::Null {
                // What is not written has no place of its own.
                (value.line, value.column) = (key.line, key.column);
            }
            if let Some(first) = lines.get(&key.name) {
                self.duplicate(&key, *first);
                continue;
            }
            lines.insert(key.name.clone(), key.line);
            if is_plain && key.name == "<<" {
                merges.push(value);
            } else {
                entries.push((key, value));
            }
        }
        self.merge(&mut entries, merges);
        let mut node = at(Value::Mapping(entries), span);
        node.incomplete = !is_complete;
        Ok(Built { node, height: height + 1 })
    }

    fn duplicate(&mut self, key: &KeyNode, first_line: u32) {
        let help = if key.name == "<<" {
            "merge several with one key: `<<: [*first, *second]`"
        } else {
            "remove one of the two"
        };
        self.problem(
            (key.line, key.column),
            format!("duplicate key `{}`: it stands in line {first_line} already", key.name),
            help,
        );
    }

    /// The text of a key. A mapping or list in its place is nearly always a template that lacks
    /// quotes.
    fn key(&mut self, key: Node, span: Span) -> Option<KeyNode> {
        let name = match key.value {
            Value::Sequence(_) | Value::Mapping(_) => {
                self.problem(
                    position(span),
                    "a key must be a text; found brackets".to_owned(),
                    "put a text that starts with `{` or `[` in quotes: `\"{{ name }}\"`",
                );
                return None;
            }
            Value::Null if span.is_empty() => {
                self.problem(position(span), "a key is missing before the `:`".to_owned(), "write `key: value`");
                return None;
            }
            Value::String(name) => name,
            _ => key.written.unwrap_or_default().into_string(),
        };
        let (line, column) = position(span);
        Some(KeyNode { name, line, column })
    }

    /// Adds what `<<` brings in; keys that stand in the mapping itself win, then earlier merges.
    fn merge(&mut self, entries: &mut Vec<(KeyNode, Node)>, merges: Vec<Node>) {
        if merges.is_empty() {
            return;
        }
        let mut names: HashSet<String> = entries.iter().map(|(key, _)| key.name.clone()).collect();
        let sources = merges.into_iter().flat_map(|merge| match merge.value {
            Value::Sequence(items) => items,
            _ => vec![merge],
        });
        for source in sources {
            let at = (source.line, source.column);
            let Value::Mapping(merged) = source.value else {
                self.problem(at, "`<<` needs a mapping".to_owned(), "write `<<: *name`, where `&name` marks a mapping");
                continue;
            };
            for (key, value) in merged {
                if names.insert(key.name.clone()) {
                    entries.push((key, value));
                }
            }
        }
    }
}

fn at(value: Value, span: Span) -> Node {
    let (line, column) = position(span);
    Node::new(value, line, column)
}

fn position(span: Span) -> (u32, u32) {
    syntax::position(&span.start)
}
