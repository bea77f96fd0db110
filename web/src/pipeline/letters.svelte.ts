/** The dead letters of one exporter, of all sources and signals or of one, newest first, a page at a time. */

import { get, post } from "../api/client";
import type { DeadLetter, DeadLetterDetail, DeadLettersAnswer, DoneAnswer, SelectedLetters } from "../api/types";

const PAGE = 50;

export type LetterAction = "replay" | "drop";

/** One dead letter with its records. */
export function letter(id: string): Promise<DeadLetterDetail> {
  return get<DeadLetterDetail>(`/api/v1/dead-letters/${encodeURIComponent(id)}`);
}

export class Letters {
  all = $state.raw<readonly DeadLetter[]>([]);
  total = $state(0);
  bytes = $state(0);
  /** Only those from this source, and of this signal; empty: all. */
  source = $state("");
  signal = $state("");
  loaded = $state(false);
  problem = $state<string | null>(null);
  #turn = 0;

  constructor(readonly exporter: string) {}

  /** Asks for as many as are shown already, so that a list does not shrink under somebody's eyes. */
  readonly load = async (): Promise<void> => {
    await this.#ask(null, Math.max(PAGE, this.all.length));
  };

  /** Asks anew for those of another source or signal. */
  async narrow(source: string, signal: string): Promise<void> {
    this.source = source;
    this.signal = signal;
    this.all = [];
    this.loaded = false;
    await this.load();
  }

  /** What is asked for, in the server's words. */
  get #scope(): { exporter: string; source?: string; signal?: string } {
    const { exporter, source, signal } = this;
    return { exporter, ...(source === "" ? {} : { source }), ...(signal === "" ? {} : { signal }) };
  }

  readonly older = async (): Promise<void> => {
    await this.#ask(this.all.at(-1)?.id ?? null, PAGE);
  };

  async #ask(before: string | null, limit: number): Promise<void> {
    const turn = ++this.#turn;
    const query = new URLSearchParams({ ...this.#scope, limit: String(limit) });
    if (before !== null) query.set("before", before);
    try {
      const answer = await get<DeadLettersAnswer>(`/api/v1/dead-letters?${query}`);
      if (turn !== this.#turn) return;
      this.all = before === null ? answer.dead_letters : [...this.all, ...answer.dead_letters];
      this.total = answer.total;
      this.bytes = answer.bytes;
      this.loaded = true;
      this.problem = null;
    } catch (error) {
      if (turn === this.#turn) this.problem = error instanceof Error ? error.message : String(error);
    }
  }

  /** Replays or drops one, or all that the list is of when `id` is null; the list follows. Throws `ApiError`. */
  async act(action: LetterAction, id: string | null): Promise<DoneAnswer> {
    const body: SelectedLetters = id === null ? this.#scope : { ids: [id] };
    const done = await post<DoneAnswer>(`/api/v1/dead-letters/${action}`, body);
    await this.load();
    return done;
  }
}
