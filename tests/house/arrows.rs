//! Dependencies between the crates of the workspace point down only.

use std::process::Command;

use serde_json::Value as Json;

/// The crates from the bottom up. A crate may depend on those of lower rows, never on its own row.
const LAYERS: &[(&str, &[&str])] = &[
    ("records and configuration", &["weir-model", "weir-config"]),
    ("network", &["weir-net"]),
    ("pipeline", &["weir-pipeline"]),
    (
        "integrations, store, metadata, promql",
        &[
            "weir-system",
            "weir-observability",
            "weir-cloud",
            "weir-infrastructure",
            "weir-network",
            "weir-streaming",
            "weir-databases",
            "weir-store",
            "weir-metadata",
            "weir-promql",
        ],
    ),
    ("agent, server", &["weir-agent", "weir-server"]),
    ("command line", &["weir"]),
    ("tests and benchmarks of it all", &["weir-tests", "weir-bench"]),
];

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|(_, crates)| crates.contains(&name))
}

#[test]
fn no_crate_depends_on_its_own_layer_or_a_higher_one() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(crate::workspace())
        .output()
        .expect("cargo metadata runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Json = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some(from) = layer(name) else {
            wrong.push(format!("{name} is in no layer: add it to LAYERS in tests/house/arrows.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            // Tests may look sideways; what ships may not.
            if dependency["path"].is_null() || dependency["kind"] == "dev" {
                continue;
            }
            arrows += 1;
            if layer(to).is_none_or(|to| to >= from) {
                wrong.push(format!("{name} ({}) must not depend on {to}", LAYERS[from].0));
            }
        }
    }
    assert!(arrows > 0, "no dependency between crates was found: the test looks at nothing");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
