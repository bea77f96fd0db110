import { describe, expect, it } from "vitest";
import { filterHosts } from "./filter";
import { keepOrder, networkTotal, SORT_KEYS, sortHosts } from "./order";
import { sampleHost } from "./sample";
import { poolSize, visibleRange } from "./window";

const HOSTS = [
  sampleHost("web-10", { cpu: 0.2, tags: ["web", "team=core"], environment: "production" }),
  sampleHost("web-2", { cpu: null, tags: ["web"], environment: "staging", status: "late", last_seen_ms: 0 }),
  sampleHost("db-1", { cpu: 0.9, tags: ["db"], environment: "production", status: "down", os: "Debian 12" }),
];
const names = (hosts: { name: string }[]): string[] => hosts.map((host) => host.name);
const find = (query: string): string[] => names(filterHosts(HOSTS, query, 40_000));

describe("the filter", () => {
  it("finds all with nothing", () => expect(find("  ")).toHaveLength(3));

  it("looks in name, tags, environment, system and status words, whatever the case", () => {
    expect(find("WEB")).toEqual(["web-10", "web-2"]);
    expect(find("team=core")).toEqual(["web-10"]);
    expect(find("production")).toEqual(["web-10", "db-1"]);
    expect(find("debian")).toEqual(["db-1"]);
    expect(find("late")).toEqual(["web-2"]);
    expect(find("down")).toEqual(["db-1"]);
  });

  it("wants every word, and refuses words after a minus", () => {
    expect(find("web production")).toEqual(["web-10"]);
    expect(find("web -staging")).toEqual(["web-10"]);
    expect(find("-web")).toEqual(["db-1"]);
  });

  it("looks in one field where it is named", () => {
    expect(find("status:up")).toEqual(["web-10"]);
    expect(find("tag:web")).toEqual(["web-10", "web-2"]);
    expect(find("env:prod -name:db")).toEqual(["web-10"]);
  });

  it("takes an unknown field as text", () => expect(find("constructor:x")).toEqual([]));
});

describe("the order", () => {
  it("sorts names as people count", () => {
    expect(names(sortHosts(HOSTS, "name", "asc"))).toEqual(["db-1", "web-2", "web-10"]);
    expect(names(sortHosts(HOSTS, "name", "desc"))).toEqual(["web-10", "web-2", "db-1"]);
  });

  it("puts a missing value last in both directions", () => {
    expect(names(sortHosts(HOSTS, "cpu", "desc"))).toEqual(["db-1", "web-10", "web-2"]);
    expect(names(sortHosts(HOSTS, "cpu", "asc"))).toEqual(["web-10", "db-1", "web-2"]);
  });

  it("puts what needs somebody first", () => {
    expect(names(sortHosts(HOSTS, "status", "desc"))).toEqual(["db-1", "web-2", "web-10"]);
  });

  it("compares agents that send one figure for the network with those that send two", () => {
    expect(networkTotal(sampleHost("a", { network_receive_bytes_per_second: 5 }))).toBe(5);
    expect(networkTotal(sampleHost("a", { network_bits_per_second: 80 }))).toBe(10);
    expect(networkTotal(sampleHost("a"))).toBeNull();
  });

  it("keeps rows where they are while held: the gone leave, the new come last", () => {
    const wanted = [sampleHost("new"), sampleHost("b"), sampleHost("a")];
    expect(names(keepOrder(["a", "gone", "b"], wanted))).toEqual(["a", "b", "new"]);
  });

  it("filters and sorts 2,000 hosts by any column, and those without a value stand together", () => {
    const many = Array.from({ length: 2000 }, (_, index) =>
      sampleHost(`host-${(index * 7919) % 2000}.example.com`, {
        cpu: index % 3 === 0 ? null : (index * 31) % 97,
        tags: ["web", `team=${index % 7}`],
        environment: "production",
      }),
    );
    for (const key of SORT_KEYS) {
      expect(sortHosts(filterHosts(many, "prod team=1", 0), key, "asc")).toHaveLength(286);
      const sorted = sortHosts(filterHosts(many, "", 0), key, "desc");
      expect(new Set(sorted.map((host) => host.name)).size).toBe(2000);
      const missing = sortHosts(many, "cpu", "desc").map((host) => host.cpu === null);
      expect(missing.lastIndexOf(false)).toBe(missing.indexOf(true) - 1);
    }
  });
});

describe("the visible range", () => {
  it("covers the screen and a few rows more", () => {
    expect(visibleRange(100, 900, 48, 2000, 4)).toEqual({ first: 0, last: 21 });
    expect(visibleRange(-4800, 960, 48, 2000, 4)).toEqual({ first: 96, last: 124 });
  });

  it("never asks for more rows than there are to reuse", () => {
    for (let top = 200; top > -3000; top -= 7) {
      const { first, last } = visibleRange(top, 901, 48, 2000);
      expect(last - first).toBeLessThanOrEqual(poolSize(901, 48));
    }
  });

  it("never leaves the list", () => {
    expect(visibleRange(100, 900, 48, 3)).toEqual({ first: 0, last: 3 });
    expect(visibleRange(-1_000_000, 900, 48, 10)).toEqual({ first: 10, last: 10 });
    expect(visibleRange(5000, 900, 48, 10)).toEqual({ first: 0, last: 0 });
    expect(visibleRange(0, 900, 48, 0)).toEqual({ first: 0, last: 0 });
  });
});
