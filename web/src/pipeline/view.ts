/** How the picture lies in its frame, and what is chosen in it. */

import type { Graph, Part } from "./graph";
import type { Box, Layout } from "./layout";
import type { Flow } from "../api/types";
import { partName } from "./words";

export interface Viewport {
  x: number;
  y: number;
  zoom: number;
}

interface Size {
  width: number;
  height: number;
}

export const LEAST_ZOOM = 0.25;
export const MOST_ZOOM = 2;
/** Below these, text is too small to read: then the picture is higher than its frame, or on small screens wider. */
const LEAST_ZOOM_IN_HEIGHT = 0.72;
const LEAST_ZOOM_IN_WIDTH = 0.55;
const MOST_FITTED_ZOOM = 1.15;
/** What is left free around the picture, on each side. */
export const MARGIN = 24;

/** All of the picture in the frame, as long as it can be read; else its top, and its left. */
export function fit(layout: Size, frame: Size): Viewport {
  const wide = (frame.width - 2 * MARGIN) / Math.max(1, layout.width);
  const high = (frame.height - 2 * MARGIN) / Math.max(1, layout.height);
  const whole = Math.min(wide, high, MOST_FITTED_ZOOM);
  const zoom = Math.max(LEAST_ZOOM_IN_WIDTH, whole, Math.min(wide, LEAST_ZOOM_IN_HEIGHT));
  const x = (frame.width - layout.width * zoom) / 2;
  const y = (frame.height - layout.height * zoom) / 2;
  return { x: Math.max(x, MARGIN), y: Math.max(y, MARGIN), zoom };
}

/** True when some of the picture lies outside of the frame. */
export function overflows(layout: Size, frame: Size, { x, y, zoom }: Viewport): boolean {
  return x < -1 || y < -1 || x + layout.width * zoom > frame.width + 1 || y + layout.height * zoom > frame.height + 1;
}

/** `viewport` moved by as little as shows all of `box`. */
export function showing(box: Box, frame: Size, viewport: Viewport): Viewport {
  const { zoom } = viewport;
  const into = (start: number, length: number, room: number, offset: number): number => {
    const [from, to] = [start * zoom + offset, (start + length) * zoom + offset];
    if (from < MARGIN) return offset + MARGIN - from;
    return to > room - MARGIN ? offset - (to - room + MARGIN) : offset;
  };
  return { zoom, x: into(box.x, box.width, frame.width, viewport.x), y: into(box.y, box.height, frame.height, viewport.y) };
}

/** Nearer or further by `factor`, around the middle of the frame. */
export function zoomed(viewport: Viewport, frame: Size, factor: number): Viewport {
  const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, viewport.zoom * factor));
  const scale = zoom / viewport.zoom;
  const around = (middle: number, offset: number): number => middle - (middle - offset) * scale;
  return { zoom, x: around(frame.width / 2, viewport.x), y: around(frame.height / 2, viewport.y) };
}

export type Selection =
  | { kind: "part"; id: string; title: string; part: Part }
  | { kind: "group"; id: string; title: string; parts: readonly Part[] }
  | { kind: "edge"; id: string; title: string; flows: readonly Flow[] };

/** What `id`, as the address names it, stands for; null when there is no such thing (any more). */
export function selectionOf(id: string | null, graph: Graph, layout: Layout): Selection | null {
  if (id === null) return null;
  const part = graph.parts.get(id);
  if (part !== undefined) return { kind: "part", id, title: partName(part), part };
  const box = layout.boxes.find((one) => one.id === id);
  if (box !== undefined) return { kind: "group", id, title: boxName(box, graph), parts: box.parts.flatMap((one) => graph.parts.get(one) ?? []) };
  const edge = graph.edges.get(id);
  if (edge !== undefined) return { kind: "edge", id, title: `${nameOf(edge.from, graph)} → ${nameOf(edge.to, graph)}`, flows: edge.flows };
  const line = layout.lines.find((one) => one.id === id);
  if (line === undefined) return null;
  const name = (box: string): string => {
    const found = layout.boxes.find((one) => one.id === box);
    return found === undefined ? box : boxName(found, graph);
  };
  return { kind: "edge", id, title: `${name(line.from)} → ${name(line.to)}`, flows: line.edges.flatMap((one) => graph.edges.get(one)?.flows ?? []) };
}

function nameOf(id: string, graph: Graph): string {
  const part = graph.parts.get(id);
  return part === undefined ? id : partName(part);
}

/** The name of a part, or "12 nginx" for a group. */
export function boxName(box: Pick<Box, "group" | "parts">, graph: Graph): string {
  return box.group === null ? nameOf(box.parts[0] ?? "", graph) : `${box.parts.length} ${box.group}`;
}
