/**
 * The shapes the dashboard reads from the server, by hand.
 *
 * Once the server's document exists: save it as `web/openapi.json`, run `npm run generate` and replace each type below by
 * its generated twin, such as `export type HostRow = components["schemas"]["HostRow"]`. Nothing else imports the
 * generated file.
 */

export type HostStatus = "up" | "late" | "down" | "unknown";
export type HostKind = "weir" | "agentops" | "agent_monitor" | "openfinops" | "otlp";

/** One host as the Hosts view shows it. `null` means: this host has not sent it. */
export interface HostRow {
  name: string;
  id: string;
  status: HostStatus;
  last_seen_ms: number | null;
  status_since_ms: number | null;
  interval_seconds: number | null;
  kind: HostKind;
  environment: string | null;
  location: string | null;
  ip_address: string | null;
  tags: string[];
  os: string | null;
  agent_version: string | null;
  /** Fraction of all cores, 0 to 1. */
  cpu: number | null;
  cpu_count: number | null;
  /** Fraction, 0 to 1. */
  memory: number | null;
  memory_total_bytes: number | null;
  /** Fraction, 0 to 1, of the file system at `disk_mount`. */
  disk: number | null;
  disk_total_bytes: number | null;
  disk_mount: string | null;
  network_receive_bytes_per_second: number | null;
  network_transmit_bytes_per_second: number | null;
  /** The single figure of agents that do not split by direction. */
  network_bits_per_second: number | null;
  load1: number | null;
  load5: number | null;
  load15: number | null;
  uptime_seconds: number | null;
  process_count: number | null;
  /** The hottest sensor. */
  temperature_celsius: number | null;
  /** CPU per minute, oldest first, 60 entries. */
  sparkline: (number | null)[];
  sparkline_end_ms: number;
}

export interface HostsAnswer {
  now_ms: number;
  hosts: HostRow[];
}

export interface NotWatched {
  what: string;
  why: string;
}

export interface Watching {
  watched: string[];
  not_watched: NotWatched[];
}

export interface IntegrationWatching extends Watching {
  integration: string;
}

export interface NamedWatching extends Watching {
  name: string;
}

export interface StatusAnswer {
  version: string;
  now_ms: number;
  started_ms: number;
  host_name: string;
  public_url: string;
  data_folder: string;
  retention_seconds: number;
  keyless_loopback: boolean;
  store: { series: number; samples: number; memory_bytes: number; disk_bytes: number; oldest_ms: number | null };
  watching: IntegrationWatching[];
}

export type Scope = "ingest" | "read" | "admin";

export interface SessionAnswer {
  name: string;
  scopes: Scope[];
  version?: string;
}

/** A join token as it is created: the only time its text and its command are shown. */
export interface JoinToken {
  id: string;
  token: string;
  command: string;
  uses: number;
  used: number;
  created_ms: number;
  expires_ms: number;
}

export interface Agent {
  id: string;
  hostname: string;
  agent_type: string | null;
  status: HostStatus;
  version: string | null;
  registered_ms: number;
  last_heartbeat_ms: number | null;
  tags: string[];
}

export interface HostAnswer {
  host: HostRow;
  facts: { name: string; value: string }[];
  disconnected: { from_ms: number; to_ms: number | null }[];
  integrations: NamedWatching[];
  agent: Agent | null;
}

export interface Process {
  pid: number;
  name: string;
  user: string | null;
  /** Cores: 1 is one core fully used. */
  cpu: number | null;
  memory_bytes: number | null;
  threads: number | null;
}

export interface ProcessesAnswer {
  at_ms: number | null;
  processes: Process[];
}

export interface Probe {
  target: string;
  type: string;
  success: boolean;
  duration_ms: number | null;
  status_code: number | null;
  error: string | null;
  at_ms: number;
}

export interface ProbesAnswer {
  probes: Probe[];
}

export type Aggregate = "sum" | "avg" | "max" | "min";

export interface Query {
  id: string;
  metric: string;
  match: Record<string, string>;
  by?: string[];
  /** For counters: per second, resets handled. */
  rate?: boolean;
  aggregate?: Aggregate;
}

export interface QueryRequest {
  from_ms: number;
  to_ms: number;
  step_ms: number;
  queries: Query[];
}

export interface QuerySeries {
  labels: Record<string, string>;
  values: (number | null)[];
  min: (number | null)[];
  max: (number | null)[];
}

export interface QueryResult {
  id: string;
  unit: string;
  series: QuerySeries[];
}

/** A step without a sample is `null` in every array: a gap, not a zero. */
export interface QueryAnswer {
  from_ms: number;
  to_ms: number;
  step_ms: number;
  times_ms: number[];
  results: QueryResult[];
}

export interface ErrorAnswer {
  status: "error";
  code: string;
  message: string;
  field?: string;
  expected?: string;
}

/** What arrives over `/ws?topics=hosts`. */
export type LiveMessage =
  | { type: "hosts"; now_ms: number; rows: HostRow[] }
  | { type: "removed"; names: string[] }
  | { type: "pong" }
  | ({ type: "error" } & Omit<ErrorAnswer, "status">);
