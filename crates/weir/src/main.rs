//! `weir`: the command line.

mod agent;
mod check;
mod introduction;
mod join;
mod records;
mod reference;
mod running;
mod say;
#[cfg(feature = "server")]
mod serve;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Collects metrics, logs and traces, keeps them safe on the way, and delivers them.
#[derive(Parser)]
#[command(
    name = "weir",
    version,
    max_term_width = 100,
    after_help = "Start with `weir up`: it shows this machine in a browser and needs no configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "server")]
    #[command(flatten)]
    Serve(serve::Command),
    /// Collect and export, without any server
    Agent {
        /// Configuration file; without it /etc/weir/weir.yaml, or what needs none
        #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
        config: Option<PathBuf>,
        /// Folder for what must survive a restart; by default /var/lib/weir as root, else ~/.local/share/weir
        #[arg(long, value_name = "DIR", env = "WEIR_DATA")]
        data: Option<PathBuf>,
        /// Poll once, deliver, and end
        #[arg(long)]
        once: bool,
    },
    /// Make this machine report to a Weir server: `weir join URL TOKEN`
    Join(join::Arguments),
    /// Read the configuration, then try every integration for real
    Check {
        /// Configuration file; without it /etc/weir/weir.yaml, or what needs none
        #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Where every record is: accepted, delivered, queued, refused, dropped
    Ledger(records::Ledger),
    /// What waits on the disk: status, verify, export
    Queue {
        #[command(subcommand)]
        what: records::Queue,
    },
    /// What backends refused for good: list, show, replay, drop, export
    DeadLetters {
        #[command(subcommand)]
        what: records::DeadLetters,
    },
    /// Make the running process read its configuration again, as SIGHUP does
    Reload(records::Place),
    /// What Weir can collect from, receive and export to
    Integrations {
        #[command(subcommand)]
        what: Option<Integrations>,
    },
    /// The configuration: its schema, or what is in effect and why
    Config {
        #[command(subcommand)]
        what: Config,
    },
    /// Version and build
    Version,
    /// Completions for a shell: weir completions bash > /etc/bash_completion.d/weir
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the integrations' reference pages
    #[command(hide = true)]
    Docs {
        /// Folder to write to
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum Integrations {
    /// One line each
    List,
    /// Everything about one: options, example, metrics
    Show {
        /// Its name, for example `prometheus`
        name: String,
    },
}

#[derive(Subcommand)]
enum Config {
    /// JSON Schema of weir.yaml, for editors
    Schema,
    /// Every option in effect, with its value and where it comes from
    Explain {
        /// Configuration file; without it /etc/weir/weir.yaml, or what needs none
        #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
        config: Option<PathBuf>,
    },
}

/// Exit code for a configuration that cannot be used, as for wrong arguments.
pub const WRONG_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    say::install_log();
    match arguments.command {
        #[cfg(feature = "server")]
        Command::Serve(command) => serve::run(command),
        Command::Agent { config, data, once } => agent::run(config.as_deref(), data, once),
        Command::Ledger(arguments) => records::ledger(&arguments),
        Command::Queue { what } => records::queue(&what),
        Command::DeadLetters { what } => records::dead_letters(&what),
        Command::Reload(place) => records::reload(&place),
        Command::Join(arguments) => join::run(&arguments),
        Command::Check { config } => check::run(config.as_deref()),
        Command::Integrations { what: None | Some(Integrations::List) } => reference::list(),
        Command::Integrations { what: Some(Integrations::Show { name }) } => reference::show(&name),
        Command::Config { what: Config::Schema } => reference::schema(),
        Command::Config { what: Config::Explain { config } } => reference::explain(config.as_deref()),
        Command::Docs { out } => reference::write_pages(&out),
        Command::Version => say::out(&format!("weir {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "weir", &mut script);
            say::out(&String::from_utf8_lossy(&script))
        }
    }
}
