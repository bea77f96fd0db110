//! Configuration files: every mistake has a place in the file, and reading twice gives the same.

#![no_main]

use std::collections::BTreeMap;
use std::io;

use libfuzzer_sys::fuzz_target;
use schemars::JsonSchema;
use serde::Deserialize;
use weir_config::{ByteSize, Duration, Endpoint, Lookup, Problems, Secret, Settings, SocketAddress};

/// Knows no variable and no file.
struct Nothing;

impl Lookup for Nothing {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn file(&self, _: &str) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An integration's options, of every type that integrations use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    endpoint: Option<Endpoint>,
    listen: Option<SocketAddress>,
    token: Option<Secret>,
    interval: Option<Duration>,
    size: Option<ByteSize>,
    ratio: f64,
    count: u16,
    offset: i64,
    enabled: bool,
    names: Vec<String>,
    headers: BTreeMap<String, Secret>,
    compression: Option<weir_net::Compression>,
    nested: Option<Box<Options>>,
}

fn in_the_file(problems: &Problems, text: &str) {
    assert!(!problems.is_empty(), "an error without a problem");
    // YAML breaks lines at a carriage return alone too.
    let lines = text.split(['\n', '\r']).count() + 1;
    for problem in problems.iter() {
        assert!((1..=lines).contains(&(problem.line as usize)), "line {} of {lines}", problem.line);
        assert!(problem.column >= 1);
        assert!(!problem.message.is_empty());
    }
    assert!(!problems.to_string().is_empty());
}

fuzz_target!(|text: &str| {
    match Settings::parse("weir.yaml", text, &Nothing) {
        Err(problems) => in_the_file(&problems, text),
        Ok(settings) => {
            let again = Settings::parse("weir.yaml", text, &Nothing);
            assert_eq!(again.as_ref().ok(), Some(&settings), "reading twice gives the same");
            for block in settings.integrations.iter().filter(|block| block.enabled) {
                if let Err(problems) = weir_config::read::<Options>("weir.yaml", &block.node, &block.path()) {
                    in_the_file(&problems, text);
                }
            }
        }
    }
});
