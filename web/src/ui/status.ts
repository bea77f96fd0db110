import type { HostRow, HostStatus } from "../api/types";
import { moment, shortDuration } from "./format";

/** A host's state in words: "up", "late 40 s", "down since 14:02", "no data yet". */
export function statusWords(host: Pick<HostRow, "status" | "last_seen_ms" | "status_since_ms">, nowMs: number): string {
  switch (host.status) {
    case "up":
      return "up";
    case "late":
      return host.last_seen_ms === null ? "late" : `late ${shortDuration((nowMs - host.last_seen_ms) / 1000)}`;
    case "down": {
      const since = host.status_since_ms ?? host.last_seen_ms;
      return since === null ? "down" : `down since ${moment(since, nowMs)}`;
    }
    case "unknown":
      return "no data yet";
  }
}

/** What a state means, for its `title`. */
export const STATUS_MEANING: Record<HostStatus, string> = {
  up: "Up: data arrived within 2.5 of this machine's intervals.",
  late: "Late: the last data is older than 2.5 of this machine's intervals.",
  down: "Down: no data for more than 5 of this machine's intervals.",
  unknown: "This machine is registered, but no data of it has ever arrived.",
};
