/** The pipeline as parts and the edges between them, and what each of them has to say. */

import type { Flow, Health, HealthState, HostStatus, LedgerRow, PipelineAnswer, PipelineExporter, PipelineRoute, PipelineSource } from "../api/types";
import { droppedTotal, flowKey, type Rate, type Rates } from "./rate";

export type Column = "source" | "route" | "exporter";
export const COLUMNS: readonly Column[] = ["source", "route", "exporter"];

interface Common {
  /** Such as `source:host`; unique among parts and edges. */
  id: string;
  name: string;
  flows: readonly Flow[];
}

export type Part =
  | (Common & { column: "source"; source: PipelineSource | null })
  | (Common & { column: "route"; route: PipelineRoute | null })
  | (Common & { column: "exporter"; exporter: PipelineExporter | null });

/** Where records go from one part to the next. */
export interface Edge {
  id: string;
  from: string;
  to: string;
  flows: readonly Flow[];
}

export interface Graph {
  parts: ReadonlyMap<string, Part>;
  edges: ReadonlyMap<string, Edge>;
}

/** Columns of the ledger, added up over flows. */
export type Totals = Pick<LedgerRow, "accepted" | "delivered" | "queued" | "in_flight" | "dead_lettered" | "dropped" | "difference">;

const sourceId = (name: string): string => `source:${name}`;
const exporterId = (name: string): string => `exporter:${name}`;
const routeId = (route: number | null): string => (route === null ? "route:none" : `route:${route}`);
const edgeId = (from: string, to: string): string => `${from} → ${to}`;

/** Every part of the answer, also those that only its flows name: they were configured once, and still hold or counted records. */
export function graphOf(answer: PipelineAnswer): Graph {
  const flowsOf = new Map<string, Flow[]>();
  const edges = new Map<string, Edge & { flows: Flow[] }>();
  const connect = (from: string, to: string, flow: Flow): void => {
    const id = edgeId(from, to);
    const edge = edges.get(id);
    if (edge === undefined) edges.set(id, { id, from, to, flows: [flow] });
    else edge.flows.push(flow);
  };
  for (const flow of answer.flows) {
    const ids = [sourceId(flow.source), routeId(flow.route), exporterId(flow.exporter)] as const;
    for (const id of ids) {
      const known = flowsOf.get(id);
      if (known === undefined) flowsOf.set(id, [flow]);
      else known.push(flow);
    }
    connect(ids[0], ids[1], flow);
    connect(ids[1], ids[2], flow);
  }
  const parts = new Map<string, Part>();
  const add = (part: Part): void => void parts.set(part.id, part);
  const flows = (id: string): readonly Flow[] => flowsOf.get(id) ?? [];
  for (const source of answer.sources) {
    const id = sourceId(source.name);
    add({ id, column: "source", name: source.name, flows: flows(id), source });
  }
  answer.routes.forEach((route, index) => {
    const id = routeId(index);
    add({ id, column: "route", name: route.name, flows: flows(id), route });
  });
  for (const exporter of answer.exporters) {
    const id = exporterId(exporter.name);
    add({ id, column: "exporter", name: exporter.name, flows: flows(id), exporter });
  }
  for (const flow of answer.flows) {
    const [source, route, exporter] = [sourceId(flow.source), routeId(flow.route), exporterId(flow.exporter)];
    if (!parts.has(source)) add({ id: source, column: "source", name: flow.source, flows: flows(source), source: null });
    if (!parts.has(route)) add({ id: route, column: "route", name: "no route", flows: flows(route), route: null });
    if (!parts.has(exporter)) add({ id: exporter, column: "exporter", name: flow.exporter, flows: flows(exporter), exporter: null });
  }
  return { parts, edges };
}

export function totalsOf(flows: readonly LedgerRow[]): Totals {
  const totals: Totals = { accepted: 0, delivered: 0, queued: 0, in_flight: 0, dead_lettered: 0, dropped: {}, difference: 0 };
  for (const flow of flows) {
    totals.accepted += flow.accepted;
    totals.delivered += flow.delivered;
    totals.queued += flow.queued;
    totals.in_flight += flow.in_flight;
    totals.dead_lettered += flow.dead_lettered;
    // Opposite errors must not hide each other.
    totals.difference += Math.abs(flow.difference);
    for (const [reason, records] of Object.entries(flow.dropped)) totals.dropped[reason] = (totals.dropped[reason] ?? 0) + records;
  }
  return totals;
}

/** The rates of several flows together; null when none is known. */
export function rateOf(flows: readonly Flow[], rates: Rates | null): Rate | null {
  if (rates === null) return null;
  let sum: Rate | null = null;
  for (const flow of flows) {
    const rate = rates.flows.get(flowKey(flow));
    if (rate === undefined) continue;
    sum ??= { accepted: 0, delivered: 0, lost: 0 };
    sum.accepted += rate.accepted;
    sum.delivered += rate.delivered;
    sum.lost += rate.lost;
  }
  return sum;
}

/** The health of a part; routes, and parts that are configured no more, have none. */
export function healthOf(part: Part): Health | null {
  if (part.column === "source") return part.source?.health ?? null;
  return part.column === "exporter" ? (part.exporter?.health ?? null) : null;
}

/** How urgent a state is, the worst first; it decides what a group of parts shows. */
const URGENCY: readonly HealthState[] = ["unhealthy", "initializing", "healthy", "disabled"];

/** The worst of these states; null for none. */
export function worstState(states: readonly (HealthState | null)[]): HealthState | null {
  return URGENCY.find((state) => states.includes(state)) ?? null;
}

/** The shape of a state: the dashboard's four, so that a colour is never the only sign. */
export function shapeOf(state: HealthState | null): HostStatus {
  return state === "healthy" ? "up" : state === "unhealthy" ? "down" : "unknown";
}

/** `ok`: records flow. `idle`: none at present. `late`: they wait, or some are lost. `down`: one end does not work, or the ledger is wrong. */
export type EdgeState = "ok" | "idle" | "late" | "down";

export function edgeState(edge: Edge, graph: Graph, rates: Rates | null, nowMs: number): EdgeState {
  const ends = [graph.parts.get(edge.from), graph.parts.get(edge.to)];
  const rate = rateOf(edge.flows, rates);
  if (edge.flows.some((flow) => flow.difference !== 0)) return "down";
  if (ends.some((part) => part !== undefined && healthOf(part)?.state === "unhealthy")) return "down";
  const exporter = ends.find((part) => part?.column === "exporter");
  const paused = exporter?.column === "exporter" && (exporter.exporter?.paused_until_ms ?? 0) > nowMs;
  if (paused || (rate !== null && rate.lost > 0)) return "late";
  const waiting = edge.flows.some((flow) => flow.queued > 0);
  if (waiting && rate !== null && rate.accepted > 0 && rate.delivered === 0) return "late";
  return rate === null || (rate.accepted === 0 && rate.delivered === 0) ? "idle" : "ok";
}

/** Whether a part has every word of `query` in its name, kind, role or state. */
export function matches(part: Part, query: string): boolean {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const about = [part.name, part.column, healthOf(part)?.state ?? ""];
  if (part.column === "source" && part.source !== null) about.push(part.source.kind, part.source.role);
  if (part.column === "exporter" && part.exporter !== null) about.push(part.exporter.kind, part.exporter.queue.kind);
  if (part.column === "route" && part.route !== null) about.push(part.route.keep ?? "");
  const totals = totalsOf(part.flows);
  if (totals.dead_lettered > 0) about.push("dead letters");
  if (droppedTotal(totals.dropped) > 0) about.push("dropped");
  if (totals.queued > 0) about.push("queued");
  const text = about.join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}
