//! Variables and files in the scalars of a tree.
//!
//! Expansion comes after parsing, so a value can never bring YAML structure with it.

use std::fs::File;
use std::io::{self, Read};

use crate::node::{Node, Value};
use crate::problem::Problem;
use crate::scalar::plain_value;

/// Bytes of a file that `${file:/path}` may name, at most.
const FILE_LIMIT_BYTES: u64 = 1 << 20;

/// Where the values of `${VAR}` and `${file:/path}` come from.
pub trait Lookup {
    /// The value of a variable; `None` when it is not set.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file.
    ///
    /// # Errors
    /// Why the file cannot be read.
    fn file(&self, path: &str) -> io::Result<String>;
}

/// The environment of the process and the files of the machine. A variable that is not UTF-8
/// counts as not set; a file may have 1 MiB at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Environment;

impl Lookup for Environment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> io::Result<String> {
        let mut content = String::new();
        File::open(path)?.take(FILE_LIMIT_BYTES + 1).read_to_string(&mut content)?;
        if content.len() as u64 > FILE_LIMIT_BYTES {
            let message = format!("it has more than {} MiB", FILE_LIMIT_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(content)
    }
}

/// Expands every scalar below `node`. Where a mapping says `enabled: false`, what is not set stays
/// as it is written.
pub(crate) fn expand(file: &str, node: &mut Node, lookup: &dyn Lookup, budget_bytes: usize) -> Vec<Problem> {
    let mut expansion = Expansion { file, lookup, budget_bytes, problems: Vec::new() };
    expansion.node(node, "", false);
    expansion.problems
}

struct Expansion<'a> {
    file: &'a str,
    lookup: &'a dyn Lookup,
    budget_bytes: usize,
    problems: Vec<Problem>,
}

impl Expansion<'_> {
    fn node(&mut self, node: &mut Node, path: &str, disabled: bool) {
        match &mut node.value {
            Value::String(text) if text.contains("${") => self.scalar(node, path, disabled),
            Value::Sequence(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &format!("{path}[{index}]"), disabled);
                }
            }
            Value::Mapping(entries) => {
                // The switch first: it decides about the others.
                let mut switched_off = false;
                for (key, value) in entries.iter_mut().filter(|(key, _)| key.name == "enabled") {
                    self.node(value, &below(path, &key.name), disabled);
                    switched_off = value.value == Value::Bool(false);
                }
                for (key, value) in entries.iter_mut().filter(|(key, _)| key.name != "enabled") {
                    self.node(value, &below(path, &key.name), disabled || switched_off);
                }
            }
            _ => {}
        }
    }

    fn scalar(&mut self, node: &mut Node, path: &str, disabled: bool) {
        let Some(text) = node.as_str() else { return };
        let pieces = pieces(text);
        let is_one_reference = matches!(pieces.as_slice(), [Piece::Reference(_)]);
        let (mut expanded, mut variables, mut failures) = (String::new(), Vec::new(), Vec::new());
        let mut is_absent = false;
        for piece in pieces {
            let reference = match piece {
                Piece::Text(text) => {
                    expanded.push_str(text);
                    continue;
                }
                Piece::Reference(reference) => reference,
                Piece::Unclosed(reference) => {
                    failures.push(Failure::malformed(reference));
                    continue;
                }
            };
            match self.value(reference) {
                Ok((name, value)) => {
                    variables.push(name);
                    expanded.push_str(&value);
                }
                Err(failure) if failure.is_absence && disabled => is_absent = true,
                Err(failure) => failures.push(failure),
            }
            if expanded.len() > self.budget_bytes {
                failures.push(Failure::too_large());
                break;
            }
        }
        node.incomplete = is_absent || !failures.is_empty();
        for failure in failures {
            let problem = Problem::at(self.file, node, path, failure.message);
            self.problems.push(problem.with_help(failure.help));
        }
        if node.incomplete {
            return;
        }
        self.budget_bytes = self.budget_bytes.saturating_sub(expanded.len());
        node.variables = variables;
        node.value = match plain_value(&expanded) {
            Some(value) if node.plain && is_one_reference => value,
            _ => Value::String(expanded.clone()),
        };
        if node.as_str().is_none() {
            node.written = Some(expanded.into());
        }
    }

    /// The name to print and the value to use of what stands between `${` and `}`.
    fn value(&self, reference: &str) -> Result<(String, String), Failure> {
        if let Some(path) = reference.strip_prefix("file:") {
            return match self.lookup.file(path) {
                Ok(content) => Ok((format!("${{{reference}}}"), without_newline(content))),
                Err(error) => Err(Failure::unreadable(path, &error)),
            };
        }
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        let default_has_reference = default.is_some_and(|default| default.contains("${"));
        if !is_variable_name(name) || default_has_reference {
            return Err(Failure::malformed(&format!("{reference}}}")));
        }
        let value = self.lookup.variable(name);
        let value = match default {
            // As in a shell: `:-` also stands in for a variable that is set to nothing.
            Some(default) => value.filter(|value| !value.is_empty()).or_else(|| Some(default.to_owned())),
            None => value,
        };
        match value {
            Some(value) => Ok((format!("${{{name}}}"), value)),
            None => Err(Failure::not_set(name)),
        }
    }
}

/// Why a reference has no value.
struct Failure {
    message: String,
    help: String,
    /// The value is not there, which does not matter where nothing uses it.
    is_absence: bool,
}

impl Failure {
    fn not_set(name: &str) -> Failure {
        Failure {
            message: format!("the variable ${{{name}}} is not set"),
            help: format!("set {name} in the environment of weir, or give a default: `${{{name}:-default}}`"),
            is_absence: true,
        }
    }

    fn unreadable(path: &str, error: &io::Error) -> Failure {
        Failure {
            message: format!("cannot read the file {path}: {error}"),
            help: "check that the file is there and that the user that runs weir may read it".to_owned(),
            is_absence: true,
        }
    }

    fn malformed(reference: &str) -> Failure {
        let shown: String = reference.chars().take(40).collect();
        Failure {
            message: format!("`${{{shown}` is not a reference to a variable"),
            help: "write `${NAME}`, `${NAME:-default}` or `${file:/path}`; `$${` gives a plain `${`".to_owned(),
            is_absence: false,
        }
    }

    fn too_large() -> Failure {
        Failure {
            message: "the values of the variables are too large".to_owned(),
            help: "a configuration holds 64 MiB of text at most".to_owned(),
            is_absence: false,
        }
    }
}

/// A part of a scalar: text as it is, or what stands between `${` and `}`.
enum Piece<'a> {
    Text(&'a str),
    Reference(&'a str),
    /// What stands after a `${` that has no `}`.
    Unclosed(&'a str),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            pieces.extend([before, "${"].map(Piece::Text));
            rest = after;
            continue;
        }
        pieces.push(Piece::Text(before));
        let Some((reference, after)) = after.split_once('}') else {
            pieces.push(Piece::Unclosed(after));
            rest = "";
            break;
        };
        pieces.push(Piece::Reference(reference));
        rest = after;
    }
    pieces.push(Piece::Text(rest));
    pieces.retain(|piece| !matches!(piece, Piece::Text("")));
    pieces
}

fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn without_newline(mut content: String) -> String {
    if content.ends_with('\n') {
        content.pop();
        if content.ends_with('\r') {
            content.pop();
        }
    }
    content
}

/// The path of `key` below `path`.
pub(crate) fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
