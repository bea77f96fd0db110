/**
 * The paths of a sparkline in a box of `width` × `height`: `line` through the values, `area` below it. Values are fractions
 * of `top`; null is a gap, drawn as a gap. A value between two gaps is a stroke of no length in `dots`, which round ends make a dot.
 */
export function sparkline(values: readonly (number | null)[], width: number, height: number, top = 1): { line: string; area: string; dots: string } {
  const step = width / Math.max(1, values.length - 1);
  let line = "";
  let area = "";
  let dots = "";
  let run: string[] = [];
  let startX = 0;

  const close = (endX: number): void => {
    if (run.length === 0) return;
    if (run.length === 1) dots += `M${run[0]} l0 0`;
    else line += `M${run.join("L")}`;
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
  return { line, area, dots };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
