//! This program's own executable, as it is handed to machines that join.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::error::ApiError;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The open executable.
#[derive(Clone, Debug)]
pub struct Program {
    file: Arc<File>,
    length: u64,
    sha256: Arc<str>,
}

/// Opened once: what is handed out is what was hashed, whatever comes to lie at its path.
static PROGRAM: OnceCell<Program> = OnceCell::const_new();

/// This program.
///
/// # Errors
/// 503 if it cannot be read.
pub async fn get() -> Result<&'static Program, ApiError> {
    PROGRAM
        .get_or_try_init(|| async {
            let opened = tokio::task::spawn_blocking(|| Program::open(&path()?)).await.map_err(io::Error::other);
            opened.and_then(|program| program)
        })
        .await
        .map_err(|error: io::Error| {
            tracing::error!("this program cannot be read, so no machine can join: {error}");
            ApiError::unavailable("the server cannot read its own program; the server's log says why")
        })
}

/// Where the executable is. On Linux this leads to the running one also after another was put in its
/// place (proc_pid_exe(5)).
fn path() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() }
}

impl Program {
    fn open(path: &std::path::Path) -> io::Result<Program> {
        let file = File::open(path)?;
        let (mut hash, mut length) = (Sha256::new(), 0_u64);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let read = file.read_at(&mut buffer, length)?;
            if read == 0 {
                break;
            }
            hash.update(buffer.get(..read).unwrap_or_default());
            length += read as u64;
        }
        let sha256: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Program { file: Arc::new(file), length, sha256: sha256.into() })
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its SHA-256 in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its bytes, read as they are sent.
    pub fn stream(&self) -> impl Stream<Item = io::Result<Bytes>> + Send + use<> {
        try_unfold((self.clone(), 0_u64), |(program, at)| async move {
            let file = program.file.clone();
            let left = usize::try_from(program.length - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            if left == 0 {
                return Ok(None);
            }
            let read = move || {
                let mut chunk = vec![0; left];
                file.read_exact_at(&mut chunk, at).map(|()| Bytes::from(chunk))
            };
            let chunk = tokio::task::spawn_blocking(read).await.map_err(io::Error::other)??;
            let next = at + chunk.len() as u64;
            Ok(Some((chunk, (program, next))))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn what_is_sent_is_what_was_hashed_also_after_the_file_was_replaced() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("weir");
        let content: Vec<u8> = (0..CHUNK_BYTES * 2 + 17).map(|at| (at % 251) as u8).collect();
        std::fs::write(&path, &content).expect("file");
        let program = Program::open(&path).expect("program");
        let newer = folder.path().join("newer");
        std::fs::write(&newer, b"another program").expect("file");
        std::fs::rename(&newer, &path).expect("replaced");

        let sent: Vec<Bytes> = program.stream().try_collect().await.expect("stream");
        assert_eq!(sent.concat(), content);
        assert_eq!(program.length(), content.len() as u64);
        let expected: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(program.sha256(), expected);
    }

    #[tokio::test]
    async fn this_program_is_found() {
        let own = std::env::current_exe().and_then(std::fs::metadata).expect("own file");
        assert_eq!(get().await.expect("program").length(), own.len());
    }
}
