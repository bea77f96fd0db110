/** Numbers and times on charts. Every chart has one unit; values come in that unit's base. */

import * as ui from "../ui/format";

/**
 * `percent` values are fractions (0.5 is 50 %), `bytes` and `bytes/s` are binary, `bits/s` decimal, `seconds` any
 * length, `celsius` degrees, `load`, `count` and `number` plain, `per_second` events per second.
 */
export type Unit =
  "percent" | "bytes" | "bytes/s" | "bits/s" | "seconds" | "celsius" | "load" | "count" | "per_second" | "number";

const SPACE = "\u202f";
const BINARY = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const DECIMAL = ["", "k", "M", "G", "T", "P"];

/** A length of time from microseconds to days: `340 ms`, `1.50 s`, `2 h 5 min`. */
export function seconds(length: number): string {
  const size = Math.abs(length);
  if (size === 0) return `0${SPACE}s`;
  if (size < 0.001) return `${ui.number(length * 1e6)}${SPACE}µs`;
  if (size < 1) return `${ui.number(length * 1000)}${SPACE}ms`;
  return size < 60 ? `${ui.number(length)}${SPACE}s` : ui.duration(length);
}

/** Like `ui.number`, with `k`, `M` and so on from ten thousand on, and without digits behind whole numbers. */
function plain(number: number): string {
  if (Number.isInteger(number) && Math.abs(number) < 10_000) return String(number);
  let power = 0;
  while (power < DECIMAL.length - 1 && Math.abs(number) >= 10_000 * 1000 ** power) power += 1;
  return power === 0 ? ui.number(number) : `${ui.number(number / 1000 ** power)}${SPACE}${DECIMAL[power] ?? ""}`;
}

export function value(number: number | null | undefined, unit: Unit): string {
  if (number === null || number === undefined || !Number.isFinite(number)) return ui.MISSING;
  switch (unit) {
    case "percent":
      return ui.percent(number);
    case "bytes":
      return ui.bytes(number);
    case "bytes/s":
      return ui.bytesPerSecond(number);
    case "bits/s":
      return ui.bitsPerSecond(number);
    case "seconds":
      return seconds(number);
    case "celsius":
      return ui.celsius(number);
    case "load":
      return ui.load(number);
    case "per_second":
      return `${plain(number)}/s`;
    case "count":
    case "number":
      return plain(number);
  }
}

/** `5.1–6.9 %`: the unit once where both ends have the same. */
export function rangeText(from: number, to: number, unit: Unit): string {
  const [low, high] = [value(from, unit), value(to, unit)];
  const cut = /^(.*?[\d.])(\D*)$/;
  const [, number = low, suffix = ""] = cut.exec(low) ?? [];
  return low === high ? low : `${high.endsWith(suffix) ? number : low}–${high}`;
}

/** How many digits behind the point a multiple of `distance` needs, at most 3. */
function places(distance: number): number {
  for (let found = 0; found < 3; found += 1) {
    const moved = Math.abs(distance) * 10 ** found;
    if (Math.abs(moved - Math.round(moved)) < 1e-6) return found;
  }
  return 3;
}

const TIMES: readonly (readonly [string, number])[] = [
  ["µs", 1e-6],
  ["ms", 1e-3],
  ["s", 1],
  ["min", 60],
  ["h", 3600],
  ["d", 86_400],
];

/** The name and size of the unit in which all labels of an axis that ends at `largest` are written. */
function axisUnit(unit: Unit, largest: number): readonly [string, number] {
  if (unit === "percent") return ["%", 0.01];
  if (unit === "celsius") return ["°", 1];
  if (unit === "seconds") {
    const [name, size] = TIMES.findLast(([, length]) => largest >= length) ?? ["µs", 1e-6];
    return [` ${name}`, size];
  }
  const binary = unit === "bytes" || unit === "bytes/s";
  const [base, names] = binary ? ([1024, BINARY] as const) : ([1000, DECIMAL] as const);
  let power = 0;
  while (power < names.length - 1 && largest >= base ** (power + 1)) power += 1;
  const name = names[power] ?? "";
  return [unit === "bits/s" ? ` ${name}bit` : binary ? ` ${name}` : name, base ** power];
}

/** Labels of the value axis: all in one unit, with as many digits as their distance needs. */
export function axisLabels(splits: readonly number[], unit: Unit): string[] {
  const largest = splits.reduce((most, split) => Math.max(most, Math.abs(split)), 0);
  const distance = splits.length > 1 ? (splits[1] ?? 0) - (splits[0] ?? 0) : largest;
  const [name, size] = axisUnit(unit, largest);
  const digits = places(distance / size);
  return splits.map((split) =>
    split === 0 && unit !== "percent" && unit !== "celsius" ? "0" : `${(split / size).toFixed(digits)}${name}`,
  );
}

/** Distances between the lines of the value axis, smallest first. */
export function axisIncrements(unit: Unit): number[] {
  if (unit === "bytes" || unit === "bytes/s") return Array.from({ length: 60 }, (_, power) => 2 ** power);
  const found: number[] = [];
  for (let power = unit === "count" ? 0 : -6; power < 16; power += 1) {
    for (const step of [1, 2, 2.5, 5]) {
      if (unit === "count" && step === 2.5 && power === 0) continue;
      found.push(Number((step * 10 ** power).toPrecision(3)));
    }
  }
  return found;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

function date(ms: number): string {
  const at = new Date(ms);
  return `${at.getDate()} ${MONTHS[at.getMonth()] ?? ""}`;
}

/** `Sat 21 Nov 14:02:15`, in the reader's time zone. */
export function instant(ms: number): string {
  return `${DAYS[new Date(ms).getDay()] ?? ""} ${date(ms)} ${ui.timeOfDay(ms)}`;
}

/** `14:02–14:04`, with seconds where it is shorter than that, with days where the two are on different ones. */
export function spanText(fromMs: number, toMs: number, nowMs: number): string {
  const sameDay = new Date(fromMs).toDateString() === new Date(toMs).toDateString();
  const today = new Date(toMs).toDateString() === new Date(nowMs).toDateString();
  const short = sameDay && toMs - fromMs < 120_000;
  const end = sameDay
    ? ui.timeOfDay(toMs).slice(0, short ? 8 : 5)
    : `${today ? "today " : ""}${ui.moment(toMs, nowMs)}`;
  return `${ui.moment(fromMs, nowMs)}${short ? `:${ui.timeOfDay(fromMs).slice(6)}` : ""}–${end}`;
}

/** Labels of the time axis: seconds only where they differ, the date at the first one and at midnight. */
export function timeAxisLabels(splitsSeconds: readonly number[], incrementSeconds: number): string[] {
  return splitsSeconds.map((seconds) => {
    const at = new Date(seconds * 1000);
    const midnight = at.getHours() === 0 && at.getMinutes() === 0 && at.getSeconds() === 0;
    if (incrementSeconds >= 86_400 || midnight) return date(seconds * 1000);
    return ui.timeOfDay(seconds * 1000).slice(0, incrementSeconds < 60 ? 8 : 5);
  });
}
