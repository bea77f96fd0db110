import { expect, it } from "vitest";
import { statusWords } from "./status";

const now = new Date(2026, 10, 21, 15, 0, 0).getTime();
const plain = (text: string): string => text.replaceAll("\u202f", " ");

it("says a state in words with what somebody needs to judge it", () => {
  expect(statusWords({ status: "up", last_seen_ms: now, status_since_ms: 0 }, now)).toBe("up");
  expect(plain(statusWords({ status: "late", last_seen_ms: now - 40_000, status_since_ms: null }, now))).toBe("late 40 s");
  const since = new Date(2026, 10, 21, 14, 2, 0).getTime();
  expect(statusWords({ status: "down", last_seen_ms: since - 9_000, status_since_ms: since }, now)).toBe("down since 14:02");
  expect(statusWords({ status: "down", last_seen_ms: since, status_since_ms: null }, now)).toBe("down since 14:02");
  expect(statusWords({ status: "unknown", last_seen_ms: null, status_since_ms: null }, now)).toBe("no data yet");
});
