/**
 * Where everything is drawn: three columns, sources, routes, exporters. It follows from what there is and how it is
 * connected, never from values, so that nothing moves while somebody looks.
 */

import { COLUMNS, type Column, type Graph, type Part } from "./graph";

/** One rectangle of the picture: a part, or several of one kind together. */
export interface Box {
  id: string;
  column: Column;
  /** The kind of a group's members; null for a part alone. */
  group: string | null;
  parts: readonly string[];
  x: number;
  y: number;
  width: number;
  height: number;
}

/** A line between two boxes, for one or more edges. */
export interface Line {
  id: string;
  from: string;
  to: string;
  edges: readonly string[];
}

export interface Layout {
  boxes: readonly Box[];
  lines: readonly Line[];
  /** Boxes say less, so that many of them fit. */
  dense: boolean;
  /** Boxes are narrow, and say what they say on more lines. */
  narrow: boolean;
  width: number;
  height: number;
}

/** A column with more parts than this is grouped by kind, unless somebody wants it otherwise. */
const MOST_UNGROUPED = 12;
const LEAST_OF_GROUP = 3;
/** With more boxes than this in a column, boxes say less. */
const MOST_ROOMY = 6;
const MOST_WIDTH = 320;
/** Three columns of these are still to be read on a tablet, or beside the details. */
const LEAST_WIDTH = 220;
/** Narrower than this, six numbers do not stand beside each other. */
const ROOMY_WIDTH = 290;
const USUAL_ROOM = 1300;
const LEAST_BETWEEN = 72;
const MOST_BETWEEN = 320;
const ROOMY_HEIGHT: Record<Column, number> = { source: 88, route: 88, exporter: 120 };
const NARROW_HEIGHT: Record<Column, number> = { source: 138, route: 122, exporter: 170 };
const DENSE_HEIGHT = 46;
const ROOMY_GAP = 16;
const DENSE_GAP = 8;
const SWEEPS = 8;

export type Grouping = "auto" | "on" | "off";

function kindOf(part: Part): string | null {
  if (part.column === "source") return part.source?.kind ?? null;
  return part.column === "exporter" ? (part.exporter?.kind ?? null) : null;
}

/** The box of every part, in the order of the parts. */
function boxesOf(graph: Graph, grouping: Grouping): Map<string, { column: Column; group: string | null; parts: string[] }> {
  const boxes = new Map<string, { column: Column; group: string | null; parts: string[] }>();
  for (const column of COLUMNS) {
    const parts = [...graph.parts.values()].filter((part) => part.column === column);
    const grouped = grouping === "on" || (grouping === "auto" && parts.length > MOST_UNGROUPED);
    const sizes = new Map<string, number>();
    for (const part of parts) {
      const kind = kindOf(part);
      if (kind !== null) sizes.set(kind, (sizes.get(kind) ?? 0) + 1);
    }
    for (const part of parts) {
      const kind = kindOf(part);
      const together = grouped && kind !== null && (sizes.get(kind) ?? 0) >= LEAST_OF_GROUP;
      const id = together ? `group:${column}:${kind}` : part.id;
      const box = boxes.get(id);
      if (box === undefined) boxes.set(id, { column, group: together ? kind : null, parts: [part.id] });
      else box.parts.push(part.id);
    }
  }
  return boxes;
}

/** Whether grouping changes anything, so that a switch for it is worth its place. */
export function groupable(graph: Graph): boolean {
  return [...boxesOf(graph, "on").values()].some((box) => box.group !== null);
}

/** `room` is the width in pixels that the columns share; they come as near to each other and get as narrow as it wants, but no more than lines and words bear. */
export function layoutOf(graph: Graph, grouping: Grouping = "auto", room = USUAL_ROOM): Layout {
  const members = boxesOf(graph, grouping);
  const boxOf = new Map([...members].flatMap(([id, { parts }]) => parts.map((part) => [part, id] as const)));
  const lines = linesOf(graph, boxOf);
  const columns = COLUMNS.map((column) => [...members].filter(([, box]) => box.column === column).map(([id]) => id));
  const ordered = withFewCrossings(columns, lines);
  const dense = ordered.some((column) => column.length > MOST_ROOMY);
  const gap = dense ? DENSE_GAP : ROOMY_GAP;
  const width = Math.round(Math.min(MOST_WIDTH, Math.max(LEAST_WIDTH, (room - (COLUMNS.length - 1) * LEAST_BETWEEN) / COLUMNS.length)));
  const narrow = width < ROOMY_WIDTH;
  const heightOf = (column: Column): number => (dense ? DENSE_HEIGHT : (narrow ? NARROW_HEIGHT : ROOMY_HEIGHT)[column]);
  const heights = ordered.map((ids, index) => Math.max(0, ids.length * (heightOf(COLUMNS[index] ?? "source") + gap) - gap));
  const height = Math.max(0, ...heights) + gap;
  const between = Math.round(Math.min(MOST_BETWEEN, Math.max(LEAST_BETWEEN, (room - COLUMNS.length * width) / (COLUMNS.length - 1))));
  const boxes = ordered.flatMap((ids, index) => {
    const column = COLUMNS[index] ?? "source";
    // Spread over the whole height, so that lines stay flat and no column hides in the middle of a tall picture.
    const pitch = height / Math.max(1, ids.length);
    return ids.map((id, row): Box => {
      const box = members.get(id);
      return {
        id,
        column,
        group: box?.group ?? null,
        parts: box?.parts ?? [],
        x: index * (width + between),
        y: Math.round((row + 0.5) * pitch - heightOf(column) / 2),
        width,
        height: heightOf(column),
      };
    });
  });
  return { boxes, lines, dense, narrow, width: COLUMNS.length * width + (COLUMNS.length - 1) * between, height };
}

function linesOf(graph: Graph, boxOf: ReadonlyMap<string, string>): Line[] {
  const lines = new Map<string, Line & { edges: string[] }>();
  for (const edge of graph.edges.values()) {
    const from = boxOf.get(edge.from);
    const to = boxOf.get(edge.to);
    if (from === undefined || to === undefined) continue;
    const id = `${from} → ${to}`;
    const line = lines.get(id);
    if (line === undefined) lines.set(id, { id, from, to, edges: [edge.id] });
    else line.edges.push(edge.id);
  }
  return [...lines.values()];
}

/** The columns, each in an order with few crossings: every box moves to the middle of its neighbours, some times over. */
export function withFewCrossings(columns: readonly (readonly string[])[], lines: readonly Pick<Line, "from" | "to">[]): string[][] {
  const neighbours = new Map<string, string[]>();
  const connect = (a: string, b: string): void => void neighbours.set(a, [...(neighbours.get(a) ?? []), b]);
  for (const { from, to } of lines) {
    connect(from, to);
    connect(to, from);
  }
  let best = columns.map((column) => [...column]);
  let fewest = crossings(best, lines);
  let current = best;
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const forward = sweep % 2 === 0;
    const next = current.map((column) => [...column]);
    for (let step = 0; step < next.length; step += 1) {
      const index = forward ? step : next.length - 1 - step;
      // Half of the neighbours stand in the column before, half in the one after; both count, as they stand now.
      const places = placesOf(next);
      next[index] = sortedByMiddle(next[index] ?? [], neighbours, places);
    }
    const count = crossings(next, lines);
    if (count < fewest) [best, fewest] = [next, count];
    current = next;
  }
  return best;
}

/** Each box's height in its column, from 0 at the top to 1 at the bottom. */
function placesOf(columns: readonly (readonly string[])[]): Map<string, number> {
  return new Map(columns.flatMap((column) => column.map((id, row) => [id, (row + 0.5) / column.length] as const)));
}

function sortedByMiddle(ids: readonly string[], neighbours: ReadonlyMap<string, readonly string[]>, places: ReadonlyMap<string, number>): string[] {
  const middle = (id: string): number => {
    const around = neighbours.get(id) ?? [];
    const own = places.get(id) ?? 0;
    return around.length === 0 ? own : around.reduce((sum, other) => sum + (places.get(other) ?? 0), 0) / around.length;
  };
  // Stable: equals keep their order, which is that of the configuration.
  return [...ids].sort((a, b) => middle(a) - middle(b));
}

/** How many pairs of lines between the same two columns cross. */
export function crossings(columns: readonly (readonly string[])[], lines: readonly Pick<Line, "from" | "to">[]): number {
  const row = new Map(columns.flatMap((column, index) => column.map((id, place) => [id, { index, place }] as const)));
  const ends = lines.flatMap(({ from, to }) => {
    const [a, b] = [row.get(from), row.get(to)];
    return a === undefined || b === undefined ? [] : [{ index: a.index, from: a.place, to: b.place }];
  });
  let count = 0;
  ends.forEach((one, index) => {
    for (const other of ends.slice(index + 1)) {
      if (one.index === other.index && (one.from - other.from) * (one.to - other.to) < 0) count += 1;
    }
  });
  return count;
}

/** The box that an arrow key leads to: up and down in the column, left and right along a line, else to the nearest. */
export function neighbour(layout: Layout, id: string, key: string): string | null {
  const at = layout.boxes.find((box) => box.id === id);
  if (at === undefined) return layout.boxes[0]?.id ?? null;
  const column = layout.boxes.filter((box) => box.column === at.column);
  const row = column.indexOf(at);
  if (key === "ArrowUp" || key === "ArrowDown") return column[row + (key === "ArrowUp" ? -1 : 1)]?.id ?? null;
  if (key === "Home" || key === "End") return (key === "Home" ? column[0] : column.at(-1))?.id ?? null;
  const step = key === "ArrowLeft" ? -1 : 1;
  const nearest = (boxes: readonly Box[]): string | null => {
    const middle = at.y + at.height / 2;
    const distance = (box: Box): number => Math.abs(box.y + box.height / 2 - middle);
    return boxes.reduce<Box | null>((best, box) => (best === null || distance(box) < distance(best) ? box : best), null)?.id ?? null;
  };
  const connected = layout.lines.flatMap((line) => (step > 0 && line.from === id ? [line.to] : step < 0 && line.to === id ? [line.from] : []));
  if (connected.length > 0) return nearest(layout.boxes.filter((box) => connected.includes(box.id)));
  for (let index = COLUMNS.indexOf(at.column) + step; index >= 0 && index < COLUMNS.length; index += step) {
    const found = nearest(layout.boxes.filter((box) => box.column === COLUMNS[index]));
    if (found !== null) return found;
  }
  return null;
}
