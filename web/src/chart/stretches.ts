/** Stretches of time in which a host was not connected, and what to call them. */

import type { Disconnected } from "../api/types";
import { hasDataBetween, type Frame } from "./frame";
import { spanText } from "./format";
import { moment } from "../ui/format";

export interface Stretch {
  readonly fromMs: number;
  readonly toMs: number;
  /** `not connected 14:02–14:04; filled in later` */
  readonly text: string;
  /** Whether data of this time have come afterwards; `null` if the steps are too long to tell. */
  readonly filled: boolean | null;
}

/** The stretches that touch the range, oldest first. What was delivered afterwards shows as data inside of them. */
export function stretches(
  disconnected: readonly Disconnected[],
  fromMs: number,
  toMs: number,
  nowMs: number,
  frames: readonly Frame[],
): Stretch[] {
  return disconnected
    .filter((one) => one.from_ms < toMs && (one.to_ms ?? nowMs) > fromMs && (one.to_ms ?? nowMs) > one.from_ms)
    .map((one) => {
      const end = one.to_ms ?? nowMs;
      // The last third tells: a value may still be drawn for one and a half intervals after the last sample.
      const tailMs = end - (end - one.from_ms) / 3;
      const known = frames.some(({ timesMs, stepMs }) => timesMs.some((time) => time >= tailMs && time + stepMs <= end));
      const filled = known ? frames.some((frame) => hasDataBetween(frame, tailMs, end)) : null;
      const lasting = one.to_ms === null;
      const when = lasting ? `since ${moment(one.from_ms, nowMs)}` : spanText(one.from_ms, end, nowMs);
      const what = filled === null ? "" : filled ? "; filled in later" : lasting ? "; no data yet" : "; no data";
      return { fromMs: one.from_ms, toMs: end, text: `not connected ${when}${what}`, filled };
    })
    .sort((one, other) => one.fromMs - other.fromMs);
}
