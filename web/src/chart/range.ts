/**
 * The range of time that a page shows, and its form in the address:
 * `?range=1h` ends now and moves with it; `?from=..&to=..` (unix milliseconds) stands still.
 */

export type TimeRange =
  | { readonly kind: "relative"; readonly seconds: number }
  | { readonly kind: "absolute"; readonly fromMs: number; readonly toMs: number };

/** A stretch of time with both ends known, in unix milliseconds. */
export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

export const PRESETS: readonly { readonly text: string; readonly words: string; readonly seconds: number }[] = [
  { text: "5m", words: "last 5 minutes", seconds: 5 * MINUTE },
  { text: "15m", words: "last 15 minutes", seconds: 15 * MINUTE },
  { text: "1h", words: "last hour", seconds: HOUR },
  { text: "6h", words: "last 6 hours", seconds: 6 * HOUR },
  { text: "24h", words: "last 24 hours", seconds: DAY },
  { text: "7d", words: "last 7 days", seconds: 7 * DAY },
];

/** What is shown when the address names no range. */
export const DEFAULT_RANGE: TimeRange = { kind: "relative", seconds: HOUR };

/** The shortest and the longest range that can be asked for. */
const SHORTEST_SECONDS = MINUTE;
const LONGEST_SECONDS = 366 * DAY;

/** The lengths that zooming of a range that ends now goes through. */
const LADDER_SECONDS = [
  MINUTE,
  5 * MINUTE,
  15 * MINUTE,
  30 * MINUTE,
  HOUR,
  3 * HOUR,
  6 * HOUR,
  12 * HOUR,
  DAY,
  2 * DAY,
  7 * DAY,
  30 * DAY,
  90 * DAY,
  366 * DAY,
];

const UNIT_SECONDS: Readonly<Record<string, number>> = { s: 1, m: MINUTE, h: HOUR, d: DAY };

function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}

/** `90m` as seconds; `null` if the text is no length of time. */
function parseLength(text: string): number | null {
  const found = /^(\d{1,9})([smhd])$/.exec(text.trim());
  const unit = UNIT_SECONDS[found?.[2] ?? ""];
  const seconds = Number(found?.[1]) * (unit ?? Number.NaN);
  return seconds > 0 ? clamp(seconds, SHORTEST_SECONDS, LONGEST_SECONDS) : null;
}

/** The shortest exact text of a length: 3600 is `1h`, 5400 is `90m`; what is a preset is written like it. */
export function lengthText(seconds: number): string {
  const preset = PRESETS.find((candidate) => candidate.seconds === seconds);
  if (preset) return preset.text;
  for (const [unit, size] of [
    ["d", DAY],
    ["h", HOUR],
    ["m", MINUTE],
  ] as const) {
    if (seconds % size === 0) return `${seconds / size}${unit}`;
  }
  return `${seconds}s`;
}

/** Reads the range from the address. What is not there or cannot be understood is `usual`. */
export function parseRange(query: URLSearchParams, usual: TimeRange = DEFAULT_RANGE): TimeRange {
  const fromText = query.get("from");
  const toText = query.get("to");
  if (fromText !== null && toText !== null && /^\d{1,15}$/.test(fromText) && /^\d{1,15}$/.test(toText)) {
    const range = absolute(Number(fromText), Number(toText));
    if (range) return range;
  }
  const seconds = parseLength(query.get("range") ?? "");
  return seconds === null ? usual : { kind: "relative", seconds };
}

/** A range between two instants; `null` if they are not in order. */
export function absolute(fromMs: number, toMs: number): TimeRange | null {
  if (!Number.isFinite(fromMs) || !Number.isFinite(toMs) || toMs <= fromMs) return null;
  const length = clamp(toMs - fromMs, SHORTEST_SECONDS * 1000, LONGEST_SECONDS * 1000);
  const middle = (fromMs + toMs) / 2;
  return toMs - fromMs === length
    ? { kind: "absolute", fromMs: Math.round(fromMs), toMs: Math.round(toMs) }
    : { kind: "absolute", fromMs: Math.round(middle - length / 2), toMs: Math.round(middle + length / 2) };
}

/** Writes the range into a copy of the address's query. */
export function withRange(query: URLSearchParams, range: TimeRange): URLSearchParams {
  const next = new URLSearchParams(query);
  for (const name of ["range", "from", "to"]) next.delete(name);
  if (range.kind === "absolute") {
    next.set("from", String(range.fromMs));
    next.set("to", String(range.toMs));
  } else {
    next.set("range", lengthText(range.seconds));
  }
  return next;
}

export function sameRange(one: TimeRange, other: TimeRange): boolean {
  if (one.kind === "relative") return other.kind === "relative" && one.seconds === other.seconds;
  return other.kind === "absolute" && one.fromMs === other.fromMs && one.toMs === other.toMs;
}

/** The two ends of the range at this moment. */
export function resolve(range: TimeRange, nowMs: number): Span {
  if (range.kind === "absolute") return { fromMs: range.fromMs, toMs: range.toMs };
  return { fromMs: nowMs - range.seconds * 1000, toMs: nowMs };
}

/** Moves the range by a part of its length; what would reach the future ends now, and moves with it again. */
export function shift(range: TimeRange, nowMs: number, part: number): TimeRange {
  const { fromMs, toMs } = resolve(range, nowMs);
  const lengthMs = toMs - fromMs;
  const movedTo = toMs + lengthMs * part;
  if (movedTo >= nowMs) return { kind: "relative", seconds: Math.max(Math.round(lengthMs / 1000), SHORTEST_SECONDS) };
  return absolute(movedTo - lengthMs, movedTo) ?? range;
}

/** Zooms in (`direction` -1) or out (+1): a range that ends now keeps ending now, another one keeps its middle. */
export function zoom(range: TimeRange, nowMs: number, direction: -1 | 1): TimeRange {
  if (range.kind === "relative") {
    const longer = LADDER_SECONDS.find((length) => length > range.seconds);
    const shorter = LADDER_SECONDS.findLast((length) => length < range.seconds);
    return { kind: "relative", seconds: (direction > 0 ? longer : shorter) ?? range.seconds };
  }
  const lengthMs = range.toMs - range.fromMs;
  const next = clamp(direction > 0 ? lengthMs * 2 : lengthMs / 2, SHORTEST_SECONDS * 1000, LONGEST_SECONDS * 1000);
  const toMs = Math.min((range.fromMs + range.toMs + next) / 2, nowMs);
  return absolute(toMs - next, toMs) ?? range;
}

/** The same moment for everybody: a range that ends now becomes one between two instants. */
export function frozen(range: TimeRange, nowMs: number): TimeRange {
  const { fromMs, toMs } = resolve(range, nowMs);
  return { kind: "absolute", fromMs: Math.round(fromMs), toMs: Math.round(toMs) };
}
