//! Formats that the user writes down: a regular expression with named groups, or grok.
//!
//! Both run on the `regex` crate, which takes linear time whatever the line holds; it has no
//! look-around, so grok's standard patterns that use it are replaced by equivalents here.

use std::borrow::Cow;

use grok::Grok;
use regex::Regex;

use super::line::{Field, Line};

/// Reads the named groups of a regular expression; they become attributes.
pub fn parse<'a>(regex: &Regex, text: &'a str) -> Line<'a> {
    let Some(found) = regex.captures(text) else { return Line::unreadable("the pattern does not match") };
    let mut line = Line::default();
    for name in regex.capture_names().flatten() {
        if let Some(value) = found.name(name).filter(|value| !value.as_str().is_empty()) {
            line.attributes.push((Cow::Owned(name.to_owned()), Field::text(value.as_str())));
        }
    }
    line
}

/// Standard patterns without look-around and atomic groups. `%{IPV4}` and `%{NUMBER}` therefore do
/// not look at the characters around them; patterns for whole lines do not notice.
const LINEAR: [(&str, &str); 11] = [
    ("BASE10NUM", r"(?:[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+))"),
    ("BASE16NUM", r"(?:[+-]?(?:0x)?[0-9A-Fa-f]+)"),
    ("BASE16FLOAT", r"\b(?:[+-]?(?:0x)?(?:[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?|\.[0-9A-Fa-f]+))\b"),
    ("QUOTEDSTRING", r#"(?:"(?:\\.|[^\\"])*"|'(?:\\.|[^\\'])*'|`(?:\\.|[^\\`])*`)"#),
    ("IPV4", r"(?:(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]{1,2})"),
    ("WINPATH", r"(?:[A-Za-z]+:|\\)(?:\\[^\\?*]*)+"),
    ("YEAR", r"(?:\d\d){1,2}"),
    ("TIME", r"%{HOUR}:%{MINUTE}(?::%{SECOND})"),
    ("HAPROXYTIME", "%{HOUR:haproxy_hour}:%{MINUTE:haproxy_minute}(?::%{SECOND:haproxy_second})"),
    (
        "SYSLOGPAMSESSION",
        r"%{SYSLOGBASE} %{WORD:pam_module}\(%{DATA:pam_caller}\): session %{WORD:pam_session_state} for user %{USERNAME:username}(?: by %{GREEDYDATA:pam_by})?",
    ),
    // nginx allows characters in user names that the original leaves out (`@`, `+`).
    ("HTTPDUSER", r"(?:[a-zA-Z0-9._@+%-]+)"),
];

/// A grok pattern, compiled once.
pub struct GrokPattern {
    pattern: grok::Pattern,
    names: Vec<String>,
}

impl GrokPattern {
    /// Compiles a pattern; `own` are patterns that it may use besides the standard ones.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new<'a>(pattern: &str, own: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut grok = Grok::with_default_patterns();
        for (name, definition) in LINEAR.into_iter().chain(own) {
            grok.add_pattern(name, definition);
        }
        let pattern = grok.compile(pattern, true).map_err(|error| match error {
            grok::Error::DefinitionNotFound(name) => {
                format!("there is no grok pattern `{name}`: define it in `grok_patterns`")
            }
            grok::Error::RegexCompilationFailed(text) if text.contains("look-around") => {
                "it uses look-around, which takes unbounded time and is not supported: write it without".to_owned()
            }
            other => other.to_string(),
        })?;
        let names = pattern.capture_names().map(str::to_owned).collect();
        Ok(Self { pattern, names })
    }

    /// Reads the named parts; `%{NUMBER:bytes:int}` and `:float` give numbers.
    pub fn parse<'a>(&self, text: &'a str) -> Line<'a> {
        let Some(found) = self.pattern.match_against(text) else {
            return Line::unreadable("the pattern does not match");
        };
        let mut line = Line::default();
        for name in &self.names {
            let Some(value) = found.get(name).filter(|value| !value.is_empty()) else { continue };
            let field = match self.pattern.get_extract(name) {
                Some("int" | "integer" | "long") => value.parse().ok().map(Field::Int),
                Some("float" | "double" | "number") => value.parse().ok().map(Field::Float),
                _ => None,
            };
            // The library lends its matches for shorter than the line lives.
            let field = field.unwrap_or_else(|| Field::Text(Cow::Owned(value.to_owned())));
            line.attributes.push((Cow::Owned(name.clone()), field));
        }
        line
    }
}

impl std::fmt::Debug for GrokPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrokPattern").field("names", &self.names).finish()
    }
}
