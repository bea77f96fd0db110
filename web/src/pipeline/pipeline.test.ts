import { describe, expect, it } from "vitest";
import { edgeState, graphOf, matches, rateOf, totalsOf, worstState } from "./graph";
import { crossings, groupable, layoutOf, neighbour, withFewCrossings } from "./layout";
import { flowKey, ratesBetween, secondsUntilFull, thickness, WINDOW_MS, withSnapshot } from "./rate";
import { clickedOrder, isUsed, ledgerRows, parseOrder } from "./table";
import type { Flow, Health, PipelineAnswer, PipelineExporter, PipelineSource } from "../api/types";
import { fit, overflows, selectionOf, showing, zoomed } from "./view";
import { compact, partKind, partName, perSecond } from "./words";

const plain = (text: string): string => text.replaceAll("\u202f", " ");
const HEALTHY: Health = { state: "healthy", since_ms: 0, reason: null };

function source(name: string, kind = name, state: Health["state"] = "healthy"): PipelineSource {
  return { name, kind, role: "collect", health: { ...HEALTHY, state }, skipped_polls: { overlap: 0, memory_full: 0 } };
}

function exporter(name: string, more: Partial<PipelineExporter> = {}): PipelineExporter {
  return {
    name,
    kind: name,
    health: HEALTHY,
    queue: { exporter: name, kind: "disk", records: 0, bytes: 0, limit_bytes: 1000, oldest_age_seconds: null, when_full: "block", short_of: null },
    in_flight_limit: 4,
    paused_until_ms: null,
    requests: { succeeded: 0, failed: 0 },
    last_error: null,
    dead_letters: 0,
    ...more,
  };
}

function flow(from: string, to: string, more: Partial<Flow> = {}): Flow {
  return {
    source: from,
    exporter: to,
    signal: "metrics",
    route: 0,
    accepted: 0,
    delivered: 0,
    queued: 0,
    in_flight: 0,
    dead_lettered: 0,
    dropped: {},
    difference: 0,
    ...more,
  };
}

function answer(more: Partial<PipelineAnswer>): PipelineAnswer {
  return { time_ms: 10_000, sources: [], routes: [{ name: "everything", keep: null, set: {} }], exporters: [], flows: [], ...more };
}

describe("rates", () => {
  const before = answer({ time_ms: 10_000, flows: [flow("host", "influxdb", { accepted: 100, delivered: 90, queued: 10 })] });

  it("are differences by the server's time", () => {
    const now = answer({ time_ms: 14_000, flows: [flow("host", "influxdb", { accepted: 300, delivered: 130, queued: 170 })] });
    const rates = ratesBetween(before, now);
    expect(rates?.seconds).toBe(4);
    expect(rates?.flows.get(flowKey(flow("host", "influxdb")))).toEqual({ accepted: 50, delivered: 10, lost: 0 });
  });

  it("count a flow that is new since then from nothing", () => {
    const now = answer({ time_ms: 12_000, flows: [flow("logs", "influxdb", { accepted: 8, delivered: 8 })] });
    expect(rateOf(now.flows, ratesBetween(before, now))?.accepted).toBe(4);
  });

  it("are unknown rather than negative when counts were lost, and when no time has passed", () => {
    const now = answer({ time_ms: 12_000, flows: [flow("host", "influxdb", { accepted: 5 })] });
    expect(rateOf(now.flows, ratesBetween(before, now))).toBeNull();
    expect(ratesBetween(before, before)).toBeNull();
    expect(rateOf(now.flows, null)).toBeNull();
  });

  it("call lost what nobody chose to drop, and what was refused", () => {
    const dropped = { filtered: 1000, withdrawn: 50, queue_full: 6 };
    const now = answer({ time_ms: 12_000, flows: [flow("host", "influxdb", { accepted: 1200, delivered: 90, dead_lettered: 2, dropped })] });
    expect(rateOf(now.flows, ratesBetween(before, now))?.lost).toBe(4);
  });

  it("look half a minute back, and never have nothing to compare with", () => {
    let snapshots: PipelineAnswer[] = [];
    for (let time = 0; time <= 60_000; time += 2_000) snapshots = withSnapshot(snapshots, answer({ time_ms: time }));
    expect(snapshots[0]?.time_ms).toBe(60_000 - WINDOW_MS);
    const later = withSnapshot(snapshots, answer({ time_ms: 600_000 }));
    expect(later.map((one) => one.time_ms)).toEqual([60_000, 600_000]);
    expect(withSnapshot(later, answer({ time_ms: 5_000 }))).toHaveLength(1);
  });

  it("tell when a queue is full, if it grows", () => {
    expect(secondsUntilFull(400, 1000, 60)).toBe(10);
    expect(secondsUntilFull(1200, 1000, 60)).toBe(0);
    for (const growth of [0, -5, undefined]) expect(secondsUntilFull(400, 1000, growth)).toBeNull();
  });

  it("make lines thicker step by step, within bounds", () => {
    const widths = [null, 0, 1, 10, 100, 1_000, 1e6, 1e12].map(thickness);
    expect(widths).toEqual([...widths].sort((a, b) => a - b));
    expect([widths[0], widths.at(-1)]).toEqual([1.5, 12]);
  });
});

describe("the graph", () => {
  it("leads every flow from its source over its route to its exporter", () => {
    const graph = graphOf(answer({ sources: [source("host")], exporters: [exporter("influxdb")], flows: [flow("host", "influxdb"), flow("host", "influxdb", { signal: "logs" })] }));
    expect([...graph.parts.keys()]).toEqual(["source:host", "route:0", "exporter:influxdb"]);
    expect([...graph.edges.values()].map(({ from, to, flows }) => [from, to, flows.length])).toEqual([
      ["source:host", "route:0", 2],
      ["route:0", "exporter:influxdb", 2],
    ]);
  });

  it("shows what only the ledger knows, so that no record is out of sight", () => {
    const graph = graphOf(answer({ flows: [flow("gone", "old", { route: null }), flow("logs", "-", { route: null }), flow("dead_letters", "old")] }));
    const part = (id: string): string[] => {
      const found = graph.parts.get(id);
      return found === undefined ? [] : [partName(found), partKind(found)];
    };
    expect(part("source:gone")).toEqual(["gone", "not configured any more"]);
    expect(part("exporter:-")[0]).toBe("no exporter");
    expect(part("source:dead_letters")[0]).toBe("replayed dead letters");
    expect(part("route:none")).toEqual(["no route", "no route"]);
  });

  it("adds up, and does not let opposite errors hide each other", () => {
    const totals = totalsOf([
      flow("a", "x", { accepted: 10, delivered: 6, dropped: { filtered: 4 }, difference: 2 }),
      flow("b", "x", { accepted: 5, queued: 5, dropped: { filtered: 1, expired: 1 }, difference: -2 }),
    ]);
    expect(totals).toEqual({ accepted: 15, delivered: 6, queued: 5, in_flight: 0, dead_lettered: 0, dropped: { filtered: 5, expired: 1 }, difference: 4 });
  });

  it("says of a line whether records flow, wait or cannot", () => {
    const state = (own: Partial<Flow>, to: Partial<PipelineExporter> = {}, from: Health["state"] = "healthy"): string => {
      const earlier = answer({ time_ms: 0, flows: [flow("host", "influxdb")] });
      const now = answer({ sources: [source("host", "host", from)], exporters: [exporter("influxdb", to)], flows: [flow("host", "influxdb", own)] });
      const graph = graphOf(now);
      const edge = graph.edges.get(`route:0 → exporter:influxdb`);
      return edge === undefined ? "none" : edgeState(edge, graph, ratesBetween(earlier, now), 10_000);
    };
    expect(state({ accepted: 5, delivered: 5 })).toBe("ok");
    expect(state({})).toBe("idle");
    expect(state({ accepted: 5, queued: 5 })).toBe("late");
    expect(state({ accepted: 5, dead_lettered: 5 })).toBe("late");
    expect(state({ accepted: 5, delivered: 5 }, { paused_until_ms: 11_000 })).toBe("late");
    expect(state({ accepted: 5, delivered: 5 }, { paused_until_ms: 9_000 })).toBe("ok");
    expect(state({ accepted: 5, queued: 5 }, { health: { ...HEALTHY, state: "unhealthy" } })).toBe("down");
    expect(state({ accepted: 5, delivered: 4, difference: 1 })).toBe("down");
  });

  it("shows the worst of a group", () => {
    expect(worstState(["healthy", "unhealthy", null])).toBe("unhealthy");
    expect(worstState(["disabled", "healthy"])).toBe("healthy");
    expect(worstState([null])).toBeNull();
  });

  it("finds parts by name, kind and state, with all words", () => {
    const graph = graphOf(answer({ sources: [source("web-1", "nginx", "unhealthy")] }));
    const part = graph.parts.get("source:web-1");
    if (part === undefined) throw new Error("the source is missing");
    expect(["", "WEB", "nginx unhealthy", "source"].map((query) => matches(part, query))).toEqual([true, true, true, true]);
    expect(["healthyx", "web-2", "nginx exporter"].map((query) => matches(part, query))).toEqual([false, false, false]);
  });
});

/** Sources of a few kinds, routes and exporters, each source on one route, each route to two exporters. */
function many(sources: number, routes: number, exporters: number): PipelineAnswer {
  const names = (word: string, count: number): string[] => Array.from({ length: count }, (_, index) => `${word}-${index}`);
  const to = names("out", exporters);
  return answer({
    sources: names("in", sources).map((name, index) => source(name, ["nginx", "redis", "exec"][index % 3])),
    routes: names("route", routes).map((name) => ({ name, keep: null, set: {} })),
    exporters: to.map((name) => exporter(name)),
    flows: names("in", sources).flatMap((name, index) =>
      [index * 5, index * 5 + 7].map((at) => flow(name, to[at % exporters] ?? "", { route: (index * 3) % routes })),
    ),
  });
}

describe("the layout", () => {
  it("is the same for the same parts, whatever their values", () => {
    const calm = many(9, 4, 6);
    const busy = { ...calm, flows: calm.flows.map((one, index) => ({ ...one, accepted: index * 1000, queued: index })) };
    expect(layoutOf(graphOf(busy))).toEqual(layoutOf(graphOf(calm)));
  });

  it("lets no two boxes touch, and keeps to three columns", () => {
    for (const [sources, routes, exporters] of [[1, 1, 1], [9, 4, 6], [39, 7, 14]] as const) {
      const layout = layoutOf(graphOf(many(sources, routes, exporters)), "off");
      expect(layout.boxes).toHaveLength(sources + routes + exporters);
      expect(new Set(layout.boxes.map((box) => box.x)).size).toBe(3);
      for (const [index, a] of layout.boxes.entries()) {
        expect(a.y).toBeGreaterThanOrEqual(0);
        expect(a.y + a.height).toBeLessThanOrEqual(layout.height);
        for (const b of layout.boxes.slice(index + 1)) {
          expect(a.x !== b.x || a.y + a.height < b.y || b.y + b.height < a.y, `${a.id} and ${b.id}`).toBe(true);
        }
      }
    }
  });

  it("untangles lines", () => {
    const lines = [
      { from: "a", to: "y" },
      { from: "b", to: "x" },
      { from: "x", to: "q" },
      { from: "y", to: "p" },
    ];
    const tangled = [["a", "b"], ["x", "y"], ["p", "q"]];
    expect(crossings(tangled, lines)).toBe(2);
    expect(crossings(withFewCrossings(tangled, lines), lines)).toBe(0);
    const untangled = [["a", "b"], ["y", "x"], ["p", "q"]];
    expect(withFewCrossings(untangled, lines), "what is good stays as it is").toEqual(untangled);
  });

  it("never has more crossings than the order of the configuration", () => {
    const graph = graphOf(many(30, 6, 12));
    const { boxes, lines } = layoutOf(graph, "off");
    const columns = (ids: readonly { id: string; column: string }[]): string[][] =>
      ["source", "route", "exporter"].map((column) => ids.filter((one) => one.column === column).map((one) => one.id));
    expect(crossings(columns(boxes), lines)).toBeLessThan(crossings(columns([...graph.parts.values()]), lines));
  });

  it("groups many parts of one kind, and only when there are many or somebody wants it", () => {
    const large = graphOf(many(39, 7, 5));
    const groups = layoutOf(large).boxes.filter((box) => box.group !== null);
    expect(groups.map((box) => box.id).sort()).toEqual(["group:source:exec", "group:source:nginx", "group:source:redis"]);
    expect(groups.reduce((sum, box) => sum + box.parts.length, 0)).toBe(39);
    expect(layoutOf(large, "off").boxes.every((box) => box.group === null)).toBe(true);
    const middling = graphOf(many(9, 4, 5));
    expect(layoutOf(middling).boxes.every((box) => box.group === null)).toBe(true);
    expect(layoutOf(middling, "on").boxes.filter((box) => box.group !== null)).toHaveLength(3);
    expect([groupable(middling), groupable(graphOf(many(2, 1, 2)))]).toEqual([true, false]);
  });

  it("joins the lines of a group, and loses none", () => {
    const graph = graphOf(many(39, 7, 14));
    const { lines } = layoutOf(graph);
    expect(lines.flatMap((line) => line.edges).sort()).toEqual([...graph.edges.keys()].sort());
    expect(new Set(lines.map((line) => line.id)).size).toBe(lines.length);
  });

  it("gets narrower beside the details and on a tablet, rather than too small to be read", () => {
    const beside = layoutOf(graphOf(many(3, 2, 2)), "off", 828);
    expect(beside.narrow).toBe(true);
    expect(fit(beside, { width: 876, height: 640 }).zoom).toBeGreaterThanOrEqual(1);
    expect(fit(layoutOf(graphOf(many(3, 2, 2)), "off", 678), { width: 726, height: 858 }).zoom).toBeGreaterThan(0.8);
    expect(layoutOf(graphOf(many(3, 2, 2))).narrow).toBe(false);
  });

  it("leads arrow keys along columns and lines", () => {
    const layout = layoutOf(graphOf(many(3, 2, 2)));
    const ids = layout.boxes.filter((box) => box.column === "source").map((box) => box.id);
    const [first = "", second = "", third = ""] = ids;
    expect(neighbour(layout, first, "ArrowDown")).toBe(second);
    expect(neighbour(layout, second, "ArrowUp")).toBe(first);
    expect(neighbour(layout, first, "ArrowUp")).toBeNull();
    expect([neighbour(layout, second, "Home"), neighbour(layout, second, "End")]).toEqual([first, third]);
    const route = neighbour(layout, first, "ArrowRight") ?? "";
    expect(layout.lines.some((line) => line.from === first && line.to === route)).toBe(true);
    expect(neighbour(layout, first, "ArrowLeft")).toBeNull();
    expect(neighbour(layout, "gone", "ArrowDown")).toBe(first);
  });
});

describe("the frame", () => {
  const frame = { width: 1000, height: 600 };

  it("shows all of a picture that can be read, and else its top", () => {
    const small = { width: 900, height: 300 };
    expect(overflows(small, frame, fit(small, frame))).toBe(false);
    const tall = { width: 900, height: 4000 };
    const view = fit(tall, frame);
    expect(view.zoom).toBeGreaterThan(0.7);
    expect(view.y).toBeGreaterThan(0);
    expect(overflows(tall, frame, view)).toBe(true);
    expect(fit({ width: 1100, height: 500 }, { width: 370, height: 600 }).zoom).toBeGreaterThan(0.5);
  });

  it("moves only as far as a box needs", () => {
    const box = { id: "a", column: "source", group: null, parts: [], x: 0, y: 1000, width: 100, height: 50 } as const;
    const view = { x: 30, y: 0, zoom: 1 };
    const moved = showing(box, frame, view);
    expect(moved).toEqual({ zoom: 1, x: 30, y: 600 - 24 - 1050 });
    expect(showing(box, frame, moved)).toEqual(moved);
  });

  it("keeps its middle where it is when it comes nearer", () => {
    const near = zoomed({ x: 0, y: 0, zoom: 1 }, frame, 2);
    expect((500 - near.x) / near.zoom).toBe(500);
    expect(zoomed({ x: 0, y: 0, zoom: 1 }, frame, 100).zoom).toBe(2);
  });

  it("finds what an address names: a part, a group, a way, or nothing any more", () => {
    const graph = graphOf(many(39, 7, 14));
    const layout = layoutOf(graph);
    const line = layout.lines[0];
    expect(selectionOf("source:in-0", graph, layout)).toMatchObject({ kind: "part", title: "in-0" });
    expect(selectionOf("group:source:nginx", graph, layout)).toMatchObject({ kind: "group", title: "13 nginx" });
    expect(selectionOf(line?.id ?? "", graph, layout)?.kind).toBe("edge");
    expect([selectionOf("source:gone", graph, layout), selectionOf(null, graph, layout)]).toEqual([null, null]);
  });
});

describe("the ledger's rows", () => {
  const flows = [
    flow("host", "influxdb", { queued: 5 }),
    flow("logs", "loki", { signal: "logs", queued: 900, dropped: { expired: 3 } }),
    flow("logs", "-", { signal: "logs", route: null }),
  ];
  const routes = [{ name: "route 1", keep: null, set: {} }];
  const exporters = (query: string, order: string | null = null): string[] =>
    ledgerRows(flows, routes, null, query, parseOrder(order)).map((row) => row.exporter);

  it("are found by every word", () => {
    expect(exporters("")).toEqual(["influxdb", "loki", "-"]);
    expect(exporters("logs loki")).toEqual(["loki"]);
    expect(exporters("no exporter")).toEqual(["-"]);
    expect(exporters("expired")).toEqual(["loki"]);
    expect(exporters("nothing")).toEqual([]);
  });

  it("are sorted as asked, and else as configured", () => {
    expect(exporters("", "-queued")).toEqual(["loki", "influxdb", "-"]);
    expect(exporters("", "exporter")).toEqual(["-", "influxdb", "loki"]);
    expect(exporters("", "nonsense")).toEqual(["influxdb", "loki", "-"]);
  });

  it("leave out ways that no record ever took, but never one that is wrong", () => {
    expect([flow("a", "b"), flow("a", "b", { accepted: 1 }), flow("a", "b", { difference: -1 })].map(isUsed)).toEqual([false, true, true]);
  });

  it("begin with the most of a number, then with the least, then as configured", () => {
    expect(clickedOrder(null, "queued")).toBe("-queued");
    expect(clickedOrder(parseOrder("-queued"), "queued")).toBe("queued");
    expect(clickedOrder(parseOrder("queued"), "queued")).toBeNull();
    expect(clickedOrder(parseOrder("-queued"), "source")).toBe("source");
  });
});

it("keeps numbers short", () => {
  expect([0, 9_999, 12_345, 1_234_567, 5e9].map((value) => plain(compact(value)))).toEqual(["0", "9 999", "12.3 k", "1.23 M", "5.00 G"]);
  expect([null, 0, 7.444, 118.2, 25_000].map((value) => plain(perSecond(value)))).toEqual(["–", "0/s", "7.44/s", "118/s", "25.0 k/s"]);
});
