/**
 * The charts of a host: which metrics each asks for, and how the answers become lines.
 * Names of metrics and attributes are those of docs/integrations/host.md, and of the server's mapping of other clients.
 */

import type { Query, QuerySeries } from "../api/types";
import type { Unit } from "../chart/format";
import { bridged, type Series } from "../chart/frame";
import type { ValueRange } from "../chart/plot";

export interface ChartPlan {
  readonly id: string;
  readonly title: string;
  readonly note?: string;
  readonly unit: Unit;
  readonly stacked?: boolean;
  readonly range?: ValueRange;
  /** What is asked; the host is added to `match` later. The first query's id is the chart's. */
  readonly queries: readonly Omit<Query, "match">[];
  /** Lines from the answers, by the ids of the queries. Without it: one line per series of the first query. */
  readonly lines?: (found: Found, context: Context) => Series[];
  /** The name of a line whose labels do not tell it from the others. */
  readonly single?: string;
  /** Words by which integrations call this where they say why it is not watched; without them its absence is normal. */
  readonly area?: readonly string[];
  /** Not shown if the chart with this id has data. */
  readonly insteadOf?: string;
  /** All zero is good news, told in a line instead of a chart. */
  readonly quietAtZero?: boolean;
  /** The last line, to which the axis reaches. */
  readonly reaches?: string;
}

/** The series of each query, by its id. */
export type Found = ReadonlyMap<string, readonly QuerySeries[]>;

export interface Context {
  /** Distance of samples in steps, 1 if unknown. */
  readonly steps: number;
  readonly cpuCount: number | null;
}

/** More lines than this cannot be told apart; the greatest are kept. */
export const MOST_LINES = 16;

/** Busy modes of a CPU, from the bottom of the stack up, with their colours. */
const CPU_MODES: readonly (readonly [string, number])[] = [
  ["user", 0],
  ["nice", 5],
  ["system", 1],
  ["kernel", 1],
  ["interrupt", 2],
  ["softirq", 6],
  ["iowait", 4],
  ["wait", 4],
  ["steal", 3],
];
const IDLE = "idle";

export function lineOf(
  source: QuerySeries,
  key: string,
  name: string,
  steps: number,
  more: Partial<Series> = {},
): Series {
  const values = bridged(source.values, steps);
  const differs = source.max.some(
    (greatest, index) => greatest !== null && greatest !== (source.min[index] ?? greatest),
  );
  return { key, name, values, ...(differs ? { min: source.min, max: source.max } : {}), ...more };
}

/** The labels in which the series differ, in the order of the query. */
export function namesOf(series: readonly QuerySeries[], single: string): string[] {
  const keys = [...new Set(series.flatMap((one) => Object.keys(one.labels)))];
  const varying = keys.filter((key) => new Set(series.map((one) => one.labels[key] ?? "")).size > 1);
  return series.map((one) => {
    const words = varying.map((key) => one.labels[key] ?? "").filter((word) => word !== "");
    return words.length > 0 ? words.join(" ") : single;
  });
}

/** Tells the series of one answer apart: the values of their labels, written so that they can be taken apart again. */
function keyOf(series: QuerySeries, labels: readonly string[]): string {
  return labels.map((name) => encodeURIComponent(series.labels[name] ?? "")).join(",");
}

function greatest(series: QuerySeries): number {
  return series.values.reduce<number>(
    (most, value) => Math.max(most, value ?? Number.NEGATIVE_INFINITY),
    Number.NEGATIVE_INFINITY,
  );
}

/** One line per series, sorted by name, so that colours stay when values change. */
export function eachSeries(
  series: readonly QuerySeries[],
  single: string,
  steps: number,
  prefix = "",
  suffix = "",
): Series[] {
  const some = [...series].filter((one) => one.values.some((value) => value !== null));
  const kept =
    some.length > MOST_LINES ? some.sort((one, other) => greatest(other) - greatest(one)).slice(0, MOST_LINES) : some;
  const names = namesOf(kept, single);
  const labels = [...new Set(series.flatMap((one) => Object.keys(one.labels)))].sort();
  return kept
    .map((one, index) =>
      lineOf(one, prefix + (keyOf(one, labels) || "all"), `${names[index] ?? single}${suffix}`, steps),
    )
    .sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
}

function cpuLines(found: Found, { steps }: Context): Series[] {
  const series = found.get("cpu") ?? [];
  const of = (mode: string): QuerySeries | undefined => series.find((one) => one.labels["cpu.mode"] === mode);
  const lines = CPU_MODES.flatMap(([mode, colour]) => {
    const one = of(mode);
    return one && one.values.some((value) => value !== null) ? [lineOf(one, mode, mode, steps, { colour })] : [];
  });
  if (lines.length === 0) {
    const whole = series.find((one) => (one.labels["cpu.mode"] ?? "") === "");
    return whole ? [lineOf(whole, "all", "used", steps, { style: "area", colour: 0 })] : [];
  }
  const idle = of(IDLE);
  const peaks = idle?.min.some((least, index) => least !== null && least < (idle.values[index] ?? least) - 0.001);
  if (idle && peaks) {
    const values = bridged(
      idle.min.map((least) => (least === null ? null : Math.max(0, 1 - least))),
      steps,
    );
    lines.push({ key: "peak", name: "busiest moment", values, style: "line", colour: 7 });
  }
  return lines;
}

function loadLines(found: Found, { steps, cpuCount }: Context): Series[] {
  const lines = [
    ["load", "1 min", 0],
    ["load.5", "5 min", 1],
    ["load.15", "15 min", 2],
  ] as const;
  const shown = lines.flatMap(([id, name, colour]): Series[] => {
    const one = found.get(id)?.[0];
    return one && one.values.some((value) => value !== null) ? [lineOf(one, id, name, steps, { colour })] : [];
  });
  const length = shown[0]?.values.length ?? 0;
  if (cpuCount === null || length === 0) return shown;
  const values = new Array<number>(length).fill(cpuCount);
  return [...shown, { key: "cpus", name: cpuCount === 1 ? "1 CPU" : "CPUs", values, style: "limit" }];
}

/** Lines of the states of something in the given order, then the others. */
function stateLines(series: readonly QuerySeries[], label: string, order: readonly string[], steps: number): Series[] {
  const states = [...new Set([...order, ...series.map((one) => one.labels[label] ?? "")])];
  return states.flatMap((state, index) => {
    const one = series.find((candidate) => (candidate.labels[label] ?? "") === state);
    if (!one || one.values.every((value) => value === null)) return [];
    return [
      lineOf(one, state || "all", state || "used", steps, { colour: index, ...(index === 0 ? { style: "area" } : {}) }),
    ];
  });
}

function memoryLines(found: Found, { steps }: Context): Series[] {
  const lines = stateLines(
    found.get("memory") ?? [],
    "system.memory.state",
    ["used", "cached", "buffers", "free"],
    steps,
  );
  const limit = found.get("memory.limit")?.[0];
  if (limit && lines.length > 0) lines.push({ ...lineOf(limit, "limit", "total", steps), style: "limit" });
  return lines;
}

function swapLines(found: Found, { steps }: Context): Series[] {
  const series = found.get("swap") ?? [];
  const lines = stateLines(series, "system.paging.state", ["used"], steps).filter((line) => line.key === "used");
  const of = (state: string): readonly (number | null)[] =>
    series.find((one) => one.labels["system.paging.state"] === state)?.values ?? [];
  const [used, free] = [of("used"), of("free")];
  if (lines.length === 0 || free.length === 0) return lines;
  const total = used.map((value, index) => (value === null ? null : value + (free[index] ?? 0)));
  return [...lines, { key: "limit", name: "total", values: bridged(total, steps), style: "limit" }];
}

function problemLines(found: Found, { steps }: Context): Series[] {
  return [
    ...eachSeries(found.get("problems") ?? [], "all", steps, "errors/", " errors"),
    ...eachSeries(found.get("problems.dropped") ?? [], "all", steps, "dropped/", " dropped"),
  ];
}

const DISK = ["system.device", "disk.io.direction"];
const NETWORK = ["network.interface.name", "network.io.direction"];
/** Of packets and drops, the interface is called a device. */
const NETWORK_DEVICE = ["system.device", "network.io.direction"];

export const PLANS: readonly ChartPlan[] = [
  {
    id: "cpu",
    title: "CPU",
    note: "of all cores",
    unit: "percent",
    stacked: true,
    range: { least: 0.1, most: 1 },
    queries: [{ id: "cpu", metric: "system.cpu.utilization", by: ["cpu.mode"], aggregate: "avg" }],
    lines: cpuLines,
    area: ["cpu"],
  },
  {
    id: "load",
    title: "Load",
    note: "tasks that run or wait",
    unit: "load",
    range: { least: 0.5 },
    queries: [
      { id: "load", metric: "system.cpu.load_average.1m", aggregate: "avg" },
      { id: "load.5", metric: "system.cpu.load_average.5m", aggregate: "avg" },
      { id: "load.15", metric: "system.cpu.load_average.15m", aggregate: "avg" },
    ],
    lines: loadLines,
    area: ["load"],
  },
  {
    id: "memory",
    title: "Memory",
    note: "used is what programs cannot get; states overlap",
    unit: "bytes",
    queries: [
      { id: "memory", metric: "system.memory.usage", by: ["system.memory.state"], aggregate: "sum" },
      { id: "memory.limit", metric: "system.memory.limit", aggregate: "max" },
    ],
    lines: memoryLines,
    area: ["memory"],
    reaches: "limit",
  },
  {
    id: "memory_share",
    title: "Memory",
    note: "share in use",
    unit: "percent",
    range: { least: 1, most: 1 },
    queries: [
      { id: "memory_share", metric: "system.memory.utilization", by: ["system.memory.state"], aggregate: "max" },
    ],
    lines: (found, { steps }) => stateLines(found.get("memory_share") ?? [], "system.memory.state", ["used"], steps),
    insteadOf: "memory",
  },
  {
    id: "swap",
    title: "Swap",
    unit: "bytes",
    queries: [{ id: "swap", metric: "system.paging.usage", by: ["system.paging.state"], aggregate: "sum" }],
    lines: swapLines,
    area: ["paging", "swap"],
    reaches: "limit",
  },
  {
    id: "filesystems",
    title: "Filesystems",
    note: "used space, as df shows it",
    unit: "percent",
    range: { least: 1, most: 1 },
    queries: [
      {
        id: "filesystems",
        metric: "system.filesystem.utilization",
        by: ["system.filesystem.mountpoint"],
        aggregate: "max",
      },
    ],
    single: "used",
    area: ["filesystem", "filesystems"],
  },
  {
    id: "disk_io",
    title: "Disk I/O",
    note: "bytes per second",
    unit: "bytes/s",
    range: { least: 1024 },
    queries: [{ id: "disk_io", metric: "system.disk.io", by: DISK, rate: true, aggregate: "sum" }],
    single: "all",
    area: ["disk", "disks"],
  },
  {
    id: "disk_operations",
    title: "Disk operations",
    unit: "per_second",
    queries: [{ id: "disk_operations", metric: "system.disk.operations", by: DISK, rate: true, aggregate: "sum" }],
    single: "all",
  },
  {
    id: "disk_busy",
    title: "Disks busy",
    note: "share of the time with anything to do",
    unit: "percent",
    range: { least: 0.1, most: 1 },
    queries: [{ id: "disk_busy", metric: "system.disk.io_time", by: ["system.device"], rate: true, aggregate: "max" }],
    single: "busy",
  },
  {
    id: "network",
    title: "Network",
    note: "bytes per second",
    unit: "bytes/s",
    range: { least: 1024 },
    queries: [{ id: "network", metric: "system.network.io", by: NETWORK, rate: true, aggregate: "sum" }],
    single: "all",
    area: ["network"],
  },
  {
    id: "throughput",
    title: "Network throughput",
    note: "as the client reports it",
    unit: "bits/s",
    insteadOf: "network",
    queries: [{ id: "throughput", metric: "network.throughput", aggregate: "sum" }],
    single: "throughput",
  },
  {
    id: "latency",
    title: "Network latency",
    unit: "seconds",
    queries: [{ id: "latency", metric: "network.latency", aggregate: "avg" }],
    single: "latency",
  },
  {
    id: "problems",
    title: "Network errors and drops",
    unit: "per_second",
    quietAtZero: true,
    queries: [
      { id: "problems", metric: "system.network.errors", by: NETWORK, rate: true, aggregate: "sum" },
      {
        id: "problems.dropped",
        metric: "system.network.packet.dropped",
        by: NETWORK_DEVICE,
        rate: true,
        aggregate: "sum",
      },
    ],
    lines: problemLines,
  },
  {
    id: "connections",
    title: "Connections",
    unit: "count",
    single: "all",
    queries: [
      {
        id: "connections",
        metric: "system.network.connection.count",
        by: ["network.transport", "network.connection.state"],
        aggregate: "sum",
      },
    ],
    area: ["connections"],
  },
  {
    id: "processes",
    title: "Processes",
    unit: "count",
    single: "processes",
    area: ["processes"],
    queries: [{ id: "processes", metric: "system.process.count", aggregate: "sum" }],
  },
  {
    id: "temperature",
    title: "Temperature",
    unit: "celsius",
    range: { from: "auto" },
    single: "sensor",
    queries: [{ id: "temperature", metric: "hw.temperature", by: ["hw.name", "hw.sensor_location"], aggregate: "max" }],
    area: ["temperature"],
  },
  {
    id: "pressure",
    title: "Pressure",
    note: "share of the time that tasks waited",
    unit: "percent",
    range: { least: 0.02, most: 1 },
    queries: [
      {
        id: "pressure",
        metric: "system.linux.pressure.stall_time",
        by: ["system.pressure.resource", "system.pressure.type"],
        rate: true,
        aggregate: "max",
      },
    ],
    single: "all",
    area: ["pressure"],
  },
  {
    id: "response_time",
    title: "Response time",
    unit: "seconds",
    single: "response time",
    queries: [{ id: "response_time", metric: "agent.response_time", aggregate: "avg" }],
  },
  {
    id: "requests",
    title: "Requests",
    note: "per minute",
    unit: "number",
    single: "requests",
    queries: [{ id: "requests", metric: "agent.requests_per_minute", aggregate: "sum" }],
  },
  {
    id: "error_rate",
    title: "Errors",
    note: "share of requests",
    unit: "percent",
    range: { most: 1 },
    single: "errors",
    queries: [{ id: "error_rate", metric: "agent.error_rate", aggregate: "avg" }],
  },
];

/** The server answers this many queries at once. */
export const MOST_QUERIES = 40;

/** A chart for each metric of the client's own, as many as fit into one request. */
export function customPlans(names: readonly string[]): ChartPlan[] {
  const room = MOST_QUERIES - PLANS.reduce((sum, plan) => sum + plan.queries.length, 0);
  return names.slice(0, room).map((name) => ({
    id: name,
    title: name.replace(/^custom\./, ""),
    note: "custom",
    unit: "number",
    single: "value",
    queries: [{ id: name, metric: name, aggregate: "avg" }],
  }));
}

export function queriesOf(plans: readonly ChartPlan[], host: string): Query[] {
  return plans.flatMap((plan) => plan.queries.map((query) => ({ ...query, match: { "host.name": host } })));
}
