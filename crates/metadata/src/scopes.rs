//! What a key may do.

use std::fmt;
use std::str::FromStr;

/// One right of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Send data.
    Ingest,
    /// Read data.
    Read,
    /// Everything, keys included.
    Admin,
}

impl Scope {
    /// As it is written in the API and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Scope::Ingest => "ingest",
            Scope::Read => "read",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The rights of a key. Prints as `ingest,read` and is read back from that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// May send data.
    pub ingest: bool,
    /// May read data.
    pub read: bool,
    /// May do everything.
    pub admin: bool,
}

impl Scopes {
    /// Sends data: what an agent has.
    pub const INGEST: Scopes = Scopes { ingest: true, read: false, admin: false };
    /// Reads data.
    pub const READ: Scopes = Scopes { ingest: false, read: true, admin: false };
    /// Does everything.
    pub const ADMIN: Scopes = Scopes { ingest: false, read: false, admin: true };
    /// What a person at the dashboard has: it reads and administers.
    pub const SESSION: Scopes = Scopes { ingest: false, read: true, admin: true };

    /// Whether this right is among them; `admin` implies all.
    #[must_use]
    pub fn allows(self, scope: Scope) -> bool {
        self.admin
            || match scope {
                Scope::Ingest => self.ingest,
                Scope::Read => self.read,
                Scope::Admin => false,
            }
    }

    /// Their names: ingest, read, admin.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let flags = [(self.ingest, Scope::Ingest), (self.read, Scope::Read), (self.admin, Scope::Admin)];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, scope)| scope.name()).collect()
    }

    /// From a list of names.
    ///
    /// # Errors
    /// One of them is unknown, or there is none.
    pub fn from_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Scopes, UnknownScope> {
        let mut scopes = Scopes::default();
        for name in names {
            match name.trim() {
                "ingest" => scopes.ingest = true,
                "read" => scopes.read = true,
                "admin" => scopes.admin = true,
                other => return Err(UnknownScope { name: other.to_owned() }),
            }
        }
        if scopes == Scopes::default() { Err(UnknownScope { name: String::new() }) } else { Ok(scopes) }
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

impl FromStr for Scopes {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Scopes, UnknownScope> {
        Scopes::from_names(text.split(','))
    }
}

/// A text that names no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected at least one of ingest, read, admin, found {name:?}")]
pub struct UnknownScope {
    /// That text.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_print_and_are_read_back() {
        for text in ["ingest", "read", "admin", "ingest,read", "ingest,read,admin"] {
            assert_eq!(text.parse::<Scopes>().map(|scopes| scopes.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("read, ingest".parse(), Ok(Scopes { ingest: true, read: true, admin: false }));
        for wrong in ["", "write", "read,", "ADMIN"] {
            assert!(wrong.parse::<Scopes>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn admin_implies_all_and_nothing_else_implies_more() {
        let allowed = |scopes: Scopes| [Scope::Ingest, Scope::Read, Scope::Admin].map(|scope| scopes.allows(scope));
        assert_eq!(allowed(Scopes::INGEST), [true, false, false]);
        assert_eq!(allowed(Scopes::READ), [false, true, false]);
        assert_eq!(allowed(Scopes::ADMIN), [true, true, true]);
        assert_eq!(allowed(Scopes::default()), [false, false, false]);
    }
}
