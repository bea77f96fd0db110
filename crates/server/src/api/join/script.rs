//! The text of the script that a machine runs to join.

/// What runs after the values of [`offer`].
const BODY: &str = include_str!("join.sh");

/// The operating system that the server's own program runs on, as `uname -s` says it there.
const LINUX: &str = "linux";

/// A text as one word of the shell, whatever is in it (POSIX, Shell Command Language, 2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The script that downloads the program from `url` and joins with `token`.
pub fn offer(url: &str, token: &str, sha256: &str) -> String {
    if std::env::consts::OS != LINUX {
        let os = std::env::consts::OS;
        return refusal(&format!(
            "this server runs on {os} and has no program for Linux; build Weir from its source on this machine, \
             then run: weir join {url} TOKEN"
        ));
    }
    let values = [
        ("url", url),
        ("token", token),
        ("sha256", sha256),
        ("cpu", std::env::consts::ARCH),
        ("version", env!("CARGO_PKG_VERSION")),
    ];
    let mut text = String::from("#!/bin/sh\nset -u\n");
    for (name, value) in values {
        text.push_str(&format!("{name}={}\n", quoted(value)));
    }
    text.push_str(BODY);
    text
}

/// A script that says why there is nothing to do, and fails.
pub fn refusal(why: &str) -> String {
    // Nothing that a terminal would act on.
    let why: String = why.chars().filter(|letter| !letter.is_control()).collect();
    format!("#!/bin/sh\nprintf '%s\\n' {} >&2\nexit 1\n", quoted(&format!("weir: {why}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output, Stdio};

    use axum::Router;
    use axum::routing::get;
    use sha2::{Digest, Sha256};

    use super::*;

    const TOKEN: &str = "7K2M-9QXA-0V4T-PZ3C";

    /// What stands in for the program: it says what it was asked, and what was left for it to read.
    const PROGRAM: &str = "#!/bin/sh\n[ \"$1\" = --version ] && exit 0\nprintf '%s,' \"$@\"\nprintf 'stdin:'\ncat\n";

    /// Everything that the script needs besides what downloads and verifies.
    const TOOLS: [&str; 10] = ["uname", "id", "mkdir", "rm", "mv", "chmod", "cut", "head", "tr", "cat"];

    /// A machine: the tools that it has, and the folder that the program goes to.
    struct Machine {
        folder: tempfile::TempDir,
        shell: &'static str,
    }

    fn found(tool: &str) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(tool)).find(|file| file.is_file())
    }

    impl Machine {
        /// `None`, said loudly, where this machine lacks one of the tools.
        fn with(shell: &'static str, tools: &[&str]) -> Option<Machine> {
            let folder = tempfile::tempdir().expect("folder");
            std::fs::create_dir(folder.path().join("bin")).expect("folder");
            for tool in TOOLS.iter().chain(tools).chain(&[shell]) {
                let Some(file) = found(tool) else {
                    eprintln!("SKIPPED: {tool} is not installed, so the script was not tried with it");
                    return None;
                };
                symlink(file, folder.path().join("bin").join(tool)).expect("link");
            }
            Some(Machine { folder, shell })
        }

        /// Puts a command of the test's own in the way of the real one.
        fn fake(&self, tool: &str, text: &str) {
            let file = self.folder.path().join("bin").join(tool);
            // Not through the link, into the real tool.
            let _ = std::fs::remove_file(&file);
            std::fs::write(&file, format!("#!/bin/sh\n{text}\n")).expect("file");
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).expect("mode");
        }

        /// A name that shells stumble over.
        fn target(&self) -> PathBuf {
            self.folder.path().join("it's a \"$HOME\" folder")
        }

        /// Pipes a script into the shell, as people do.
        async fn run(&self, script: &str, variables: &[(&str, &Path)]) -> Output {
            let mut command = Command::new(self.folder.path().join("bin").join(self.shell));
            command.env_clear().env("PATH", self.folder.path().join("bin")).current_dir(self.folder.path());
            command.envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let script = script.to_owned();
            let run = move || {
                let mut child = command.spawn().expect("shell");
                let mut pipe = child.stdin.take().expect("pipe");
                // A shell that ends early closes the pipe.
                let _ = std::io::Write::write_all(&mut pipe, script.as_bytes());
                drop(pipe);
                child.wait_with_output().expect("output")
            };
            tokio::task::spawn_blocking(run).await.expect("run")
        }

        async fn run_here(&self, script: &str) -> Output {
            self.run(script, &[("WEIR_INSTALL_FOLDER", &self.target())]).await
        }

        /// What lies in the target folder.
        fn installed(&self) -> Vec<String> {
            let Ok(entries) = std::fs::read_dir(self.target()) else { return Vec::new() };
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
        }
    }

    fn said(output: &Output) -> String {
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A server that hands out a program; its address.
    async fn server(program: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let path = format!("/join/{TOKEN}/weir");
        let router = Router::new().route(&path, get(move || async move { program }));
        tokio::spawn(weir_net::serve(listener, router, std::future::pending()));
        url
    }

    fn hash(text: &str) -> String {
        Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[tokio::test]
    async fn the_program_is_downloaded_verified_and_started_with_each_shell_and_tool() {
        let url = server(PROGRAM).await;
        let script = offer(&url, TOKEN, &hash(PROGRAM));
        for (shell, tools) in [
            ("sh", ["curl", "sha256sum"]),
            ("dash", ["wget", "sha256sum"]),
            ("dash", ["curl", "shasum"]),
            ("bash", ["curl", "sha256sum"]),
        ] {
            let Some(machine) = Machine::with(shell, &tools) else { continue };
            let output = machine.run_here(&script).await;
            assert!(output.status.success(), "{shell} {tools:?}: {}", said(&output));
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(text, format!("join,{url},{TOKEN},stdin:"), "{shell} {tools:?}");
            assert!(said(&output).contains("is not in PATH"), "{}", said(&output));
            assert_eq!(machine.installed(), ["weir"]);

            let again = machine.run_here(&script).await;
            assert!(again.status.success() && said(&again).contains("already"), "{}", said(&again));
        }
    }

    #[tokio::test]
    async fn it_goes_to_the_home_of_a_user_and_says_what_it_needs() {
        let url = server(PROGRAM).await;
        let script = offer(&url, TOKEN, &hash(PROGRAM));
        let Some(machine) = Machine::with("sh", &["curl", "sha256sum"]) else { return };
        machine.fake("id", "echo 1000");
        let home = machine.folder.path().join("a home");
        let output = machine.run(&script, &[("HOME", &home)]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert!(home.join(".local/bin/weir").is_file());
        let homeless = machine.run(&script, &[]).await;
        assert!(!homeless.status.success() && said(&homeless).contains("HOME is not set"), "{}", said(&homeless));
    }

    #[tokio::test]
    async fn what_cannot_work_says_why_and_leaves_nothing() {
        let url = server(PROGRAM).await;
        let script = offer(&url, TOKEN, &hash(PROGRAM));
        let both: &[&str] = &["curl", "sha256sum"];
        let closed = "http://127.0.0.1:1";
        let broken = "#!/bin/sh\necho needs a newer library >&2\nexit 1\n";
        for (tools, fake, script, reason) in [
            (&["sha256sum"][..], None, script.clone(), "neither curl nor wget"),
            (&["curl"], None, script.clone(), "neither sha256sum nor shasum"),
            (
                both,
                Some(("uname", "[ \"$1\" = -s ] && echo Linux || echo riscv64")),
                script.clone(),
                "this machine has riscv64",
            ),
            (both, Some(("uname", "echo Darwin")), script.clone(), "this machine runs Darwin"),
            (both, None, offer(&url, TOKEN, &hash("another")), "damaged or incomplete"),
            (both, None, offer(closed, TOKEN, &hash(PROGRAM)), "could not be downloaded"),
            (both, None, offer(&format!("{url}/elsewhere"), TOKEN, &hash(PROGRAM)), "the server answered 404"),
            (both, None, offer(&server(broken).await, TOKEN, &hash(broken)), "needs a newer library"),
        ] {
            let Some(machine) = Machine::with("sh", tools) else { continue };
            if let Some((tool, text)) = fake {
                machine.fake(tool, text);
            }
            let output = machine.run_here(&script).await;
            assert_eq!(output.status.code(), Some(1), "{reason}");
            assert!(said(&output).contains(reason), "{reason}\n{}", said(&output));
            assert!(output.stdout.is_empty() && machine.installed().is_empty(), "{reason}: {:?}", machine.installed());
        }
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_named_with_the_way_out() {
        let Some(machine) = Machine::with("dash", &["curl", "sha256sum"]) else { return };
        let script = offer("http://127.0.0.1:1", TOKEN, &hash(PROGRAM));
        let file = machine.folder.path().join("file");
        std::fs::write(&file, "").expect("file");
        let output = machine.run(&script, &[("WEIR_INSTALL_FOLDER", &file.join("below"))]).await;
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(said.contains("cannot be written") && said.contains("WEIR_INSTALL_FOLDER=FOLDER sh"), "{said}");
    }

    #[tokio::test]
    async fn half_a_script_does_nothing() {
        let url = server(PROGRAM).await;
        let script = offer(&url, TOKEN, &hash(PROGRAM));
        let Some(machine) = Machine::with("sh", &["curl", "sha256sum"]) else { return };
        for part in 1..8 {
            let output = machine.run_here(&script[..script.len() * part / 8]).await;
            assert!(output.stdout.is_empty() && machine.installed().is_empty(), "{part}/8: {}", said(&output));
        }
    }

    #[tokio::test]
    async fn a_refusal_says_its_reason_and_runs_none_of_it() {
        for shell in ["sh", "dash"] {
            let Some(machine) = Machine::with(shell, &[]) else { continue };
            let output = machine.run(&refusal("it's $(echo run) `echo run` \"used up\"\n\u{1b}[31m\\n"), &[]).await;
            assert_eq!(output.status.code(), Some(1));
            assert_eq!(said(&output), "weir: it's $(echo run) `echo run` \"used up\"[31m\\n\n");
        }
    }

    #[test]
    fn values_are_words_of_the_shell_whatever_is_in_them() {
        assert_eq!(quoted("a'b;$(c)"), r"'a'\''b;$(c)'");
        let text = offer("http://h", "x'; reboot; '", "00");
        assert!(text.lines().any(|line| line == r"token='x'\''; reboot; '\'''"), "{text}");
    }
}
