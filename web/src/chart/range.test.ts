import { describe, expect, it } from "vitest";
import { absolute, frozen, parseRange, PRESETS, resolve, sameRange, shift, withRange, zoom } from "./range";

const NOW = 1_795_000_000_000;
const HOUR = 3_600_000;
const parse = (text: string) => parseRange(new URLSearchParams(text));

describe("the range in the address", () => {
  it("is the last hour when nothing is said, or nothing sensible", () => {
    for (const text of [
      "",
      "range=",
      "range=0h",
      "range=-1h",
      "range=1w",
      "from=5",
      "from=b&to=c",
      "from=9&to=3",
      "range=99999999999d",
    ]) {
      expect(parse(text), text).toEqual({ kind: "relative", seconds: 3600 });
    }
  });

  it("comes back as it was written, for every preset and for instants", () => {
    const ranges = [
      ...PRESETS.map(({ seconds }) => ({ kind: "relative" as const, seconds })),
      absolute(NOW - HOUR, NOW)!,
      { kind: "relative" as const, seconds: 5400 },
    ];
    for (const range of ranges) expect(parseRange(withRange(new URLSearchParams("tab=probes"), range))).toEqual(range);
  });

  it("keeps the rest of the address, and replaces the other form", () => {
    expect(withRange(new URLSearchParams("tab=probes&range=6h"), absolute(1_000_000, 2_000_000)!).toString()).toBe(
      "tab=probes&from=1000000&to=2000000",
    );
    expect(withRange(new URLSearchParams("from=1&to=2&tab=x"), { kind: "relative", seconds: 3600 }).toString()).toBe(
      "tab=x&range=1h",
    );
  });

  it("prefers instants to a length, and bounds both", () => {
    expect(parse(`range=1h&from=${NOW - HOUR}&to=${NOW}`).kind).toBe("absolute");
    expect(resolve(parse("from=1000&to=1001"), NOW)).toEqual({ fromMs: -28_999, toMs: 31_001 });
    expect(parse("range=1s")).toEqual({ kind: "relative", seconds: 60 });
  });
});

describe("moving and zooming", () => {
  const hour = { kind: "relative", seconds: 3600 } as const;

  it("stands still when moved into the past, and follows the present when moved to it", () => {
    const earlier = shift(hour, NOW, -0.5);
    expect(earlier).toEqual({ kind: "absolute", fromMs: NOW - 1.5 * HOUR, toMs: NOW - 0.5 * HOUR });
    expect(shift(earlier, NOW, 0.5)).toEqual(hour);
    expect(shift(hour, NOW, 0.5)).toEqual(hour);
  });

  it("zooms a range that ends now along its end, and another one around its middle", () => {
    expect(zoom(hour, NOW, 1)).toEqual({ kind: "relative", seconds: 3 * 3600 });
    expect(zoom(hour, NOW, -1)).toEqual({ kind: "relative", seconds: 1800 });
    expect(zoom({ kind: "relative", seconds: 60 }, NOW, -1)).toEqual({ kind: "relative", seconds: 60 });
    expect(zoom(absolute(NOW - 4 * HOUR, NOW - 2 * HOUR)!, NOW, -1)).toEqual(
      absolute(NOW - 3.5 * HOUR, NOW - 2.5 * HOUR),
    );
  });

  it("never zooms out into the future", () => {
    expect(resolve(zoom(absolute(NOW - HOUR, NOW)!, NOW, 1), NOW).toMs).toBe(NOW);
  });

  it("freezes a range that moves", () => {
    expect(frozen(hour, NOW)).toEqual({ kind: "absolute", fromMs: NOW - HOUR, toMs: NOW });
    expect(sameRange(frozen(hour, NOW), hour)).toBe(false);
  });
});
