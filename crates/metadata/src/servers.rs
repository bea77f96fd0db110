//! Servers: one record a host of the dashboard.

use serde_json::Value as Json;

use crate::database::{Row, all, first, to_json};
use crate::{Metadata, MetadataError, random};

/// A server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Chosen by whoever created it, or a random UUID.
    pub id: String,
    /// The name that telemetry carries as `host.name`; unique.
    pub hostname: String,
    /// Its address.
    pub ip_address: Option<String>,
    /// Such as `production`.
    pub environment: Option<String>,
    /// Such as `fra-1`.
    pub location: Option<String>,
    /// Labels: `web`, `team=core`.
    pub tags: Vec<String>,
    /// When it was created, unix milliseconds.
    pub created_ms: i64,
    /// Who reports it: `weir`, `agentops`, `otlp`, ...
    pub kind: Option<String>,
    /// What is known about it beside that.
    pub facts: Json,
}

/// A server to create.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewServer {
    /// Its id; `None`: a random UUID.
    pub id: Option<String>,
    /// Its name.
    pub hostname: String,
    /// Its address.
    pub ip_address: Option<String>,
    /// Its environment.
    pub environment: Option<String>,
    /// Its location.
    pub location: Option<String>,
    /// Its labels.
    pub tags: Vec<String>,
    /// Who reports it.
    pub kind: Option<String>,
    /// What is known about it beside that.
    pub facts: Json,
}

/// Changes of a server: `None` leaves a value, `Some(None)` removes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerPatch {
    /// A new name.
    pub hostname: Option<String>,
    /// A new address.
    pub ip_address: Option<Option<String>>,
    /// A new environment.
    pub environment: Option<Option<String>>,
    /// A new location.
    pub location: Option<Option<String>>,
    /// All labels.
    pub tags: Option<Vec<String>>,
    /// Who reports it.
    pub kind: Option<Option<String>>,
    /// All facts.
    pub facts: Option<Json>,
}

fn server(row: &Row) -> Result<Server, MetadataError> {
    Ok(Server {
        id: row.get("id")?,
        hostname: row.get("hostname")?,
        ip_address: row.get("ip_address")?,
        environment: row.get("environment")?,
        location: row.get("location")?,
        tags: row.json("tags")?,
        created_ms: row.get("created_ms")?,
        kind: row.get("kind")?,
        facts: row.json("facts")?,
    })
}

fn not_found(id: &str) -> MetadataError {
    MetadataError::NotFound { what: "server", id: id.to_owned() }
}

impl Metadata {
    /// Creates a server.
    ///
    /// # Errors
    /// [`MetadataError::Conflict`] when its id or hostname is taken.
    pub async fn create_server(&self, new: NewServer, now_ms: i64) -> Result<Server, MetadataError> {
        let id = match new.id {
            Some(id) => id,
            None => random::uuid()?,
        };
        let mut transaction = self.database.begin().await?;
        let values = vec![
            id.as_str().into(),
            new.hostname.as_str().into(),
            new.ip_address.into(),
            new.environment.into(),
            new.location.into(),
            to_json("tags", &new.tags)?.into(),
            now_ms.into(),
            new.kind.into(),
            to_json("facts", &new.facts)?.into(),
        ];
        let created = transaction
            .rows(
                "INSERT INTO servers (id, hostname, ip_address, environment, location, tags, created_ms, kind, facts) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING \
                 RETURNING id, hostname, ip_address, environment, location, tags, created_ms, kind, facts",
                values,
            )
            .await?;
        if let Some(row) = first(created) {
            transaction.commit().await?;
            return server(&row);
        }
        let same_id = transaction.rows("SELECT id FROM servers WHERE id = $1", vec![id.as_str().into()]).await?;
        Err(if same_id.is_empty() {
            MetadataError::Conflict { what: "hostname", value: new.hostname }
        } else {
            MetadataError::Conflict { what: "id", value: id }
        })
    }

    /// The server with this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn server(&self, id: &str) -> Result<Option<Server>, MetadataError> {
        let sql = "SELECT id, hostname, ip_address, environment, location, tags, created_ms, kind, facts \
                   FROM servers WHERE id = $1";
        self.database.read(sql, vec![id.into()]).await?.first().map(server).transpose()
    }

    /// The server with this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn server_by_hostname(&self, hostname: &str) -> Result<Option<Server>, MetadataError> {
        let sql = "SELECT id, hostname, ip_address, environment, location, tags, created_ms, kind, facts \
                   FROM servers WHERE hostname = $1";
        self.database.read(sql, vec![hostname.into()]).await?.first().map(server).transpose()
    }

    /// The server with this id, else the one with this name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn find_server(&self, id_or_hostname: &str) -> Result<Option<Server>, MetadataError> {
        let sql = "SELECT id, hostname, ip_address, environment, location, tags, created_ms, kind, facts \
                   FROM servers WHERE id = $1 OR hostname = $1 ORDER BY CASE WHEN id = $1 THEN 0 ELSE 1 END LIMIT 1";
        self.database.read(sql, vec![id_or_hostname.into()]).await?.first().map(server).transpose()
    }

    /// All servers by name.
    ///
    /// # Errors
    /// The database fails.
    pub async fn servers(&self) -> Result<Vec<Server>, MetadataError> {
        let sql = "SELECT id, hostname, ip_address, environment, location, tags, created_ms, kind, facts FROM servers";
        let mut servers = all(&self.database.read(sql, vec![]).await?, server)?;
        // Sorted here: PostgreSQL would sort by the language of its system.
        servers.sort_by(|one, other| one.hostname.cmp(&other.hostname));
        Ok(servers)
    }

    /// Changes a server.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`]; [`MetadataError::Conflict`] when the new hostname is taken.
    pub async fn update_server(&self, id: &str, patch: ServerPatch) -> Result<Server, MetadataError> {
        let mut transaction = self.database.begin().await?;
        // An update that changes nothing reads the row and holds it until the end, on both databases.
        let held = transaction
            .rows(
                "UPDATE servers SET id = id WHERE id = $1 \
                 RETURNING id, hostname, ip_address, environment, location, tags, created_ms, kind, facts",
                vec![id.into()],
            )
            .await?;
        let before = server(&first(held).ok_or_else(|| not_found(id))?)?;
        let after = Server {
            hostname: patch.hostname.unwrap_or(before.hostname),
            ip_address: patch.ip_address.unwrap_or(before.ip_address),
            environment: patch.environment.unwrap_or(before.environment),
            location: patch.location.unwrap_or(before.location),
            tags: patch.tags.unwrap_or(before.tags),
            kind: patch.kind.unwrap_or(before.kind),
            facts: patch.facts.unwrap_or(before.facts),
            id: before.id,
            created_ms: before.created_ms,
        };
        let values = vec![
            id.into(),
            after.hostname.as_str().into(),
            after.ip_address.clone().into(),
            after.environment.clone().into(),
            after.location.clone().into(),
            to_json("tags", &after.tags)?.into(),
            after.kind.clone().into(),
            to_json("facts", &after.facts)?.into(),
        ];
        let sql = "UPDATE servers SET hostname = $2, ip_address = $3, environment = $4, location = $5, tags = $6, \
                   kind = $7, facts = $8 WHERE id = $1";
        match transaction.rows(sql, values).await {
            Err(MetadataError::Conflict { .. }) => {
                return Err(MetadataError::Conflict { what: "hostname", value: after.hostname });
            }
            done => done.map(drop)?,
        }
        transaction.commit().await?;
        Ok(after)
    }

    /// Deletes a server and the gaps of its host.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`].
    pub async fn delete_server(&self, id: &str) -> Result<(), MetadataError> {
        let mut transaction = self.database.begin().await?;
        let deleted = transaction.rows("DELETE FROM servers WHERE id = $1 RETURNING hostname", vec![id.into()]).await?;
        let hostname: String = first(deleted).ok_or_else(|| not_found(id))?.get("hostname")?;
        transaction.rows("DELETE FROM gaps WHERE hostname = $1", vec![hostname.into()]).await?;
        transaction.commit().await
    }

    /// The server with this name, created where it is missing. Calls at the same time agree on one
    /// record. `kind` is kept from whoever named one first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn ensure_server(
        &self,
        hostname: &str,
        kind: Option<&str>,
        now_ms: i64,
    ) -> Result<Server, MetadataError> {
        if let Some(server) = self.server_by_hostname(hostname).await?
            && (server.kind.is_some() || kind.is_none())
        {
            return Ok(server);
        }
        let values = vec![random::uuid()?.into(), hostname.into(), now_ms.into(), kind.map(str::to_owned).into()];
        let rows = self
            .database
            .write(
                "INSERT INTO servers (id, hostname, tags, created_ms, kind, facts) VALUES ($1, $2, '[]', $3, $4, 'null') \
                 ON CONFLICT (hostname) DO UPDATE SET kind = COALESCE(servers.kind, excluded.kind) \
                 RETURNING id, hostname, ip_address, environment, location, tags, created_ms, kind, facts",
                values,
            )
            .await?;
        server(&first(rows).ok_or_else(|| not_found(hostname))?)
    }
}
