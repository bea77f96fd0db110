import { describe, expect, it } from "vitest";
import { ago, bitsPerSecond, bytes, bytesPerSecond, count, duration, load, MISSING, moment, number, percent, shortDuration } from "./format";

const plain = (text: string): string => text.replaceAll("\u202f", " ");

describe("numbers", () => {
  it.each([
    [0, "0 B"],
    [1023, "1023 B"],
    [999, "999 B"],
    [1536, "1.50 KiB"],
    [15.5 * 2 ** 30, "15.5 GiB"],
    [2 ** 60 * 5000, "5 000 EiB"],
  ])("shows %d bytes as %s", (value, text) => expect(plain(bytes(value))).toBe(text));

  it("keeps three digits, and moves to the next unit before four", () => {
    expect(number(9.999)).toBe("10.0");
    expect(number(99.99)).toBe("100");
    expect(plain(bytesPerSecond(1023.9 * 1024))).toBe("1.00 MiB/s");
    expect(plain(bitsPerSecond(12_500_000))).toBe("12.5 Mbit/s");
  });

  it.each([
    [0, "0 %"],
    [0.0449, "4.5 %"],
    [0.0996, "10 %"],
    [0.452, "45 %"],
    [1, "100 %"],
  ])("shows the fraction %d as %s", (value, text) => expect(plain(percent(value))).toBe(text));

  it("never shows a missing value as a number", () => {
    for (const format of [bytes, bytesPerSecond, bitsPerSecond, percent, load, duration, shortDuration, number]) {
      expect(format(null)).toBe(MISSING);
      expect(format(Number.NaN)).toBe(MISSING);
    }
  });

  it("counts", () => {
    expect(plain(count(1, "host"))).toBe("1 host");
    expect(plain(count(2000, "host"))).toBe("2 000 hosts");
  });
});

describe("times", () => {
  it.each([
    [4, "4 s"],
    [75, "1 min 15 s"],
    [300, "5 min"],
    [2 * 3600 + 28 * 60 + 3, "2 h 28 min"],
    [5 * 86_400 + 3 * 3600, "5 d 3 h"],
    [400 * 86_400, "400 d"],
  ])("shows %d seconds as %s", (seconds, text) => expect(plain(duration(seconds))).toBe(text));

  it("says how long ago, and never a negative time when clocks differ", () => {
    expect(plain(ago(10_000, 14_200))).toBe("4 s ago");
    expect(ago(10_000, 10_400)).toBe("now");
    expect(ago(10_000, 5_000)).toBe("now");
    expect(ago(null, 5_000)).toBe("never");
  });

  it("names the day only when it is another one", () => {
    const now = new Date(2026, 10, 21, 15, 0, 0).getTime();
    expect(moment(new Date(2026, 10, 21, 14, 2, 0).getTime(), now)).toBe("14:02");
    expect(moment(new Date(2026, 10, 19, 14, 2, 0).getTime(), now)).toBe("Thu 14:02");
    expect(moment(new Date(2026, 2, 3, 14, 2, 0).getTime(), now)).toBe("3 Mar 14:02");
    expect(moment(new Date(2024, 2, 3, 14, 2, 0).getTime(), now)).toBe("3 Mar 2024");
  });
});
