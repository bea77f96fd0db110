//! The configuration of `journald`, its check, and what it means for `journalctl`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, Text};
use weir_pipeline::{Context, Fault};

use crate::logs::config::{From, file_name};

/// Reads the journal of systemd.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct JournaldConfig {
    /// Units whose records are read, for example `nginx.service`. Patterns stand for units that the journal knows when reading begins. Default: all.
    pub units: Vec<String>,
    /// Programs whose records are read, by `SYSLOG_IDENTIFIER`. Default: all.
    pub identifiers: Vec<String>,
    /// Least severity that is read. Default `debug`: everything.
    pub priority: Priority,
    /// Fields that records must have, as `FIELD=value`. Several values of one field are alternatives; several fields must all match.
    pub matches: Vec<String>,
    /// Whether messages of the kernel are read. Default true.
    pub kernel: bool,
    /// Where to begin when Weir runs for the first time. Default `beginning`.
    pub from: From,
    /// What is older than this when Weir runs for the first time is passed over; `0s` = read everything. Default 1d.
    pub ignore_older: weir_config::Duration,
    /// Folder with journal files, for example of a mounted disk, or the host's `/var/log/journal` in a container. Default: this machine's journal.
    pub directory: Option<String>,
    /// Namespace of the journal (systemd-journald@.service). Default: the one without a name.
    pub namespace: Option<String>,
    /// Whether journals of other machines that lie on this one (`/var/log/journal/remote`) are read too. Default false.
    pub merge: bool,
    /// Which fields become attributes. Default `own`.
    pub fields: Fields,
    /// Longest value of a field; what is beyond is left out, and attribute `log.record.cut_bytes` says how much. Default 64KiB.
    pub max_field_size: ByteSize,
    /// The program that reads journals. Default `journalctl`, to be found on `PATH`.
    pub journalctl: String,
    /// Resource attributes for all records, for example `deployment.environment.name: test`.
    #[serde(deserialize_with = "weir_config::text_values")]
    #[schemars(with = "BTreeMap<String, Text>")]
    pub attributes: BTreeMap<String, String>,
}

impl Default for JournaldConfig {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            identifiers: Vec::new(),
            priority: Priority::default(),
            matches: Vec::new(),
            kernel: true,
            from: From::default(),
            ignore_older: Duration::from_hours(24).into(),
            directory: None,
            namespace: None,
            merge: false,
            fields: Fields::default(),
            max_field_size: ByteSize::from_bytes(64 << 10),
            journalctl: "journalctl".to_owned(),
            attributes: BTreeMap::new(),
        }
    }
}

/// Severities of syslog (RFC 5424, table 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// 0: the system is unusable.
    Emerg,
    /// 1: somebody must act at once.
    Alert,
    /// 2: critical.
    Crit,
    /// 3: errors.
    Err,
    /// 4: warnings.
    Warning,
    /// 5: normal, but significant.
    Notice,
    /// 6: informational.
    Info,
    /// 7: everything.
    #[default]
    Debug,
}

/// Which fields of the journal become attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Fields {
    /// Those with a name in OpenTelemetry or in the list above.
    Known,
    /// Those, and what programs add on their own, as `journald.FIELD`.
    #[default]
    Own,
    /// Those, and what systemd adds: fields whose names begin with `_`.
    All,
}

/// A checked configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program.
    pub journalctl: String,
    /// Arguments that say which journal.
    pub source: Vec<String>,
    /// Arguments that say which of its records.
    pub filter: Vec<String>,
    /// Whether messages of the kernel are read.
    pub kernel: bool,
    /// Where to begin for the first time.
    pub from: From,
    /// How far back to begin for the first time.
    pub ignore_older: Duration,
    /// Which fields become attributes.
    pub fields: Fields,
    /// Most bytes of a value.
    pub max_field_bytes: usize,
    /// Resource attributes of all records.
    pub resource: Vec<(String, String)>,
    /// Whether records name the host themselves: they may come from other machines.
    pub host_of_record: bool,
    /// Whether `service.name` is configured, so that units do not set it.
    pub has_service_name: bool,
    /// Where the position is kept.
    pub checkpoint: PathBuf,
}

/// The limits of `max_field_size`.
const LEAST_FIELD_BYTES: u64 = 64;
const MOST_FIELD_BYTES: u64 = 4 << 20;

/// Checks a configuration.
///
/// # Errors
/// What is wrong, and what to do.
pub fn checked(config: JournaldConfig, context: &Context) -> Result<Settings, Fault> {
    let wrong = |why: String| Fault::configuration(why);
    if !(LEAST_FIELD_BYTES..=MOST_FIELD_BYTES).contains(&config.max_field_size.bytes()) {
        return Err(wrong("`max_field_size` must be from 64B to 4MiB".into()));
    }
    for condition in &config.matches {
        let is_field = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        if !condition.split_once('=').is_some_and(|(name, _)| is_field(name)) {
            return Err(wrong(format!(
                "`matches`: `{condition}` is not `FIELD=value` with a field in capitals, for example `_UID=1000`"
            )));
        }
    }
    let names = [("units", &config.units), ("identifiers", &config.identifiers)];
    if let Some((option, _)) = names.iter().find(|(_, list)| list.iter().any(|name| name.trim().is_empty())) {
        return Err(wrong(format!("`{option}` has an empty name; remove it to read all")));
    }
    if config.journalctl.trim().is_empty() {
        return Err(wrong("`journalctl` is empty; remove it to use the one on `PATH`".into()));
    }
    if config.directory.is_some() && config.namespace.is_some() {
        return Err(wrong("`directory` and `namespace` exclude each other: a folder is read as it is".into()));
    }
    let (source, filter) = (source(&config), filter(&config));
    let mut resource = context.resource.clone();
    resource.retain(|(key, _)| !config.attributes.contains_key(key));
    let (has_service_name, has_host) =
        (config.attributes.contains_key("service.name"), config.attributes.contains_key("host.name"));
    resource.extend(config.attributes);
    Ok(Settings {
        journalctl: config.journalctl,
        source,
        filter,
        kernel: config.kernel,
        from: config.from,
        ignore_older: config.ignore_older.into(),
        fields: config.fields,
        max_field_bytes: usize::try_from(config.max_field_size.bytes()).unwrap_or(usize::MAX),
        resource,
        host_of_record: (config.directory.is_some() || config.merge) && !has_host,
        has_service_name,
        checkpoint: context.data_folder.join("journald").join(format!("{}.json", file_name(&context.name))),
    })
}

/// Which journal.
fn source(config: &JournaldConfig) -> Vec<String> {
    // `--follow` reads the current boot alone: up to systemd 257 `--merge` lifts that, since 258 `--boot=all`.
    let mut arguments = vec!["--merge".to_owned(), "--boot=all".to_owned()];
    if let Some(directory) = &config.directory {
        arguments.push(format!("--directory={directory}"));
    }
    if let Some(namespace) = &config.namespace {
        arguments.push(format!("--namespace={namespace}"));
    }
    arguments
}

/// Which records of it.
fn filter(config: &JournaldConfig) -> Vec<String> {
    let mut arguments: Vec<String> = config.units.iter().map(|unit| format!("--unit={unit}")).collect();
    arguments.extend(config.identifiers.iter().map(|name| format!("--identifier={name}")));
    if config.priority != Priority::Debug {
        arguments.push(format!("--priority={}", config.priority as u8));
    }
    arguments.extend(config.matches.iter().cloned());
    if config.directory.is_none() && !config.merge && !config.matches.iter().any(|m| m.starts_with("_MACHINE_ID=")) {
        arguments.extend(machine_id().map(|id| format!("_MACHINE_ID={id}")));
    }
    arguments
}

/// This machine's id, by which its own records are told from those of others (machine-id(5)).
fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}
