/**
 * The two paths of a sparkline in a box of `width` × `height`: `line` through the values, `area` below it. Values are fractions
 * of `top`; null is a gap, drawn as a gap. A value between two gaps becomes a short stroke, so that it is seen.
 */
export function sparkline(values: readonly (number | null)[], width: number, height: number, top = 1): { line: string; area: string } {
  const step = width / Math.max(1, values.length - 1);
  let line = "";
  let area = "";
  let run: string[] = [];
  let startX = 0;

  const close = (endX: number): void => {
    if (run.length === 0) return;
    const points = run.length === 1 ? `${run[0]} l0.8 0` : run.join("L");
    line += `M${points}`;
    area += `M${round(startX)} ${height}L${run.join("L")}L${round(endX)} ${height}Z`;
    run = [];
  };

  values.forEach((value, index) => {
    const x = index * step;
    if (value === null) {
      close(x - step);
      return;
    }
    if (run.length === 0) startX = x;
    const level = Math.min(1, Math.max(0, value / top));
    run.push(`${round(x)} ${round(height - 1 - level * (height - 2))}`);
  });
  close((values.length - 1) * step);
  return { line, area };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
