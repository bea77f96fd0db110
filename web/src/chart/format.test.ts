import { describe, expect, it } from "vitest";
import { axisIncrements, axisLabels, rangeText, seconds, spanText, timeAxisLabels, value } from "./format";

const plain = (text: string) => text.replaceAll("\u202f", " ");
const at = (...parts: [number, number, number, number, number, number?]) => new Date(...parts).getTime();

describe("values", () => {
  it("have the unit of their chart, and a missing one is no zero", () => {
    expect(plain(value(0.452, "percent"))).toBe("45 %");
    expect(plain(value(1536, "bytes"))).toBe("1.50 KiB");
    expect(plain(value(1536, "bytes/s"))).toBe("1.50 KiB/s");
    expect(plain(value(12_500_000, "bits/s"))).toBe("12.5 Mbit/s");
    expect(plain(value(27_300, "number"))).toBe("27.3 k");
    expect(plain(value(222, "count"))).toBe("222");
    expect(plain(value(0, "per_second"))).toBe("0/s");
    expect(value(null, "bytes")).toBe("–");
    expect(value(Number.NaN, "percent")).toBe("–");
  });

  it("tell lengths of time from microseconds to days", () => {
    expect([0, 0.00002, 0.34, 1.5, 7500].map((length) => plain(seconds(length)))).toEqual([
      "0 s",
      "20.0 µs",
      "340 ms",
      "1.50 s",
      "2 h 5 min",
    ]);
  });

  it("name the unit of a range once", () => {
    expect(plain(rangeText(0.051, 0.069, "percent"))).toBe("5.1–6.9 %");
    expect(plain(rangeText(500, 2048, "bytes"))).toBe("500 B–2.00 KiB");
    expect(rangeText(3, 3, "count")).toBe("3");
  });
});

describe("labels of the value axis", () => {
  it("are in one unit and tell neighbours apart", () => {
    expect(axisLabels([0, 0.0025, 0.005], "percent")).toEqual(["0.00%", "0.25%", "0.50%"]);
    expect(axisLabels([0, 0.2, 0.4], "percent")).toEqual(["0%", "20%", "40%"]);
    expect(axisLabels([0, 2 ** 29, 2 ** 30], "bytes")).toEqual(["0", "0.5 GiB", "1.0 GiB"]);
    expect(axisLabels([0, 0.05, 0.1], "seconds")).toEqual(["0", "50 ms", "100 ms"]);
    expect(axisLabels([40, 42.5, 45], "celsius")).toEqual(["40.0°", "42.5°", "45.0°"]);
    expect(axisLabels([0, 1e7, 2e7], "bits/s")).toEqual(["0", "10 Mbit", "20 Mbit"]);
  });

  it("stand at powers of two for bytes, and at whole numbers for what is counted", () => {
    expect(axisIncrements("bytes").slice(0, 4)).toEqual([1, 2, 4, 8]);
    expect(axisIncrements("count").every(Number.isInteger)).toBe(true);
    const increments = axisIncrements("percent");
    expect([...increments].sort((one, other) => one - other)).toEqual(increments);
  });
});

describe("times", () => {
  it("on the axis show seconds only where they differ, and the date at midnight", () => {
    const midnight = at(2026, 10, 21, 0, 0) / 1000;
    expect(timeAxisLabels([midnight - 3600, midnight, midnight + 3600], 3600)).toEqual(["23:00", "21 Nov", "01:00"]);
    expect(timeAxisLabels([midnight + 15], 15)).toEqual(["00:00:15"]);
    expect(timeAxisLabels([midnight + 3600], 86_400)).toEqual(["21 Nov"]);
  });

  it("of a stretch name the day where it is another one", () => {
    const now = at(2026, 10, 21, 15, 0);
    expect(spanText(at(2026, 10, 21, 14, 2), at(2026, 10, 21, 14, 4), now)).toBe("14:02–14:04");
    expect(spanText(at(2026, 10, 21, 14, 2, 5), at(2026, 10, 21, 14, 2, 15), now)).toBe("14:02:05–14:02:15");
    expect(spanText(at(2026, 10, 20, 23, 50), at(2026, 10, 21, 0, 10), now)).toBe("Fri 23:50–today 00:10");
  });
});
