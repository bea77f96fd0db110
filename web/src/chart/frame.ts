/**
 * What a chart draws: instants, and series with one value per instant.
 *
 * `null` is a gap and is drawn as one. `undefined` is no value of this series at this instant although it was
 * reported as usual (its own interval is longer than a step): the line goes through.
 */

export type Value = number | null | undefined;

export interface Series {
  /** Stays the same when data are refreshed: isolating and hiding refer to it. */
  readonly key: string;
  readonly name: string;
  readonly values: readonly Value[];
  /** Least and greatest sample of each step, where a step holds several. */
  readonly min?: readonly Value[];
  readonly max?: readonly Value[];
  /** Position in the palette; series of the same thing have the same in all charts. */
  readonly colour?: number;
  /** `line` is not stacked in a stacked chart; `limit` is a dashed line, for a size or an upper end. */
  readonly style?: "area" | "line" | "limit";
}

export interface Frame {
  readonly timesMs: readonly number[];
  readonly stepMs: number;
  readonly series: readonly Series[];
}

/** Samples that come this many times later than usual are a gap; the same as "late" of a host. */
const GAP_INTERVALS = 2.5;

function isNumber(value: Value): value is number {
  return typeof value === "number";
}

/**
 * Tells missing samples from the spaces between samples of a series that comes more seldom than the steps, or with a
 * little jitter. `steps` is the distance of samples in steps where it is known.
 */
export function bridged(values: readonly (number | null)[], steps = 1): Value[] {
  const at: number[] = [];
  values.forEach((value, index) => {
    if (value !== null) at.push(index);
  });
  const distances = at
    .slice(1)
    .map((index, position) => index - (at[position] ?? index))
    .sort((one, other) => one - other);
  const usual = Math.max(distances[Math.floor(distances.length / 2)] ?? 1, steps, 1);
  const result: Value[] = [...values];
  for (let position = 1; position < at.length; position += 1) {
    const from = at[position - 1] ?? 0;
    const to = at[position] ?? 0;
    if (to - from > 1 && to - from < usual * GAP_INTERVALS) result.fill(undefined, from + 1, to);
  }
  return result;
}

/** Whether any series of the frame has any value. */
export function hasData(frame: Frame): boolean {
  return frame.series.some((series) => series.values.some(isNumber));
}

/** Whether any sample lies between the two instants. */
export function hasDataBetween(frame: Frame, fromMs: number, toMs: number): boolean {
  return frame.timesMs.some(
    (time, index) =>
      time >= fromMs &&
      time + frame.stepMs <= toMs &&
      frame.series.some((series) => series.style !== "limit" && isNumber(series.values[index])),
  );
}

/** Sums from the bottom up. Where all are missing there is a gap; where one is missing it adds nothing. */
export function stacked(rows: readonly (readonly Value[])[]): Value[][] {
  const length = rows[0]?.length ?? 0;
  const result = rows.map(() => new Array<Value>(length));
  for (let index = 0; index < length; index += 1) {
    const column = rows.map((row) => row[index]);
    const missing = column.every((value) => !isNumber(value));
    const absent = missing && column.every((value) => value === null) ? null : undefined;
    let sum = 0;
    column.forEach((value, row) => {
      sum += isNumber(value) ? value : 0;
      const target = result[row];
      if (target) target[index] = missing ? absent : sum;
    });
  }
  return result;
}

export interface Summary {
  readonly last: number | null;
  readonly lastMs: number | null;
  readonly least: number | null;
  readonly mean: number | null;
  readonly greatest: number | null;
}

/** The figures of one series for people who cannot see it. */
export function summary(series: Series, timesMs: readonly number[]): Summary {
  let sum = 0;
  let count = 0;
  let least = Number.POSITIVE_INFINITY;
  let greatest = Number.NEGATIVE_INFINITY;
  let last: number | null = null;
  let lastMs: number | null = null;
  series.values.forEach((value, index) => {
    if (!isNumber(value)) return;
    sum += value;
    count += 1;
    least = Math.min(least, series.min?.[index] ?? value);
    greatest = Math.max(greatest, series.max?.[index] ?? value);
    last = value;
    lastMs = timesMs[index] ?? null;
  });
  if (count === 0) return { last: null, lastMs: null, least: null, mean: null, greatest: null };
  return { last, lastMs, least, mean: sum / count, greatest };
}

/** The nearest sample at or before an instant that is still the series' value there, and its position. */
export function valueAt(values: readonly Value[], index: number): number | null {
  for (let position = index; position >= 0; position -= 1) {
    const value = values[position];
    if (isNumber(value)) return value;
    if (value === null) return null;
  }
  return null;
}
