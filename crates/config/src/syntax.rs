//! What a YAML scanner says, in words that help someone who has never heard of a scanner.

use saphyr_parser::{Marker, ScanError};

use crate::problem::Problem;

/// Line and column from 1.
pub(crate) fn position(marker: &Marker) -> (u32, u32) {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    (number(marker.line()).max(1), number(marker.col()).saturating_add(1))
}

/// The problem that stopped the scanner.
pub(crate) fn explain(file: &str, text: &str, error: &ScanError) -> Problem {
    let at = place(text, error);
    let line = line_of(text, at.0);
    if let Some(column) = tab_in_indentation(line) {
        let message = "a tab stands at the start of this line";
        return Problem::new(file, (at.0, column), "", message)
            .with_help("YAML allows only spaces there: replace each tab with two spaces");
    }
    let known = EXPLANATIONS.iter().find(|(needle, _, _)| error.info().contains(needle));
    let (message, help) = match known {
        Some((_, message, help)) => ((*message).to_owned(), *help),
        None => (
            format!("this is not valid YAML: {}", error.info()),
            "compare the line with its neighbours: indentation, quotes, brackets, `: ` after a key",
        ),
    };
    let help = if is_unquoted_variable_in_brackets(line) {
        "inside `{ }` and `[ ]`, put a variable in quotes: `\"${NAME}\"`"
    } else {
        help
    };
    Problem::new(file, at, "", message).with_help(help)
}

/// Where to point. The scanner notices a missing `:` only at the start of the next line.
fn place(text: &str, error: &ScanError) -> (u32, u32) {
    let (line, column) = position(error.marker());
    let before = line_of(text, line).chars().take(error.marker().col()).all(char::is_whitespace);
    if !before || !error.info().contains("simple key expect") {
        return (line, column);
    }
    let previous = (1..line).zip(text.lines()).filter(|(_, content)| {
        let content = content.trim_start();
        !content.is_empty() && !content.starts_with('#')
    });
    previous.last().map_or((line, column), |(line, content)| {
        let indentation = content.len() - content.trim_start().len();
        (line, u32::try_from(indentation).unwrap_or(u32::MAX).saturating_add(1))
    })
}

fn line_of(text: &str, line: u32) -> &str {
    let index = usize::try_from(line).unwrap_or(usize::MAX).saturating_sub(1);
    text.lines().nth(index).unwrap_or_default()
}

/// Column of the first tab before the first other character.
fn tab_in_indentation(line: &str) -> Option<u32> {
    let indentation = line.len() - line.trim_start_matches([' ', '\t']).len();
    let tab = line.get(..indentation)?.find('\t')?;
    u32::try_from(tab + 1).ok()
}

/// `[${A}]`: the scanner takes the brace of an unquoted reference for a mapping.
fn is_unquoted_variable_in_brackets(line: &str) -> bool {
    let Some(reference) = line.find("${") else {
        return false;
    };
    let before = line.get(..reference).unwrap_or_default();
    before.contains(['[', '{']) && before.matches(['"', '\'']).count().is_multiple_of(2)
}

const INDENTATION_HELP: &str =
    "keys that belong together start in the same column; what belongs to a key stands further right";
const QUOTE_HELP: &str = "put the text in quotes if it is meant as text";
const QUOTE_END_HELP: &str = "close it, or put a text that holds a quote in quotes of the other kind";
const BRACKET_HELP: &str = "separate the parts with `,` and close each `[` with `]` and each `{` with `}`";

/// What the scanner says (a part of it), what is wrong, and what to do.
const EXPLANATIONS: &[(&str, &str, &str)] = &[
    (
        "mapping values are not allowed",
        "a `:` stands where no key can be",
        "if this is a key, align it with its neighbours; a text that holds `: ` needs quotes",
    ),
    ("simple key expect", "this line is not of the form `key: value`", "write a `:` and a space after the key"),
    ("did not find expected key", "this line does not fit the lines above it", INDENTATION_HELP),
    (
        "did not find expected '-' indicator",
        "this line does not fit the list above it",
        "each item of a list starts with `- ` in the same column",
    ),
    (
        "wrongly indented line in block scalar",
        "this line starts further left than the text block that it belongs to",
        INDENTATION_HELP,
    ),
    ("invalid indentation in quoted scalar", "a quote is opened here and never closed", QUOTE_END_HELP),
    ("invalid indentation in flow construct", "a bracket that was opened before is still open here", BRACKET_HELP),
    ("illegal placement of ':'", "a `:` stands where no key can be", BRACKET_HELP),
    ("invalid indentation", "this line is not indented far enough", INDENTATION_HELP),
    (
        "block sequence entries are not allowed",
        "a list item (`- `) stands where no list can be",
        "start the list in the line after its key",
    ),
    (
        "\"-\" is only valid inside a block",
        "a list item (`- `) stands inside brackets",
        "inside `[ ]`, separate the items with `,`",
    ),
    ("expected ',' or '", "a `,` or the closing bracket is missing before this place", BRACKET_HELP),
    ("did not find expected ',' or '", "a `,` or the closing bracket is missing before this place", BRACKET_HELP),
    ("misplaced bracket", "a closing bracket has no opening one", BRACKET_HELP),
    ("quoted scalar, found unexpected end of stream", "a quote is opened here and never closed", QUOTE_END_HELP),
    (
        "unknown escape character",
        "a `\\` in double quotes is followed by a letter that has no meaning",
        "use single quotes: 'C:\\path' and '\\d+' then stay as they are",
    ),
    (
        "hexadecimal number",
        "a `\\x` or `\\u` in double quotes is not followed by a number",
        "use single quotes: there a `\\` has no meaning",
    ),
    (
        "trailing content after double-quoted",
        "text follows the closing quote",
        "put the whole value in one pair of quotes",
    ),
    (
        "unknown anchor",
        "`*` stands for a value marked with `&`, and none has this name",
        "a text that starts with `*` needs quotes: '*.log'",
    ),
    (
        "anchor or alias",
        "`*` and `&` have a meaning of their own at the start of a value",
        "a text that starts with `*` or `&` needs quotes: '*.log'",
    ),
    ("unexpected character", "a value cannot start with this character", QUOTE_HELP),
    ("plain scalar cannot start", "a value cannot start with this character", QUOTE_HELP),
    ("':' must be followed", "a `:` must be followed by a space", "write `key: value`"),
    ("'-' must be followed", "a `-` must be followed by a space", "write `- item`"),
    ("unprintable character", "the file holds a character that cannot be printed", "save the file as UTF-8 text"),
    ("recursion limit", "too many brackets stand inside each other", BRACKET_HELP),
    ("tabs disallowed", "a tab stands where only spaces are allowed", "replace the tab with spaces"),
    ("found a tab", "a tab stands where only spaces are allowed", "replace the tab with spaces"),
];

#[cfg(test)]
mod tests {
    use crate::expand::Environment;
    use crate::parse::Document;

    fn problem(yaml: &str) -> String {
        let problems = Document::parse("f", yaml, &Environment).expect_err(yaml);
        problems.to_string()
    }

    #[test]
    fn common_mistakes_are_explained_where_they_are() {
        let mut wrong = Vec::new();
        for (yaml, place, words) in [
            ("a:\n\tb: 1\n", "f:2:1:", "replace each tab"),
            ("a: 1\n  b: 2\n", "f:2:", "align it with its neighbours"),
            ("a: b: c\n", "f:1:", "needs quotes"),
            ("a:\n  b: 1\n c: 2\n", "f:3:", "same column"),
            ("a: [1, 2\nb: 3\n", "f:2:", "close each `[`"),
            ("a: {b: 1\n", "f:", "closing bracket"),
            ("a: ]\n", "f:1:4:", "bracket"),
            ("a: \"open\n", "f:", "never closed"),
            ("a: \"C:\\data\"\n", "f:1:", "single quotes"),
            ("a: \"x\" y\n", "f:1:", "follows the closing quote"),
            ("a: *.log\n", "f:1:4:", "'*.log'"),
            ("a: [*.log]\n", "f:1:", "'*.log'"),
            ("a: @home\n", "f:1:4:", "in quotes"),
            ("a: %x\n", "f:1:4:", "in quotes"),
            ("a: 1\nb\n", "f:2:", "`:` and a space"),
            ("a: 1\nb\nc: 2\n", "f:2:", "`:` and a space"),
            ("a: - b\n", "f:1:4:", "line after its key"),
            ("a: [${A}, ${B}]\n", "f:1:", "\"${NAME}\""),
        ] {
            let problem = problem(yaml);
            if !problem.starts_with(place) || !problem.contains(words) {
                wrong.push(format!("{yaml}{problem}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}
