//! What container runtimes wrap around the lines of containers.

use std::borrow::Cow;

use super::json;

/// The wrapping of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// `TIME STREAM P|F CONTENT` (Kubernetes CRI; containerd, CRI-O).
    Cri,
    /// Docker's `json-file` driver.
    Docker,
}

/// A line without its wrapping.
#[derive(Debug, PartialEq, Eq)]
pub struct Unwrapped<'a> {
    /// When the runtime read it.
    pub time: Cow<'a, str>,
    /// `stdout` or `stderr`.
    pub stream: Cow<'a, str>,
    /// What the container wrote.
    pub content: Cow<'a, str>,
    /// Whether the next line goes on with the same text.
    pub is_partial: bool,
}

impl Container {
    /// Takes the wrapping off one line.
    pub fn unwrap(self, text: &str) -> Option<Unwrapped<'_>> {
        match self {
            Container::Cri => cri(text),
            Container::Docker => {
                let mut line = json::docker(text)?;
                let is_partial = !line.log.ends_with('\n');
                if !is_partial {
                    line.log = match line.log {
                        Cow::Borrowed(text) => Cow::Borrowed(without_line_end(text)),
                        Cow::Owned(text) => Cow::Owned(without_line_end(&text).to_owned()),
                    };
                }
                Some(Unwrapped { time: line.time, stream: line.stream, content: line.log, is_partial })
            }
        }
    }
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn cri(text: &str) -> Option<Unwrapped<'_>> {
    let (time, rest) = text.split_once(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    // A line that the container left empty may lack the blank behind its tag.
    let (tags, content) = rest.split_once(' ').unwrap_or((rest, ""));
    let known = matches!(stream, "stdout" | "stderr");
    // Tags are separated by colons; the first is P (partial) or F (full).
    let is_partial = match tags.split(':').next()? {
        "P" => true,
        "F" => false,
        _ => return None,
    };
    known.then_some(Unwrapped { time: time.into(), stream: stream.into(), content: content.into(), is_partial })
}
