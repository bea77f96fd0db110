import type { HostRow } from "../api/types";

/** A host for tests: everything missing except what `known` says. */
export function sampleHost(name: string, known: Partial<HostRow> = {}): HostRow {
  return {
    name,
    id: `id-${name}`,
    status: "up",
    last_seen_ms: 0,
    status_since_ms: null,
    interval_seconds: null,
    kind: "weir",
    environment: null,
    location: null,
    ip_address: null,
    tags: [],
    os: null,
    agent_version: null,
    cpu: null,
    cpu_count: null,
    memory: null,
    memory_total_bytes: null,
    disk: null,
    disk_total_bytes: null,
    disk_mount: null,
    network_receive_bytes_per_second: null,
    network_transmit_bytes_per_second: null,
    network_bits_per_second: null,
    load1: null,
    load5: null,
    load15: null,
    uptime_seconds: null,
    process_count: null,
    temperature_celsius: null,
    sparkline: [],
    sparkline_end_ms: 0,
    ...known,
  };
}
