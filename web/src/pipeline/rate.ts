/** Rates: the difference of two snapshots, by the server's own time. */

import type { Flow, PipelineAnswer } from "../api/types";

/** So far back rates look: collectors record every 10 or 15 s, and a shorter look would show bursts and nothing between. */
export const WINDOW_MS = 30_000;

/** Reasons why records were left out on purpose, or are sent again by whoever sent them: no loss. */
const HARMLESS: ReadonlySet<string> = new Set(["filtered", "withdrawn"]);

/** Records per second. */
export interface Rate {
  accepted: number;
  delivered: number;
  /** Refused for good, or dropped for a reason that nobody chose. */
  lost: number;
}

export interface Rates {
  /** The time between the two snapshots. */
  seconds: number;
  flows: ReadonlyMap<string, Rate>;
  /** Growth of each exporter's queue in bytes per second. */
  queues: ReadonlyMap<string, number>;
}

/** What a flow is known by in every snapshot. Routes are named by their place, which a reload may change. */
export function flowKey(flow: Pick<Flow, "source" | "exporter" | "signal" | "route">): string {
  return JSON.stringify([flow.source, flow.exporter, flow.signal, flow.route]);
}

export function droppedTotal(dropped: Readonly<Record<string, number>>): number {
  return Object.values(dropped).reduce((sum, records) => sum + records, 0);
}

/** Dropped for reasons that nobody chose. */
export function lostByDrop(dropped: Readonly<Record<string, number>>): number {
  return Object.entries(dropped).reduce((sum, [reason, records]) => sum + (HARMLESS.has(reason) ? 0 : records), 0);
}

/** Null when no time has passed. A count that fell, as after lost state, has no rate. */
export function ratesBetween(before: PipelineAnswer, now: PipelineAnswer): Rates | null {
  const seconds = (now.time_ms - before.time_ms) / 1000;
  if (seconds <= 0) return null;
  const earlier = new Map(before.flows.map((flow) => [flowKey(flow), flow]));
  const flows = new Map<string, Rate>();
  for (const flow of now.flows) {
    const key = flowKey(flow);
    const old = earlier.get(key);
    const accepted = flow.accepted - (old?.accepted ?? 0);
    const delivered = flow.delivered - (old?.delivered ?? 0);
    if (accepted < 0 || delivered < 0) continue;
    const lost = flow.dead_lettered + lostByDrop(flow.dropped) - (old === undefined ? 0 : old.dead_lettered + lostByDrop(old.dropped));
    // Dead letters become fewer when somebody replays or drops them.
    flows.set(key, { accepted: accepted / seconds, delivered: delivered / seconds, lost: Math.max(0, lost) / seconds });
  }
  const bytesBefore = new Map(before.exporters.map((exporter) => [exporter.name, exporter.queue.bytes]));
  const queues = new Map<string, number>();
  for (const { name, queue } of now.exporters) {
    const old = bytesBefore.get(name);
    if (old !== undefined) queues.set(name, (queue.bytes - old) / seconds);
  }
  return { seconds, flows, queues };
}

/** `snapshots` with `next` at its end and without those that are older than the window; the last one before `next` always stays. */
export function withSnapshot(snapshots: readonly PipelineAnswer[], next: PipelineAnswer): PipelineAnswer[] {
  // A clock that was set back: what came before cannot be compared.
  const earlier = snapshots.filter((one) => one.time_ms < next.time_ms);
  const recent = earlier.filter((one) => next.time_ms - one.time_ms <= WINDOW_MS);
  return [...(recent.length > 0 ? recent : earlier.slice(-1)), next];
}

/** In how many seconds a queue is full at this growth; null when it does not grow. */
export function secondsUntilFull(bytes: number, limitBytes: number, bytesPerSecond: number | undefined): number | null {
  return bytesPerSecond === undefined || bytesPerSecond <= 0 ? null : Math.max(0, limitBytes - bytes) / bytesPerSecond;
}

/** Thickness of an edge in pixels: each further power of ten is 1.6 px more. */
export function thickness(recordsPerSecond: number | null): number {
  if (recordsPerSecond === null || recordsPerSecond <= 0) return 1.5;
  return Math.min(12, 1.5 + 1.6 * Math.log10(1 + recordsPerSecond));
}
