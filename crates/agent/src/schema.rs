//! The JSON Schema of the configuration file, for editors.

use schemars::SchemaGenerator;
use serde_json::{Value, json};
use weir_config::Settings;

use crate::kinds::kinds;

/// The schema of `weir.yaml` with every integration of this program.
pub fn schema() -> Value {
    let mut schema = Settings::schema();
    let mut generator = SchemaGenerator::default();
    let mut patterns = serde_json::Map::new();
    for kind in kinds() {
        // An instance may carry a suffix: `otlp` or `otlp/backup`.
        let pattern = format!("^{}(/[A-Za-z0-9._-]+)?$", kind.name());
        patterns.insert(pattern, kind.schema(&mut generator).to_value());
    }
    if let Some(integrations) = schema.pointer_mut("/properties/integrations").and_then(Value::as_object_mut) {
        integrations.insert("patternProperties".into(), Value::Object(patterns));
        integrations.insert("additionalProperties".into(), json!(false));
    }
    let definitions = generator.take_definitions(true);
    if let Some(root) = schema.as_object_mut() {
        let own = root.entry("$defs").or_insert_with(|| json!({}));
        if let Some(own) = own.as_object_mut() {
            own.extend(definitions);
        }
    }
    schema
}
