/** What the pipeline's states and numbers are called. */

import { grouped, MISSING, moment, number } from "../ui/format";
import type { EdgeState, Part } from "./graph";
import { healthOf } from "./graph";
import type { Health, HealthState, Queue } from "../api/types";

const SPACE = "\u202f";

export const STATE_WORDS: Record<HealthState, string> = { healthy: "healthy", unhealthy: "unhealthy", initializing: "starting", disabled: "off" };

export const EDGE_WORDS: Record<EdgeState, string> = {
  ok: "records flow",
  idle: "no records at present",
  late: "records wait or are lost",
  down: "one end does not work",
};

/** What the ledger calls records that it cannot give to an exporter, or that came from none of the sources. */
export const NOWHERE = "-";
export const REPLAYED = "dead_letters";

/** The name of a part, as people read it. */
export function partName(part: Pick<Part, "column" | "name">): string {
  if (part.column === "exporter" && part.name === NOWHERE) return "no exporter";
  return part.column === "source" && part.name === REPLAYED ? "replayed dead letters" : part.name;
}

/** What is behind a part, in a word: its kind, or why it has none. */
export function partKind(part: Part): string {
  if (part.column === "route") return part.route === null ? "no route" : part.route.keep === null ? "route for everything" : "route";
  const own = part.column === "source" ? part.source : part.exporter;
  if (own !== null) return own.kind;
  if (part.name === NOWHERE) return "nothing takes these";
  return part.column === "source" && part.name === REPLAYED ? "put back into the queues" : "not configured any more";
}

/** "healthy since 14:02"; a part without health is told by its kind. */
export function healthWords(health: Health, nowMs: number): string {
  // A part that has not said anything yet has no since.
  return health.since_ms === 0 ? STATE_WORDS[health.state] : `${STATE_WORDS[health.state]} since ${moment(health.since_ms, nowMs)}`;
}

/** The state of a part in a word, for small boxes. */
export function stateWord(part: Part): string {
  const health = healthOf(part);
  return health === null ? partKind(part) : STATE_WORDS[health.state];
}

/** A reason for which records were dropped, as in "12 filtered". */
const REASONS: Record<string, string> = {
  refused: "refused by the backend",
  queue_full: "the queue was full",
  memory_full: "the memory for records was used up",
  expired: "too old, or too many attempts",
  withdrawn: "withdrawn: their sender sends them again",
  stopped: "Weir was stopped",
  no_route: "no route takes them",
  filtered: "left out by a route's `keep`",
  temporality: "first of a series, gives no point",
  not_encodable: "cannot be encoded",
  not_stored: "the disk failed; their source sends them again if it can",
  unreadable: "the disk cannot read them any more",
};

export function reasonWords(reason: string): string {
  return REASONS[reason] ?? reason.replaceAll("_", " ");
}

export const FULL_WORDS: Record<Queue["when_full"], string> = { block: "its sources wait", drop_oldest: "the oldest records are dropped" };

/** "12.3k": at most four characters and a unit, for boxes. */
export function compact(value: number): string {
  if (value < 10_000) return grouped(value);
  const [unit, size] = value < 999_500 ? ["k", 1e3] : value < 999_500_000 ? ["M", 1e6] : ["G", 1e9];
  return `${number(value / (size as number))}${SPACE}${unit}`;
}

/** "118/s". */
export function perSecond(rate: number | null | undefined): string {
  if (rate === null || rate === undefined) return MISSING;
  return `${rate >= 9_999.5 ? compact(Math.round(rate)) : number(rate)}/s`;
}
