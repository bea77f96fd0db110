//! Agents: processes that report, and their heartbeats.

use serde_json::{Map, Value as Json};

use crate::database::{Row, Transaction, all, first, to_json};
use crate::{Metadata, MetadataError, random};

/// An agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    /// Chosen by the agent, or a random UUID.
    pub id: String,
    /// The host it runs on.
    pub hostname: String,
    /// Such as `weir`, `aws`, `generic`.
    pub agent_type: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Labels.
    pub tags: Vec<String>,
    /// Everything else that it said when it registered.
    pub attributes: Json,
    /// When it registered first, unix milliseconds.
    pub registered_ms: i64,
    /// When it was last alive, unix milliseconds.
    pub last_heartbeat_ms: Option<i64>,
    /// Its last heartbeat, as it came; `null` before the first.
    pub heartbeat: Json,
    /// How often it reports, in seconds, by its own words.
    pub interval_seconds: Option<f64>,
}

/// An agent that registers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewAgent {
    /// Its id. `None`: the agent that registered last from this host, else a random UUID.
    pub id: Option<String>,
    /// The host it runs on.
    pub hostname: String,
    /// Its type; `None` keeps what is known.
    pub agent_type: Option<String>,
    /// Its version; `None` keeps what is known.
    pub version: Option<String>,
    /// All labels.
    pub tags: Vec<String>,
    /// All other fields, as JSON.
    pub attributes: Map<String, Json>,
}

fn agent(row: &Row) -> Result<Agent, MetadataError> {
    Ok(Agent {
        id: row.get("id")?,
        hostname: row.get("hostname")?,
        agent_type: row.get("agent_type")?,
        version: row.get("version")?,
        tags: row.json("tags")?,
        attributes: row.json("attributes")?,
        registered_ms: row.get("registered_ms")?,
        last_heartbeat_ms: row.get("last_heartbeat_ms")?,
        heartbeat: row.json("heartbeat")?,
        interval_seconds: row.get("interval_seconds")?,
    })
}

fn not_found(id: &str) -> MetadataError {
    MetadataError::NotFound { what: "agent", id: id.to_owned() }
}

/// Registers within a transaction.
pub(crate) async fn register(
    transaction: &mut Transaction,
    new: NewAgent,
    now_ms: i64,
) -> Result<Agent, MetadataError> {
    let id = match new.id {
        Some(id) => id,
        None => id_for(transaction, &new.hostname).await?,
    };
    let values = vec![
        id.as_str().into(),
        new.hostname.into(),
        new.agent_type.into(),
        new.version.into(),
        to_json("tags", &new.tags)?.into(),
        to_json("attributes", &new.attributes)?.into(),
        now_ms.into(),
    ];
    let rows = transaction
        .rows(
            "INSERT INTO agents (id, hostname, agent_type, version, tags, attributes, registered_ms, heartbeat) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 'null') \
             ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, \
             agent_type = COALESCE(excluded.agent_type, agents.agent_type), \
             version = COALESCE(excluded.version, agents.version), \
             tags = excluded.tags, attributes = excluded.attributes \
             RETURNING id, hostname, agent_type, version, tags, attributes, registered_ms, last_heartbeat_ms, \
             heartbeat, interval_seconds",
            values,
        )
        .await?;
    agent(&first(rows).ok_or_else(|| not_found(&id))?)
}

/// The id for an agent that brings none: a second start of it must not become a second agent.
async fn id_for(transaction: &mut Transaction, hostname: &str) -> Result<String, MetadataError> {
    transaction.lock(&format!("agents.hostname {hostname}")).await?;
    let sql = "SELECT id FROM agents WHERE hostname = $1 ORDER BY registered_ms DESC, id LIMIT 1";
    match first(transaction.rows(sql, vec![hostname.into()]).await?) {
        Some(row) => row.get("id"),
        None => random::uuid(),
    }
}

impl Metadata {
    /// Registers an agent, or replaces what it said before; `registered_ms` stays.
    ///
    /// # Errors
    /// The database fails.
    pub async fn register_agent(&self, new: NewAgent, now_ms: i64) -> Result<Agent, MetadataError> {
        let mut transaction = self.database.begin().await?;
        let agent = register(&mut transaction, new, now_ms).await?;
        transaction.commit().await?;
        Ok(agent)
    }

    /// Keeps a heartbeat; its `interval_seconds` and `agent_version` become the agent's.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`] for an agent that never registered.
    pub async fn heartbeat(&self, id: &str, at_ms: i64, body: &Json) -> Result<(), MetadataError> {
        let interval = body.get("interval_seconds").and_then(Json::as_f64).filter(|seconds| *seconds > 0.0);
        let version = body.get("agent_version").and_then(Json::as_str).map(str::to_owned);
        let values = vec![id.into(), at_ms.into(), to_json("heartbeat", body)?.into(), interval.into(), version.into()];
        let rows = self
            .database
            .write(
                "UPDATE agents SET last_heartbeat_ms = $2, heartbeat = $3, \
                 interval_seconds = COALESCE($4, interval_seconds), version = COALESCE($5, version) \
                 WHERE id = $1 RETURNING id",
                values,
            )
            .await?;
        if rows.is_empty() { Err(not_found(id)) } else { Ok(()) }
    }

    /// The agent with this id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn agent(&self, id: &str) -> Result<Option<Agent>, MetadataError> {
        let sql = "SELECT id, hostname, agent_type, version, tags, attributes, registered_ms, last_heartbeat_ms, \
                   heartbeat, interval_seconds FROM agents WHERE id = $1";
        self.database.read(sql, vec![id.into()]).await?.first().map(agent).transpose()
    }

    /// All agents by hostname and id.
    ///
    /// # Errors
    /// The database fails.
    pub async fn agents(&self) -> Result<Vec<Agent>, MetadataError> {
        let sql = "SELECT id, hostname, agent_type, version, tags, attributes, registered_ms, last_heartbeat_ms, \
                   heartbeat, interval_seconds FROM agents";
        let mut agents = all(&self.database.read(sql, vec![]).await?, agent)?;
        agents.sort_by(|one, other| (&one.hostname, &one.id).cmp(&(&other.hostname, &other.id)));
        Ok(agents)
    }

    /// The agents of a host, the one that was heard last first.
    ///
    /// # Errors
    /// The database fails.
    pub async fn agents_by_hostname(&self, hostname: &str) -> Result<Vec<Agent>, MetadataError> {
        let sql = "SELECT id, hostname, agent_type, version, tags, attributes, registered_ms, last_heartbeat_ms, \
                   heartbeat, interval_seconds FROM agents WHERE hostname = $1 \
                   ORDER BY COALESCE(last_heartbeat_ms, registered_ms) DESC, id";
        all(&self.database.read(sql, vec![hostname.into()]).await?, agent)
    }

    /// Deletes an agent and revokes its keys.
    ///
    /// # Errors
    /// [`MetadataError::NotFound`].
    pub async fn delete_agent(&self, id: &str, now_ms: i64) -> Result<(), MetadataError> {
        let mut transaction = self.database.begin().await?;
        let deleted = transaction.rows("DELETE FROM agents WHERE id = $1 RETURNING id", vec![id.into()]).await?;
        if deleted.is_empty() {
            return Err(not_found(id));
        }
        let sql = "UPDATE api_keys SET revoked_ms = $2 WHERE agent_id = $1 AND revoked_ms IS NULL";
        transaction.rows(sql, vec![id.into(), now_ms.into()]).await?;
        transaction.commit().await?;
        self.key_cache.forget_all();
        Ok(())
    }
}
