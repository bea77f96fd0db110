/** A small answer about a host that is asked for again when the host shows a sign of life. */

import { get } from "../api/client";
import { live } from "../app/live.svelte";

const LEAST_MS = 5_000;

export class Polled<T> {
  answer = $state.raw<T | null>(null);
  problem = $state<string | null>(null);
  loading = $state(true);

  #askedMs = Number.NEGATIVE_INFINITY;
  readonly #stop = new AbortController();
  readonly #unsubscribe: () => void;

  /** `part` is the last part of the path, such as `processes`. */
  constructor(
    readonly host: string,
    readonly part: string,
  ) {
    this.#unsubscribe = live.onHost(host, () => {
      if (!document.hidden && performance.now() - this.#askedMs > LEAST_MS) void this.load();
    });
    void this.load();
  }

  readonly load = async (): Promise<void> => {
    this.#askedMs = performance.now();
    this.loading = true;
    try {
      this.answer = await get<T>(`/api/v1/hosts/${encodeURIComponent(this.host)}/${this.part}`, this.#stop.signal);
      this.problem = null;
    } catch (error) {
      if (!this.#stop.signal.aborted) this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      this.loading = false;
    }
  };

  close(): void {
    this.#unsubscribe();
    this.#stop.abort();
  }
}
