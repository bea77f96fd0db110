import { describe, expect, it } from "vitest";
import type { HostRow, Process, QueryAnswer, QuerySeries } from "../api/types";
import { factsOf } from "./facts";
import { chartsOf, customNames, reason, usualRange } from "./page";
import { customPlans, eachSeries, MOST_LINES, MOST_QUERIES, namesOf, PLANS, queriesOf } from "./plans";
import { arranged, clicked, DEFAULT_ORDER, orderText, parseOrder } from "./processes";
import { similar } from "./similar";
import { tailFromMs, withTail } from "./tail";

const one = (labels: Record<string, string>, values: (number | null)[], min = values, max = values): QuerySeries => ({
  labels,
  values,
  min,
  max,
});
const answer = (results: Record<string, QuerySeries[]>, length = 3): QueryAnswer => ({
  from_ms: 0,
  to_ms: length * 1000,
  step_ms: 1000,
  times_ms: Array.from({ length }, (_, index) => index * 1000),
  results: Object.entries(results).map(([id, series]) => ({ id, unit: "1", series })),
});
const HOST = { interval_seconds: 1, cpu_count: 4 };
const find = (results: Record<string, QuerySeries[]>, id: string) =>
  chartsOf(PLANS, answer(results), HOST, []).shown.find(({ plan }) => plan.id === id);

describe("the query of a host", () => {
  it("has distinct ids and fits into one request, however many custom metrics there are", () => {
    const plans = [...PLANS, ...customPlans(Array.from({ length: 90 }, (_, index) => `custom.m${index}`))];
    const queries = queriesOf(plans, "web-1");
    expect(queries.length).toBe(MOST_QUERIES);
    expect(new Set(queries.map(({ id }) => id)).size).toBe(queries.length);
    expect(queries.every(({ match }) => match["host.name"] === "web-1")).toBe(true);
  });
});

describe("charts", () => {
  it("show the busy modes of the CPU without idle, in a fixed order", () => {
    const chart = find(
      {
        cpu: [
          one({ "cpu.mode": "idle" }, [0.7, 0.7, 0.7]),
          one({ "cpu.mode": "system" }, [0.1, 0.1, 0.1]),
          one({ "cpu.mode": "user" }, [0.2, 0.2, 0.2]),
        ],
      },
      "cpu",
    );
    expect(chart?.frame.series.map(({ key }) => key)).toEqual(["user", "system"]);
  });

  it("show the busiest moment of steps that hold several samples", () => {
    const chart = find(
      {
        cpu: [
          one({ "cpu.mode": "user" }, [0.2, 0.2, 0.2]),
          one({ "cpu.mode": "idle" }, [0.8, 0.8, 0.8], [0.1, 0.8, 0.8]),
        ],
      },
      "cpu",
    );
    expect(chart?.frame.series.at(-1)?.values).toEqual([0.9, expect.closeTo(0.2), expect.closeTo(0.2)]);
  });

  it("show the single figure of clients without modes", () => {
    expect(find({ cpu: [one({}, [0.5, 0.5, 0.5])] }, "cpu")?.frame.series.map(({ name }) => name)).toEqual(["used"]);
  });

  it("use the share of memory only where bytes are missing", () => {
    const share = [one({ "system.memory.state": "used" }, [0.5, 0.5, 0.5])];
    const both = chartsOf(
      PLANS,
      answer({ memory_share: share, memory: [one({ "system.memory.state": "used" }, [1, 2, 3])] }),
      HOST,
      [],
    );
    expect(both.shown.map(({ plan }) => plan.id)).toEqual(["memory"]);
    const alone = chartsOf(PLANS, answer({ memory_share: share }), HOST, []);
    expect(alone.shown.map(({ plan }) => plan.id)).toEqual(["memory_share"]);
    expect(alone.notReported).not.toContain("memory");
  });

  it("let the axis of memory reach its size", () => {
    const chart = find(
      { memory: [one({ "system.memory.state": "used" }, [1, 2, 3])], "memory.limit": [one({}, [16, 16, 16])] },
      "memory",
    );
    expect(chart?.range.least).toBe(16);
  });

  it("that have no data are told in words, with the integration's reason", () => {
    const { notReported } = chartsOf(PLANS, answer({}), HOST, [
      { name: "host", watched: [], not_watched: [{ what: "temperature", why: "no sensors" }] },
    ]);
    expect(notReported).toContain("temperature (no sensors)");
    expect(notReported).toContain("swap");
    expect(notReported).toContain("disk I/O");
    expect(notReported).not.toContain("response time");
    expect(reason(["paging"], [])).toBeNull();
    const remark = [{ name: "host", watched: ["2 CPUs", "page faults (no swap is configured)"], not_watched: [] }];
    expect(reason(["paging", "swap"], remark)).toBe("no swap is configured");
    expect(reason(["temperature"], remark)).toBeNull();
  });

  it("that are zero all the time are told in words, until something happens", () => {
    const quiet = chartsOf(
      PLANS,
      answer({ problems: [one({ "network.interface.name": "eth0" }, [0, 0, null])] }),
      HOST,
      [],
    );
    expect(quiet.allZero).toEqual(["network errors and drops"]);
    expect(
      find({ "problems.dropped": [one({ "system.device": "eth0" }, [0, 1, 0])] }, "problems")?.frame.series[0]?.name,
    ).toBe("all dropped");
  });
});

describe("names of lines", () => {
  it("hold only the labels in which they differ", () => {
    const io = [
      one({ "system.device": "sda", "disk.io.direction": "read" }, [1]),
      one({ "system.device": "sda", "disk.io.direction": "write" }, [1]),
    ];
    expect(namesOf(io, "all")).toEqual(["read", "write"]);
    expect(namesOf([...io, one({ "system.device": "sdb", "disk.io.direction": "read" }, [1])], "all")[0]).toBe(
      "sda read",
    );
    expect(namesOf([one({ "system.filesystem.mountpoint": "/" }, [1])], "used")).toEqual(["used"]);
  });

  it("keep their colour when one of them is isolated", () => {
    const chart = find(
      {
        network: [
          one({ "network.io.direction": "receive" }, [1, 1, 1]),
          one({ "network.io.direction": "transmit" }, [2, 2, 2]),
        ],
      },
      "network",
    );
    expect(chart?.frame.series.map(({ name, colour }) => [name, colour])).toEqual([
      ["receive", 0],
      ["transmit", 1],
    ]);
  });

  it("are the greatest where there are too many, in an order that stays", () => {
    const many = Array.from({ length: 30 }, (_, index) => one({ d: `sd${index}` }, [index]));
    const lines = eachSeries(many, "all", 1);
    expect(lines.length).toBe(MOST_LINES);
    expect(lines.map(({ name }) => name)).toEqual(Array.from({ length: MOST_LINES }, (_, index) => `sd${index + 14}`));
  });
});

describe("the tail of a live page", () => {
  const known = answer(
    { a: [one({ x: "1" }, [1, 2, 3, 4, 5, 6])], old: [one({}, [7, null, null, null, null, null])] },
    6,
  );

  it("is asked for from a few steps before the end", () => {
    expect(tailFromMs(known)).toBe(1000);
  });

  it("replaces what it holds, appends what is new, and drops what is too old", () => {
    const tail: QueryAnswer = {
      ...answer({ a: [one({ x: "1" }, [50, 60, 70]), one({ x: "2" }, [null, null, 9])] }),
      from_ms: 4000,
      to_ms: 7000,
      times_ms: [4000, 5000, 6000],
    };
    const joined = withTail(known, tail, 2000);
    expect(joined.times_ms).toEqual([2000, 3000, 4000, 5000, 6000]);
    expect(joined.results[0]?.series.map(({ values }) => values)).toEqual([
      [3, 4, 50, 60, 70],
      [null, null, null, null, 9],
    ]);
    expect(joined.results[1]?.series).toEqual([]);
  });

  it("turns what was held for a while into a gap when the next sample does not come", () => {
    const tail: QueryAnswer = { ...answer({ a: [one({ x: "1" }, [5, null])] }, 2), times_ms: [4000, 5000] };
    expect(withTail(known, tail, 0).results[0]?.series[0]?.values).toEqual([1, 2, 3, 4, 5, null]);
    const silent: QueryAnswer = { ...answer({ a: [] }, 2), times_ms: [4000, 5000] };
    expect(withTail(known, silent, 0).results[0]?.series[0]?.values).toEqual([1, 2, 3, 4, null, null]);
  });
});

describe("custom metrics", () => {
  it("are found in what a client sent, at any depth, without texts", () => {
    expect(
      customNames([
        { custom_metrics: { queue: { depth: 3, on: true }, note: "x", list: [1] } },
        { custom_metrics: null, network_io: 5 },
        {},
      ]),
    ).toEqual(["custom.network_io", "custom.queue.depth", "custom.queue.on"]);
  });
});

describe("facts", () => {
  const row = {
    os: null,
    cpu_count: 4,
    memory_total_bytes: null,
    disk_total_bytes: null,
    uptime_seconds: null,
    ip_address: "10.0.0.5",
    environment: null,
    location: null,
    agent_version: "1",
    interval_seconds: 15,
    kind: "weir",
  };
  const told = [
    { name: "os", value: "Debian 12" },
    { name: "memory_bytes", value: "1073741824" },
    { name: "cpu_count", value: "8" },
    { name: "host.arch", value: "amd64" },
    { name: "serial_number", value: "x" },
    { name: "cloud.region", value: "eu" },
  ];
  const facts = factsOf(row as unknown as HostRow, told).map(
    ({ name, value }) => `${name}: ${value.replaceAll("\u202f", " ")}`,
  );

  it("come from the row first, then from what the agent told, each once and in words", () => {
    expect(facts).toEqual([
      "OS: Debian 12",
      "Architecture: amd64",
      "CPUs: 4",
      "Memory: 1.00 GiB",
      "Address: 10.0.0.5",
      "Agent: Weir's agent 1",
      "Interval: every 15 s",
      "Serial number: x",
      "cloud.region: eu",
    ]);
  });
});

describe("processes", () => {
  const process = (pid: number, name: string, cpu: number | null, user: string | null = null): Process => ({
    pid,
    name,
    cpu,
    user,
    memory_bytes: null,
    threads: null,
  });
  const all = [
    process(1, "init", null, "root"),
    process(20, "nginx", 0.5, "www"),
    process(3, "postgres", 2, "postgres"),
  ];

  it("are in order, and what is not known comes last in both directions", () => {
    expect(arranged(all, "", DEFAULT_ORDER).map(({ pid }) => pid)).toEqual([3, 20, 1]);
    expect(arranged(all, "", { column: "cpu", descending: false }).map(({ pid }) => pid)).toEqual([20, 3, 1]);
    expect(arranged(all, "", { column: "name", descending: false }).map(({ pid }) => pid)).toEqual([1, 20, 3]);
  });

  it("are found by all words of the filter in name, user or number", () => {
    expect(arranged(all, "ng www", DEFAULT_ORDER).map(({ pid }) => pid)).toEqual([20]);
    expect(arranged(all, "20", DEFAULT_ORDER).map(({ pid }) => pid)).toEqual([20]);
    expect(arranged(all, "nothing", DEFAULT_ORDER)).toEqual([]);
  });

  it("keep their order in the address, and a click turns it around", () => {
    expect(parseOrder(orderText({ column: "name", descending: true }))).toEqual({ column: "name", descending: true });
    expect(parseOrder("-<script>")).toEqual(DEFAULT_ORDER);
    expect(clicked(DEFAULT_ORDER, "cpu")).toEqual({ column: "cpu", descending: false });
    expect(clicked(DEFAULT_ORDER, "name")).toEqual({ column: "name", descending: false });
    expect(clicked(DEFAULT_ORDER, "threads")).toEqual({ column: "threads", descending: true });
  });
});

describe("a name that does not exist", () => {
  it("suggests those that may be meant, the nearest first", () => {
    expect(similar("web1", ["web-1", "web-10", "db-1", "mail"])).toEqual(["web-1", "web-10", "db-1"].slice(0, 2));
    expect(similar("WEB-1", ["web-1.example.com"])).toEqual(["web-1.example.com"]);
    expect(similar("zzz", ["web-1"])).toEqual([]);
  });
});

describe("the range before anybody chose one", () => {
  const now = 1_795_276_800_000;
  const host = (minutes: number, status: HostRow["status"] = "up", since: number | null = now - 60_000) =>
    usualRange(
      {
        sparkline: Array.from({ length: 60 }, (_, index) => (index >= 60 - minutes ? 0.5 : null)),
        status,
        status_since_ms: since,
      },
      now,
    );
  const length = (seconds: number) => ({ kind: "relative", seconds });

  it("is an hour, and shorter for a host that has just come", () => {
    expect(host(60)).toEqual(length(3600));
    expect(host(16)).toEqual(length(3600));
    expect(host(15)).toEqual(length(900));
    expect(host(1)).toEqual(length(300));
  });

  it("does not need CPU values for that", () => {
    expect(host(0)).toEqual(length(300));
    expect(host(0, "up", now - 3_600_000)).toEqual(length(3600));
    expect(host(0, "down")).toEqual(length(3600));
    expect(host(0, "unknown", null)).toEqual(length(3600));
  });
});
