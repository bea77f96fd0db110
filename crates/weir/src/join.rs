//! `weir join`: makes this machine report to a Weir server, and says what is really true: the last
//! step is done when the server has stored something from here.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;
use weir_agent::{Enrolment, JoinFiles, Program, Source, Written};
use weir_config::{Endpoint, Secret};
use weir_pipeline::telemetry::{Attempts, Telemetry};

use crate::agent::{failed, runtime};
use crate::running::{Origin, Running, StopSignals};
use crate::{WRONG_CONFIGURATION, say, service};

/// `weir join`.
#[derive(Args)]
pub struct Arguments {
    /// Address of the server, for example http://10.0.0.5:8088
    #[arg(value_name = "URL")]
    url: Endpoint,
    /// The token that the server gave out (`weir tokens create`)
    #[arg(value_name = "TOKEN")]
    token: String,
    /// Name under which this machine appears; without it the host name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Configuration file; without it /etc/weir/weir.yaml as root, else ~/.config/weir/weir.yaml
    #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
    /// Stay in the foreground instead of installing a systemd service
    #[arg(long)]
    no_service: bool,
}

/// How long all of it may take, until the first data is stored.
const LONGEST: Duration = Duration::from_secs(15);

/// How often it is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Clocks that differ by more than this are mentioned.
const CLOCK_TOLERANCE_SECONDS: u64 = 60;

/// Why it ended before everything was done.
enum Failure {
    /// A sentence for people.
    Told(String),
    /// It has been said already.
    Said(ExitCode),
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Told(text)
    }
}

impl From<weir_pipeline::Fault> for Failure {
    fn from(fault: weir_pipeline::Fault) -> Failure {
        Failure::Told(fault.message)
    }
}

impl From<ExitCode> for Failure {
    fn from(code: ExitCode) -> Failure {
        Failure::Said(code)
    }
}

/// Joins, and then runs as a service or in the foreground.
pub fn run(arguments: &Arguments) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match Box::pin(join(arguments)).await {
            Ok(code) | Err(Failure::Said(code)) => code,
            Err(Failure::Told(text)) => {
                say::note(&format!("  ✗ {text}"));
                ExitCode::FAILURE
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_millis(200));
    code
}

async fn join(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let deadline = Instant::now() + LONGEST;
    let config = match &arguments.config {
        Some(file) => file.clone(),
        None => usual_config()?,
    };
    let url = place(&arguments.url);
    let files = JoinFiles::examine(&config, arguments.url.clone(), arguments.name.as_deref())?;

    let enrolment = Enrolment::begin(arguments.url.clone()).await?;
    done(&format!("Weir {} answers at {url}", enrolment.greeting.version));
    if let Some(line) = enrolment.clock_ahead_seconds.and_then(clock_warning) {
        say::note(&format!("  ! {line}"));
    }

    let enrolled = enrolment.enrol(&Secret::new(arguments.token.trim()), &files).await?;
    done(&format!("registered as {}", files.name));
    let written = files.write(&enrolled)?;
    done(&format!("key stored in {}", files.key_file.display()));
    if let Written::Lines(lines) = written {
        return Err(Failure::Told(format!(
            "{file} exists and is not changed: add {lines}\n    then start it: weir agent --config {file}",
            file = files.config.display()
        )));
    }
    done(&format!("configuration in {}", files.config.display()));

    let mut stop = StopSignals::install()?;
    let running = Box::pin(collect(&files)).await?;
    let stored = tokio::select! {
        stored = first_data(running.pipeline().telemetry(), &files.exporter, deadline) => stored,
        () = stop.wait() => Err("interrupted before the first data was stored".to_owned()),
    };
    if let Err(why) = stored {
        drop(running);
        let again = files.config.display();
        return Err(Failure::Told(format!(
            "{why}\n    key and configuration are kept; weir agent --config {again} goes on"
        )));
    }
    done(&format!("first data stored at {}, seen by the server", jiff::Zoned::now().strftime("%H:%M:%S")));
    let dashboard = dashboard(&arguments.url, &files.name);
    if !arguments.no_service && service::is_possible() {
        running.end().await;
        service::install(&files.config).await?;
        done("service installed and started: systemctl status weir");
        return Ok(say::out(&format!("  open {dashboard}\n")));
    }
    say::out(&format!(
        "  open {dashboard}\n  runs until Ctrl-C; start it again with: weir agent --config {}\n",
        files.config.display()
    ));
    Ok(running.run_to_the_end(&mut stop).await)
}

/// One step that is done. Where nobody reads it, the next one is done all the same.
fn done(text: &str) {
    say::out(&format!("  ✓ {text}\n"));
}

/// The address as people write it, without a slash at its end.
fn place(url: &Endpoint) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

fn usual_config() -> Result<PathBuf, Failure> {
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/etc/weir/weir.yaml"));
    }
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let home = home.ok_or_else(|| "HOME is not set: name a configuration file with --config".to_owned())?;
    Ok(home.join(".config/weir/weir.yaml"))
}

/// What to say about clocks that differ by too much: charts would show data at the wrong time.
fn clock_warning(ahead_seconds: i64) -> Option<String> {
    let apart = ahead_seconds.unsigned_abs();
    (apart > CLOCK_TOLERANCE_SECONDS).then(|| {
        let apart = weir_config::Duration::from_secs(apart);
        let side = if ahead_seconds > 0 { "ahead of" } else { "behind" };
        format!("the clock of this machine is {apart} {side} the server's: its data will stand at the wrong time; set it, for example with `timedatectl set-ntp true`")
    })
}

/// The page of this machine.
fn dashboard(url: &Endpoint, name: &str) -> String {
    let mut page = url.join("/h");
    // Only addresses without a host refuse this, and an `Endpoint` has one.
    if let Ok(mut segments) = page.path_segments_mut() {
        segments.push(name);
    }
    page.to_string()
}

async fn collect(files: &JoinFiles) -> Result<Running, Failure> {
    let origin = Origin { source: Source::File(files.config.clone()), program: Program::Agent, data: None };
    let mut loaded = weir_agent::load(origin.source.clone(), origin.program, None).map_err(|error| {
        say::note(&error.to_string());
        ExitCode::from(WRONG_CONFIGURATION)
    })?;
    let watched = loaded.plan.watching();
    Ok(Running::start(loaded, watched, origin).await.map_err(|failure| failed(&failure))?)
}

/// Waits until the server has answered that something from here is on its disk.
async fn first_data(telemetry: &Telemetry, exporter: &str, deadline: Instant) -> Result<(), String> {
    let seen = async {
        while !is_stored(telemetry, exporter) {
            tokio::time::sleep(GLANCE).await;
        }
    };
    if tokio::time::timeout_at(deadline, seen).await.is_ok() {
        return Ok(());
    }
    let health = telemetry.health.snapshot();
    let reason = health.get(exporter).and_then(|health| health.reason.as_deref()).unwrap_or("no poll has ended yet");
    Err(format!("the server has stored nothing from here within {} s: {reason}", LONGEST.as_secs()))
}

fn is_stored(telemetry: &Telemetry, exporter: &str) -> bool {
    // Not by the ledger: that goes on from earlier runs.
    let taken = |attempts: &Attempts| attempts.succeeded.load(Ordering::Relaxed) > 0;
    telemetry.exporters().iter().any(|(outlet, attempts)| *outlet.name == *exporter && taken(attempts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_a_minute_are_mentioned_with_their_side() {
        assert_eq!(clock_warning(60), None);
        assert_eq!(clock_warning(-3), None);
        assert!(clock_warning(200).unwrap().contains("3m20s ahead of"));
        assert!(clock_warning(-61).unwrap().contains("1m1s behind"));
    }

    #[test]
    fn the_page_of_a_machine_is_below_the_servers_address_whatever_its_name() {
        let url: Endpoint = "http://10.0.0.5:8088/weir/".parse().unwrap();
        assert_eq!(dashboard(&url, "web 1/a"), "http://10.0.0.5:8088/weir/h/web%201%2Fa");
        assert_eq!(place(&url), "http://10.0.0.5:8088/weir");
    }
}
