//! Encoding what all signals share. Everything is written from its end to its front.
//!
//! `depth` counts messages as decoders do: the request is 0, a `LogRecord` 3. What would be nested
//! deeper than decoders accept is left out; only values built by hand can get there.

use super::reader::MAX_NESTING;
use super::writer::{End, Writer};
use crate::common::{Attribute, Attributes, Common, Resource, Scope, Value};

/// Depth of a `Resource`.
pub(crate) const RESOURCE_DEPTH: u32 = 2;
/// Depth of an `InstrumentationScope`.
pub(crate) const SCOPE_DEPTH: u32 = 3;

/// A list of `KeyValue` as the repeated field `number` of a message at `depth`.
#[inline]
pub(crate) fn attributes(out: &mut Writer, common: &Common, number: u32, list: Attributes, depth: u32) {
    for attribute in common.list(list).iter().rev() {
        key_value(out, common, number, attribute, depth + 1);
    }
}

#[inline]
fn key_value(out: &mut Writer, common: &Common, number: u32, attribute: &Attribute, depth: u32) {
    let end = out.begin();
    if !matches!(attribute.value, Value::Empty) {
        any_value(out, common, 2, attribute.value, depth + 1);
    }
    out.bytes_unless_empty(1, common.arena.bytes(attribute.key));
    out.message(number, end);
}

/// An `AnyValue` message, which stands at `depth`.
pub(crate) fn any_value(out: &mut Writer, common: &Common, number: u32, value: Value, depth: u32) {
    if depth > MAX_NESTING {
        return;
    }
    let end = out.begin();
    match value {
        Value::Empty => {}
        Value::String(text) => out.bytes(1, common.arena.bytes(text)),
        Value::Bool(value) => out.number(2, u64::from(value)),
        Value::Int(value) => out.number(3, value.cast_unsigned()),
        Value::Double(value) => out.eight_bytes(4, value.to_le_bytes()),
        Value::Bytes(bytes) => out.bytes(7, common.arena.bytes(bytes)),
        Value::Array(_) | Value::KeyValues(_) if depth + 1 > MAX_NESTING => {}
        Value::Array(range) => {
            let list = out.begin();
            for element in common.elements(range).iter().rev() {
                any_value(out, common, 1, *element, depth + 2);
            }
            out.message(5, list);
        }
        Value::KeyValues(range) => {
            let list = out.begin();
            if depth + 2 <= MAX_NESTING {
                attributes(out, common, 1, range, depth + 1);
            }
            out.message(6, list);
        }
    }
    out.message(number, end);
}

fn resource(out: &mut Writer, common: &Common, resource: &Resource) {
    let end = out.begin();
    out.raw(common.arena.bytes(resource.unknown));
    out.unsigned(2, resource.dropped_attributes_count);
    attributes(out, common, 1, resource.attributes, RESOURCE_DEPTH);
    if !out.is_empty_since(end) {
        out.message(1, end);
    }
}

fn scope(out: &mut Writer, common: &Common, scope: &Scope) {
    let end = out.begin();
    out.unsigned(4, scope.dropped_attributes_count);
    attributes(out, common, 3, scope.attributes, SCOPE_DEPTH);
    out.bytes_unless_empty(2, common.arena.bytes(scope.version));
    out.bytes_unless_empty(1, common.arena.bytes(scope.name));
    if scope.present || !out.is_empty_since(end) {
        out.message(1, end);
    }
}

/// The two outer levels around items that are written last to first: opens and closes resources and
/// scopes as the items move from one to the next. Neighbours with the same scope share a message.
pub(crate) struct Containers<'a> {
    common: &'a Common,
    open: Option<Open>,
}

#[derive(Clone, Copy)]
struct Open {
    scope: u32,
    resource: u32,
    scope_end: End,
    resource_end: End,
}

impl<'a> Containers<'a> {
    pub(crate) fn new(common: &'a Common) -> Self {
        Self { common, open: None }
    }

    /// Says that the item written next belongs to this scope. An index that the batch does not have
    /// (an error of who built it) stands for a scope and a resource without name.
    #[inline]
    pub(crate) fn enter(&mut self, out: &mut Writer, scope: u32) {
        if self.open.is_none_or(|open| open.scope != scope) {
            self.open(out, scope);
        }
    }

    fn open(&mut self, out: &mut Writer, scope: u32) {
        let (resource, scope_schema_url) = self
            .common
            .scopes
            .get(scope as usize)
            .map_or((u32::MAX, &[][..]), |scope| (scope.resource, self.common.arena.bytes(scope.schema_url)));
        let same_resource = match self.open {
            Some(open) => {
                self.close_scope(out, open);
                if open.resource == resource { Some(open.resource_end) } else { self.close_resource(out, open) }
            }
            None => None,
        };
        let resource_end = same_resource.unwrap_or_else(|| {
            let end = out.begin();
            if let Some(resource) = self.common.resources.get(resource as usize) {
                out.bytes_unless_empty(3, self.common.arena.bytes(resource.schema_url));
            }
            end
        });
        let scope_end = out.begin();
        out.bytes_unless_empty(3, scope_schema_url);
        self.open = Some(Open { scope, resource, scope_end, resource_end });
    }

    fn close_scope(&self, out: &mut Writer, open: Open) {
        if let Some(this) = self.common.scopes.get(open.scope as usize) {
            scope(out, self.common, this);
        }
        out.message(2, open.scope_end);
    }

    fn close_resource(&self, out: &mut Writer, open: Open) -> Option<End> {
        if let Some(this) = self.common.resources.get(open.resource as usize) {
            resource(out, self.common, this);
        }
        out.message(1, open.resource_end);
        None
    }

    /// Closes what is open: the request is complete.
    pub(crate) fn finish(self, out: &mut Writer) {
        if let Some(open) = self.open {
            self.close_scope(out, open);
            self.close_resource(out, open);
        }
    }
}
