import type { HostRow, HostStatus } from "../api/types";

export type Direction = "asc" | "desc";

export const SORT_KEYS = ["status", "name", "cpu", "memory", "disk", "network", "load", "seen", "kind"] as const;
export type SortKey = (typeof SORT_KEYS)[number];

/** The direction somebody means who presses a column for the first time: names from A, numbers from the largest. */
export const FIRST_DIRECTION: Record<SortKey, Direction> = {
  status: "desc",
  name: "asc",
  cpu: "desc",
  memory: "desc",
  disk: "desc",
  network: "desc",
  load: "desc",
  seen: "desc",
  kind: "asc",
};

const SEVERITY: Record<HostStatus, number> = { up: 0, unknown: 1, late: 2, down: 3 };

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

/** The place of each name among all: collation is what costs in sorting, so it is done again only when a name is new. */
let ranks: ReadonlyMap<string, number> = new Map();

function ranksOf(hosts: readonly HostRow[]): ReadonlyMap<string, number> {
  if (!hosts.every((host) => ranks.has(host.name))) {
    const names = hosts.map((host) => host.name).sort((a, b) => collator.compare(a, b) || (a < b ? -1 : 1));
    ranks = new Map(names.map((name, index) => [name, index]));
  }
  return ranks;
}

/** Both directions together in bytes per second; null when the host sends neither. */
export function networkTotal(host: HostRow): number | null {
  if (host.network_receive_bytes_per_second === null && host.network_transmit_bytes_per_second === null) {
    return host.network_bits_per_second === null ? null : host.network_bits_per_second / 8;
  }
  return (host.network_receive_bytes_per_second ?? 0) + (host.network_transmit_bytes_per_second ?? 0);
}

/** How a column is ordered. Numbers of a host that is down are old: they still count, its row says so. */
const VALUES: Record<SortKey, (host: HostRow) => number | string | null> = {
  status: (host) => SEVERITY[host.status],
  name: (host) => host.name,
  cpu: (host) => host.cpu,
  memory: (host) => host.memory,
  disk: (host) => host.disk,
  network: networkTotal,
  load: (host) => host.load1,
  seen: (host) => host.last_seen_ms,
  kind: (host) => host.kind,
};

/** `hosts` in order. A missing value is last in both directions; equal values are in the order of their names. */
export function sortHosts(hosts: readonly HostRow[], key: SortKey, direction: Direction): HostRow[] {
  const value = VALUES[key];
  const sign = direction === "asc" ? 1 : -1;
  const byName = ranksOf(hosts);
  return hosts
    .map((host) => ({ host, value: key === "name" ? null : value(host), rank: byName.get(host.name) ?? 0 }))
    .sort((a, b) => {
      if (key === "name") return (a.rank - b.rank) * sign;
      if (a.value === b.value) return a.rank - b.rank;
      if (a.value === null || b.value === null) return Number(a.value === null) - Number(b.value === null);
      return (a.value < b.value ? -1 : 1) * sign;
    })
    .map((entry) => entry.host);
}

/**
 * `wanted` in the order somebody is looking at: those of `previous` stay where they are, those that are gone leave, those that
 * are new come last.
 */
export function keepOrder(previous: readonly string[], wanted: readonly HostRow[]): HostRow[] {
  const left = new Map(wanted.map((host) => [host.name, host]));
  const kept: HostRow[] = [];
  for (const name of previous) {
    const host = left.get(name);
    if (host === undefined) continue;
    kept.push(host);
    left.delete(name);
  }
  return [...kept, ...left.values()];
}
