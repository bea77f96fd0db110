//! Files with targets, in the format of Prometheus' `file_sd_config`.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::FixedState;
use weir_config::{Document, Lookup};
use weir_pipeline::{Fault, FaultKind};

use super::Problem;
use super::target::{Defaults, Target, TargetGroup};

/// Larger files hold no lists of targets.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// A path whose last part may have one `*`.
#[derive(Debug)]
struct Pattern {
    folder: PathBuf,
    /// What stands before and after the `*`.
    name: (String, Option<String>),
}

/// The configured files and what was read of them.
#[derive(Debug)]
pub(super) struct TargetFiles {
    patterns: Vec<Pattern>,
    defaults: Defaults,
    known: BTreeMap<PathBuf, KnownFile>,
}

/// A file at its last good state.
#[derive(Debug, Default)]
struct KnownFile {
    /// Of the content that was read last, good or not.
    hash: u64,
    targets: Vec<Arc<Target>>,
    /// What is wrong with that content.
    problems: Vec<Problem>,
}

/// Files of targets are plain data: nothing in them is expanded.
struct NoVariables;

impl Lookup for NoVariables {
    fn variable(&self, _name: &str) -> Option<String> {
        None
    }

    fn file(&self, _path: &str) -> io::Result<String> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl TargetFiles {
    /// # Errors
    /// If a path has a `*` elsewhere than once in its last part, or another ending.
    pub fn new(paths: &[String], defaults: Defaults) -> Result<Self, Fault> {
        let patterns = paths.iter().map(|path| Pattern::new(path)).collect::<Result<_, _>>()?;
        Ok(Self { patterns, defaults, known: BTreeMap::new() })
    }

    /// All targets of all files as they are now. A file that cannot be read keeps the targets that
    /// it had; one that is gone has none.
    pub fn read(&mut self) -> (Vec<Arc<Target>>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut found = BTreeMap::new();
        for pattern in &self.patterns {
            match pattern.paths() {
                Ok(paths) => paths.into_iter().for_each(|path| {
                    found.insert(path, ());
                }),
                Err(error) => {
                    // The folder cannot be listed: what was in it stays.
                    found.extend(self.known.keys().filter(|path| pattern.fits(path)).map(|path| (path.clone(), ())));
                    problems.push((kind_of(&error), format!("target_files {}: {error}", pattern.folder.display())));
                }
            }
        }
        self.known.retain(|path, _| found.contains_key(path));
        let mut targets = Vec::new();
        for path in found.into_keys() {
            let file = self.known.entry(path.clone()).or_default();
            match content(&path) {
                Ok(text) => file.update(&path, &text, &self.defaults),
                Err(error) => {
                    let message = format!("target_files {}: {error}; its targets stay as they were", path.display());
                    problems.push((kind_of(&error), message));
                }
            }
            problems.extend(file.problems.iter().cloned());
            targets.extend(file.targets.iter().cloned());
        }
        (targets, problems)
    }
}

fn kind_of(error: &io::Error) -> FaultKind {
    match error.kind() {
        io::ErrorKind::PermissionDenied => FaultKind::Permission,
        io::ErrorKind::NotFound => FaultKind::NotFound,
        _ => FaultKind::Other,
    }
}

fn content(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_LIMIT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

impl KnownFile {
    fn update(&mut self, path: &Path, text: &str, defaults: &Defaults) {
        let hash = FixedState::with_seed(0).hash_one(text);
        if self.hash == hash {
            return;
        }
        self.hash = hash;
        self.problems.clear();
        let mut targets = Vec::new();
        match groups(path, text) {
            Ok(groups) => {
                for group in groups {
                    for text in &group.targets {
                        match Target::new(text, &group.labels, defaults) {
                            Ok(target) => targets.push(Arc::new(target)),
                            Err(why) => self.wrong(path, &why),
                        }
                    }
                }
                self.targets = targets;
            }
            Err(why) => self.wrong(path, &format!("{why}; its targets stay as they were")),
        }
    }

    fn wrong(&mut self, path: &Path, why: &str) {
        self.problems.push((FaultKind::Configuration, format!("target_files {}: {why}", path.display())));
    }
}

fn groups(path: &Path, text: &str) -> Result<Vec<TargetGroup>, String> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let file = path.display().to_string();
    let read = Document::parse(&file, text, &NoVariables).and_then(|node| weir_config::read(&file, &node, ""));
    read.map_err(|problems| problems.to_string().split_whitespace().collect::<Vec<_>>().join(" "))
}

impl Pattern {
    fn new(text: &str) -> Result<Self, Fault> {
        let path = Path::new(text);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let lower = name.to_ascii_lowercase();
        let stars = name.matches('*').count();
        let is_right_kind = [".json", ".yml", ".yaml"].iter().any(|ending| lower.ends_with(ending));
        if !is_right_kind || stars > 1 || folder.to_string_lossy().contains('*') {
            return Err(Fault::configuration(format!(
                "target_files: `{text}` must end with .json, .yml or .yaml and may have one `*`, in the name of the file"
            )));
        }
        let name = match name.split_once('*') {
            Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
            None => (name.to_owned(), None),
        };
        Ok(Self { folder: folder.to_owned(), name })
    }

    fn fits(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_name = match &self.name {
            (before, Some(after)) => {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            }
            (whole, None) => name == whole,
        };
        is_name && path.parent() == Some(&self.folder)
    }

    /// The files that are there.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        if self.name.1.is_none() {
            // Reading it says best what is wrong with it.
            return Ok(vec![self.folder.join(&self.name.0)]);
        }
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if self.fits(&path) {
                paths.push(path);
            }
        }
        Ok(paths)
    }
}
