//! A second machine: network, host name, processes and the files of its system are its own, and one
//! cable leads to the machine of the tests. It vanishes with the test, and leaves nothing.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::process::{Process, Stream};
use crate::harness::{free_port, seconds, wait_for};

/// Folders that are empty there: what a newcomer's machine has of its own, and so that nothing is
/// installed on the machine of the tests. Without /run/systemd it has no systemd.
const OWN_FOLDERS: &str = "/etc /usr/local/bin /home /run /var/lib";

/// The home of the person who sits at it.
const HOME: &str = "/home/newcomer";

/// A running machine.
pub struct SecondMachine {
    /// What keeps its namespaces; they end with it.
    holder: Process,
    /// Its first process, as this machine sees it.
    first: i32,
    /// This machine's end of the cable.
    link: String,
    /// This machine's address on the cable.
    pub address_here: String,
    /// Its host name.
    pub name: String,
}

/// Runs a tool to its end; fails the test if it fails.
fn must(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl SecondMachine {
    /// Starts it and plugs the cable in.
    pub async fn start(name: &str) -> SecondMachine {
        let script = format!(
            "for folder in {OWN_FOLDERS}; do mount -t tmpfs none $folder || exit 1; done\n\
             mkdir {HOME} && echo {name} >/proc/sys/kernel/hostname && echo ready && exec sleep infinity"
        );
        let namespaces = ["--net", "--uts", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"];
        let holder = Process::start(name, Command::new("unshare").args(namespaces).args(["sh", "-c", &script]));
        wait_for("the second machine", seconds(10), async || holder.when(Stream::Out, "ready")).await;
        let children = format!("/proc/{0}/task/{0}/children", holder.pid());
        let children = std::fs::read_to_string(&children).unwrap_or_else(|error| panic!("{children}: {error}"));
        let first: i32 = children.trim().parse().expect("one child");

        // No two tests have the same port, so no two have the same addresses of 198.18.0.0/15, which
        // are for tests of networks (RFC 2544).
        let unique = free_port();
        let link = format!("weir-t{unique}");
        let [_, second, high, low] = (u32::from(unique & 0x7fff) << 2).to_be_bytes();
        let address = |last: u8| format!("198.{}.{high}.{}", 18 + second, low + last);
        let (here, there) = (address(1), address(2));
        let machine =
            SecondMachine { holder, first, link: link.clone(), address_here: here.clone(), name: name.to_owned() };
        let pid = first.to_string();
        must("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        must("ip", &["address", "add", &format!("{here}/30"), "dev", &link]);
        machine.mend();
        let network = format!("ip link set lo up && ip address add {there}/30 dev eth0 && ip link set eth0 up");
        let status = machine.command(&network).status().expect("nsenter runs");
        assert!(status.success(), "{network}: {status}");
        machine
    }

    /// A command line, as somebody types it at this machine.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first.to_string(), "--net", "--uts", "--mount", "--pid", "sh", "-c", line]);
        command
            .env_clear()
            .env("HOME", HOME)
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// What a command line writes to its standard output; fails the test if it fails.
    pub fn output(&self, line: &str) -> String {
        let output = self.command(line).output().expect("nsenter runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// Ctrl-C for a program that runs on it.
    pub fn interrupt(&self, program: &str) {
        let place = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = place(&self.first.to_string()).expect("it runs");
        let name_of = |process: &Path| std::fs::read_to_string(process.join("comm")).unwrap_or_default();
        let mut found = 0;
        for process in std::fs::read_dir("/proc").expect("Linux").map(|entry| entry.expect("readable").path()) {
            let pid = process.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Ok(number) = pid.parse::<i32>() else { continue };
            if place(pid).as_ref() == Some(&own) && name_of(&process).trim() == program {
                kill(Pid::from_raw(number), Signal::SIGINT).expect("it is there");
                found += 1;
            }
        }
        assert_eq!(found, 1, "{program} runs {found} times on {}", self.name);
    }

    /// Pulls the cable out: packets are lost, and nobody is told.
    pub fn cut(&self) {
        must("ip", &["link", "set", &self.link, "down"]);
    }

    /// Plugs it in again.
    pub fn mend(&self) {
        must("ip", &["link", "set", &self.link, "up"]);
    }
}

impl Drop for SecondMachine {
    fn drop(&mut self) {
        // Both ends go with one; the namespaces take longer to end than the next test to start.
        let _ = Command::new("ip").args(["link", "delete", &self.link]).output();
        if self.holder.ended().is_none() {
            // SIGKILL for its first process is the end of all others (pid_namespaces(7)).
            let _ = kill(Pid::from_raw(self.first), Signal::SIGKILL);
        }
    }
}
