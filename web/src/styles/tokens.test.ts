import { describe, expect, it } from "vitest";
import css from "./tokens.css?raw";

type Rgb = readonly [number, number, number];

const LIGHT = block(':root[data-theme="light"] {');
const DARK = block(':root[data-theme="dark"] {');
const AUTO_DARK = block(":root:not([data-theme]) {");

function block(opening: string): Record<string, string> {
  const start = css.indexOf(opening) + opening.length;
  const text = css.slice(start, css.indexOf("}", start));
  return Object.fromEntries([...text.matchAll(/--([\w-]+):\s*([^;]+);/g)].map((match) => [match[1] ?? "", match[2] ?? ""]));
}

function rgb(tokens: Record<string, string>, name: string): Rgb {
  const digits = /^#([0-9a-f]{6})$/.exec(tokens[name] ?? "")?.[1];
  if (digits === undefined) throw new Error(`--${name} is not a colour of six digits`);
  return [0, 2, 4].map((at) => Number.parseInt(digits.slice(at, at + 2), 16) / 255) as unknown as Rgb;
}

const linear = (value: number): number => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);

/** WCAG 2.2, relative luminance and contrast ratio. */
function contrast(a: Rgb, b: Rgb): number {
  const [low = 0, high = 0] = [a, b]
    .map(([r, g, blue]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(blue))
    .sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

/** How a colour looks to people without red or green cones: Viénot, Brettel and Mollon 1999, on linear RGB. */
const BLINDNESS: Record<string, readonly Rgb[]> = {
  protanopia: [
    [0.11238, 0.88762, 0],
    [0.11238, 0.88762, 0],
    [0.00401, -0.00401, 1],
  ],
  deuteranopia: [
    [0.29275, 0.70725, 0],
    [0.29275, 0.70725, 0],
    [-0.02234, 0.02234, 1],
  ],
};

function seenAs(colour: Rgb, matrix: readonly Rgb[]): Rgb {
  const [r, g, b] = colour.map(linear) as unknown as Rgb;
  return matrix.map((row) => Math.min(1, Math.max(0, row[0] * r + row[1] * g + row[2] * b))) as unknown as Rgb;
}

/** Distance in CIE Lab (1976) of two linear colours; about 2.3 is just noticeable. */
function distance(a: Rgb, b: Rgb): number {
  const lab = ([r, g, b]: Rgb): Rgb => {
    const f = (t: number): number => (t > 216 / 24389 ? Math.cbrt(t) : (24389 / 27 / 116) * t + 16 / 116);
    const x = f((0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.95047);
    const y = f(0.2126 * r + 0.7152 * g + 0.0722 * b);
    const z = f((0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.08883);
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
  };
  const [first, second] = [lab(a), lab(b)];
  return Math.hypot(first[0] - second[0], first[1] - second[1], first[2] - second[2]);
}

const SURFACES = ["surface", "surface-raised", "surface-hover", "surface-sunken"];

describe.each([
  ["light", LIGHT],
  ["dark", DARK],
])("the %s theme", (_name, tokens) => {
  const ratio = (a: string, b: string): number => contrast(rgb(tokens, a), rgb(tokens, b));

  it.each(SURFACES.flatMap((surface) => ["text", "text-quiet", "water", "up", "late", "down"].map((text) => [text, surface])))(
    "has AA contrast for %s on %s",
    (text, surface) => expect(ratio(text ?? "", surface ?? "")).toBeGreaterThanOrEqual(4.5),
  );

  it.each([
    ["on-water", "water"],
    ["text", "water-soft"],
    ["text-quiet", "water-soft"],
    ["up", "water-soft"],
    ["late", "water-soft"],
    ["down", "water-soft"],
    ["text", "late-soft"],
    ["text", "down-soft"],
    ["text-quiet", "down-soft"],
    ["late", "down-soft"],
    ["up", "down-soft"],
    ["up", "up-soft"],
    ["late", "late-soft"],
    ["down", "down-soft"],
  ])("has AA contrast for %s on %s", (text, surface) => expect(ratio(text, surface)).toBeGreaterThanOrEqual(4.5));

  it.each(["line-strong", "water-fill", "late-fill", "down-fill", "water"])("has 3:1 for the shape colour %s", (shape) => {
    expect(ratio(shape, "surface-raised")).toBeGreaterThanOrEqual(3);
  });

  it.each(Object.entries(BLINDNESS))("keeps the states apart with %s", (_kind, matrix) => {
    for (const [a, b] of [
      ["up", "late"],
      ["late", "down"],
      ["up", "down"],
      ["water-fill", "late-fill"],
      ["late-fill", "down-fill"],
      ["water-fill", "down-fill"],
    ] as const) {
      expect(distance(seenAs(rgb(tokens, a), matrix), seenAs(rgb(tokens, b), matrix)), `${a} and ${b}`).toBeGreaterThan(12);
    }
  });
});

it("shows the same dark theme when chosen and when the system asks for it", () => {
  expect(AUTO_DARK).toEqual(DARK);
  expect(Object.keys(LIGHT)).toEqual(Object.keys(DARK));
});
