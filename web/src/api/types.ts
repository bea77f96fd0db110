/**
 * What the server answers, under the names that the dashboard uses. The shapes are made from the server's own document:
 * `make docs` writes `web/openapi.json` and `openapi.d.ts`. Nothing else imports the generated file.
 */

import type { components } from "./openapi";

type Schemas = components["schemas"];

/** The server sends every field of these, `null` where it knows nothing; its document says only that `null` may come. */
type Told<T> = { [Field in keyof T]-?: T[Field] };

export type HostStatus = Schemas["Status"];
export type HostKind = Schemas["Reporter"];
export type HostRow = Told<Schemas["HostRow"]>;
export type HostsAnswer = Omit<Schemas["Hosts"], "hosts"> & { hosts: HostRow[] };
export type Disconnected = Told<Schemas["Disconnected"]>;
export type NamedWatching = Schemas["WatchedBy"];
export type Agent = Told<Schemas["HostAgent"]>;
export type HostAnswer = Omit<Schemas["HostDetail"], "host" | "disconnected" | "agent"> & {
  host: HostRow;
  disconnected: Disconnected[];
  agent: Agent | null;
};
export type Process = Told<Schemas["Process"]>;
export type ProcessesAnswer = Omit<Told<Schemas["Processes"]>, "processes"> & { processes: Process[] };
export type Probe = Told<Schemas["Probe"]>;
export type ProbesAnswer = Omit<Schemas["Probes"], "probes"> & { probes: Probe[] };

/** Of a query only what is asked for has to be said. */
export type Query = Pick<Schemas["Query"], "id" | "metric" | "match"> & Partial<Schemas["Query"]>;
export type QuerySeries = Schemas["Line"];
export type QueryResult = Schemas["QueryResult"];
/** A step without a sample is `null` in every array: a gap, not a zero. */
export type QueryAnswer = Schemas["QueryAnswer"];

export type StatusAnswer = Schemas["StatusAnswer"];
export type SessionAnswer = Schemas["SessionAnswer"];
/** A join token as it is created: the only time its text and its command are shown. */
export type JoinToken = Schemas["CreatedToken"];
export type ErrorAnswer = Schemas["ErrorBody"];

export type Health = Schemas["HealthView"];
export type HealthState = Schemas["HealthState"];
export type PipelineSource = Schemas["SourceView"];
export type PipelineRoute = Schemas["RouteView"];
export type PipelineExporter = Schemas["ExporterView"];
export type Queue = Schemas["QueueView"];
/** One row of the ledger, in records: `accepted = delivered + queued + in_flight + dead_lettered + dropped`. */
export type LedgerRow = Schemas["LedgerRow"];
export type Signal = LedgerRow["signal"];
export type Flow = Schemas["FlowView"];
export type PipelineAnswer = Schemas["PipelineView"];
export type DeadLetter = Schemas["DeadLetter"];
export type DeadLettersAnswer = Schemas["DeadLettersView"];
export type DeadLetterDetail = Schemas["DeadLetterWithRecords"];
/** Which dead letters are meant: those of `ids`, or all that `exporter`, `source` and `signal` describe together. */
export type SelectedLetters = Partial<Schemas["Selected"]>;
export type DoneAnswer = Schemas["DoneView"];
export type ReloadAnswer = Schemas["ReloadAnswer"];

/** What arrives over `/ws?topics=hosts`. The document describes requests and answers only, so this is written by hand. */
export type LiveMessage =
  | { type: "hosts"; now_ms: number; rows: HostRow[] }
  | { type: "removed"; names: string[] }
  | { type: "pong" }
  | ({ type: "error" } & Omit<ErrorAnswer, "status">);
