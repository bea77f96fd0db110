/** The ledger as rows: which, and in which order. */

import { droppedTotal, flowKey, type Rates } from "./rate";
import type { Flow, PipelineRoute } from "../api/types";
import { partName } from "./words";

export const LEDGER_COLUMNS = [
  { key: "source", title: "Source", number: false, rare: false },
  { key: "exporter", title: "Exporter", number: false, rare: true },
  { key: "signal", title: "Signal", number: false, rare: true },
  { key: "route", title: "Route", number: false, rare: true },
  { key: "rate", title: "In", number: true, rare: false },
  { key: "accepted", title: "Accepted", number: true, rare: true },
  { key: "delivered", title: "Delivered", number: true, rare: true },
  { key: "queued", title: "Queued", number: true, rare: false },
  { key: "in_flight", title: "In flight", number: true, rare: true },
  { key: "dead_lettered", title: "Dead", number: true, rare: false },
  { key: "dropped", title: "Dropped", number: true, rare: true },
  { key: "difference", title: "Balance", number: true, rare: false },
] as const;

export type LedgerColumn = (typeof LEDGER_COLUMNS)[number]["key"];
export type Order = { column: LedgerColumn; descending: boolean };

/** `-queued` is by queued, the most first. Unknown texts are the order of the configuration. */
export function parseOrder(text: string | null): Order | null {
  if (text === null) return null;
  const descending = text.startsWith("-");
  const column = LEDGER_COLUMNS.find(({ key }) => key === (descending ? text.slice(1) : text))?.key;
  return column === undefined ? null : { column, descending };
}

/** The order after a click on a column, as the address holds it: numbers begin with the most, a third click ends it. */
export function clickedOrder(order: Order | null, column: LedgerColumn): string | null {
  const first = LEDGER_COLUMNS.find(({ key }) => key === column)?.number === true;
  const text = (descending: boolean): string => (descending ? `-${column}` : column);
  if (order === null || order.column !== column) return text(first);
  return order.descending === first ? text(!first) : null;
}

export function routeName(flow: Pick<Flow, "route">, routes: readonly PipelineRoute[]): string {
  return flow.route === null ? "no route" : (routes[flow.route]?.name ?? "no route");
}

function valueOf(flow: Flow, column: LedgerColumn, routes: readonly PipelineRoute[], rates: Rates | null): string | number {
  switch (column) {
    case "route":
      return routeName(flow, routes);
    case "rate":
      return rates?.flows.get(flowKey(flow))?.accepted ?? -1;
    case "dropped":
      return droppedTotal(flow.dropped);
    case "difference":
      return Math.abs(flow.difference);
    default:
      return flow[column];
  }
}

/** False for a way that no record ever took: there is one for every signal that could come. */
export function isUsed(flow: Flow): boolean {
  return flow.accepted > 0 || flow.difference !== 0;
}

/** The rows that have every word of `query`, in `order`; equals keep theirs. */
export function ledgerRows(flows: readonly Flow[], routes: readonly PipelineRoute[], rates: Rates | null, query: string, order: Order | null): Flow[] {
  const words = query.toLowerCase().split(/\s+/).filter((word) => word !== "");
  const rows = flows.filter((flow) => {
    const names = [partName({ column: "source", name: flow.source }), partName({ column: "exporter", name: flow.exporter })];
    const text = [flow.source, flow.exporter, ...names, flow.signal, routeName(flow, routes), ...Object.keys(flow.dropped)].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  if (order === null) return rows;
  const sign = order.descending ? -1 : 1;
  return rows.sort((a, b) => {
    const [x, y] = [valueOf(a, order.column, routes, rates), valueOf(b, order.column, routes, rates)];
    return sign * (typeof x === "string" && typeof y === "string" ? x.localeCompare(y, "en", { numeric: true }) : Number(x) - Number(y));
  });
}
