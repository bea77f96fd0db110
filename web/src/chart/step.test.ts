import { describe, expect, it } from "vitest";
import { aligned, MOST_POINTS, stepMs } from "./step";

describe("the step", () => {
  it("is a multiple of the interval with at most 600 points, for every range and interval", () => {
    for (const seconds of [60, 300, 900, 3600, 21_600, 86_400, 604_800, 31_622_400]) {
      for (const interval of [1, 5, 10, 15, 30, 60, 300]) {
        const step = stepMs({ fromMs: 0, toMs: seconds * 1000 }, interval);
        expect(step % (interval * 1000)).toBe(0);
        expect((seconds * 1000) / step).toBeLessThanOrEqual(MOST_POINTS);
      }
    }
  });

  it("is the interval itself while that fits, and 15 s is assumed where it is not known", () => {
    expect(stepMs({ fromMs: 0, toMs: 3_600_000 }, 10)).toBe(10_000);
    expect(stepMs({ fromMs: 0, toMs: 3_600_000 }, null)).toBe(15_000);
    expect(stepMs({ fromMs: 0, toMs: 3_600_000 }, 0)).toBe(15_000);
  });

  it("puts the ends on whole steps, so that every refresh asks for the same instants", () => {
    expect(aligned({ fromMs: 15_001, toMs: 44_999 }, 15_000)).toEqual({ fromMs: 15_000, toMs: 45_000 });
  });
});
