//! A kind of integration: one entry of an explicit list, from which everything else follows.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use weir_config::{Block, Node, Problem, Problems, QueueKind};
use weir_model::Signal;
use weir_model::build::MetricDescription;
use weir_net::HttpOptions;

use crate::options::{CollectOptions, ExportOptions, LONGEST_POLL};
use crate::outcome::Fault;
use crate::role::{Collect, Context, Direct, DynCollect, DynExport, DynReceive, Export, HttpExport, OverHttp, Receive};

/// What an integration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Goes and fetches on a schedule.
    Collect,
    /// Listens or subscribes.
    Receive,
    /// Sends on.
    Export,
}

impl Role {
    /// One word: `collect`, `receive` or `export`.
    pub fn name(self) -> &'static str {
        match self {
            Role::Collect => "collect",
            Role::Receive => "receive",
            Role::Export => "export",
        }
    }
}

/// What people read about an integration; its page is made from it.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// The name in configuration files, for example `prometheus_scrape`.
    pub name: &'static str,
    /// One line without a period: what it does.
    pub summary: &'static str,
    /// Markdown: what it needs, how it behaves, its limits.
    pub details: &'static str,
    /// A block as it stands below `integrations:`, its first line being `name:`. Parsed by the conformance suite.
    pub sample: &'static str,
    /// The metrics that it yields; empty where they depend on the target.
    pub metrics: &'static [MetricDescription<'static>],
    /// The signals that it brings or takes.
    pub signals: &'static [Signal],
}

/// An integration made from its block of the configuration.
pub enum Opened {
    /// A collector.
    Collect(CollectOptions, Box<dyn DynCollect>),
    /// A receiver.
    Receive(Box<dyn DynReceive>),
    /// An exporter.
    Export(ExportOptions, Box<dyn DynExport>),
}

/// The block to open, and where it stands.
#[derive(Clone, Copy)]
pub struct Open<'a> {
    /// Name of the configuration file, for errors.
    pub file: &'a str,
    /// The block.
    pub block: &'a Block,
    /// Where it will run.
    pub context: &'a Context,
}

/// A kind of integration, its types erased.
#[derive(Clone, Copy)]
pub struct Kind {
    /// What people read.
    pub about: About,
    /// What it does.
    pub role: Role,
    /// Whether it runs without being configured.
    pub on_by_default: bool,
    /// Whether records wait for it in memory unless its block says otherwise.
    waits_in_memory: bool,
    open: fn(Open<'_>) -> Result<Opened, Problems>,
    check: fn(&str, &Block) -> Result<(), Problems>,
    schemas: fn(&mut SchemaGenerator) -> Vec<Schema>,
}

impl Kind {
    /// A collector's kind.
    pub const fn collect<C: Collect>(about: About) -> Kind {
        Kind {
            about,
            role: Role::Collect,
            on_by_default: false,
            waits_in_memory: false,
            open: open_collect::<C>,
            check: check2::<CollectOptions, C::Config>,
            schemas: schemas2::<CollectOptions, C::Config>,
        }
    }

    /// A receiver's kind.
    pub const fn receive<R: Receive>(about: About) -> Kind {
        Kind {
            about,
            role: Role::Receive,
            on_by_default: false,
            waits_in_memory: false,
            open: open_receive::<R>,
            check: check1::<R::Config>,
            schemas: schemas1::<R::Config>,
        }
    }

    /// An exporter's kind.
    pub const fn export<E: Export>(about: About) -> Kind {
        Kind {
            about,
            role: Role::Export,
            on_by_default: false,
            waits_in_memory: false,
            open: open_export::<E>,
            check: check2::<ExportOptions, E::Config>,
            schemas: schemas2::<ExportOptions, E::Config>,
        }
    }

    /// The kind of an exporter that speaks HTTP; its blocks understand [`HttpOptions`] too.
    pub const fn http_export<E: HttpExport>(about: About) -> Kind {
        Kind {
            about,
            role: Role::Export,
            on_by_default: false,
            waits_in_memory: false,
            open: open_http_export::<E>,
            check: check3::<ExportOptions, HttpOptions, E::Config>,
            schemas: schemas3::<ExportOptions, HttpOptions, E::Config>,
        }
    }

    /// The kind of an exporter that speaks HTTP, but not one request and one answer as [`HttpExport`]
    /// does. Its configuration receives the block's [`HttpOptions`] before the exporter is made.
    pub const fn export_with_http<E: Export>(about: About) -> Kind
    where
        E::Config: AsMut<HttpOptions>,
    {
        Kind {
            about,
            role: Role::Export,
            on_by_default: false,
            waits_in_memory: false,
            open: open_export_with_http::<E>,
            check: check3::<ExportOptions, HttpOptions, E::Config>,
            schemas: schemas3::<ExportOptions, HttpOptions, E::Config>,
        }
    }

    /// The same kind, running without being configured.
    pub const fn by_default(mut self) -> Kind {
        self.on_by_default = true;
        self
    }

    /// The same exporter, whose records wait in memory unless its block says otherwise: it only shows
    /// them.
    pub const fn that_waits_in_memory(mut self) -> Kind {
        self.waits_in_memory = true;
        self
    }

    /// The same kind, listed as a collector: it runs like a receiver because it hands in what must
    /// be taken, but nobody sends it anything (log files, journals).
    pub const fn that_collects(mut self) -> Kind {
        self.role = Role::Collect;
        self
    }

    /// The name in configuration files.
    pub fn name(&self) -> &'static str {
        self.about.name
    }

    /// Makes the integration from its block.
    ///
    /// # Errors
    /// All problems of the block, each with its position.
    pub fn open(&self, open: Open<'_>) -> Result<Opened, Problems> {
        let mut opened = (self.open)(open)?;
        if let (Opened::Export(options, _), true) = (&mut opened, self.waits_in_memory) {
            options.queue.get_or_insert(QueueKind::Memory);
        }
        Ok(opened)
    }

    /// What the schema can tell about a block that is not to be opened.
    ///
    /// # Errors
    /// All problems of the block, each with its position.
    pub fn check(&self, file: &str, block: &Block) -> Result<(), Problems> {
        (self.check)(file, block)
    }

    /// The JSON Schema of a block: the role's options and the integration's own as one object.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        let mut properties = serde_json::Map::new();
        properties.insert(
            "enabled".into(),
            serde_json::json!({
                "type": "boolean",
                "default": true,
                "description": "Whether it runs. Blocks that are written down are on unless they say otherwise.",
            }),
        );
        let mut required = Vec::new();
        for part in (self.schemas)(generator) {
            let part = part.to_value();
            let own = part.get("properties").and_then(|p| p.as_object()).cloned().unwrap_or_default();
            properties.extend(own);
            required.extend(part.get("required").and_then(|r| r.as_array()).cloned().unwrap_or_default());
        }
        let mut schema = Schema::default();
        schema.insert("type".into(), serde_json::json!(["object", "null"]));
        schema.insert("description".into(), self.about.summary.into());
        schema.insert("additionalProperties".into(), false.into());
        schema.insert("properties".into(), properties.into());
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        schema
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind").field("name", &self.name()).field("role", &self.role).finish()
    }
}

fn schemas1<A: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Schema> {
    vec![inline::<A>(generator)]
}

fn schemas2<A: JsonSchema, B: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Schema> {
    vec![inline::<A>(generator), inline::<B>(generator)]
}

fn schemas3<A: JsonSchema, B: JsonSchema, C: JsonSchema>(generator: &mut SchemaGenerator) -> Vec<Schema> {
    vec![inline::<A>(generator), inline::<B>(generator), inline::<C>(generator)]
}

/// The schema of a type itself, not a reference to it.
fn inline<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

fn check1<A: JsonSchema>(file: &str, block: &Block) -> Result<(), Problems> {
    weir_config::check::<A>(file, &block.node, &block.path(), &[])
}

fn check2<A: JsonSchema, B: JsonSchema>(file: &str, block: &Block) -> Result<(), Problems> {
    check_groups::<B>(file, block, &[(weir_config::property_names::<A>(), weir_config::check::<A>)])
}

fn check3<A: JsonSchema, B: JsonSchema, C: JsonSchema>(file: &str, block: &Block) -> Result<(), Problems> {
    let groups: [Group; 2] = [
        (weir_config::property_names::<A>(), weir_config::check::<A>),
        (weir_config::property_names::<B>(), weir_config::check::<B>),
    ];
    check_groups::<C>(file, block, &groups)
}

/// The keys of shared options, and how they are checked.
type Group = (Vec<String>, fn(&str, &Node, &str, &[&str]) -> Result<(), Problems>);

fn check_groups<Own: JsonSchema>(file: &str, block: &Block, groups: &[Group]) -> Result<(), Problems> {
    let (mut rest, mut problems) = (block.node.clone(), Problems::default());
    for (names, check) in groups {
        let (mine, left) = rest.split(&names.iter().map(String::as_str).collect::<Vec<_>>());
        rest = left;
        problems = problems.and(check(file, &mine, &block.path(), &[]).err().unwrap_or_default());
    }
    let known: Vec<&str> = groups.iter().flat_map(|(names, _)| names.iter().map(String::as_str)).collect();
    let own = weir_config::check::<Own>(file, &rest, &block.path(), &known);
    problems.and(own.err().unwrap_or_default()).or(())
}

/// Reads one group of options from a block, leaving the rest of its keys.
struct Keys<'a> {
    open: Open<'a>,
    rest: Node,
    known: Vec<String>,
    problems: Problems,
}

impl<'a> Keys<'a> {
    fn new(open: Open<'a>) -> Self {
        Self { open, rest: open.block.node.clone(), known: Vec::new(), problems: Problems::default() }
    }

    fn path(&self) -> String {
        self.open.block.path()
    }

    /// Options that share the block with others: their keys are taken out of it.
    fn shared<T: crate::role::Config>(&mut self) -> Option<T> {
        let names = weir_config::property_names::<T>();
        let (mine, rest) = self.rest.split(&names.iter().map(String::as_str).collect::<Vec<_>>());
        self.rest = rest;
        let read = weir_config::read(self.open.file, &mine, &self.path());
        self.known.extend(names);
        self.keep(read)
    }

    /// The integration's own options: whatever is left must be one of them.
    fn own<T: crate::role::Config>(&mut self) -> Option<T> {
        let known: Vec<&str> = self.known.iter().map(String::as_str).collect();
        let read = weir_config::read_with(self.open.file, &self.rest, &self.path(), &known);
        self.keep(read)
    }

    fn keep<T>(&mut self, read: Result<T, Problems>) -> Option<T> {
        read.map_err(|problems| self.problems = std::mem::take(&mut self.problems).and(problems)).ok()
    }

    /// What was opened, or all problems.
    fn finish(self, opened: Option<Result<Opened, Fault>>) -> Result<Opened, Problems> {
        match opened {
            Some(Ok(opened)) if self.problems.is_empty() => Ok(opened),
            Some(Err(fault)) => {
                let problem = Problem::at(self.open.file, &self.open.block.node, &self.path(), fault.message);
                Err(self.problems.and(Problems::new(vec![problem])))
            }
            _ => Err(self.problems),
        }
    }
}

fn open_collect<C: Collect>(open: Open<'_>) -> Result<Opened, Problems> {
    let mut keys = Keys::new(open);
    let (options, own) = (keys.shared::<CollectOptions>(), keys.own());
    let opened = options.zip(own).map(|(options, own)| {
        let mut context = open.context.clone();
        if let Some(interval) = options.interval {
            context.interval = interval.into();
            context.timeout = context.interval.min(LONGEST_POLL);
        }
        if let Some(timeout) = options.timeout {
            context.timeout = timeout.into();
        }
        if context.interval.is_zero() || context.timeout.is_zero() {
            return Err(Fault::configuration("`interval` and `timeout` must be longer than 0s"));
        }
        let options = CollectOptions { interval: Some(context.interval.into()), timeout: Some(context.timeout.into()) };
        let collector: Box<dyn DynCollect> = Box::new(C::new(own, &context)?);
        Ok(Opened::Collect(options, collector))
    });
    keys.finish(opened)
}

fn open_receive<R: Receive>(open: Open<'_>) -> Result<Opened, Problems> {
    let mut keys = Keys::new(open);
    let own = keys.own();
    let opened = own.map(|own| {
        let receiver: Box<dyn DynReceive> = Box::new(R::new(own, open.context)?);
        Ok(Opened::Receive(receiver))
    });
    keys.finish(opened)
}

fn open_export<E: Export>(open: Open<'_>) -> Result<Opened, Problems> {
    let mut keys = Keys::new(open);
    let (options, own) = (keys.shared(), keys.own());
    let opened = options.zip(own).map(|(options, own)| {
        let exporter: Box<dyn DynExport> = Box::new(Direct(E::new(own, open.context)?));
        Ok(Opened::Export(options, exporter))
    });
    keys.finish(opened)
}

fn open_export_with_http<E: Export>(open: Open<'_>) -> Result<Opened, Problems>
where
    E::Config: AsMut<HttpOptions>,
{
    let mut keys = Keys::new(open);
    let (options, http, own) = (keys.shared(), keys.shared::<HttpOptions>(), keys.own::<E::Config>());
    let opened = options.zip(http).zip(own).map(|((options, http), mut own)| {
        let context = Context { timeout: http.timeout.into(), ..open.context.clone() };
        *own.as_mut() = http;
        let exporter: Box<dyn DynExport> = Box::new(Direct(E::new(own, &context)?));
        Ok(Opened::Export(options, exporter))
    });
    keys.finish(opened)
}

fn open_http_export<E: HttpExport>(open: Open<'_>) -> Result<Opened, Problems> {
    let mut keys = Keys::new(open);
    let (options, http, own) = (keys.shared(), keys.shared::<HttpOptions>(), keys.own());
    let opened = options.zip(http).zip(own).map(|((options, http), own)| {
        let context = Context { timeout: http.timeout.into(), ..open.context.clone() };
        let exporter: Box<dyn DynExport> = Box::new(OverHttp::<E>::new(own, &http, &context)?);
        Ok(Opened::Export(options, exporter))
    });
    keys.finish(opened)
}
