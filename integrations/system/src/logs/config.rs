//! The configuration of `logs`, and its check.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, Text};
use weir_pipeline::{Context, Fault};

use super::assemble::Shape;
use super::encoding::Encoding;
use super::glob::{Exclude, Pattern};
use super::multiline::Multiline;
use super::parse::container::Container;
use super::parse::pattern::GrokPattern;
use super::parse::time::TimeFormat;
use super::parse::{Grammar, Parser};
use super::rules::Rules;

/// Reads log files as they grow.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Files to read, as whole paths; `*` and `?` stand for parts of a name, `**` for any folders, `{a,b}` and `[0-9]` choose.
    pub paths: Vec<String>,
    /// Files to leave out: paths or, without a `/`, names, for example `*.gz`.
    pub exclude: Vec<String>,
    /// Where to begin in files that are there when Weir runs for the first time. Files that appear later are read from their beginning. Default `beginning`.
    pub from: From,
    /// What is older than this when Weir runs for the first time is passed over; `0s` = read everything. Default 1d.
    pub ignore_older: weir_config::Duration,
    /// Which lines belong together: `indent`, `java`, `python`, or a regular expression that the first line of a record matches. Default: every line is a record.
    pub multiline: Option<Multiline>,
    /// How long a record of several lines waits for more. Default 1s.
    pub multiline_timeout: weir_config::Duration,
    /// How long a last line without a line end waits for it, counted from its last byte. Default 5s.
    pub unfinished_timeout: weir_config::Duration,
    /// Longest record; what is beyond is left out, and attribute `log.record.cut_bytes` says how much. Default 100KiB.
    pub max_line_size: ByteSize,
    /// Format of the lines. Default `raw`.
    pub format: Format,
    /// Format of what containers write, inside the lines of `cri` and `docker`. Default `raw`.
    pub content_format: Option<Format>,
    /// The pattern for format `regex` (named groups become attributes) or `grok`.
    pub pattern: Option<String>,
    /// Own patterns that `grok` may use: name and definition.
    pub grok_patterns: BTreeMap<String, String>,
    /// Attribute that holds the level. Default: `level`, `severity` and other usual names.
    pub severity_field: Option<String>,
    /// Attribute that holds the time. Default: `time`, `timestamp` and other usual names.
    pub time_field: Option<String>,
    /// How that time is written: `auto`, `unix`, `unix_ms`, `unix_us`, `unix_ns` or a pattern such as `%d.%m.%Y %H:%M:%S`. Default `auto`.
    pub time_format: Option<String>,
    /// Attribute that becomes the message. Default: `message`, `msg` and other usual names.
    pub message_field: Option<String>,
    /// Encoding of the files. Default `utf-8`.
    pub encoding: Encoding,
    /// Resource attributes for all records, for example `service.name: shop`.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub attributes: BTreeMap<String, String>,
    /// Whether attribute `log.record.original` keeps the record as it stood in the file. Default false.
    pub original: bool,
    /// Rules that count matching records and read numbers from them, as metrics.
    pub patterns: Vec<RuleConfig>,
    /// Whether warnings, errors, HTTP 5xx, stack traces and the kernel's alarms are counted too. Default true.
    pub builtin_patterns: bool,
    /// Most files that are kept open at once. Default 256.
    pub max_open_files: usize,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self {
            paths: Vec::new(),
            exclude: Vec::new(),
            from: From::default(),
            ignore_older: Duration::from_hours(24).into(),
            multiline: None,
            multiline_timeout: Duration::from_secs(1).into(),
            unfinished_timeout: Duration::from_secs(5).into(),
            max_line_size: ByteSize::from_bytes(100 << 10),
            format: Format::default(),
            content_format: None,
            pattern: None,
            grok_patterns: BTreeMap::new(),
            severity_field: None,
            time_field: None,
            time_format: None,
            message_field: None,
            encoding: Encoding::default(),
            attributes: BTreeMap::new(),
            original: false,
            patterns: Vec::new(),
            builtin_patterns: true,
            max_open_files: 256,
        }
    }
}

/// Where to begin in files that were there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// At their beginning.
    #[default]
    Beginning,
    /// At their end.
    End,
}

/// How lines are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Any text; a time at its beginning and its level are recognised.
    #[default]
    Raw,
    /// One JSON object per line.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// Syslog: RFC 3164, RFC 5424, and what rsyslog writes into files.
    Syslog,
    /// nginx' access log, format `combined`.
    Nginx,
    /// Apache's access log, formats `common`, `combined` and `vhost_combined`.
    Apache,
    /// nginx' error log.
    NginxError,
    /// Kubernetes: lines of containerd and CRI-O.
    Cri,
    /// Docker's `json-file` driver.
    Docker,
    /// A regular expression with named groups, in `pattern`.
    Regex,
    /// A grok pattern, in `pattern`.
    Grok,
}

/// A rule that turns records into metrics.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Name of the rule: label `rule` of its metrics.
    pub name: String,
    /// Regular expression that records must match; they are counted in `log.events`.
    pub regex: String,
    /// Named group that holds a number: its distribution becomes `log.event.value`.
    pub value: Option<String>,
    /// Unit of that number (UCUM), for example `ms`. Default `1`.
    pub unit: String,
    /// Upper bounds of the distribution's buckets. Default: OpenTelemetry's, 0 to 10000.
    pub buckets: Vec<f64>,
    /// Named groups that become labels. Others never do: every value of a label is a series.
    pub labels: Vec<String>,
    /// Most series; what is beyond is counted together under label `otel.metric.overflow`. Default 100.
    pub max_series: usize,
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            regex: String::new(),
            value: None,
            unit: "1".to_owned(),
            buckets: Vec::new(),
            labels: Vec::new(),
            max_series: 100,
        }
    }
}

/// The configuration, checked and ready to be used.
#[derive(Debug)]
pub struct Settings {
    /// Files to read.
    pub patterns: Vec<Pattern>,
    /// Files to leave out.
    pub exclude: Exclude,
    /// Where to begin in files that were there before.
    pub from: From,
    /// Age of what is passed over; zero = nothing is.
    pub ignore_older: Duration,
    /// How long a record of several lines waits for more.
    pub multiline_timeout: Duration,
    /// How long a line without an end waits for it.
    pub unfinished_timeout: Duration,
    /// How lines become records.
    pub shape: Shape,
    /// How records are read.
    pub parser: Parser,
    /// Resource attributes.
    pub resource: Vec<(String, String)>,
    /// Whether the original is kept.
    pub original: bool,
    /// Most open files.
    pub max_open_files: usize,
    /// The zone of times without one.
    pub zone: TimeZone,
    /// Where the positions are kept.
    pub checkpoint: PathBuf,
}

/// Smallest record limit: below it every line would be cut.
const LEAST_LINE_BYTES: u64 = 64;

/// Checks the configuration.
pub(super) fn checked(config: LogsConfig, context: &Context) -> Result<(Settings, Rules), Fault> {
    let wrong = |message: String| Fault::configuration(message);
    if config.paths.is_empty() {
        return Err(wrong("no `paths` are listed: name the files to read, for example `[/var/log/*.log]`".into()));
    }
    if config.max_open_files == 0 {
        return Err(wrong("`max_open_files` must be at least 1".into()));
    }
    let max_bytes = config.max_line_size.bytes();
    let most = 16 << 20;
    if !(LEAST_LINE_BYTES..=most).contains(&max_bytes) {
        return Err(wrong(format!("`max_line_size` must be from {LEAST_LINE_BYTES}B to 16MiB")));
    }
    let patterns = config.paths.iter().map(|path| Pattern::new(path)).collect::<Result<_, _>>();
    let patterns = patterns.map_err(|problem| wrong(format!("`paths`: {problem}")))?;
    let exclude = Exclude::new(&config.exclude).map_err(|problem| wrong(format!("`exclude`: {problem}")))?;
    let rules = Rules::new(&config.patterns, config.builtin_patterns, context).map_err(wrong)?;
    let parser = parser(&config).map_err(wrong)?;
    let mut resource = context.resource.clone();
    resource.retain(|(key, _)| !config.attributes.contains_key(key));
    resource.extend(config.attributes);
    let settings = Settings {
        patterns,
        exclude,
        from: config.from,
        ignore_older: config.ignore_older.into(),
        multiline_timeout: config.multiline_timeout.into(),
        unfinished_timeout: config.unfinished_timeout.into(),
        shape: Shape {
            encoding: config.encoding,
            multiline: config.multiline.map(Arc::new),
            container: parser.container,
            // Even, so that units of UTF-16 stay whole.
            max_bytes: usize::try_from(max_bytes & !1).unwrap_or(usize::MAX),
        },
        parser,
        resource,
        original: config.original,
        max_open_files: config.max_open_files,
        zone: TimeZone::system(),
        checkpoint: context.data_folder.join("logs").join(format!("{}.json", file_name(&context.name))),
    };
    Ok((settings, rules))
}

/// The name of an instance as a file name; names that differ stay different.
pub(crate) fn file_name(instance: &str) -> String {
    let mut name = String::new();
    for byte in instance.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'/' => name.push('.'),
            other => name.push_str(&format!("%{other:02x}")),
        }
    }
    name
}

fn parser(config: &LogsConfig) -> Result<Parser, String> {
    let container = match config.format {
        Format::Cri => Some(Container::Cri),
        Format::Docker => Some(Container::Docker),
        _ => None,
    };
    let format = match (container, config.content_format) {
        (None, None) => config.format,
        (None, Some(_)) => return Err("`content_format` is for the formats `cri` and `docker`".into()),
        (Some(_), Some(Format::Cri | Format::Docker)) => {
            return Err("`content_format` is what the container writes: it cannot be `cri` or `docker`".into());
        }
        (Some(_), content) => content.unwrap_or_default(),
    };
    if config.pattern.is_some() && !matches!(format, Format::Regex | Format::Grok) {
        return Err("`pattern` is for the formats `regex` and `grok`: set one of them as `format`".into());
    }
    let pattern = || config.pattern.as_deref().ok_or("the formats `regex` and `grok` need `pattern`");
    let grammar = match format {
        Format::Json => Grammar::Json,
        Format::Logfmt => Grammar::Logfmt,
        Format::Syslog => Grammar::Syslog,
        Format::Nginx | Format::Apache => Grammar::Access,
        Format::NginxError => Grammar::NginxError,
        Format::Regex => {
            let regex = Regex::new(pattern()?).map_err(|error| format!("`pattern`: {error}"))?;
            if regex.capture_names().flatten().next().is_none() {
                return Err("`pattern` has no named groups such as `(?<level>[A-Z]+)`: nothing would be read".into());
            }
            Grammar::Regex(regex)
        }
        Format::Grok => {
            let own = config.grok_patterns.iter().map(|(name, definition)| (name.as_str(), definition.as_str()));
            Grammar::Grok(GrokPattern::new(pattern()?, own).map_err(|error| format!("`pattern`: {error}"))?)
        }
        Format::Raw | Format::Cri | Format::Docker => Grammar::Raw,
    };
    Ok(Parser {
        container,
        grammar,
        severity_field: config.severity_field.clone(),
        time_field: config.time_field.clone(),
        time_format: TimeFormat::named(config.time_format.as_deref().unwrap_or_default())?,
        message_field: config.message_field.clone(),
    })
}
