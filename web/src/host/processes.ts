/** Order and filter of the table of processes. */

import type { Process } from "../api/types";

export type Column = "pid" | "name" | "user" | "cpu" | "memory_bytes" | "threads";

export interface Order {
  readonly column: Column;
  readonly descending: boolean;
}

export const COLUMNS: readonly { readonly key: Column; readonly title: string; readonly number: boolean }[] = [
  { key: "name", title: "Process", number: false },
  { key: "pid", title: "PID", number: true },
  { key: "user", title: "User", number: false },
  { key: "cpu", title: "CPU", number: true },
  { key: "memory_bytes", title: "Memory", number: true },
  { key: "threads", title: "Threads", number: true },
];

export const DEFAULT_ORDER: Order = { column: "cpu", descending: true };

/** `cpu` or `-cpu` (descending), as it stands in the address. */
export function parseOrder(text: string | null): Order {
  const column = COLUMNS.find(({ key }) => key === text?.replace(/^-/, ""));
  return column ? { column: column.key, descending: text?.startsWith("-") === true } : DEFAULT_ORDER;
}

export function orderText({ column, descending }: Order): string {
  return `${descending ? "-" : ""}${column}`;
}

/** The order after a click on a column: numbers begin with the greatest; the second click turns it around. */
export function clicked(order: Order, column: Column): Order {
  if (order.column === column) return { column, descending: !order.descending };
  return { column, descending: COLUMNS.find(({ key }) => key === column)?.number === true && column !== "pid" };
}

/** The processes whose name, user or number holds every word of `filter`, in order; what is not known comes last. */
export function arranged(processes: readonly Process[], filter: string, { column, descending }: Order): Process[] {
  const words = filter
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "");
  const found = processes.filter(({ name, user, pid }) => {
    const text = `${name} ${user ?? ""} ${pid}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const turn = descending ? -1 : 1;
  return found.sort((one, other) => {
    const [a, b] = [one[column], other[column]];
    if (a === null || b === null) return a === b ? one.pid - other.pid : a === null ? 1 : -1;
    const order = typeof a === "string" ? a.localeCompare(String(b), "en", { numeric: true }) : a - Number(b);
    return order === 0 ? one.pid - other.pid : order * turn;
  });
}
