/** Appends what is new to what a page already has, so that a live page does not ask for everything again and again. */

import type { QueryAnswer, QueryResult, QuerySeries } from "../api/types";

/** Steps before the last one that are asked for again: the last was not over, and data may come a little late. */
const OVERLAP_STEPS = 4;

type Column = (number | null)[];

/** From when on data have to be asked for, in unix milliseconds. */
export function tailFromMs(known: QueryAnswer): number {
  const last = known.times_ms.at(-1) ?? known.from_ms;
  return Math.max(known.from_ms, last - OVERLAP_STEPS * known.step_ms);
}

function labelsKey(series: QuerySeries): string {
  return JSON.stringify(Object.entries(series.labels).sort(([one], [other]) => (one < other ? -1 : 1)));
}

/** The known answer continued by the newer one, without what is older than `fromMs`. Both have the same step. */
export function withTail(known: QueryAnswer, tail: QueryAnswer, fromMs: number): QueryAnswer {
  const begin = tail.times_ms[0] ?? Number.POSITIVE_INFINITY;
  const before_ms = known.times_ms.filter((time) => time < begin);
  const times_ms = [...before_ms, ...tail.times_ms].filter((time) => time >= fromMs);
  const position = new Map(times_ms.map((time, index) => [time, index]));
  const place = (target: Column, source: readonly (number | null)[], times: readonly number[]): void => {
    times.forEach((time, index) => {
      const at = position.get(time);
      if (at !== undefined) target[at] = source[index] ?? null;
    });
  };
  const join = (before: QuerySeries | undefined, after: QuerySeries | undefined): QuerySeries => {
    const column = (of: "values" | "min" | "max"): Column => {
      const target: Column = new Array<number | null>(times_ms.length).fill(null);
      if (before) place(target, before[of], before_ms);
      // Where the answers overlap the newer one counts, its gaps too: the last step may have held a value for a while.
      if (after) place(target, after[of], tail.times_ms);
      return target;
    };
    return {
      labels: (after ?? before)?.labels ?? {},
      values: column("values"),
      min: column("min"),
      max: column("max"),
    };
  };
  const ids = [...new Set([...known.results, ...tail.results].map((result) => result.id))];
  const results = ids.map((id): QueryResult => {
    const [before, after] = [known, tail].map((answer) => answer.results.find((result) => result.id === id));
    const series = new Map<string, [QuerySeries?, QuerySeries?]>();
    for (const one of before?.series ?? []) series.set(labelsKey(one), [one, undefined]);
    for (const one of after?.series ?? []) series.set(labelsKey(one), [series.get(labelsKey(one))?.[0], one]);
    const joined = [...series.values()].map(([one, other]) => join(one, other));
    return { id, unit: after?.unit ?? before?.unit ?? "", series: joined.filter(hasAny) };
  });
  return { from_ms: fromMs, to_ms: tail.to_ms, step_ms: known.step_ms, times_ms, results };
}

function hasAny(series: QuerySeries): boolean {
  return series.values.some((value) => value !== null);
}
