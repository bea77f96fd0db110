/**
 * The live picture of all hosts: one WebSocket, `/ws?topics=hosts`. It comes back by itself after an outage, a sleep or a
 * pause in a hidden tab, and what it holds is then replaced as a whole, so nothing of before the gap lingers. Where a proxy
 * does not let WebSockets through, the hosts are asked for every few seconds instead.
 */

import { ApiError, get } from "../api/client";
import type { HostRow, HostsAnswer, LiveMessage } from "../api/types";
import { clock } from "../ui/clock.svelte";
import { backoffMs } from "./backoff";

/**
 * - `connecting`: first attempt, nothing shown yet
 * - `live`: deltas arrive
 * - `polling`: the server answers, its WebSocket does not
 * - `reconnecting`: the connection was lost a moment ago
 * - `away`: the server does not answer
 * - `paused`: the tab is hidden
 */
export type LiveState = "connecting" | "live" | "polling" | "reconnecting" | "away" | "paused";

const SILENCE_MS = 20_000;
const ANSWER_MS = 8_000;
const CHECK_MS = 2_000;
const HIDDEN_GRACE_MS = 10_000;
const POLL_MS = 5_000;
const GLOW_MS = 6_000;

type Listener = (row: HostRow | null) => void;

class Live {
  state = $state<LiveState>("connecting");
  /** All hosts by name. Replaced, never changed in place: a new map for each batch, the same row object where nothing changed. */
  hosts = $state.raw<ReadonlyMap<string, HostRow>>(new Map());
  /** True once a full picture has been received. */
  loaded = $state(false);
  /** When hosts were last heard of, in the server's time. */
  lastDataMs = $state<number | null>(null);
  /** Since when the server does not answer, and when it is tried again; the browser's time. */
  awaySinceMs = $state<number | null>(null);
  nextTryMs = $state<number | null>(null);
  /** Why the server counts as away. */
  problem = $state<string | null>(null);
  /** Hosts that appeared by themselves during the last seconds. */
  fresh = $state.raw<ReadonlySet<string>>(new Set());

  #socket: WebSocket | null = null;
  #failures = 0;
  #replaceNext = true;
  #lastMessageMs = 0;
  #pingMs: number | null = null;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #pauseTimer: ReturnType<typeof setTimeout> | undefined;
  #watchTimer: ReturnType<typeof setInterval> | undefined;
  #pending: LiveMessage[] = [];
  #frame = 0;
  #wanted = false;
  #attempt = 0;
  readonly #listeners = new Map<string, Set<Listener>>();

  /** Connects and stays connected until {@link stop}. */
  start(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    document.addEventListener("visibilitychange", this.#onVisibility);
    window.addEventListener("online", this.retryNow);
    this.#watchTimer = setInterval(() => this.#watch(), CHECK_MS);
    this.#connect();
  }

  stop(): void {
    this.#wanted = false;
    document.removeEventListener("visibilitychange", this.#onVisibility);
    window.removeEventListener("online", this.retryNow);
    clearInterval(this.#watchTimer);
    clearTimeout(this.#pauseTimer);
    this.#disconnect();
    this.state = "connecting";
  }

  /** Calls `callback` with each new row of the host `name`, and with null when it is forgotten. Returns the way out. */
  onHost(name: string, callback: Listener): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    listeners.add(callback);
    this.#listeners.set(name, listeners);
    return () => {
      listeners.delete(callback);
      if (listeners.size === 0) this.#listeners.delete(name);
    };
  }

  /** Does not wait for the next attempt's time. */
  readonly retryNow = (): void => {
    if (!this.#wanted || this.state === "live" || document.visibilityState === "hidden") return;
    this.#disconnect();
    this.#connect();
  };

  #connect(): void {
    clearTimeout(this.#retryTimer);
    this.nextTryMs = null;
    const attempt = ++this.#attempt;
    const url = new URL("/ws?topics=hosts", window.location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#replaceNext = true;
    const deadline = setTimeout(() => socket.close(), ANSWER_MS);
    socket.onmessage = (event) => {
      if (attempt !== this.#attempt || typeof event.data !== "string") return;
      clearTimeout(deadline);
      this.#lastMessageMs = performance.now();
      this.#pingMs = null;
      this.#receive(event.data);
    };
    socket.onclose = () => {
      clearTimeout(deadline);
      if (attempt === this.#attempt && this.#wanted) void this.#lost();
    };
  }

  #disconnect(): void {
    this.#attempt += 1;
    clearTimeout(this.#retryTimer);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#pending = [];
    this.#pingMs = null;
    this.#socket?.close();
    this.#socket = null;
  }

  /** The socket closed: finds out whether the server is away, the session is over, or only the WebSocket is in the way. */
  async #lost(): Promise<void> {
    this.#disconnect();
    const attempt = this.#attempt;
    this.#failures += 1;
    if (this.state === "live" || this.state === "connecting" || this.state === "paused") this.state = "reconnecting";
    this.awaySinceMs ??= Date.now();
    if (this.#failures >= 2 || !this.loaded) {
      try {
        const answer = await get<HostsAnswer>("/api/v1/hosts");
        if (attempt !== this.#attempt) return;
        this.#apply([{ type: "hosts", now_ms: answer.now_ms, rows: answer.hosts }], true);
        this.awaySinceMs = null;
        this.state = this.#failures >= 3 ? "polling" : "reconnecting";
        this.#schedule(this.state === "polling" ? POLL_MS : backoffMs(this.#failures));
        return;
      } catch (error) {
        if (attempt !== this.#attempt) return;
        if (error instanceof ApiError && error.status === 401) return; // The login page takes over.
        this.problem = error instanceof Error ? error.message : String(error);
        this.state = "away";
      }
    }
    this.#schedule(backoffMs(this.#failures));
  }

  #schedule(waitMs: number): void {
    this.nextTryMs = Date.now() + waitMs;
    this.#retryTimer = setTimeout(() => this.#connect(), waitMs);
  }

  #receive(text: string): void {
    let message: LiveMessage;
    try {
      message = JSON.parse(text) as LiveMessage;
    } catch {
      return; // Not for this page; the watch below notices when nothing else comes.
    }
    if (message.type !== "hosts" && message.type !== "removed") return;
    this.#pending.push(message);
    // One batch per frame, however many messages a burst holds.
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#flush());
  }

  #flush(): void {
    this.#frame = 0;
    const messages = this.#pending;
    this.#pending = [];
    const replace = this.#replaceNext && messages.some((message) => message.type === "hosts");
    if (replace) this.#replaceNext = false;
    this.#apply(messages, replace);
    this.state = "live";
    this.problem = null;
    this.#failures = 0;
    this.awaySinceMs = null;
    this.nextTryMs = null;
  }

  #apply(messages: readonly LiveMessage[], replace: boolean): void {
    const before = this.hosts;
    const after = replace ? new Map<string, HostRow>() : new Map(before);
    const touched = new Set<string>();
    for (const message of messages) {
      if (message.type === "hosts") {
        clock.learn(message.now_ms);
        this.lastDataMs = message.now_ms;
        for (const row of message.rows) {
          after.set(row.name, row);
          touched.add(row.name);
        }
      } else if (message.type === "removed") {
        for (const name of message.names) {
          after.delete(name);
          touched.add(name);
        }
      }
    }
    if (replace) for (const name of before.keys()) touched.add(name);
    if (this.loaded) this.#glow([...after.keys()].filter((name) => !before.has(name)));
    this.hosts = after;
    if (replace) this.loaded = true;
    for (const name of touched) {
      for (const listener of this.#listeners.get(name) ?? []) listener(after.get(name) ?? null);
    }
  }

  #glow(names: string[]): void {
    if (names.length === 0) return;
    this.fresh = new Set([...this.fresh, ...names]);
    setTimeout(() => {
      this.fresh = new Set([...this.fresh].filter((name) => !names.includes(name)));
    }, GLOW_MS);
  }

  /** A connection can be dead without saying so, after a sleep above all: silence is answered with a ping, then with a new connection. */
  #watch(): void {
    if (this.state !== "live" || this.#socket === null) return;
    const now = performance.now();
    if (this.#pingMs !== null) {
      if (now - this.#pingMs > ANSWER_MS) void this.#lost();
    } else if (now - this.#lastMessageMs > SILENCE_MS && this.#socket.readyState === WebSocket.OPEN) {
      this.#pingMs = now;
      this.#socket.send(JSON.stringify({ type: "ping" }));
    }
  }

  readonly #onVisibility = (): void => {
    clearTimeout(this.#pauseTimer);
    if (document.visibilityState === "hidden") {
      this.#pauseTimer = setTimeout(() => {
        this.#disconnect();
        this.state = "paused";
      }, HIDDEN_GRACE_MS);
    } else if (this.state === "paused") {
      this.#failures = 0;
      this.#connect();
    } else {
      this.retryNow();
    }
  };
}

export const live = new Live();

