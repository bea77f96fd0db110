//! The socket through which the command line sees a running pipeline and asks of it: HTTP over a Unix
//! socket that only its owner reaches. The paths are those of the server's API. It lies in the data folder;
//! that of a process which keeps nothing on the disk lies in a folder for running programs, under the name
//! of the data folder that it does not use.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio_util::task::AbortOnDropHandle;
use weir_pipeline::control::{Control, LetterError, ListQuery, Selected};
use weir_pipeline::disk::FolderLock;
use weir_pipeline::storage::folder_name;

/// The name of the socket in the data folder.
const NAME: &str = "control.sock";

/// Its name until it is ready.
const NEW_NAME: &str = "control.sock.new";

/// The longest path of a socket, of 107 bytes (unix(7), `sun_path`), and what its new name has more.
const LONGEST_PATH_BYTES: usize = 107 - (NEW_NAME.len() - NAME.len());

/// How the socket of a data folder is reached, however long the folder's path is.
#[derive(Debug)]
pub struct ControlAddress {
    folder: PathBuf,
    /// Keeps the short way to a folder with a long path.
    _open: Option<File>,
}

impl ControlAddress {
    /// That of a data folder.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn of(data_folder: &Path) -> io::Result<Self> {
        if data_folder.join(NAME).as_os_str().len() <= LONGEST_PATH_BYTES {
            return Ok(Self { folder: data_folder.to_owned(), _open: None });
        }
        let open = File::open(data_folder)?;
        let folder = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(Self { folder, _open: Some(open) })
    }

    /// A path to connect to, as long as this lives.
    pub fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }
}

/// The folders in which the socket of a process may lie that keeps nothing on the disk: that of the service
/// (`RUNTIME_DIRECTORY`, systemd.exec(5): `/run/weir` with `RuntimeDirectory=weir`), as root that of system
/// programs (FHS 3.0 §3.15), and that of the user (XDG Base Directory, `XDG_RUNTIME_DIR`).
pub fn runtime_folders(data_folder: &Path) -> Vec<PathBuf> {
    let name = std::path::absolute(data_folder).unwrap_or_else(|_| data_folder.to_owned());
    let name = folder_name(&name.to_string_lossy());
    let named = |variable: &str| std::env::split_paths(&std::env::var_os(variable)?).find(|path| path.is_absolute());
    let service = named("RUNTIME_DIRECTORY");
    let system = Some(PathBuf::from("/run/weir"));
    let user = named("XDG_RUNTIME_DIR").map(|folder| folder.join("weir"));
    let others = if nix::unistd::geteuid().is_root() { [system, user] } else { [user, system] };
    service.into_iter().chain(others.into_iter().flatten()).map(|folder| folder.join(&name)).collect()
}

/// The open socket; dropped, it is gone.
pub struct ControlSocket {
    address: ControlAddress,
    _serving: AbortOnDropHandle<()>,
    /// A folder for running programs, and the right to it.
    runtime: Option<(PathBuf, FolderLock)>,
}

impl ControlSocket {
    /// Opens the socket in a data folder that this process has for itself.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn open(data_folder: &Path, control: Control) -> io::Result<Self> {
        let address = ControlAddress::of(data_folder)?;
        let (path, new) = (address.path(), address.folder.join(NEW_NAME));
        // Those that are left are of a process that was killed: the folder is ours.
        remove_file(&path)?;
        remove_file(&new)?;
        let listener = UnixListener::bind(&new)?;
        // Nobody reaches it before it is only the owner's.
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, &path)?;
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router(control)).await {
                tracing::warn!("the command line cannot reach this process any more: {error}");
            }
        });
        Ok(Self { address, _serving: AbortOnDropHandle::new(serving), runtime: None })
    }

    /// Opens the socket of a process that keeps nothing on the disk, in the first of its [`runtime_folders`]
    /// that can be used.
    ///
    /// # Errors
    /// Why none can be: what was tried, and what to do.
    pub fn open_without_data(data_folder: &Path, control: &Control) -> Result<Self, String> {
        let mut failed = Vec::new();
        for folder in runtime_folders(data_folder) {
            match Self::open_at_runtime(&folder, control.clone()) {
                Ok(socket) => return Ok(socket),
                Err(error) => failed.push(error),
            }
        }
        Err(failed.join("; "))
    }

    fn open_at_runtime(folder: &Path, control: Control) -> Result<Self, String> {
        let made = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)));
        made.map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
        let lock = FolderLock::take(folder).map_err(|error| error.to_string())?;
        let mut socket = Self::open(folder, control).map_err(|error| format!("{}: {error}", folder.display()))?;
        socket.runtime = Some((folder.to_owned(), lock));
        Ok(socket)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Should it stay, the next start removes it.
        let _ = remove_file(&self.address.path());
        if let Some((folder, _lock)) = &self.runtime {
            // While it is ours, so that nobody else's is removed.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Removes a file that may not be there.
fn remove_file(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn router(control: Control) -> Router {
    Router::new()
        .route("/api/v1/ledger", get(async |State(control): State<Control>| Json(control.ledger())))
        .route("/api/v1/queues", get(async |State(control): State<Control>| Json(control.queues())))
        .route("/api/v1/pipeline", get(async |State(control): State<Control>| Json(control.pipeline())))
        .route("/api/v1/dead-letters", get(list))
        .route("/api/v1/dead-letters/{id}", get(show))
        .route("/api/v1/dead-letters/replay", post(replay))
        .route("/api/v1/dead-letters/drop", post(remove))
        .route("/api/v1/dead-letters/export", post(export))
        .route("/api/v1/reload", post(async |State(control): State<Control>| answer(control.reload().await)))
        .with_state(control)
}

/// The result, or its error as one line of text.
fn answer<T: Serialize>(result: Result<T, impl std::fmt::Display>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(error) => (StatusCode::UNPROCESSABLE_ENTITY, error.to_string()).into_response(),
    }
}

async fn list(State(control): State<Control>, Query(query): Query<ListQuery>) -> Response {
    answer(control.list_dead_letters(&query).await)
}

async fn show(State(control): State<Control>, UrlPath(id): UrlPath<String>) -> Response {
    answer(control.dead_letter(&id).await)
}

async fn replay(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    answer(control.replay_dead_letters(&selected).await)
}

async fn remove(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    answer(control.drop_dead_letters(&selected).await)
}

async fn export(State(control): State<Control>, Json(selected): Json<Selected>) -> Response {
    let exported: Result<String, LetterError> = control.export_dead_letters(&selected).await;
    exported.map_or_else(|error| answer::<()>(Err(error)), IntoResponse::into_response)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn without_a_data_folder_the_first_folder_that_can_be_used_has_the_socket_and_one_process_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("weir").join(folder_name("/var/lib/weir"));
        let socket = ControlSocket::open_at_runtime(&folder, Control::default()).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let address = ControlAddress::of(&folder).unwrap();
        UnixStream::connect(address.path()).await.unwrap();
        let second = ControlSocket::open_at_runtime(&folder, Control::default()).err().unwrap();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        UnixStream::connect(address.path()).await.unwrap();
        drop(socket);
        assert_eq!(std::fs::read_dir(parent.path().join("weir")).unwrap().count(), 0, "nothing is left");
        std::fs::write(&folder, "in the way").unwrap();
        let error = ControlSocket::open_at_runtime(&folder, Control::default()).err().unwrap();
        assert!(error.contains(&folder.display().to_string()), "{error}");
    }

    #[tokio::test]
    async fn the_socket_of_any_folder_is_its_owners_alone_and_takes_the_place_of_one_that_was_left() {
        let parent = tempfile::tempdir().unwrap();
        for folder in [parent.path().to_owned(), parent.path().join("a".repeat(90)).join("b".repeat(90))] {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(NAME), "left").unwrap();
            std::fs::write(folder.join(NEW_NAME), "left").unwrap();
            let socket = ControlSocket::open(&folder, Control::default()).unwrap();
            let address = ControlAddress::of(&folder).unwrap();
            UnixStream::connect(address.path()).await.unwrap();
            assert_eq!(std::fs::metadata(folder.join(NAME)).unwrap().mode() & 0o777, 0o600);
            drop(socket);
            assert_eq!(
                std::fs::read_dir(&folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file()).count(),
                0
            );
            assert!(UnixStream::connect(address.path()).await.is_err());
        }
    }
}
