//! Embeds the dashboard: every file of `web/dist`, plain and as gzip, with a tag of its content.
//! Where it was not built, the list is empty, and the server says so to whoever opens it.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

fn main() -> io::Result<()> {
    let crate_folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let built = crate_folder.join("../../web/dist");
    // Cargo runs this again and again while a watched path is missing, and would compile the server
    // every time; an empty folder is there. If it cannot be made, that is the only loss.
    let _ = fs::create_dir(&built);
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", built.display());
    let mut files = Vec::new();
    list(&built, "", &mut files)?;
    // Without its first page it is half built, which is worse than absent.
    if !files.iter().any(|(path, _)| path == "/index.html") {
        files.clear();
    }
    files.sort();
    let mut code = String::from("static FILES: &[File] = &[\n");
    for (number, (path, source)) in files.iter().enumerate() {
        code.push_str(&embed(number, path, source, &out)?);
    }
    code.push_str("];\n");
    fs::write(out.join("dashboard.rs"), code)
}

fn variable(name: &str) -> io::Result<String> {
    std::env::var(name).map_err(|error| io::Error::other(format!("{name}: {error}")))
}

/// All files below `folder`, with their paths as browsers ask for them.
fn list(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &path, files)?;
        } else {
            files.push((path, entry.path()));
        }
    }
    Ok(())
}

/// The entry of one file. Its forms are copied: `web/dist` may be built anew while this compiles.
fn embed(number: usize, path: &str, source: &Path, out: &Path) -> io::Result<String> {
    let plain = fs::read(source)?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&plain);
    let tag = format!("{:016x}", hasher.finish());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&plain)?;
    let gzip = encoder.finish()?;
    let gzip_code = if gzip.len() < plain.len() {
        format!("Some({})", include(&out.join(format!("{number}.gz")), &gzip)?)
    } else {
        "None".to_owned()
    };
    let plain_code = include(&out.join(format!("{number}.plain")), &plain)?;
    Ok(format!("    File {{ path: {path:?}, tag: {tag:?}, plain: {plain_code}, gzip: {gzip_code} }},\n"))
}

/// Writes a file, and says how code takes it in.
fn include(target: &Path, content: &[u8]) -> io::Result<String> {
    fs::write(target, content)?;
    Ok(format!("include_bytes!({target:?})"))
}
