//! What a newcomer wants to know at the start: what is watched, what is not and why, where it goes.

use weir_agent::Loaded;
use weir_pipeline::{Role, Watching};

/// A title and a line; lines of the same title follow each other.
pub type Row = (&'static str, String);

/// What each collector watches, by name.
pub type Watched = Vec<(std::sync::Arc<str>, Watching)>;

/// What is watched and what is not, what is received and where it goes.
pub fn rows(loaded: &Loaded, watched: &Watched) -> Vec<Row> {
    let kinds = weir_agent::kinds();
    let mut rows: Vec<Row> = Vec::new();
    let mut not_watched = Vec::new();
    for (name, watching) in watched {
        if &**name != "internal" {
            rows.push(("watching", format!("{name}: {}", watching.watched.join(", "))));
        }
        not_watched.extend(watching.not_watched.iter().map(|(what, why)| format!("{what}: {why}")));
    }
    let listening = loaded.plan.listening();
    // What tails files listens nowhere.
    let tails = listening.iter().filter(|(_, addresses)| addresses.is_empty());
    rows.extend(tails.map(|(name, _)| ("watching", name.to_string())));
    let runs = |kind: &str| {
        loaded.settings.integrations.iter().any(|block| block.kind == kind)
            || watched.iter().any(|(name, _)| name.split('/').next() == Some(kind))
    };
    let off: Vec<&str> = kinds
        .iter()
        .filter(|kind| kind.role == Role::Collect && !kind.on_by_default && !runs(kind.name()))
        .map(|kind| kind.name())
        .collect();
    if !off.is_empty() {
        not_watched.push(format!("{}: not configured (`weir integrations show NAME` says how)", off.join(", ")));
    }
    rows.extend(not_watched.into_iter().map(|line| ("not watching", line)));
    for (name, addresses) in &listening {
        if &**name != "api" && !addresses.is_empty() {
            rows.push(("receiving", format!("{name}: {}", addresses.join(", "))));
        }
    }
    let role_of = |name: &str| kinds.iter().find(|kind| kind.name() == name).map(|kind| kind.role);
    for block in loaded.settings.integrations.iter().filter(|block| block.enabled) {
        match role_of(&block.kind) {
            Some(Role::Export) if loaded.console_added => {
                rows.push(("sending to", "console: this terminal".to_owned()));
            }
            Some(Role::Export) => rows.push(("sending to", block.name.clone())),
            _ => {}
        }
    }
    rows
}

/// A headline and its rows, in a terminal of 100 columns.
pub fn text(headline: &str, rows: &[Row]) -> String {
    let mut text = headline.to_owned();
    let mut before = "";
    for (title, line) in rows {
        let shown = if *title == before { "" } else { title };
        for (at, part) in wrapped(line, TEXT_WIDTH).iter().enumerate() {
            let shown = if at == 0 { shown } else { "" };
            text.push_str(&format!("\n  {shown:<13} {part}"));
        }
        before = title;
    }
    text
}

/// Columns of the introduction's text: with its titles it fits a terminal of 100.
const TEXT_WIDTH: usize = 82;

/// A text in lines of at most `width` characters where its words allow it, indented after the first.
/// Addresses and commands, which people copy, stay in one piece.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    if text.contains("://") {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { continue };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(format!("  {word}"));
        }
    }
    lines
}
