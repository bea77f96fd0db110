//! `weir integrations`, `weir config`, and the reference pages: everything that is made from the list.

use std::path::Path;
use std::process::ExitCode;

use weir_agent::{Program, Source};

use crate::{WRONG_CONFIGURATION, say};

/// One line per integration.
pub fn list() -> ExitCode {
    let mut text = String::new();
    let mut role = None;
    for kind in weir_agent::kinds() {
        if role != Some(kind.role) {
            text.push_str(&format!("{}{}\n", if role.is_some() { "\n" } else { "" }, kind.role.name()));
            role = Some(kind.role);
        }
        let default = if kind.on_by_default { " (on by default)" } else { "" };
        text.push_str(&format!("  {:<18} {}{default}\n", kind.name(), kind.about.summary));
    }
    text.push_str("\n`weir integrations show NAME` tells everything about one\n");
    say::out(&text)
}

/// The page of one integration.
pub fn show(name: &str) -> ExitCode {
    let kinds = weir_agent::kinds();
    if let Some(kind) = kinds.iter().find(|kind| kind.name() == name) {
        return say::out(&weir_agent::page(kind));
    }
    if weir_agent::PLANNED.contains(&name) {
        say::note(&format!("weir: this version does not have the integration `{name}` yet"));
    } else {
        let near = weir_config::nearest(name, kinds.iter().map(|kind| kind.name()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        say::note(&format!("weir: there is no integration `{name}`{near} (`weir integrations` lists all)"));
    }
    ExitCode::from(WRONG_CONFIGURATION)
}

/// The JSON Schema of the configuration file.
pub fn schema() -> ExitCode {
    say::out(&format!("{:#}\n", weir_agent::schema()))
}

/// Every option in effect and its origin.
pub fn explain(config: Option<&Path>) -> ExitCode {
    match weir_agent::load(Source::find(config), Program::Agent, None) {
        Ok(loaded) => say::out(&weir_agent::explain(&loaded)),
        Err(error) => {
            say::note(&error.to_string());
            ExitCode::from(WRONG_CONFIGURATION)
        }
    }
}

/// Writes one page per integration and their index.
pub fn write_pages(folder: &Path) -> ExitCode {
    let kinds = weir_agent::kinds();
    let pages = kinds.iter().map(|kind| (format!("{}.md", kind.name()), weir_agent::page(kind)));
    let index = ("README.md".to_owned(), weir_agent::index(&kinds));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| pages.chain([index]).try_for_each(|(name, text)| std::fs::write(folder.join(name), text)));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say::note(&format!("weir: cannot write to {}: {error}", folder.display()));
            ExitCode::FAILURE
        }
    }
}
