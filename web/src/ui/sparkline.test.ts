import { expect, it } from "vitest";
import { sparkline } from "./sparkline";

it("draws a gap as a gap", () => {
  const { line, area } = sparkline([0, 1, null, 1, 0], 40, 12);
  expect(line.match(/M/g)).toHaveLength(2);
  expect(area.match(/Z/g)).toHaveLength(2);
});

it("shows a lonely value between gaps", () => {
  expect(sparkline([null, 0.5, null], 20, 10).dots).toBe("M10 5 l0 0");
});

it("draws nothing from nothing", () => {
  expect(sparkline([null, null], 20, 10)).toEqual({ line: "", area: "", dots: "" });
  expect(sparkline([], 20, 10)).toEqual({ line: "", area: "", dots: "" });
});

it("stays inside its box whatever is sent", () => {
  expect(sparkline([-1, 7], 20, 10).line).toBe("M0 9L20 1");
});
