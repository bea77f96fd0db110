//! Who a series is about: `job`, `instance`, promoted and external labels, and `target_info`.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};

use foldhash::fast::FixedState;
use weir_model::common::Common;

use super::names::label_name;
use super::series::{Family, LabelRef, MetricType, NO_RECORD, SampleRow, SeriesSet};

/// `target_info` is repeated after this time: well within the five minutes for which Prometheus
/// looks back, and far less often than the samples.
const REPEAT_AFTER_MS: i64 = 60_000;
/// So many targets are remembered at most.
const MOST_TARGETS: usize = 100_000;

/// How resources become labels.
#[derive(Debug)]
pub(super) struct Rules {
    /// Labels of every series that has none of the same name.
    pub external_labels: Vec<(String, String)>,
    /// Resource attributes that become labels of every series.
    pub promoted: Vec<String>,
    /// Whether the others are sent as `target_info`.
    pub target_info: bool,
}

/// The labels that all series of one scope share.
#[derive(Debug)]
pub(super) struct Identity {
    /// `job`, `instance`, promoted and external labels.
    pub labels: Vec<LabelRef>,
    /// Labels of `target_info`: those and the rest of the resource. Empty if there is nothing to say.
    info: Vec<LabelRef>,
    newest_ms: AtomicI64,
}

impl Identity {
    /// A point with this time belongs to it.
    pub fn saw(&self, time_ms: i64) {
        self.newest_ms.fetch_max(time_ms, Ordering::Relaxed);
    }
}

impl Rules {
    /// The identity of a scope. `job` is `service.namespace/service.name` and `instance` is
    /// `service.instance.id`; a resource without them (a host) has the name of its scope, which is
    /// that of the integration, and `host.name`.
    pub fn identity(&self, common: &Common, scope: usize, set: &mut SeriesSet) -> Identity {
        let scope = common.scopes.get(scope).copied().unwrap_or_default();
        let attributes =
            common.resources.get(scope.resource as usize).map(|resource| resource.attributes).unwrap_or_default();
        let of = |key: &str| {
            let value = common.find(attributes, key).map(|value| common.value_text(value));
            value.filter(|text| !text.is_empty())
        };
        let service = of("service.name").map(|name| match of("service.namespace") {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        });
        let has_service = service.is_some();
        let job = service.or_else(|| Some(common.text(scope.name).to_owned()).filter(|name| !name.is_empty()));
        let instance = of("service.instance.id").or_else(|| if has_service { None } else { of("host.name") });

        let mut labels: Vec<LabelRef> = Vec::new();
        let is_identified = job.is_some() || instance.is_some();
        for (name, value) in [("job", job), ("instance", instance)] {
            add(set, &mut labels, name, value.as_deref().unwrap_or_default());
        }
        for key in &self.promoted {
            add(set, &mut labels, &label_name(key), &of(key).unwrap_or_default());
        }
        let mut info = labels.clone();
        let known = info.len();
        if self.target_info && is_identified {
            for attribute in common.list(attributes) {
                let key = common.text(attribute.key);
                if !matches!(key, "" | "service.name" | "service.namespace" | "service.instance.id") {
                    add(set, &mut info, &label_name(key), &common.value_text(attribute.value));
                }
            }
        }
        if info.len() == known {
            info.clear();
        }
        for (name, value) in &self.external_labels {
            add(set, &mut labels, name, value);
            if !info.is_empty() {
                add(set, &mut info, name, value);
            }
        }
        Identity { labels, info, newest_ms: AtomicI64::new(0) }
    }
}

/// Adds a label unless there is one of that name, or it has no value.
fn add(set: &mut SeriesSet, labels: &mut Vec<LabelRef>, name: &str, value: &str) {
    let name = set.symbols.add(name);
    if !value.is_empty() && !labels.iter().any(|own| own.0 == name) {
        labels.push((name, set.symbols.add(value)));
    }
}

/// When which `target_info` was delivered last, unix milliseconds by the hash of its labels.
#[derive(Debug, Default)]
pub(super) struct TargetInfos {
    delivered: HashMap<u64, i64>,
}

/// What [`TargetInfos::delivered`] wants to know once the request was taken.
pub(super) type Announced = Vec<(u64, i64)>;

impl TargetInfos {
    /// Adds `target_info` for identities that it is time for. Its time never goes back, whatever
    /// the order in which sources of one resource arrive: receivers refuse that.
    pub fn announce<'i>(&self, identities: impl Iterator<Item = &'i Identity>, set: &mut SeriesSet) -> Announced {
        let mut announced = Announced::new();
        for identity in identities.filter(|identity| !identity.info.is_empty()) {
            let time_ms = identity.newest_ms.load(Ordering::Relaxed);
            let mut labels = identity.info.clone();
            let (name, full) = (set.symbols.add("__name__"), set.symbols.add("target_info"));
            labels.push((name, full));
            set.sort(&mut labels);
            let mut state = FixedState::with_seed(0).build_hasher();
            for (name, value) in &labels {
                (set.symbols.text(*name), set.symbols.text(*value)).hash(&mut state);
            }
            let hash = state.finish();
            let is_fresh = self.delivered.get(&hash).is_some_and(|last| time_ms < last + REPEAT_AFTER_MS);
            if time_ms == 0 || is_fresh || announced.iter().any(|(other, _)| *other == hash) {
                continue;
            }
            announced.push((hash, time_ms));
            let help = set.symbols.add("Target metadata");
            let family = set.family(Family { name: full, kind: MetricType::Gauge, help, unit: 0 });
            let series = set.series(&labels, family);
            set.push_sample(SampleRow { series, time_ms, value: 1.0, start_ms: 0, record: NO_RECORD });
        }
        announced
    }

    /// Remembers what was delivered.
    pub fn delivered(&mut self, announced: Announced) {
        if self.delivered.len() > MOST_TARGETS {
            self.delivered.clear();
        }
        self.delivered.extend(announced);
    }
}
