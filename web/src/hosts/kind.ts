import type { HostKind } from "../api/types";

/** What reports a host, in a word for the table. */
export const KIND_WORDS: Record<HostKind, string> = {
  weir: "Weir",
  agentops: "AgentOps",
  agent_monitor: "Monitor",
  openfinops: "OpenFinOps",
  otlp: "OTLP",
};

export const KIND_MEANING: Record<HostKind, string> = {
  weir: "Weir's own agent",
  agentops: "An agent that posts to /api/v1/telemetry/ingest or registers as AgentOps",
  agent_monitor: "An agent that posts to /api/v1/agents/ID/metrics",
  openfinops: "A server that posts to /api/metrics",
  otlp: "An OpenTelemetry sender",
};
