//! `weir keys`, `weir tokens` and `weir login`: they work on the data folder, beside a running server.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use weir_agent::Source;
use weir_config::{Duration, Environment, Settings};
use weir_metadata::{Metadata, NewKey, NewToken, Scopes};
use weir_server::now_ms;

use super::place;
use crate::say;

/// Whose keys and tokens.
#[derive(Args)]
pub struct Place {
    /// Folder of the server's data; by default /var/lib/weir as root, else ~/.local/share/weir
    #[arg(long, value_name = "DIR", env = "WEIR_DATA")]
    data: Option<PathBuf>,
    /// The server's configuration file; without it /etc/weir/weir.yaml if it is there
    #[arg(long, short, value_name = "FILE", env = "WEIR_CONFIG")]
    config: Option<PathBuf>,
}

/// `weir keys`.
#[derive(Subcommand)]
pub enum Keys {
    /// Make a key and print it, once
    Create {
        /// What it is for, for example `grafana`
        name: String,
        /// What it may do: ingest, read, admin; several times for several
        #[arg(long = "scope", value_name = "SCOPE", default_values_t = [String::from("ingest")])]
        scopes: Vec<String>,
        /// How long it is good, for example `90d`; without it until it is revoked
        #[arg(long, value_name = "DURATION")]
        expires: Option<Duration>,
        #[command(flatten)]
        place: Place,
    },
    /// One line per key
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Make a key useless, within 5 seconds
    Revoke {
        /// Its id, as `weir keys list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// `weir tokens`.
#[derive(Subcommand)]
pub enum Tokens {
    /// Make a token and print the command with which a machine joins
    Create {
        /// How many machines may join with it
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=1000))]
        uses: i64,
        /// How long it is good
        #[arg(long, value_name = "DURATION", default_value = "24h")]
        expires: Duration,
        /// What it is for
        #[arg(long, value_name = "NAME", default_value = "")]
        name: String,
        #[command(flatten)]
        place: Place,
    },
    /// One line per token
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Make a token useless
    Revoke {
        /// Its id, as `weir tokens list` shows it
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// The opened metadata of a server, and its folder.
struct Opened {
    metadata: Metadata,
    folder: PathBuf,
}

/// `weir keys`.
pub fn keys(what: &Keys) -> ExitCode {
    match what {
        Keys::Create { name, scopes, expires, place } => with(place, async |opened| {
            let scopes = Scopes::from_names(scopes.iter().map(String::as_str)).map_err(|error| error.to_string())?;
            let expires_ms = expires.map(|expires| expiry(&expires));
            let new = NewKey { name: name.clone(), scopes, agent_id: None, expires_ms };
            let (_, text) = opened.metadata.create_key(new, now_ms()).await.map_err(|error| error.to_string())?;
            Ok(format!("{}\n", text.expose()))
        }),
        Keys::List { place } => with(place, async |opened| {
            let keys = opened.metadata.keys().await.map_err(|error| error.to_string())?;
            let rows = keys.into_iter().map(|key| {
                let state = match (key.revoked_ms, key.expires_ms) {
                    (Some(_), _) => "revoked".to_owned(),
                    (None, Some(at)) if at <= now_ms() => "expired".to_owned(),
                    (None, Some(at)) => format!("until {}", day(at)),
                    (None, None) => "good".to_owned(),
                };
                [key.id, key.scopes.to_string(), state, key.agent_id.unwrap_or_default(), key.name]
            });
            Ok(table(["id", "scopes", "state", "agent", "name"], rows.collect()))
        }),
        Keys::Revoke { id, place } => with(place, async |opened| {
            opened
                .metadata
                .revoke_key(id, now_ms())
                .await
                .map_err(|error| format!("{error} (`weir keys list` shows all)"))?;
            Ok(format!("revoked {id}\n"))
        }),
    }
}

/// `weir tokens`.
pub fn tokens(what: &Tokens) -> ExitCode {
    match what {
        Tokens::Create { uses, expires, name, place } => with(place, async |opened| {
            let new = NewToken { name: name.clone(), uses: *uses, expires_ms: expiry(expires) };
            let (_, token) = opened.metadata.create_token(new, now_ms()).await.map_err(|error| error.to_string())?;
            let url = place::noted_address(&opened.folder).unwrap_or_else(|| "http://SERVER:8088".to_owned());
            Ok(format!("{}\n", weir_server::join_command(&url, &token)))
        }),
        Tokens::List { place } => with(place, async |opened| {
            let tokens = opened.metadata.tokens().await.map_err(|error| error.to_string())?;
            let rows = tokens.into_iter().map(|token| {
                let state = match token.revoked_ms {
                    Some(_) => "revoked".to_owned(),
                    None if token.expires_ms <= now_ms() => "expired".to_owned(),
                    None if token.used >= token.uses => "used up".to_owned(),
                    None => format!("until {}", day(token.expires_ms)),
                };
                [token.id, format!("{} of {}", token.used, token.uses), state, token.name]
            });
            Ok(table(["id", "used", "state", "name"], rows.collect()))
        }),
        Tokens::Revoke { id, place } => with(place, async |opened| {
            opened
                .metadata
                .revoke_token(id, now_ms())
                .await
                .map_err(|error| format!("{error} (`weir tokens list` shows all)"))?;
            Ok(format!("revoked {id}\n"))
        }),
    }
}

/// `weir login`.
pub fn login(place: &Place) -> ExitCode {
    with(place, async |opened| {
        let token = opened.metadata.create_login_token("admin", now_ms()).await.map_err(|error| error.to_string())?;
        let url = place::noted_address(&opened.folder)
            .ok_or_else(|| format!("no server ever ran on {}; start one with `weir up`", opened.folder.display()))?;
        Ok(format!("{}\n", weir_server::auth::session::link(&url, &token)))
    })
}

/// Opens the metadata, does something with it, and says the result.
fn with(place: &Place, act: impl AsyncFnOnce(&Opened) -> Result<String, String>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say::note(&format!("weir: cannot start threads: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let opened = open(place).await?;
        let result = act(&opened).await;
        opened.metadata.close().await;
        result
    });
    match result {
        Ok(text) => say::out(&text),
        Err(error) => {
            say::note(&format!("weir: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn open(place: &Place) -> Result<Opened, String> {
    let settings = match Source::find(place.config.as_deref()) {
        Source::Defaults => Settings::default(),
        Source::File(file) => {
            let text =
                std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
            Settings::parse(&file.display().to_string(), &text, &Environment)
                .map_err(|problems| problems.to_string())?
        }
    };
    let folder = weir_agent::data_folder(place.data.as_deref(), &settings);
    let location = place::metadata_location(&folder, &settings.server)?;
    if settings.server.metadata.is_none() && std::fs::metadata(&folder).is_err() {
        return Err(format!("there is no data folder {}; name it with --data", folder.display()));
    }
    let metadata = Metadata::open(&location).await.map_err(|error| error.to_string())?;
    Ok(Opened { metadata, folder })
}

/// The time at which something that is good for so long ends, unix milliseconds.
fn expiry(good_for: &Duration) -> i64 {
    let good_for: std::time::Duration = (*good_for).into();
    now_ms().saturating_add(i64::try_from(good_for.as_millis()).unwrap_or(i64::MAX))
}

/// A time as a date and a time of day in UTC.
fn day(unix_ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(unix_ms);
    time.map_or_else(|_| "for ever".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// Rows in columns as wide as their widest cell.
fn table<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> String {
    let all: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = width(column).unwrap_or(0)))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}
