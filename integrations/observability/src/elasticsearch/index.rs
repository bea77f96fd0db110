//! The name of the index that a record goes to.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use weir_model::Signal;

/// Most bytes of a name (Elasticsearch, "Create index API", Path parameters).
const MOST_BYTES: usize = 255;
/// Characters that no name can have (same place).
const FORBIDDEN: [char; 13] = ['\\', '/', '*', '?', '"', '<', '>', '|', ' ', ',', '#', ':', '%'];

/// A pattern with `strftime` directives and `{signal}`.
#[derive(Clone, Debug)]
pub(super) struct IndexName {
    pattern: String,
}

impl IndexName {
    /// # Errors
    /// If the pattern makes no valid name.
    pub(super) fn parse(pattern: &str) -> Result<Self, String> {
        let name = Self { pattern: pattern.to_owned() };
        // All two-digit fields differ in length from no other time, so one time proves the form.
        for signal in Signal::ALL {
            let example = name.expand(signal, Timestamp::UNIX_EPOCH).map_err(|why| format!("index: {why}"))?;
            valid(&example).map_err(|why| format!("index: `{pattern}` gives `{example}`: {why}"))?;
        }
        Ok(name)
    }

    fn expand(&self, signal: Signal, time: Timestamp) -> Result<String, String> {
        let pattern = self.pattern.replace("{signal}", signal.name());
        strtime::format(&pattern, &time.to_zoned(TimeZone::UTC)).map_err(|error| {
            format!("`{}` is no pattern of a date ({error}); write for example `weir-%Y.%m.%d`", self.pattern)
        })
    }
}

fn valid(name: &str) -> Result<(), String> {
    if name.is_empty() || name == "." || name == ".." {
        return Err("an index needs a name".into());
    }
    if name.len() > MOST_BYTES {
        return Err(format!("a name has at most {MOST_BYTES} bytes"));
    }
    if let Some(wrong) = name.chars().find(|c| FORBIDDEN.contains(c) || c.is_control()) {
        return Err(format!("`{wrong}` cannot be in the name of an index"));
    }
    if name.starts_with(['-', '_', '+']) {
        return Err("a name cannot start with `-`, `_` or `+`".into());
    }
    if name.chars().any(char::is_uppercase) {
        return Err("a name has lowercase letters only".into());
    }
    Ok(())
}

/// The names for one delivery: neighbours mostly have the same second, and so the same name.
pub(super) struct Names<'a> {
    index: &'a IndexName,
    signal: Signal,
    last: Option<(i64, Arc<str>)>,
}

impl<'a> Names<'a> {
    pub(super) fn new(index: &'a IndexName, signal: Signal) -> Self {
        Self { index, signal, last: None }
    }

    /// The name at a time.
    ///
    /// # Errors
    /// If the date has no form (never for a pattern that was parsed).
    pub(super) fn at(&mut self, time: Timestamp) -> Result<Arc<str>, String> {
        let second = time.as_second();
        if let Some((known, name)) = &self.last
            && *known == second
        {
            return Ok(name.clone());
        }
        let name: Arc<str> = self.index.expand(self.signal, time)?.into();
        self.last = Some((second, name.clone()));
        Ok(name)
    }
}
