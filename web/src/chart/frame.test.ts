import { describe, expect, it } from "vitest";
import { bridged, hasDataBetween, stacked, summary, valueAt, type Frame } from "./frame";
import { lonely, valueRange } from "./plot";
import { stretches } from "./stretches";

const series = (values: (number | null | undefined)[]) => ({ key: "a", name: "a", values });

describe("gaps", () => {
  it("are drawn where samples are missing", () => {
    expect(bridged([1, 2, null, null, null, 3, 4])).toEqual([1, 2, null, null, null, 3, 4]);
  });

  it("are not made of jitter: one empty step between two samples", () => {
    expect(bridged([1, null, 2, 3, 4])).toEqual([1, undefined, 2, 3, 4]);
  });

  it("are not made of a metric that comes more seldom than the steps", () => {
    const slow = [1, null, null, null, 2, null, null, null, 3, null, null, null, 4];
    expect(bridged(slow)).toEqual(slow.map((value) => value ?? undefined));
    const torn = [
      1,
      null,
      null,
      null,
      2,
      null,
      null,
      null,
      3,
      ...new Array<null>(11).fill(null),
      5,
      null,
      null,
      null,
      6,
    ];
    expect(bridged(torn).slice(9, 20)).toEqual(new Array(11).fill(null));
  });

  it("before the first and after the last sample stay", () => {
    expect(bridged([null, 1, null])).toEqual([null, 1, null]);
  });

  it("leave single samples visible as points", () => {
    expect(lonely([null, 1, null, 2, 3, null, 4])).toEqual([1, 6]);
    expect(lonely([1, undefined, 2, null])).toEqual([]);
  });
});

describe("stacks", () => {
  it("add up from the bottom, and one missing value adds nothing", () => {
    expect(
      stacked([
        [1, 2],
        [10, null],
        [100, 200],
      ]),
    ).toEqual([
      [1, 2],
      [11, 2],
      [111, 202],
    ]);
  });

  it("have a gap where all are missing", () => {
    expect(
      stacked([
        [1, null, undefined],
        [1, null, null],
      ]),
    ).toEqual([
      [1, null, undefined],
      [2, null, undefined],
    ]);
  });
});

describe("figures of a line", () => {
  it("use the least and the greatest sample and not the means of steps", () => {
    const line = { ...series([5, null, 7]), min: [1, null, 6], max: [9, null, 8] };
    expect(summary(line, [100, 200, 300])).toEqual({ last: 7, lastMs: 300, least: 1, mean: 6, greatest: 9 });
  });

  it("are absent without values", () => {
    expect(summary(series([null, undefined]), [1, 2]).greatest).toBeNull();
  });

  it("at the crosshair hold over bridged steps, but not over gaps", () => {
    expect(valueAt([4, undefined, null, 5], 1)).toBe(4);
    expect(valueAt([4, undefined, null, 5], 2)).toBeNull();
  });
});

describe("the value axis", () => {
  it("begins at zero, leaves room above, and ends at 100 % where there cannot be more", () => {
    expect(valueRange(3, 10, {})).toEqual([0, 10.8]);
    expect(valueRange(0.2, 0.98, { most: 1 })).toEqual([0, 1]);
    expect(valueRange(0, 0.01, { least: 0.1, most: 1 })[1]).toBeCloseTo(0.108);
    expect(valueRange(null, null, {})).toEqual([0, 1]);
  });

  it("never cuts off a value, even one that cannot be", () => {
    expect(valueRange(0, 1.5, { most: 1 })[1]).toBe(1.5);
  });

  it("of temperatures begins near the coldest", () => {
    const [low, high] = valueRange(48, 62, { from: "auto" });
    expect(low).toBeGreaterThan(40);
    expect(high).toBeGreaterThan(62);
  });
});

describe("stretches without connection", () => {
  const minute = 60_000;
  const at = new Date(2026, 10, 21, 14, 0).getTime();
  const frame = (values: (number | null)[]): Frame => ({
    stepMs: minute,
    timesMs: values.map((_, index) => at + index * minute),
    series: [series(values)],
  });
  const named = (values: (number | null)[], to: number | null = at + 8 * minute) =>
    stretches([{ from_ms: at + 2 * minute, to_ms: to }], at, at + 9 * minute, at + 9 * minute, [frame(values)])[0]
      ?.text;

  it("say whether their data have come afterwards", () => {
    expect(named([1, 1, 1, 1, 1, 1, 1, 1, 1])).toBe("not connected 14:02–14:08; filled in later");
    expect(named([1, 1, null, null, null, null, null, null, 1])).toBe("not connected 14:02–14:08; no data");
    expect(named([1, 1, null, null, null, null, null, null, null], null)).toBe("not connected since 14:02; no data yet");
  });

  it("do not take the last value before them, which is held for a while, for data of theirs", () => {
    expect(named([1, 1, 1, 1, null, null, null, null, 1])).toBe("not connected 14:02–14:08; no data");
  });

  it("do not take a limit, which is drawn everywhere, for data", () => {
    const limit: Frame = { ...frame([1, 1, 1, 1]), series: [{ ...series([8, 8, 8, 8]), style: "limit" }] };
    expect(hasDataBetween(limit, at, at + 4 * minute)).toBe(false);
  });

  it("do not say what long steps cannot tell, and are left out beyond the range", () => {
    const long = { ...frame([1, 1]), stepMs: 30 * minute };
    expect(
      stretches([{ from_ms: at, to_ms: at + minute }], at, at + 60 * minute, at + 60 * minute, [long])[0]?.text,
    ).toBe("not connected 14:00:00–14:01:00");
    expect(stretches([{ from_ms: at - 9, to_ms: at - 1 }], at, at + 1, at + 1, [])).toEqual([]);
  });
});
