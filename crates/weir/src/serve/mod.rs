//! What a server's command line can do: `up`, `server`, `keys`, `tokens`, `login`. An agent alone is
//! built without the feature `server`, and then without the store, the databases and the dashboard.

mod access;
mod place;
mod up;

use std::process::ExitCode;

use clap::Subcommand;

use crate::say;

/// The commands of a server.
#[derive(Subcommand)]
pub enum Command {
    /// Watch this machine and serve the dashboard: server, agent and storage in one, no file needed
    Up(up::Arguments),
    /// Serve the dashboard and store what others send, without watching this machine
    Server(up::Arguments),
    /// API keys: create, list, revoke
    Keys {
        #[command(subcommand)]
        what: access::Keys,
    },
    /// Tokens with which machines join: create, list, revoke
    Tokens {
        #[command(subcommand)]
        what: access::Tokens,
    },
    /// Print a new link that signs a browser in, once, within 10 minutes
    Login(access::Place),
    /// Print the OpenAPI document of the server
    #[command(hide = true)]
    Openapi,
}

/// Does what the command says.
pub fn run(command: Command) -> ExitCode {
    match command {
        Command::Up(arguments) => up::run(&arguments, up::Serve::WithAgent),
        Command::Server(arguments) => up::run(&arguments, up::Serve::Alone),
        Command::Keys { what } => access::keys(&what),
        Command::Tokens { what } => access::tokens(&what),
        Command::Login(place) => access::login(&place),
        Command::Openapi => openapi(),
    }
}

/// The OpenAPI document of the server, from which the dashboard's types are made.
fn openapi() -> ExitCode {
    match weir_server::api::document().to_pretty_json() {
        Ok(document) => say::out(&format!("{document}\n")),
        Err(error) => {
            say::note(&format!("weir: the document cannot be written: {error}"));
            ExitCode::FAILURE
        }
    }
}
