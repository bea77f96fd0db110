//! Files that patterns name.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// A pattern for paths: `*` and `?` stay within a name, `**` goes through folders, `[a-c]` and
/// `{a,b}` choose.
#[derive(Clone, Debug)]
pub struct Pattern {
    root: PathBuf,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Name(String),
    Glob(GlobMatcher),
    AnyFolders,
}

/// A file that was found.
#[derive(Debug)]
pub struct Found {
    /// The path by which it was found.
    pub path: PathBuf,
    /// What the file system knows about it, links followed.
    pub metadata: Metadata,
}

/// How deep `**` looks.
const DEEPEST: usize = 32;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("`{text}` does not begin with `/`: give the whole path"));
        }
        let mut parts = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty()) {
            parts.push(match part {
                ".." => return Err(format!("`{text}` holds `..`: give the path without it")),
                "." => continue,
                "**" => Part::AnyFolders,
                name if !name.contains(['*', '?', '[', '{', '\\']) => Part::Name(name.to_owned()),
                glob if glob.matches('{').count() != glob.matches('}').count() => {
                    return Err(format!("`{text}`: `{{...}}` must not hold a `/`; write two paths"));
                }
                glob => Part::Glob(matcher(glob).map_err(|error| format!("`{text}`: {error}"))?),
            });
        }
        match parts.last() {
            None => Err("`/` is a folder: name the files in it".to_owned()),
            Some(Part::AnyFolders) => Err(format!("`{text}` ends with folders: add `/*` for the files in them")),
            Some(_) => Ok(Pattern { root: PathBuf::from("/"), parts }),
        }
    }

    /// Finds the files. `problem` hears about folders that cannot be read.
    pub fn find(&self, found: &mut Vec<Found>, problem: &mut dyn FnMut(&Path, &io::Error)) {
        walk(&self.root, &self.parts, DEEPEST, found, problem);
    }
}

fn matcher(glob: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn walk(
    folder: &Path,
    parts: &[Part],
    deepest: usize,
    found: &mut Vec<Found>,
    problem: &mut dyn FnMut(&Path, &io::Error),
) {
    let Some((part, rest)) = parts.split_first() else { return };
    match part {
        Part::Name(name) => step(folder.join(name), rest, deepest, found, problem),
        Part::Glob(glob) => {
            for name in names(folder, problem) {
                if glob.is_match(&name) {
                    step(folder.join(name), rest, deepest, found, problem);
                }
            }
        }
        Part::AnyFolders => {
            walk(folder, rest, deepest, found, problem);
            let Some(deepest) = deepest.checked_sub(1) else { return };
            for name in names(folder, problem) {
                let path = folder.join(name);
                // Links to folders are not followed here: they can lead in circles.
                if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                    walk(&path, parts, deepest, found, problem);
                }
            }
        }
    }
}

/// Goes on below a path that fits, or keeps it if it is a file and the pattern ends.
fn step(
    path: PathBuf,
    rest: &[Part],
    deepest: usize,
    found: &mut Vec<Found>,
    problem: &mut dyn FnMut(&Path, &io::Error),
) {
    if !rest.is_empty() {
        walk(&path, rest, deepest, found, problem);
        return;
    }
    match path.metadata() {
        Ok(metadata) if metadata.is_file() => found.push(Found { path, metadata }),
        Ok(_) => {}
        Err(error) => problem(&path, &error),
    }
}

/// Names in a folder, sorted; names that are no UTF-8 cannot be matched and are passed over.
fn names(folder: &Path, problem: &mut dyn FnMut(&Path, &io::Error)) -> Vec<String> {
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) => {
            problem(folder, &error);
            return Vec::new();
        }
    };
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Patterns for files to leave out: whole paths, or names where they hold no `/`.
#[derive(Clone, Debug, Default)]
pub struct Exclude(Vec<(bool, GlobMatcher)>);

impl Exclude {
    /// Reads the patterns.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub fn new(patterns: &[String]) -> Result<Self, String> {
        let read = |pattern: &String| {
            let glob = matcher(pattern).map_err(|error| format!("`{pattern}`: {error}"))?;
            Ok((pattern.contains('/'), glob))
        };
        patterns.iter().map(read).collect::<Result<_, String>>().map(Exclude)
    }

    /// Whether a file is left out.
    pub fn leaves_out(&self, path: &Path) -> bool {
        self.0.iter().any(|(whole, glob)| match path.file_name().filter(|_| !whole) {
            Some(name) => glob.is_match(name),
            None => glob.is_match(path),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path, pattern: &str) -> Vec<String> {
        let pattern = Pattern::new(&format!("{}/{pattern}", root.display())).unwrap();
        let mut found = Vec::new();
        pattern.find(&mut found, &mut |_, _| {});
        found.iter().map(|f| f.path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn patterns_find_files_and_neither_folders_nor_what_links_lead_around_to() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for name in ["a.log", "b.log", "c.txt", "x/a.log", "x/y/a.log", "folder.log/z"] {
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(root, root.join("x/loop")).unwrap();
        assert_eq!(found(root, "*.log"), ["a.log", "b.log"]);
        assert_eq!(found(root, "a.log"), ["a.log"]);
        assert_eq!(found(root, "{a,c}.*"), ["a.log", "c.txt"]);
        assert_eq!(found(root, "[!a].log"), ["b.log"]);
        assert_eq!(found(root, "*/a.log"), ["x/a.log"]);
        assert_eq!(found(root, "**/a.log"), ["a.log", "x/a.log", "x/y/a.log"]);
        assert_eq!(found(root, "missing/*"), Vec::<String>::new());
    }

    #[test]
    fn wrong_patterns_say_what_to_do() {
        for (pattern, word) in
            [("a.log", "begin"), ("/a/../b", ".."), ("/a/**", "add"), ("/", "name"), ("/{a/b,c}", "two"), ("/[", "/[")]
        {
            assert!(Pattern::new(pattern).unwrap_err().contains(word), "{pattern}");
        }
    }

    #[test]
    fn names_and_whole_paths_are_left_out() {
        let exclude = Exclude::new(&["*.gz".into(), "/var/log/private/*".into()]).unwrap();
        assert!(exclude.leaves_out(Path::new("/x/a.gz")));
        assert!(exclude.leaves_out(Path::new("/var/log/private/a")));
        assert!(!exclude.leaves_out(Path::new("/var/log/a")));
    }
}
