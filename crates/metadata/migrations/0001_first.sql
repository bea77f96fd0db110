-- One text for SQLite and PostgreSQL. Types are TEXT, BIGINT and DOUBLE PRECISION alone: times are
-- unix milliseconds, JSON is text, secrets are the SHA-256 of their text in hexadecimal.

CREATE TABLE servers (
  id TEXT NOT NULL PRIMARY KEY,
  hostname TEXT NOT NULL UNIQUE,
  ip_address TEXT,
  environment TEXT,
  location TEXT,
  tags TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  kind TEXT,
  facts TEXT NOT NULL
);

CREATE TABLE agents (
  id TEXT NOT NULL PRIMARY KEY,
  hostname TEXT NOT NULL,
  agent_type TEXT,
  version TEXT,
  tags TEXT NOT NULL,
  attributes TEXT NOT NULL,
  registered_ms BIGINT NOT NULL,
  last_heartbeat_ms BIGINT,
  heartbeat TEXT NOT NULL,
  interval_seconds DOUBLE PRECISION
);
CREATE INDEX agents_hostname ON agents (hostname);

CREATE TABLE gaps (
  hostname TEXT NOT NULL,
  from_ms BIGINT NOT NULL,
  to_ms BIGINT NOT NULL,
  PRIMARY KEY (hostname, from_ms)
);

-- agent_id has no foreign key: a key outlives its agent, revoked, so that the list tells about it.
CREATE TABLE api_keys (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  secret_hash TEXT NOT NULL UNIQUE,
  scopes TEXT NOT NULL,
  imported BIGINT NOT NULL,
  agent_id TEXT,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT,
  last_used_ms BIGINT,
  revoked_ms BIGINT
);
CREATE INDEX api_keys_agent ON api_keys (agent_id);

CREATE TABLE enrolment_tokens (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  token_hash TEXT NOT NULL UNIQUE,
  uses BIGINT NOT NULL,
  used BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL,
  revoked_ms BIGINT
);

CREATE TABLE login_tokens (
  token_hash TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  expires_ms BIGINT NOT NULL
);

CREATE TABLE sessions (
  token_hash TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL
);

CREATE TABLE alerts (
  id TEXT NOT NULL PRIMARY KEY,
  received_ms BIGINT NOT NULL,
  source TEXT NOT NULL,
  severity TEXT,
  title TEXT NOT NULL,
  server TEXT,
  status TEXT,
  fingerprint TEXT,
  body TEXT NOT NULL
);
CREATE INDEX alerts_received ON alerts (received_ms, id);
