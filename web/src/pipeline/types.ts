/** What the server answers about the pipeline, under the names that the dashboard uses. */

export type Signal = "metrics" | "logs" | "traces";

export type HealthState = "healthy" | "unhealthy" | "initializing" | "disabled";

export interface Health {
  state: HealthState;
  since_ms: number;
  /** Why it is unhealthy, in the server's words. */
  reason: string | null;
}

export interface PipelineSource {
  name: string;
  kind: string;
  role: "collect" | "receive";
  health: Health;
  /** Rounds that were left out because the queues had no room. */
  skipped_polls: number;
}

export interface PipelineRoute {
  name: string;
  keep: string | null;
  set: Record<string, string>;
}

export interface Queue {
  kind: "disk" | "memory";
  records: number;
  bytes: number;
  limit_bytes: number;
  oldest_age_seconds: number | null;
  when_full: "block" | "drop_oldest";
  /** Why nothing more fits at the moment. */
  short_of: string | null;
}

export interface PipelineExporter {
  name: string;
  kind: string;
  health: Health;
  queue: Queue;
  in_flight_limit: number;
  paused_until_ms: number | null;
  requests: { succeeded: number; failed: number };
  last_error: { text: string; time_ms: number } | null;
  dead_letters: number;
}

/** One row of the ledger, in records: `accepted = delivered + queued + in_flight + dead_lettered + dropped`. */
export interface LedgerRow {
  source: string;
  exporter: string;
  signal: Signal;
  accepted: number;
  delivered: number;
  queued: number;
  in_flight: number;
  dead_lettered: number;
  /** By reason. */
  dropped: Record<string, number>;
  /** What does not add up; anything but 0 is an error of Weir. */
  difference: number;
}

export interface Flow extends LedgerRow {
  /** Index into the routes; null where no route of the present configuration leads there. */
  route: number | null;
}

export interface PipelineAnswer {
  time_ms: number;
  sources: PipelineSource[];
  routes: PipelineRoute[];
  exporters: PipelineExporter[];
  flows: Flow[];
}

export interface DeadLetter {
  id: string;
  exporter: string;
  source: string;
  signal: Signal;
  records: number;
  /** Records in the stored payload. */
  of: number;
  reason: string;
  status: number | null;
  answer: string | null;
  first_ms: number;
  last_ms: number;
  times: number;
  bytes: number;
}

export interface DeadLettersAnswer {
  /** Newest first. */
  dead_letters: DeadLetter[];
  total: number;
  bytes: number;
}

export interface DeadLetterDetail extends DeadLetter {
  /** The records as an OTLP JSON object. */
  payload: unknown;
}

export interface DoneAnswer {
  /** Dead letters that are gone: queued again, delivered, or dropped. */
  done: number;
  /** Those of the selection that are still there. */
  left: number;
  /** Of those left, the ones that were refused again. */
  refused: number;
  /** Why one was left: the last reason heard. */
  reason: string | null;
}

export interface ReloadAnswer {
  started: string[];
  stopped: string[];
  restarted: string[];
  unchanged: number;
}
