/** The pipeline, asked for every 2 s while somebody looks. */

import { get } from "../api/client";
import { graphOf, type Graph } from "./graph";
import { ratesBetween, withSnapshot, type Rates } from "./rate";
import type { PipelineAnswer } from "../api/types";

const POLL_MS = 2_000;

export class PipelineData {
  answer = $state.raw<PipelineAnswer | null>(null);
  problem = $state<string | null>(null);
  #snapshots = $state.raw<readonly PipelineAnswer[]>([]);

  readonly graph = $derived<Graph | null>(this.answer === null ? null : graphOf(this.answer));
  readonly rates = $derived.by((): Rates | null => {
    const [first, last] = [this.#snapshots[0], this.#snapshots.at(-1)];
    return first === undefined || last === undefined || first === last ? null : ratesBetween(first, last);
  });

  #timer: ReturnType<typeof setTimeout> | undefined;
  #stop: AbortController | null = null;

  start(): void {
    document.addEventListener("visibilitychange", this.#onVisibility);
    void this.load();
  }

  close(): void {
    document.removeEventListener("visibilitychange", this.#onVisibility);
    this.#pause();
  }

  /** Asks now, and every 2 s from then on. */
  readonly load = async (): Promise<void> => {
    this.#pause();
    const stop = new AbortController();
    this.#stop = stop;
    try {
      const answer = await get<PipelineAnswer>("/api/v1/pipeline", stop.signal);
      if (stop.signal.aborted) return;
      this.#snapshots = withSnapshot(this.#snapshots, answer);
      this.answer = answer;
      this.problem = null;
    } catch (error) {
      if (stop.signal.aborted) return;
      this.problem = error instanceof Error ? error.message : String(error);
    }
    if (document.visibilityState === "visible") this.#timer = setTimeout(() => void this.load(), POLL_MS);
  };

  #pause(): void {
    clearTimeout(this.#timer);
    this.#stop?.abort();
    this.#stop = null;
  }

  readonly #onVisibility = (): void => {
    if (document.visibilityState === "visible") void this.load();
    else this.#pause();
  };
}
