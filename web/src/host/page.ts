/** From answers of the server to what the page shows: charts, and what there is no chart for and why. */

import type { HostRow, NamedWatching, QueryAnswer } from "../api/types";
import type { Frame, Series } from "../chart/frame";
import type { ValueRange } from "../chart/plot";
import { DEFAULT_RANGE, type TimeRange } from "../chart/range";
import { eachSeries, type ChartPlan, type Context, type Found } from "./plans";

export interface HostChart {
  readonly plan: ChartPlan;
  readonly frame: Frame;
  readonly range: ValueRange;
}

export interface Charts {
  readonly shown: readonly HostChart[];
  /** `swap`, `temperature (no sensors)` */
  readonly notReported: readonly string[];
  /** Charts whose values were all zero, which is good. */
  readonly allZero: readonly string[];
}

function any(series: readonly Series[]): boolean {
  return series.some((one) => one.values.some((value) => typeof value === "number"));
}

function zero(series: readonly Series[]): boolean {
  return series.every((one) =>
    [...one.values, ...(one.max ?? [])].every((value) => typeof value !== "number" || value === 0),
  );
}

function greatest(series: Series | undefined): number | null {
  const numbers = (series?.values ?? []).filter((value): value is number => typeof value === "number");
  return numbers.length > 0 ? numbers.reduce((most, value) => Math.max(most, value)) : null;
}

/** `Disk I/O` as `disk I/O`; `CPU` stays. */
function inSentence(title: string): string {
  return /^[A-Z][a-z]/.test(title) ? title.charAt(0).toLowerCase() + title.slice(1) : title;
}

/**
 * Why an integration does not watch something, in its own words: from what it does not watch, or from a remark at what it
 * does, such as `page faults (no swap is configured)`.
 */
export function reason(area: readonly string[], integrations: readonly NamedWatching[]): string | null {
  for (const { watched, not_watched } of integrations) {
    const found = not_watched.find(({ what }) => area.includes(what.toLowerCase()));
    if (found) return found.why;
    const remarks = watched.flatMap((text) => /\((no [^)]+)\)/.exec(text)?.[1] ?? []);
    const remark = remarks.find((text) => text.split(" ").some((word) => area.includes(word)));
    if (remark !== undefined) return remark;
  }
  return null;
}

export function chartsOf(
  plans: readonly ChartPlan[],
  answer: QueryAnswer,
  host: Pick<HostRow, "interval_seconds" | "cpu_count">,
  integrations: readonly NamedWatching[],
): Charts {
  const found: Found = new Map(answer.results.map((result) => [result.id, result.series]));
  const steps = host.interval_seconds === null ? 1 : Math.max(1, (host.interval_seconds * 1000) / answer.step_ms);
  const context: Context = { steps, cpuCount: host.cpu_count };
  const all = plans.map((plan) => ({
    plan,
    series: plan.lines ? plan.lines(found, context) : eachSeries(found.get(plan.id) ?? [], plan.single ?? "all", steps),
  }));
  const filled = new Set(all.filter(({ series }) => any(series)).map(({ plan }) => plan.id));
  const shown: HostChart[] = [];
  const notReported: string[] = [];
  const allZero: string[] = [];
  for (const { plan, series } of all) {
    const replaced = plan.insteadOf !== undefined && filled.has(plan.insteadOf);
    if (replaced) continue;
    if (!filled.has(plan.id)) {
      const covered = plans.some((other) => other.insteadOf === plan.id && filled.has(other.id));
      if (plan.area === undefined || covered) continue;
      const why = reason(plan.area, integrations);
      notReported.push(why === null ? inSentence(plan.title) : `${inSentence(plan.title)} (${why})`);
    } else if (plan.quietAtZero === true && zero(series)) {
      allZero.push(inSentence(plan.title));
    } else {
      const limit = greatest(series.find((one) => one.key === plan.reaches));
      const range = limit === null ? (plan.range ?? {}) : { ...plan.range, least: limit };
      shown.push({
        plan,
        range,
        frame: {
          timesMs: answer.times_ms,
          stepMs: answer.step_ms,
          series: series.map((one, colour) => ({ colour, ...one })),
        },
      });
    }
  }
  return { shown, notReported, allZero };
}

/** What a client sent, as far as its own metrics are concerned; `network_io` is one that has a field of its own. */
export interface ClientPost {
  readonly custom_metrics?: unknown;
  readonly network_io?: unknown;
}

/** Names of the metrics of a client's own: `custom.queue.depth`, from the numbers it sent last. */
export function customNames(posts: readonly ClientPost[]): string[] {
  const names = new Set<string>();
  const walk = (value: unknown, path: string): void => {
    if (typeof value === "number" || typeof value === "boolean") names.add(path);
    else if (typeof value === "object" && value !== null && !Array.isArray(value)) {
      for (const [name, inner] of Object.entries(value)) walk(inner, `${path}.${name}`);
    }
  };
  for (const { custom_metrics, network_io } of posts) {
    walk(custom_metrics, "custom");
    walk(network_io, "custom.network_io");
  }
  return [...names].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
}

/**
 * The range that is shown before anybody chose one: an hour, and for a host whose data began a few minutes ago the shortest
 * preset that holds them, as an hour of nothing tells nothing.
 */
export function usualRange(host: Pick<HostRow, "sparkline" | "status" | "status_since_ms">, nowMs: number): TimeRange {
  const first = host.sparkline.findIndex((value) => value !== null);
  // Its first CPU value may still be on the way; then it counts since when it is up.
  const upSince = host.status === "up" ? host.status_since_ms : null;
  const minutes = first >= 0 ? host.sparkline.length - first : upSince === null ? Infinity : (nowMs - upSince) / 60_000;
  if (minutes > 15) return DEFAULT_RANGE;
  return { kind: "relative", seconds: minutes <= 5 ? 300 : 900 };
}
