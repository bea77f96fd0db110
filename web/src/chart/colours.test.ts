import { describe, expect, it } from "vitest";
import tokens from "../styles/tokens.css?raw";
import css from "./colours.css?raw";
import { SERIES_COLOURS } from "./palette";

function block(text: string, selector: string): string {
  const from = text.indexOf(selector);
  return from < 0 ? "" : text.slice(from, text.indexOf("}", from));
}

function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const part = parseInt(colour.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** Contrast of WCAG 2.2, section 1.4.11: lines need 3:1. */
function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

describe("colours of lines", () => {
  for (const theme of ["light", "dark"]) {
    it(`can be told from the ${theme} surface`, () => {
      const surface = /--surface-raised: (#[0-9a-f]{6})/.exec(block(tokens, `:root[data-theme="${theme}"]`))?.[1] ?? "";
      const colours = [...block(css, `:root[data-theme="${theme}"]`).matchAll(/--series-\d: (#[0-9a-f]{6})/g)].map(
        (found) => found[1] ?? "",
      );
      expect(colours.length).toBe(SERIES_COLOURS);
      for (const colour of colours) expect(contrast(colour, surface), colour).toBeGreaterThanOrEqual(3);
    });
  }

  it("are the same for the dark theme by choice and by the system", () => {
    const values = (text: string) => text.match(/#[0-9a-f]{6}/g);
    expect(values(block(css, ":root:not([data-theme])"))).toEqual(values(block(css, `:root[data-theme="dark"]`)));
  });
});
