//! The systemd service of an agent.

use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use tokio::process::Command;

/// Where the program of the service stands.
const PROGRAM: &str = "/usr/local/bin/weir";

/// The unit's file.
const UNIT: &str = "/etc/systemd/system/weir.service";

/// Whether this process may install a service: root on a machine that systemd runs (sd_booted(3)).
pub fn is_possible() -> bool {
    nix::unistd::geteuid().is_root()
        && std::fs::symlink_metadata("/run/systemd/system").is_ok_and(|place| place.is_dir())
}

/// The unit. It runs as root, because the key's file and the processes of other users are root's
/// alone, without ways to gain more rights. `ProtectSystem=` and the like stay away: they mount
/// filesystems once more, and the agent would report those.
fn unit(config: &Path) -> String {
    format!(
        "[Unit]
Description=Weir agent
Wants=network-online.target
After=network-online.target

[Service]
ExecStart={PROGRAM} agent --config {}
Restart=always
RestartSec=5
TimeoutStopSec=10
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
",
        quoted(&config.display().to_string())
    )
}

/// One argument as systemd.service(5) reads it: in quotes, `%` and `$` doubled.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    format!("\"{escaped}\"")
}

/// Installs the service, enables and starts it; one that runs already is started again.
///
/// # Errors
/// Which step failed, and what was said.
pub async fn install(config: &Path) -> Result<(), String> {
    install_program()?;
    std::fs::write(UNIT, unit(config)).map_err(|error| format!("cannot write {UNIT}: {error}"))?;
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", "weir.service"]).await?;
    systemctl(&["restart", "weir.service"]).await
}

/// Puts a copy of the running program in its place, in one step: the old one may be running.
fn install_program() -> Result<(), String> {
    let failed = |error: std::io::Error| format!("cannot install {PROGRAM}: {error}");
    let own = std::env::current_exe().map_err(failed)?;
    if own == Path::new(PROGRAM) {
        return Ok(());
    }
    let new = format!("{PROGRAM}.new.{}", std::process::id());
    let copied = (|| {
        let mut from = std::fs::File::open(&own)?;
        let mut to = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&new)?;
        std::io::copy(&mut from, &mut to)?;
        // Whatever the mask of this process is, others may run the program.
        to.set_permissions(std::fs::Permissions::from_mode(0o755))?;
        to.sync_all()?;
        std::fs::rename(&new, PROGRAM)
    })();
    copied.map_err(|error| {
        // The error that is reported is the first one.
        let _ = std::fs::remove_file(&new);
        failed(error)
    })
}

async fn systemctl(arguments: &[&str]) -> Result<(), String> {
    let shown = format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl").args(arguments).output().await;
    let output = output.map_err(|error| format!("cannot run `{shown}`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{shown}` failed ({}): {}", output.status, said.split_whitespace().collect::<Vec<_>>().join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_special_characters_is_one_argument_of_the_unit() {
        let text = unit(Path::new("/etc/my weir/100%$x\".yaml"));
        let line = text.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert_eq!(line, "ExecStart=/usr/local/bin/weir agent --config \"/etc/my weir/100%%$$x\\\".yaml\"");
    }
}
