/** Turns a frame into what uPlot draws: its options, its columns, and what it has no words for (bands, hatching). */

import uPlot from "uplot";
import { axisIncrements, axisLabels, timeAxisLabels, type Unit } from "./format";
import { stacked, type Frame, type Series, type Value } from "./frame";
import { faded, SERIES_COLOURS, type Palette } from "./palette";
import type { Span } from "./range";
import type { Stretch } from "./stretches";

/** How the value axis is chosen. Without anything it begins at 0 and ends a little above the greatest value. */
export interface ValueRange {
  /** `auto`: begins near the least value instead of 0, for temperatures. */
  readonly from?: "auto";
  /** The axis reaches at least this far. */
  readonly least?: number;
  /** The axis never reaches further than this. */
  readonly most?: number;
}

/** What can change without building the plot anew. */
export interface PlotState {
  frame: Frame;
  /** The series that are drawn, in the order of uPlot's columns. */
  drawn: readonly Series[];
  span: Span;
  stretches: readonly Stretch[];
  palette: Palette;
}

export interface PlotSettings {
  readonly unit: Unit;
  readonly stacked: boolean;
  readonly range: ValueRange;
  readonly syncKey: string;
  readonly height: number;
  readonly onZoom: (span: Span) => void;
  readonly onBack: () => void;
  readonly onCursor: (index: number | null, left: number, own: boolean) => void;
}

/** Width of the value axis: the same for all charts, so that their times stand below each other. */
export const VALUE_AXIS_WIDTH = 62;
const TIME_AXIS_HEIGHT = 26;
/** With more lines than this, bands would hide each other. */
const MOST_BANDS = 4;
/** With more points than this, lines are drawn thinner. */
const MANY_POINTS = 400;

export function colourOf(series: Series, index: number, palette: Palette): string {
  if (series.style === "limit") return palette.text;
  return palette.series[(series.colour ?? index) % SERIES_COLOURS] ?? palette.text;
}

function isStacked(series: Series, settings: PlotSettings): boolean {
  return settings.stacked && series.style === undefined;
}

/** The columns that uPlot draws; the values of stacked series are sums from the bottom up. */
export function columns(state: PlotState, settings: PlotSettings): uPlot.AlignedData {
  const pile = state.drawn.filter((series) => isStacked(series, settings));
  const sums = stacked(pile.map((series) => series.values));
  const rows = state.drawn.map((series) => {
    const position = pile.indexOf(series);
    return [...(position < 0 ? series.values : (sums[position] ?? series.values))];
  });
  return [state.frame.timesMs.map((ms) => ms / 1000), ...rows] as uPlot.AlignedData;
}

/** Indices of values that no line would show, because there is a gap on both sides. */
export function lonely(values: readonly Value[]): number[] {
  const found: number[] = [];
  let before: Value = null;
  values.forEach((value, index) => {
    if (typeof value === "number" && before === null) {
      let next = index + 1;
      while (values[next] === undefined && next < values.length) next += 1;
      if (values[next] === null || next >= values.length) found.push(index);
    }
    if (value !== undefined) before = value;
  });
  return found;
}

/** The ends of the value axis for the least and greatest value on it. */
export function valueRange(least: number | null, greatest: number | null, range: ValueRange): [number, number] {
  const low = range.from === "auto" ? (least ?? 0) : Math.min(0, least ?? 0);
  const high = Math.max(greatest ?? 0, range.least ?? 0);
  if (range.from === "auto") {
    const room = Math.max((high - low) * 0.15, 2);
    return [Math.floor(low - room), Math.ceil(high + room)];
  }
  const top = high <= 0 ? 1 : high * 1.08;
  return [low, range.most === undefined ? top : Math.min(top, Math.max(range.most, high))];
}

/** The greatest sample of what is drawn, which may be above every mean. */
function greatestSample(state: PlotState, settings: PlotSettings): number | null {
  let greatest: number | null = null;
  for (const series of state.drawn) {
    if (isStacked(series, settings) || !showsBand(state)) continue;
    for (const value of series.max ?? []) {
      if (typeof value === "number" && (greatest === null || value > greatest)) greatest = value;
    }
  }
  return greatest;
}

function showsBand(state: PlotState): boolean {
  return state.drawn.filter((series) => series.max !== undefined).length <= MOST_BANDS;
}

/** Draws the space between the least and the greatest sample of each step behind the lines. */
function drawBands(plot: uPlot, state: PlotState, settings: PlotSettings): void {
  if (!showsBand(state)) return;
  const context = plot.ctx;
  state.drawn.forEach((series, index) => {
    const { min, max } = series;
    if (!min || !max || isStacked(series, settings) || series.style === "limit") return;
    context.fillStyle = faded(context, colourOf(series, index, state.palette), 0.2);
    let upper: [number, number][] = [];
    let lower: [number, number][] = [];
    const finish = (): void => {
      if (upper.length > 1) {
        context.beginPath();
        [...upper, ...lower.reverse()].forEach(([x, y], point) =>
          point ? context.lineTo(x, y) : context.moveTo(x, y),
        );
        context.fill();
      }
      upper = [];
      lower = [];
    };
    series.values.forEach((value, at) => {
      if (value === null) finish();
      if (typeof value !== "number") return;
      const x = plot.valToPos((state.frame.timesMs[at] ?? 0) / 1000, "x", true);
      upper.push([x, plot.valToPos(max[at] ?? value, "y", true)]);
      lower.push([x, plot.valToPos(min[at] ?? value, "y", true)]);
    });
    finish();
  });
}

function hatching(context: CanvasRenderingContext2D, colour: string, ratio: number): CanvasPattern | null {
  const size = Math.round(8 * ratio);
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const drawing = tile.getContext("2d");
  if (!drawing) return null;
  drawing.strokeStyle = faded(context, colour, 0.4);
  drawing.lineWidth = ratio;
  drawing.beginPath();
  for (const offset of [-size, 0, size]) {
    drawing.moveTo(offset, size);
    drawing.lineTo(offset + size, 0);
  }
  drawing.stroke();
  return context.createPattern(tile, "repeat");
}

/** Shades the stretches in which the host was not connected, and names those that are wide enough. */
function drawStretches(plot: uPlot, state: PlotState): void {
  const context = plot.ctx;
  const { left, top, width, height } = plot.bbox;
  const ratio = devicePixelRatio || 1;
  context.save();
  context.beginPath();
  context.rect(left, top, width, height);
  context.clip();
  for (const stretch of state.stretches) {
    const from = Math.max(left, plot.valToPos(stretch.fromMs / 1000, "x", true));
    const to = Math.min(left + width, plot.valToPos(stretch.toMs / 1000, "x", true));
    if (to <= from) continue;
    const pattern = hatching(context, state.palette.hatch, ratio);
    context.fillStyle = faded(context, state.palette.hatch, 0.07);
    context.fillRect(from, top, Math.max(to - from, ratio), height);
    if (pattern) {
      context.fillStyle = pattern;
      context.fillRect(from, top, Math.max(to - from, ratio), height);
    }
  }
  context.restore();
}

function nameStretches(plot: uPlot, state: PlotState): void {
  const context = plot.ctx;
  const { left, top, width } = plot.bbox;
  const ratio = devicePixelRatio || 1;
  context.save();
  context.font = `${11 * ratio}px ${state.palette.font}`;
  context.textBaseline = "top";
  context.textAlign = "left";
  for (const stretch of state.stretches) {
    const from = Math.max(left, plot.valToPos(stretch.fromMs / 1000, "x", true));
    const to = Math.min(left + width, plot.valToPos(stretch.toMs / 1000, "x", true));
    const short = stretch.text.split(";")[0] ?? "";
    const text = [stretch.text, short, "not connected"].find(
      (candidate) => context.measureText(candidate).width + 12 * ratio <= to - from,
    );
    if (text === undefined) continue;
    const textWidth = context.measureText(text).width;
    const x = (from + to - textWidth) / 2;
    // An edge around the letters instead of a box: no value may be hidden behind words.
    context.lineJoin = "round";
    context.lineWidth = 4 * ratio;
    context.strokeStyle = state.palette.surface;
    context.strokeText(text, x, top + 5 * ratio);
    context.fillStyle = state.palette.text;
    context.fillText(text, x, top + 5 * ratio);
  }
  context.restore();
}

function seriesOptions(state: PlotState, settings: PlotSettings): uPlot.Series[] {
  const alone = state.drawn.filter((series) => series.style !== "limit").length === 1;
  return state.drawn.map((series, index) => {
    const peak = settings.stacked && series.style === "line";
    const stroke = (): string => colourOf(series, index, state.palette);
    const filled = isStacked(series, settings) || series.style === "area" || alone;
    const first = state.drawn.findIndex((other) => isStacked(other, settings)) === index;
    const opacity = isStacked(series, settings) ? 0.55 : 0.16;
    const options: uPlot.Series = {
      label: series.name,
      // A limit far above the values would flatten them; where it matters the range says so.
      auto: series.style !== "limit",
      stroke: (plot) => (peak ? faded(plot.ctx, stroke(), 0.7) : stroke()),
      width: series.style === "limit" || peak ? 1 : state.frame.timesMs.length > MANY_POINTS ? 1.2 : 1.5,
      spanGaps: false,
      points: {
        show: true,
        size: 4,
        width: 0,
        fill: stroke,
        filter: (plot, at) => lonely((plot.data[at] ?? []) as Value[]),
      },
    };
    if (series.style === "limit") options.dash = [4, 4];
    if (filled && series.style !== "limit" && (first || !isStacked(series, settings))) {
      options.fill = (plot) => faded(plot.ctx, stroke(), opacity);
    }
    return options;
  });
}

/** Fills between each stacked series and the one below. */
function stackBands(state: PlotState, settings: PlotSettings): uPlot.Band[] {
  const bands: uPlot.Band[] = [];
  let below: number | null = null;
  state.drawn.forEach((series, index) => {
    if (!isStacked(series, settings)) return;
    if (below !== null) {
      const fill = (plot: uPlot): string => faded(plot.ctx, colourOf(series, index, state.palette), 0.55);
      bands.push({ series: [index + 1, below + 1], fill });
    }
    below = index;
  });
  return bands;
}

function axes(state: PlotState, settings: PlotSettings): uPlot.Axis[] {
  const stroke = (): string => state.palette.text;
  const grid = { stroke: (): string => state.palette.grid, width: 1 };
  const font = `11px ${state.palette.font}`;
  return [
    {
      stroke,
      grid: { show: false },
      ticks: { ...grid, size: 4 },
      font,
      size: TIME_AXIS_HEIGHT,
      gap: 4,
      space: 64,
      values: (_plot, splits, _axis, _space, increment) => timeAxisLabels(splits, increment),
    },
    {
      stroke,
      grid,
      ticks: { show: false },
      font,
      size: VALUE_AXIS_WIDTH,
      gap: 6,
      space: 26,
      incrs: axisIncrements(settings.unit),
      values: (_plot, splits) => axisLabels(splits, settings.unit),
    },
  ];
}

/** Builds the plot. `state` is read at every drawing: change it and call `setData` or `redraw`. */
export function createPlot(target: HTMLElement, width: number, state: PlotState, settings: PlotSettings): uPlot {
  let own = false;
  const options: uPlot.Options = {
    width,
    height: settings.height,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    series: [{}, ...seriesOptions(state, settings)],
    bands: stackBands(state, settings),
    axes: axes(state, settings),
    scales: {
      x: { time: true, range: () => [state.span.fromMs / 1000, state.span.toMs / 1000] },
      y: {
        range: (_plot, least, greatest) => {
          const sample = greatestSample(state, settings);
          const high = sample === null ? greatest : Math.max(greatest ?? sample, sample);
          return valueRange(least, high, settings.range);
        },
      },
    },
    cursor: {
      y: false,
      drag: { x: true, y: false, setScale: false, dist: 4 },
      points: { size: 6, width: 0 },
      bind: {
        mouseenter: (_plot, _target, handler) => (event) => {
          own = true;
          return handler(event);
        },
        mouseleave: (_plot, _target, handler) => (event) => {
          own = false;
          return handler(event);
        },
        dblclick: () => () => {
          settings.onBack();
          return null;
        },
      },
      sync: {
        key: settings.syncKey,
        setSeries: false,
        scales: ["x", null],
        filters: { pub: (type) => type === "mousemove" || type === "mouseleave" },
      },
    },
    hooks: {
      drawClear: [(plot) => drawStretches(plot, state)],
      drawAxes: [(plot) => drawBands(plot, state, settings)],
      draw: [(plot) => nameStretches(plot, state)],
      setCursor: [
        (plot) => {
          const inside = (plot.cursor.left ?? -1) >= 0 && state.frame.timesMs.length > 0;
          settings.onCursor(inside ? (plot.cursor.idx ?? null) : null, plot.cursor.left ?? 0, own);
        },
      ],
      setSelect: [
        (plot) => {
          const { left, width: selected } = plot.select;
          if (selected < 4) return;
          const fromMs = plot.posToVal(left, "x") * 1000;
          const toMs = plot.posToVal(left + selected, "x") * 1000;
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
          settings.onZoom({ fromMs, toMs });
        },
      ],
    },
  };
  return new uPlot(options, columns(state, settings), target);
}

/** Moves the crosshair of this chart, and with it that of all charts of the page. */
export function moveCrosshair(plot: uPlot, seconds: number | null): void {
  // The third argument ("publish") is not in uPlot's types; without it the other charts would stand still.
  const move = plot.setCursor as (at: { left: number; top: number }, fire: boolean, publish: boolean) => void;
  const left = seconds === null ? -10 : plot.valToPos(seconds, "x");
  move({ left, top: seconds === null ? -10 : 0 }, true, true);
}
