//! A server that cannot start says so in one line: what, where, and what to do.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::Method;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value as Json, json};

use crate::harness::peers::{Peer, peer};
use crate::harness::process::{Process, Stream};
use crate::harness::server::{Options, Server};
use crate::harness::weir::{command, program, run, said};
use crate::harness::{free_port, seconds, wait_for};

/// A user without any rights; Debian calls it `nobody`.
const NOBODY: u32 = 65534;

/// A server that shall not start.
fn server(data: &Path, port: u16) -> Command {
    of_program(program(), data, port)
}

fn of_program(program: &Path, data: &Path, port: u16) -> Command {
    let mut server = Command::new(program);
    for name in ["WEIR_CONFIG", "WEIR_DATA", "WEIR_LISTEN", "WEIR_ADMIN_KEY", "WEIR_LOG"] {
        server.env_remove(name);
    }
    server.args(["server", "--listen", &format!("127.0.0.1:{port}"), "--data"]).arg(data);
    server
}

/// That a server ends with one line that has all these words.
async fn refuses(command: &mut Command, words: &[&str]) {
    let process = Process::start("weir", command);
    is_one_line(process, words).await;
}

async fn is_one_line(mut process: Process, words: &[&str]) {
    let (status, took) = process.end(seconds(20)).await;
    // The reader of its last words may be a moment behind.
    let line = wait_for("its reason", seconds(5), async || {
        let line = process.stderr();
        line.ends_with('\n').then_some(line)
    })
    .await;
    println!("after {took:?}: {}", line.trim_end());
    assert_eq!(status.code(), Some(1), "{status}: {line}");
    assert_eq!(line.lines().count(), 1, "not one line:\n{line}");
    for word in words {
        assert!(line.contains(word), "no `{word}` in: {line}");
    }
    assert_eq!(process.text(Stream::Out), "");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain name")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_port() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let address = format!("127.0.0.1:{port}");
    refuses(&mut server(folder.path(), port), &[&address, "taken", "choose another", "--listen"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_not_this_machines() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Nobody's (RFC 5737).
    let mut command = command();
    command.args(["server", "--listen", "203.0.113.7:8088", "--data"]).arg(folder.path());
    refuses(&mut command, &["203.0.113.7:8088", "not an address of this machine"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("writable");
    let mut command = if nix::unistd::geteuid().is_root() {
        // Nothing is forbidden to root: somebody else has to try, with a program that everybody may run.
        let copy = folder.path().join("weir");
        std::fs::hard_link(program(), &copy)
            .or_else(|_| std::fs::copy(program(), &copy).map(drop))
            .expect("a copy of the program");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        let mut command = of_program(&copy, &data, free_port());
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    } else {
        std::fs::set_permissions(&data, PermissionsExt::from_mode(0o500)).expect("ours");
        server(&data, free_port())
    };
    refuses(&mut command, &[text(&data), "cannot be written by this user", "--data"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_below_one_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // Where nobody may make anything, root included.
    let data = Path::new("/proc/weir");
    refuses(&mut server(data, free_port()), &["/proc/weir", "--data"]).await;
    drop(folder);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_data() {
    let first = Server::start(Options::default()).await;
    let words = [text(&first.data()).to_owned(), "another Weir".to_owned(), "--data".to_owned()];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    refuses(&mut server(&first.data(), free_port()), &words).await;
    first.get("/api/v1/status").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_where_the_folder_should_be() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("data");
    std::fs::write(&file, "mine").expect("writable");
    refuses(&mut server(&file, free_port()), &[text(&file), "not a folder", "--data"]).await;
    refuses(&mut server(&file.join("below"), free_port()), &[text(&file), "not a folder", "--data"]).await;
    assert_eq!(std::fs::read_to_string(&file).expect("still a file"), "mine");
}

/// Starts a command that sees a small disk at this place, in a mount namespace of its own.
fn start_on_small_disk(place: &Path, kibibytes: u32, mut command: Command) -> Process {
    let place = place.to_owned();
    let started = std::thread::spawn(move || {
        // Of this thread alone, and of what it starts.
        unshare(CloneFlags::CLONE_NEWNS).expect("root may");
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).expect("the namespace is ours");
        let options = format!("size={kibibytes}k");
        mount(Some("small"), &place, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).expect("root may");
        Process::start("weir", &mut command)
    });
    started.join().expect("the thread does not panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_however_little_is_left() {
    if peer(Peer::Mount).is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let place: PathBuf = folder.path().join("disk");
    std::fs::create_dir(&place).expect("writable");
    let data = place.join("data");
    let mut started = 0;
    for kibibytes in [16, 64, 96, 128, 192, 256, 384, 65_536] {
        let mut process = start_on_small_disk(&place, kibibytes, server(&data, free_port()));
        let runs = wait_for("it ends or runs", seconds(20), async || {
            let runs = process.stderr().contains("stop with Ctrl-C");
            (runs || process.ended().is_some()).then_some(runs)
        })
        .await;
        println!("{kibibytes} KiB:{}", if runs { " starts" } else { "" });
        if runs {
            started += 1;
        } else {
            is_one_line(process, &["full", "free", text(&place)]).await;
        }
    }
    assert!((1..8).contains(&started), "{started} of 8 started: the sizes show nothing");
}

#[test]
fn a_configuration_that_is_wrong_or_missing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("weir.yaml");
    std::fs::write(&file, "server: {listn: \":8088\"}\n").expect("writable");
    let output = run(&["server", "--config", text(&file)]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("did you mean `listen`"), "{}", said(&output));
    let output = run(&["up", "--config", "/nonexistent/weir.yaml"]);
    assert_eq!((output.status.code(), said(&output).lines().count()), (Some(2), 1), "{}", said(&output));
    let output = run(&["server", "--listen", "nowhere"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("nowhere"), "{}", said(&output));
}

/// Sends the custom upload of AgentOps' guide, by way of this address, without a key.
async fn upload(server: &Server, host: &str) -> (u16, String) {
    let port = server.address().rsplit(':').next().expect("a port").to_owned();
    let body = json!({"serverId": "web-1", "cpuUsage": 45.2});
    let request = http::Request::post(format!("http://{host}:{port}/api/metrics"))
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .expect("a request");
    let answer = server.send(request).await;
    (answer.status.as_u16(), answer.excerpt())
}

/// An address of this machine that is not a loopback one, if it has a network.
fn own_address() -> Option<String> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing: it asks which address would be used.
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string()).filter(|address| address != "0.0.0.0")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_send_without_a_key_is_said_at_the_start_and_true() {
    let configured = Some("server: {keyless_loopback: true}\n".to_owned());
    let refused = Some("server: {keyless_loopback: false}\n".to_owned());
    for (host, config, keyless, words) in [
        ("0.0.0.0", None, false, "everything needs one"),
        ("0.0.0.0", configured, true, "as configured"),
        ("127.0.0.1", None, true, "programs on this machine send without one"),
        ("127.0.0.1", refused, false, "everything needs one"),
    ] {
        let server = Server::start(Options { host: host.to_owned(), config, ..Options::default() }).await;
        server.post("/api/servers", &json!({"hostname": "web-1"})).await;
        let said = wait_for("the introduction", seconds(5), async || {
            server.stderr().lines().find_map(|line| Some(line.trim().strip_prefix("keys ")?.trim().to_owned()))
        })
        .await;
        assert!(said.contains(words), "on {host}: {said}");
        let (status, text) = upload(&server, "127.0.0.1").await;
        assert_eq!(status, if keyless { 200 } else { 401 }, "on {host}, which says `{said}`: {text}");
        assert_eq!(server.get("/api/v1/status").await["keyless_loopback"], keyless);
        // From elsewhere, and for what is stored, nothing goes without a key.
        if let Some(address) = own_address().filter(|_| host == "0.0.0.0") {
            let (status, text) = upload(&server, &address).await;
            assert_eq!(status, 401, "on {host}, by {address}: {text}");
        }
        let reading = server.ask(Method::GET, "/api/v1/hosts", "", &Json::Null).await;
        assert_eq!(reading.status, 401, "{}", reading.excerpt());
    }
}
