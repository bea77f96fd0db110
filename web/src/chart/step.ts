/** How far apart the points of a chart are. */

import type { Span } from "./range";

/** More points than this cannot be told apart on a screen. */
export const MOST_POINTS = 600;

/** What is assumed of a host whose interval is not known yet. */
const ASSUMED_INTERVAL_SECONDS = 15;

/** Multiples of the interval that steps may have: they divide hours well whatever the interval is. */
const NICE = [1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 24, 30, 40, 60];

/** The smallest nice multiple of the interval with which the span has at most 600 points. */
export function stepMs(span: Span, intervalSeconds: number | null): number {
  const known = intervalSeconds !== null && Number.isFinite(intervalSeconds) && intervalSeconds > 0;
  const intervalMs = Math.max(1000, Math.round(known ? intervalSeconds * 1000 : ASSUMED_INTERVAL_SECONDS * 1000));
  const least = (span.toMs - span.fromMs) / MOST_POINTS / intervalMs;
  const multiple = NICE.find((candidate) => candidate >= least) ?? Math.ceil(least / 60) * 60;
  return multiple * intervalMs;
}

/** The span widened to whole steps, so that the same instants come back with every refresh. */
export function aligned(span: Span, step: number): Span {
  return { fromMs: Math.floor(span.fromMs / step) * step, toMs: Math.ceil(span.toMs / step) * step };
}
