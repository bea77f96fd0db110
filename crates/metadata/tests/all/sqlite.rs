//! What only a file can do: modes, a second process, a read-only folder, foreign content.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::tempdir;
use weir_metadata::{Location, Metadata, MetadataError, NewKey, NewServer, OpenError, Scopes};

use crate::schema::execute;
use crate::suite::open;

fn at(path: &Path) -> Location {
    Location::Sqlite(path.to_owned())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("metadata.sqlite");
    let metadata = open(&at(&path)).await;
    metadata.ensure_server("web-1", None, 1).await.expect("writes");
    for name in ["metadata.sqlite", "metadata.sqlite-wal", "metadata.sqlite-shm"] {
        assert_eq!(mode(&folder.path().join(name)), 0o600, "{name}");
    }
    metadata.close().await;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    open(&at(&path)).await.close().await;
    assert_eq!(mode(&path), 0o600, "tightened");
}

#[tokio::test]
async fn no_file_holds_the_text_of_a_credential() {
    let folder = tempdir().expect("a folder");
    let metadata = open(&at(&folder.path().join("metadata.sqlite"))).await;
    let new = NewKey { name: "ci".to_owned(), scopes: Scopes::ADMIN, agent_id: None, expires_ms: None };
    let (_, key) = metadata.create_key(new, 1).await.expect("creates");
    let login = metadata.create_login_token("operator", 1).await.expect("creates");
    let (session, _) = metadata.redeem_login_token(login.expose(), 1).await.expect("answers").expect("a session");
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder.path()).expect("lists") {
        bytes.extend(std::fs::read(entry.expect("an entry").path()).expect("reads"));
    }
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("operator"), "the search works");
    let (_, secret) = key.expose().split_at("weir_0123456789ab_".len());
    for text in [secret, login.expose(), session.expose()] {
        assert!(!holds(text));
    }
}

/// Set for the second process of the test below: the file.
const SECOND_PROCESS: &str = "WEIR_METADATA_SECOND_PROCESS";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_write_one_file_at_the_same_time() {
    if let Some(path) = std::env::var_os(SECOND_PROCESS) {
        return write_many(&open(&at(Path::new(&path))).await, "second").await;
    }
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("metadata.sqlite");
    let second = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "sqlite::two_processes_write_one_file_at_the_same_time"])
        .env(SECOND_PROCESS, &path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let metadata = open(&at(&path)).await;
    write_many(&metadata, "first").await;
    let ended = tokio::task::spawn_blocking(move || second.wait_with_output()).await.expect("no panic").expect("ends");
    assert!(
        ended.status.success(),
        "{}{}",
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(metadata.servers().await.expect("lists").len(), 200);
}

async fn write_many(metadata: &Metadata, name: &str) {
    for number in 0..100 {
        let server = metadata.ensure_server(&format!("{name}-{number}"), None, number).await.expect("writes");
        assert_eq!(metadata.server(&server.id).await, Ok(Some(server)), "what was written is read at once");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_and_left_alone() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("notes.txt");
    let content = "these are notes, and no database at all\n".repeat(200);
    std::fs::write(&path, &content).expect("writes");
    let error = Metadata::open(&at(&path)).await.expect_err("no database");
    assert_eq!(error, OpenError::NotADatabase { path: path.clone() });
    assert!(error.to_string().contains("notes.txt is not a SQLite database"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("reads"), content);
}

#[tokio::test]
async fn a_missing_folder_and_a_folder_as_file_are_told_with_advice() {
    let folder = tempdir().expect("a folder");
    let missing = Metadata::open(&at(&folder.path().join("no/metadata.sqlite"))).await.expect_err("no folder");
    assert!(missing.to_string().ends_with("create its folder"), "{missing}");
    let itself = Metadata::open(&at(folder.path())).await.expect_err("a folder");
    assert!(itself.to_string().ends_with("name a file in that folder"), "{itself}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_with_advice() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("metadata.sqlite");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).expect("a mode");
    // Root may write everywhere: this thread gives that up, and the threads it starts with it.
    let opened = std::thread::spawn(move || {
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(Metadata::open(&at(&path)))
    });
    let error = opened.join().expect("no panic").expect_err("read-only").to_string();
    assert!(error.contains("Permission denied") && error.contains("let Weir's user own"), "{error}");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

#[tokio::test]
async fn a_damaged_record_is_told_as_damage_and_stops_nothing_else() {
    let folder = tempdir().expect("a folder");
    let location = at(&folder.path().join("metadata.sqlite"));
    let metadata = open(&location).await;
    let server = metadata.ensure_server("web-1", None, 1).await.expect("writes");
    execute(&location, "UPDATE servers SET facts = '{broken'").await;
    let error = metadata.server(&server.id).await.expect_err("damaged");
    assert!(matches!(&error, MetadataError::Corrupt { reason } if reason.contains("facts")), "{error:?}");
    metadata.ensure_server("web-2", None, 1).await.expect("others work");
}

#[tokio::test]
async fn nothing_is_acknowledged_into_a_file_that_was_deleted_and_putting_it_back_is_enough() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("metadata.sqlite");
    let metadata = open(&Location::Sqlite(path.clone())).await;
    metadata.create_login_token("a", 1).await.expect("written");
    metadata.check().await.expect("ready");

    let away = folder.path().join("away");
    std::fs::rename(&path, &away).expect("moved");
    for replaced in [false, true] {
        if replaced {
            std::fs::write(&path, "").expect("another file");
        }
        let error = metadata.create_login_token("b", 1).await.expect_err("it would be lost");
        assert!(
            matches!(&error, MetadataError::Unavailable { reason } if reason.contains("deleted or replaced")),
            "{error}"
        );
        assert!(metadata.create_server(NewServer::default(), 1).await.is_err(), "transactions too");
        assert!(metadata.check().await.is_err());
    }
    std::fs::rename(&away, &path).expect("back");
    metadata.create_login_token("c", 1).await.expect("written");
    metadata.check().await.expect("ready");
}
