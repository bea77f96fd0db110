//! What a series table becomes, and the keys of its series: found once per table.

use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Weak};

use foldhash::quality::RandomState;
use weir_model::metrics::{Data, SeriesTable, Temporality};
use weir_model::{Attributes, Common, Value};

use super::converted;

/// Most tables that are remembered: one per collector whose records come this way.
const MAX_PLANS: usize = 64;

/// A key per series of a table; 0 for those that pass as they are.
#[derive(Clone, Debug)]
pub(super) struct Keys(Arc<[u128]>);

impl Keys {
    /// The key of a series that is converted.
    pub fn of(&self, series: u32) -> Option<u128> {
        self.0.get(series as usize).copied().filter(|&key| key != 0)
    }
}

#[derive(Debug)]
struct Plan {
    /// The table that came. A weak pointer keeps its address from being used again, and while it
    /// exists nobody can change the table in place; but it lets the owner go on without a copy.
    source: Weak<SeriesTable>,
    converted: Arc<SeriesTable>,
    keys: Keys,
}

/// The tables of the sources that come this way.
#[derive(Debug, Default)]
pub(super) struct Plans {
    plans: Vec<Plan>,
    identity: Identity,
}

impl Plans {
    /// Converts a table, and answers the keys of its series.
    pub fn apply(&mut self, table: &mut Arc<SeriesTable>, target: Temporality) -> Keys {
        self.plans.retain(|plan| plan.source.strong_count() > 0);
        if let Some(plan) = self.plans.iter().find(|plan| std::ptr::eq(plan.source.as_ptr(), Arc::as_ptr(table))) {
            *table = plan.converted.clone();
            return plan.keys.clone();
        }
        let keys = self.identity.keys(table, target);
        if Arc::strong_count(table) == 1 {
            // Nobody else holds it: it is changed as it is, and does not come again.
            convert(Arc::make_mut(table), target);
            return keys;
        }
        let source = Arc::downgrade(table);
        convert(Arc::make_mut(table), target);
        if self.plans.len() >= MAX_PLANS {
            self.plans.remove(0);
        }
        self.plans.push(Plan { source, converted: table.clone(), keys: keys.clone() });
        keys
    }
}

fn convert(table: &mut SeriesTable, target: Temporality) {
    for metric in &mut table.metrics {
        metric.data = converted(metric.data, target).unwrap_or(metric.data);
    }
}

/// Makes the key of a series: a 128-bit hash over resource attributes, scope, metric and
/// attributes, whatever the order of the attributes. It is two 64-bit hashes with random seeds of
/// their own: among 10 million series the chance that any two share a key is below 10^-24.
#[derive(Debug, Default)]
struct Identity {
    seeds: [RandomState; 2],
}

impl Identity {
    fn keys(&self, table: &SeriesTable, target: Temporality) -> Keys {
        let common = &table.common;
        let resources: Vec<u128> =
            common.resources.iter().map(|resource| self.attributes(common, resource.attributes)).collect();
        let scopes: Vec<u128> = common
            .scopes
            .iter()
            .map(|scope| {
                let resource = resources.get(scope.resource as usize).copied().unwrap_or_default();
                let attributes = self.attributes(common, scope.attributes);
                let (name, version) = (common.arena.bytes(scope.name), common.arena.bytes(scope.version));
                self.hash(0, &[resource, attributes], &[name, version])
            })
            .collect();
        let metrics: Vec<Option<u128>> = table
            .metrics
            .iter()
            .map(|metric| {
                converted(metric.data, target)?;
                let scope = scopes.get(metric.scope as usize).copied().unwrap_or_default();
                let (name, unit) = (common.arena.bytes(metric.name), common.arena.bytes(metric.unit));
                Some(self.hash(kind(metric.data), &[scope], &[name, unit]))
            })
            .collect();
        let key = |metric: u32, attributes| {
            let metric = metrics.get(metric as usize).copied().flatten()?;
            Some(self.hash(0, &[metric, self.attributes(common, attributes)], &[]).max(1))
        };
        Keys(table.series.iter().map(|series| key(series.metric, series.attributes).unwrap_or(0)).collect())
    }

    /// A set of attributes: the sum of their hashes does not depend on their order.
    fn attributes(&self, common: &Common, attributes: Attributes) -> u128 {
        common.list(attributes).iter().fold(attributes.len() as u128, |sum, attribute| {
            let value = self.value(common, attribute.value);
            sum.wrapping_add(self.hash(0, &[value], &[common.arena.bytes(attribute.key)]))
        })
    }

    fn value(&self, common: &Common, value: Value) -> u128 {
        match value {
            Value::Empty => self.hash(0, &[], &[]),
            Value::String(text) => self.hash(1, &[], &[common.arena.bytes(text)]),
            Value::Bool(value) => self.hash(2, &[u128::from(value)], &[]),
            Value::Int(value) => self.hash(3, &[], &[&value.to_le_bytes()]),
            Value::Double(value) => self.hash(4, &[], &[&value.to_bits().to_le_bytes()]),
            Value::Bytes(bytes) => self.hash(5, &[], &[common.arena.bytes(bytes)]),
            Value::Array(range) => common
                .elements(range)
                .iter()
                .fold(self.hash(6, &[], &[]), |list, element| self.hash(6, &[list, self.value(common, *element)], &[])),
            Value::KeyValues(range) => self.hash(7, &[self.attributes(common, range)], &[]),
        }
    }

    fn hash(&self, tag: u8, words: &[u128], texts: &[&[u8]]) -> u128 {
        let lane = |seed: &RandomState| {
            let mut state = seed.build_hasher();
            state.write_u8(tag);
            for word in words {
                state.write_u128(*word);
            }
            for text in texts {
                // The length keeps `ab` + `c` apart from `a` + `bc`.
                state.write_usize(text.len());
                state.write(text);
            }
            u128::from(state.finish())
        };
        let [first, second] = &self.seeds;
        lane(first) << 64 | lane(second)
    }
}

/// The kind as part of the identity. Temporality is none: only one of the two is converted.
fn kind(data: Data) -> u8 {
    match data {
        Data::Gauge => 1,
        Data::Sum { monotonic: false, .. } => 2,
        Data::Sum { monotonic: true, .. } => 3,
        Data::Histogram(_) => 4,
        Data::ExponentialHistogram(_) => 5,
        Data::Summary => 6,
    }
}
