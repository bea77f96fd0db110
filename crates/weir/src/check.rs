//! `weir check`.

use std::path::Path;
use std::process::ExitCode;

use weir_agent::{Program, Source};

use crate::{WRONG_CONFIGURATION, say};

/// Reads the configuration and tries every integration; the exit code says whether all is right.
pub fn run(config: Option<&Path>) -> ExitCode {
    let source = Source::find(config);
    let name = source.name();
    let loaded = match weir_agent::load(source, Program::Agent, None) {
        Ok(loaded) => loaded,
        Err(error) => {
            say::note(&error.to_string());
            return ExitCode::from(WRONG_CONFIGURATION);
        }
    };
    let runtime = match crate::agent::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let findings = runtime.block_on(weir_agent::check(loaded.plan));
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    let mut text = format!("configuration {name} is valid\n");
    let width = findings.iter().map(|finding| finding.integration.chars().count()).max().unwrap_or(0);
    let mut wrong = 0;
    for finding in &findings {
        let (mark, line) = match &finding.result {
            Ok(proof) => ("ok  ", proof.clone()),
            Err(fault) => {
                wrong += 1;
                ("FAIL", fault.message.clone())
            }
        };
        text.push_str(&format!("{mark}  {:<width$}  {line}\n", finding.integration));
    }
    let written = say::out(&text);
    if wrong > 0 { ExitCode::FAILURE } else { written }
}
