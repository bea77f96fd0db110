/** The facts of a host in words, from its row and from what the server knows besides. */

import type { HostAnswer, HostRow } from "../api/types";
import { seconds } from "../chart/format";
import { bytes, duration } from "../ui/format";

export interface Fact {
  readonly name: string;
  readonly value: string;
}

const KINDS: Readonly<Record<HostRow["kind"], string>> = {
  weir: "Weir's agent",
  agentops: "AgentOps client",
  agent_monitor: "agent monitor client",
  openfinops: "OpenFinOps client",
  otlp: "OpenTelemetry (OTLP)",
};

/** What is always told, in this order: its name, its value in the row, and its names in what agents tell. */
interface Known {
  readonly name: string;
  readonly row?: (host: HostRow) => string | number | null;
  readonly told: readonly string[];
  readonly text?: (value: number) => string;
}

const KNOWN: readonly Known[] = [
  { name: "OS", row: (host) => host.os, told: ["os", "os.description", "os.name", "os.type"] },
  { name: "Kernel", told: ["kernel", "os.version", "os.build_id"] },
  { name: "Architecture", told: ["architecture", "host.arch"] },
  { name: "CPUs", row: (host) => host.cpu_count, told: ["cpu_count", "cpus"] },
  { name: "Memory", row: (host) => host.memory_total_bytes, told: ["memory_bytes", "memory_total_bytes"], text: bytes },
  { name: "Uptime", row: (host) => host.uptime_seconds, told: ["uptime_seconds"], text: duration },
  { name: "Address", row: (host) => host.ip_address, told: ["ip_address", "host.ip"] },
  {
    name: "Environment",
    row: (host) => host.environment,
    told: ["deployment.environment.name", "deployment.environment"],
  },
  { name: "Location", row: (host) => host.location, told: ["location"] },
];

/** Facts of the row first, then what else the server tells; what is not known is left out. */
export function factsOf(host: HostRow, told: HostAnswer["facts"], agentVersion: string | null = null): Fact[] {
  const facts: Fact[] = [];
  const add = (name: string, value: string | number | null | undefined, text?: (value: number) => string): void => {
    if (value === null || value === undefined || value === "") return;
    const number = Number(value);
    facts.push({ name, value: text && Number.isFinite(number) ? text(number) : String(value) });
  };
  for (const { name, row, told: names, text } of KNOWN) {
    add(name, row?.(host) ?? names.map((one) => told.find((fact) => fact.name === one)?.value).find(Boolean), text);
  }
  const version = host.agent_version ?? agentVersion;
  add("Agent", `${KINDS[host.kind] ?? host.kind}${version === null ? "" : ` ${version}`}`);
  add("Interval", host.interval_seconds, (length) => `every ${length < 1 ? seconds(length) : duration(length)}`);
  const known = new Set(KNOWN.flatMap(({ told: names }) => names));
  for (const { name, value } of told) {
    if (!known.has(name)) add(words(name), value);
  }
  return facts;
}

/** `cpu_model` as `Cpu model`; names of attributes, such as `host.arch`, stay as they are. */
function words(name: string): string {
  if (name.includes(".")) return name;
  const text = name.replaceAll("_", " ");
  if (text.length <= 3) return text.toUpperCase();
  return text.charAt(0).toUpperCase() + text.slice(1);
}
