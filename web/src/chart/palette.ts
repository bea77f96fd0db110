/** The colours of charts, read from the page's CSS tokens, so that light and dark are decided in one place. */

export interface Palette {
  readonly series: readonly string[];
  readonly text: string;
  readonly grid: string;
  readonly surface: string;
  readonly hatch: string;
  readonly font: string;
}

export const SERIES_COLOURS = 8;

/** Read where the tokens do not exist, for example in a test without styles. */
const FALLBACK = ["#3b6fd4", "#c2681c", "#2c8a6b", "#9b51b5", "#b8962e", "#4a9dc4", "#c24d6b", "#6d7686"];

export function readPalette(element: Element): Palette {
  const style = getComputedStyle(element);
  const token = (name: string, otherwise: string): string => style.getPropertyValue(name).trim() || otherwise;
  return {
    series: FALLBACK.map((colour, index) => token(`--series-${index + 1}`, colour)),
    text: token("--text-quiet", "#4a6067"),
    grid: token("--line", "#d5dfe0"),
    surface: token("--surface-raised", "#ffffff"),
    hatch: token("--text-quiet", "#4a6067"),
    font: style.fontFamily || "sans-serif",
  };
}

/** A colour with another opacity, whatever notation the token is written in. */
export function faded(context: CanvasRenderingContext2D, colour: string, opacity: number): string {
  const before = context.fillStyle;
  context.fillStyle = "#000";
  context.fillStyle = colour;
  const normal = context.fillStyle;
  context.fillStyle = before;
  if (typeof normal === "string" && /^#[0-9a-f]{6}$/i.test(normal)) {
    return `${normal}${Math.round(opacity * 255)
      .toString(16)
      .padStart(2, "0")}`;
  }
  return typeof normal === "string" ? normal : colour;
}
