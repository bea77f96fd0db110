//! From settings to a plan: every block opened by its kind, every name in a route known. All
//! problems of a file are found before anything starts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use weir_config::{Acknowledge, Block, Node, Problem, Problems, Settings, Value};
use weir_model::Signal;
use weir_model::build::MetricsBuilder;

use crate::control::Control;
use crate::intake::Intake;
use crate::keep::Keep;
use crate::kind::{Kind, Open, Opened, Role};
use crate::options::{CollectOptions, ExportOptions, LONGEST_POLL};
use crate::role::{Context, Direct, DynCollect, DynExport, DynReceive, Export, Watching};
use crate::route::Paths;
use crate::storage::StoragePlan;
use crate::telemetry::Telemetry;

/// One integration, ready to be started.
#[allow(clippy::large_enum_variant, reason = "a handful per process, each moved once")]
pub enum Member {
    /// A collector.
    Collect {
        /// Its instance name.
        name: Arc<str>,
        /// Its options, interval and timeout filled in.
        options: CollectOptions,
        /// The collector.
        collector: Box<dyn DynCollect>,
        /// Builds its metrics.
        builder: MetricsBuilder,
    },
    /// A receiver.
    Receive {
        /// Its instance name.
        name: Arc<str>,
        /// The receiver.
        receiver: Box<dyn DynReceive>,
    },
    /// An exporter.
    Export {
        /// Its instance name.
        name: Arc<str>,
        /// Its options.
        options: ExportOptions,
        /// The exporter.
        exporter: Box<dyn DynExport>,
    },
    /// Switched off.
    Off {
        /// Its instance name.
        name: Arc<str>,
    },
}

impl Member {
    /// An exporter that is made by the program instead of by a block of the configuration, such as
    /// the server's store.
    pub fn exporter(name: &str, options: ExportOptions, exporter: impl Export) -> Member {
        Member::Export { name: Arc::from(name), options, exporter: Box::new(Direct(exporter)) }
    }

    /// A receiver that is made by the program instead of by a block of the configuration, such as
    /// the server's API.
    pub fn receiver(name: &str, receiver: impl DynReceive + 'static) -> Member {
        Member::Receive { name: Arc::from(name), receiver: Box::new(receiver) }
    }

    /// The options of an exporter.
    pub fn export_options(&self) -> Option<&ExportOptions> {
        match self {
            Member::Export { options, .. } => Some(options),
            _ => None,
        }
    }

    /// The instance name.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Member::Collect { name, .. }
            | Member::Receive { name, .. }
            | Member::Export { name, .. }
            | Member::Off { name } => name,
        }
    }
}

/// A route with everything in it known to exist. The default one leads from everywhere to everywhere.
#[derive(Clone, Debug, Default)]
pub struct RoutePlan {
    from: Vec<String>,
    signals: Vec<Signal>,
    to: Vec<String>,
    /// Resource attributes to set.
    pub set: Vec<(String, String)>,
    /// Condition that records must meet.
    pub keep: Option<Keep>,
    /// The same as it is written.
    pub keep_text: Option<String>,
}

impl RoutePlan {
    /// Whether records of this source and signal take this route to this exporter.
    pub fn leads(&self, from: &str, signal: Signal, to: &str) -> bool {
        let named = |names: &[String], name: &str| names.is_empty() || names.iter().any(|n| n == name);
        named(&self.from, from) && named(&self.to, to) && (self.signals.is_empty() || self.signals.contains(&signal))
    }
}

/// What made an integration: while it stays the same, a reload does not touch what runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its role as people see it: what tails files collects, though it runs like a receiver.
    pub role: Role,
    /// The options of its block, variables filled in.
    options: Node,
    /// The interval of those without one of their own.
    interval: Duration,
    /// Resource attributes of the agent.
    resource: Vec<(String, String)>,
}

/// Everything that is needed to start.
#[derive(Default)]
pub struct Plan {
    /// The integrations.
    pub members: Vec<Member>,
    /// What made them, by instance name. Those that the program made have none and are never touched by a reload.
    pub identities: BTreeMap<Arc<str>, Identity>,
    /// The routes; none = everything everywhere.
    pub routes: Vec<RoutePlan>,
    /// When receivers answer success.
    pub acknowledge: Acknowledge,
    /// Memory for records on their way.
    pub memory_bytes: usize,
    /// Where records wait on the disk; without it everything is in memory.
    pub storage: Option<StoragePlan>,
    /// What others see of the pipeline, and ask of it.
    pub control: Control,
}

/// What a plan is made from.
pub struct Input<'a> {
    /// Name of the configuration file, for errors.
    pub file: &'a str,
    /// The settings read from it.
    pub settings: &'a Settings,
    /// Problems found while reading them; then blocks are only checked, and the plan fails.
    pub problems: Problems,
    /// All kinds of this program.
    pub kinds: &'a [Kind],
    /// Names that the documentation knows but this program does not have.
    pub planned: &'a [&'a str],
    /// Members that the program adds to the plan by itself, which routes may name.
    pub added: &'a [(&'a str, Role)],
    /// Resource attributes of this agent.
    pub resource: Vec<(String, String)>,
    /// Folder for what must survive a restart.
    pub data_folder: Arc<Path>,
    /// What others see of the pipeline: a new one, or that of the running pipeline for a reload.
    pub control: Control,
}

impl Plan {
    /// Opens every block.
    ///
    /// # Errors
    /// All problems of the file, with their positions.
    pub fn new(input: Input<'_>) -> Result<Plan, Problems> {
        let (settings, kinds) = (input.settings, input.kinds);
        let mut planning =
            Planning { input: &input, members: Vec::new(), identities: BTreeMap::new(), problems: Vec::new() };
        let unwritten: Vec<Block> = kinds
            .iter()
            .filter(|kind| kind.on_by_default && !settings.integrations.iter().any(|block| block.kind == kind.name()))
            .map(|kind| default_block(kind.name()))
            .collect();
        for block in settings.integrations.iter().chain(&unwritten) {
            planning.block(block);
        }
        let routes = planning.routes();
        let Planning { members, identities, problems, .. } = planning;
        let problems = input.problems.clone().and(Problems::new(problems));
        let plan = Plan {
            members,
            identities,
            routes,
            acknowledge: settings.delivery.acknowledge,
            memory_bytes: usize::try_from(settings.limits.memory.bytes()).unwrap_or(usize::MAX),
            storage: Some(StoragePlan::new(&input.data_folder, settings)),
            control: input.control.clone(),
        };
        problems.or(plan)
    }

    /// What Weir knows about itself.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        self.control.telemetry()
    }

    /// What every collector found to watch.
    pub fn watching(&mut self) -> Vec<(Arc<str>, Watching)> {
        let look = |member: &mut Member| match member {
            Member::Collect { name, collector, .. } => Some((name.clone(), collector.watching())),
            _ => None,
        };
        self.members.iter_mut().filter_map(look).collect()
    }

    /// Where every receiver will listen.
    pub fn listening(&self) -> Vec<(Arc<str>, Vec<String>)> {
        let addresses = |member: &Member| match member {
            Member::Receive { name, receiver } => {
                // Its routes are not used, so it does not matter where they lead.
                let nowhere = Intake::new(name.clone(), Paths::default(), self.telemetry().clone(), self.acknowledge);
                let mounts = receiver.mounts(&nowhere);
                Some((name.clone(), mounts.iter().map(|mount| mount.address.to_string()).collect()))
            }
            _ => None,
        };
        self.members.iter().filter_map(addresses).collect()
    }
}

/// The block of an integration that runs without being configured.
pub fn default_block(kind: &str) -> Block {
    let node = Node::new(Value::Mapping(Vec::new()), 1, 1);
    Block { kind: kind.to_owned(), name: kind.to_owned(), enabled: true, node, line: 1, column: 1 }
}

struct Planning<'a> {
    input: &'a Input<'a>,
    members: Vec<Member>,
    identities: BTreeMap<Arc<str>, Identity>,
    problems: Vec<Problem>,
}

impl Planning<'_> {
    fn context(&self, name: &Arc<str>) -> Context {
        let interval: Duration = self.input.settings.agent.interval.into();
        Context {
            name: name.clone(),
            interval,
            timeout: interval.min(LONGEST_POLL),
            resource: self.input.resource.clone(),
            telemetry: self.input.control.telemetry().clone(),
            data_folder: self.input.data_folder.clone(),
        }
    }

    fn problem(&mut self, node: &Node, path: &str, message: String, help: Option<&str>) {
        let problem = Problem::at(self.input.file, node, path, message);
        self.problems.push(match help {
            Some(help) => problem.with_help(help),
            None => problem,
        });
    }

    fn block(&mut self, block: &Block) {
        let name: Arc<str> = Arc::from(block.name.as_str());
        let Some(kind) = self.input.kinds.iter().find(|kind| kind.name() == block.kind) else {
            self.unknown_kind(block);
            self.members.push(Member::Off { name });
            return;
        };
        if !block.enabled || !self.input.problems.is_empty() {
            let checked = kind.check(self.input.file, block);
            self.problems.extend(checked.err().iter().flat_map(Problems::iter).cloned());
            self.members.push(Member::Off { name });
            return;
        }
        let context = self.context(&name);
        let (options, interval, resource) = (block.node.clone(), context.interval, context.resource.clone());
        self.identities.insert(name.clone(), Identity { role: kind.role, options, interval, resource });
        match kind.open(Open { file: self.input.file, block, context: &context }) {
            Ok(Opened::Collect(options, collector)) => {
                let builder = MetricsBuilder::new(kind.name(), context.resource);
                self.members.push(Member::Collect { name, options, collector, builder });
            }
            Ok(Opened::Receive(receiver)) => self.members.push(Member::Receive { name, receiver }),
            Ok(Opened::Export(options, exporter)) => self.members.push(Member::Export { name, options, exporter }),
            Err(problems) => self.problems.extend(problems.iter().cloned()),
        }
    }

    /// A name that no kind has: a typing error, or one that this version does not have yet. A
    /// block that is switched off may name what it likes, so that one file serves many versions.
    fn unknown_kind(&mut self, block: &Block) {
        if !block.enabled {
            return;
        }
        let mut place = block.node.clone();
        (place.line, place.column) = (block.line, block.column);
        if self.input.planned.contains(&block.kind.as_str()) {
            let message = "this version of Weir does not have this integration yet".to_owned();
            self.problem(&place, &block.path(), message, Some("remove the block or set `enabled: false` in it"));
            return;
        }
        let names: Vec<&str> = self.input.kinds.iter().map(Kind::name).collect();
        let near = weir_config::nearest(&block.kind, names).map(|near| format!("; did you mean `{near}`?"));
        let message = format!("there is no integration `{}`{}", block.kind, near.unwrap_or_default());
        self.problem(&place, &block.path(), message, Some("`weir integrations list` shows all"));
    }

    fn routes(&mut self) -> Vec<RoutePlan> {
        let mut plans = Vec::new();
        for (at, route) in self.input.settings.routes.iter().enumerate() {
            let path = format!("routes[{at}]");
            self.names(route.node.get("from"), &route.from, &format!("{path}.from"), &[Role::Collect, Role::Receive]);
            self.names(route.node.get("to"), &route.to, &format!("{path}.to"), &[Role::Export]);
            let keep = route.keep.as_deref().map(Keep::parse).transpose().unwrap_or_else(|message| {
                let node = route.node.get("keep").cloned().unwrap_or_else(|| route.node.clone());
                self.problem(&node, &format!("{path}.keep"), message, None);
                None
            });
            plans.push(RoutePlan {
                from: route.from.clone(),
                signals: route.signals.iter().map(|signal| signal_of(*signal)).collect(),
                to: route.to.clone(),
                set: route.set.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
                keep,
                keep_text: route.keep.clone(),
            });
        }
        plans
    }

    /// Every name in a route must be an integration of the right role.
    fn names(&mut self, node: Option<&Node>, names: &[String], path: &str, roles: &[Role]) {
        let kinds = self.input.kinds;
        let role_of = |block: &str| {
            let kind = block.split('/').next().unwrap_or_default();
            kinds.iter().find(|k| k.name() == kind).map(|k| k.role)
        };
        let defaults = kinds.iter().filter(|kind| kind.on_by_default).map(|kind| kind.name());
        let written = self.input.settings.integrations.iter().map(|block| block.name.as_str());
        let added = self.input.added.iter().filter(|(_, role)| roles.contains(role)).map(|(name, _)| *name);
        let known: Vec<&str> = written
            .chain(defaults)
            .filter(|name| role_of(name).is_none_or(|role| roles.contains(&role)))
            .chain(added)
            .collect();
        for (at, name) in names.iter().enumerate() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let nearest =
                weir_config::nearest(name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            let (what, other) =
                if roles.contains(&Role::Export) { ("exporter", "a source") } else { ("source", "an exporter") };
            let message = if self.input.settings.integrations.iter().any(|block| block.name == *name) {
                format!("`{name}` is {other}, no {what}")
            } else {
                format!("there is no {what} `{name}` below `integrations`{}", nearest.unwrap_or_default())
            };
            let item = node.and_then(|node| node.items().get(at)).or(node).cloned();
            let item = item.unwrap_or_else(|| Node::new(Value::Null, 1, 1));
            self.problem(&item, path, message, None);
        }
    }
}

fn signal_of(signal: weir_config::Signal) -> Signal {
    match signal {
        weir_config::Signal::Metrics => Signal::Metrics,
        weir_config::Signal::Logs => Signal::Logs,
        weir_config::Signal::Traces => Signal::Traces,
    }
}
