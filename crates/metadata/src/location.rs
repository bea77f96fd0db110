//! Where the metadata database is.

use std::fmt;
use std::path::PathBuf;

use url::Url;
use weir_config::Secret;

use crate::OpenError;

/// What sqlx understands behind the `?` of a PostgreSQL URL. Others it would ignore and log with
/// their value, which may be a password under a misspelt name.
const PARAMETERS: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "options[",
];

/// Where the metadata database is. Prints without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A file of SQLite; it is created where it is missing, its folder is not.
    Sqlite(PathBuf),
    /// A URL of PostgreSQL: `postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`.
    Url(Secret),
}

impl Location {
    /// Reads `postgres://...`, `postgresql://...`, `sqlite:PATH` or a path.
    ///
    /// # Errors
    /// The text is empty, or is a URL of another kind, or a PostgreSQL URL that cannot be right.
    pub fn parse(text: &str) -> Result<Location, OpenError> {
        let text = text.trim();
        let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        match scheme.as_deref() {
            Some("postgres" | "postgresql") => {
                check_postgres(text).map_err(OpenError::Location)?;
                Ok(Location::Url(Secret::new(text)))
            }
            Some("sqlite") | None => {
                let path = text.strip_prefix("sqlite:").unwrap_or(text);
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() || path == ":memory:" {
                    return Err(OpenError::Location("a file name or a postgresql:// URL is missing".to_owned()));
                }
                Ok(Location::Sqlite(PathBuf::from(path)))
            }
            // Not quoted further: what follows may be a password.
            Some(_) => Err(OpenError::Location(
                "the URL is of an unknown kind; expected a file name, sqlite:PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
                    .to_owned(),
            )),
        }
    }
}

/// Finds what would go wrong silently or tell a password.
pub(crate) fn check_postgres(text: &str) -> Result<Url, String> {
    const ENCODE: &str =
        "write special characters of the password percent-encoded (%40 for @, %2F for /, %23 for #, %3F for ?)";
    let url = Url::parse(text).map_err(|error| format!("the PostgreSQL URL cannot be read ({error}); {ENCODE}"))?;
    let misplaced =
        url.fragment().is_some() || url.path().contains('@') || url.query().is_some_and(|q| q.contains('@'));
    if misplaced {
        return Err(format!("the PostgreSQL URL has a # or @ in the wrong place; {ENCODE}"));
    }
    for (key, _) in url.query_pairs() {
        let known = PARAMETERS.contains(&&*key) || key.starts_with("options[");
        if !known {
            return Err(format!(
                "the PostgreSQL URL has the unknown parameter {key:?}; known ones are sslmode, sslrootcert, sslcert, \
                 sslkey, host, port, dbname, user, password, application_name, options, statement-cache-capacity"
            ));
        }
    }
    Ok(url)
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Sqlite(path) => write!(f, "{}", path.display()),
            Location::Url(url) => match check_postgres(url.expose()) {
                Ok(url) => write_postgres(f, &url),
                Err(_) => f.write_str("PostgreSQL"),
            },
        }
    }
}

fn write_postgres(f: &mut fmt::Formatter<'_>, url: &Url) -> fmt::Result {
    let parameter = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    let host =
        parameter("host").or_else(|| url.host_str().map(str::to_owned)).unwrap_or_else(|| "localhost".to_owned());
    write!(f, "PostgreSQL at {}", host.replace("%2F", "/"))?;
    if let Some(port) = parameter("port").or_else(|| url.port().map(|port| port.to_string())) {
        write!(f, ":{port}")?;
    }
    let database = parameter("dbname").unwrap_or_else(|| url.path().trim_start_matches('/').to_owned());
    if database.is_empty() { Ok(()) } else { write!(f, ", database {database}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_urls_are_told_apart() {
        let sqlite = |path: &str| Location::Sqlite(PathBuf::from(path));
        assert_eq!(Location::parse("/var/lib/weir/metadata.sqlite"), Ok(sqlite("/var/lib/weir/metadata.sqlite")));
        assert_eq!(Location::parse("sqlite:meta.db"), Ok(sqlite("meta.db")));
        assert_eq!(Location::parse("sqlite:///var/meta.db"), Ok(sqlite("/var/meta.db")));
        assert!(matches!(Location::parse("postgresql://db/weir"), Ok(Location::Url(_))));
        assert!(Location::parse(" ").is_err() && Location::parse("sqlite::memory:").is_err());
    }

    #[test]
    fn no_text_about_a_url_tells_its_password() {
        for url in [
            "postgres://weir:hunter2@db.example:5433/weir",
            "postgres://weir@db/weir?password=hunter2",
            "mysql://weir:hunter2@db/weir",
            "postgres://weir:hunter2/@db/weir",
            "postgres://weir:4711#hunter2@db/weir",
            "postgres://weir:4711/hunter2@db/weir",
            "postgres://weir:4711?hunter2@db/weir",
            "postgres://weir@db/weir?pasword=hunter2",
        ] {
            let texts = match Location::parse(url) {
                Ok(location) => [location.to_string(), format!("{location:?}")],
                Err(error) => [error.to_string(), format!("{error:?}")],
            };
            assert!(texts.iter().all(|text| !text.contains("hunter2") && !text.contains("4711")), "{texts:?}");
        }
    }

    #[test]
    fn a_url_prints_as_host_port_and_database() {
        let place = |url| Location::parse(url).expect("a location").to_string();
        assert_eq!(place("postgres://weir:x@db.example:5433/weir"), "PostgreSQL at db.example:5433, database weir");
        assert_eq!(place("postgres:///weir?host=/run/postgresql"), "PostgreSQL at /run/postgresql, database weir");
    }
}
