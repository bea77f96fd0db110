/** What the boxes and lines of the picture read; they are drawn anew by themselves when it changes. */

import { getContext, setContext } from "svelte";
import type { Graph } from "./graph";
import type { Layout } from "./layout";
import type { Rates } from "./rate";

export interface Picture {
  readonly graph: Graph;
  readonly rates: Rates | null;
  readonly layout: Layout;
  readonly query: string;
  /** The id of what is chosen. */
  readonly selected: string | null;
  /** The box that Tab leads to. */
  readonly current: string | null;
  select(id: string): void;
  onkeydown(event: KeyboardEvent, id: string): void;
  onfocus(id: string): void;
}

const KEY = Symbol("picture");

export function providePicture(picture: Picture): void {
  setContext(KEY, picture);
}

export function usePicture(): Picture {
  return getContext<Picture>(KEY);
}
