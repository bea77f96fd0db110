/**
 * What the page of one host shows, and how it is kept fresh: one query for all charts, and while the range ends now one
 * small query for what is new after each sign of life of the host.
 */

import { ApiError, get, post } from "../api/client";
import type { HostAnswer, HostRow, QueryAnswer } from "../api/types";
import { live } from "../app/live.svelte";
import { resolve, type Span, type TimeRange } from "../chart/range";
import { aligned, stepMs } from "../chart/step";
import { clock } from "../ui/clock.svelte";
import { customNames, type ClientPost } from "./page";
import { customPlans, PLANS, queriesOf, type ChartPlan } from "./plans";
import { tailFromMs, withTail } from "./tail";

/** New data are not asked for more often than this, nor than a tenth of a step. */
const LEAST_REFRESH_MS = 1000;
/** After so long without data everything is asked for again: data of the meantime may have been delivered since. */
const FORGET_AFTER_MS = 120_000;
/** After a failure the page waits this long before it asks by itself again. */
const AFTER_FAILURE_MS = 10_000;
/** Facts change seldom. */
const DETAILS_VALID_MS = 60_000;

export type Failure = { readonly status: number; readonly message: string };

function failure(error: unknown): Failure {
  if (error instanceof ApiError) return { status: error.status, message: error.message };
  return { status: 0, message: error instanceof Error ? error.message : String(error) };
}

export class HostData {
  /** The host, its facts, and what is collected of it; `null` until the first answer. */
  details = $state.raw<HostAnswer | null>(null);
  answer = $state.raw<QueryAnswer | null>(null);
  plans = $state.raw<readonly ChartPlan[]>(PLANS);
  /** Custom metrics that did not fit into the query. */
  leftOut = $state(0);
  /** What the time axes show. */
  span = $state.raw<Span>({ fromMs: 0, toMs: 0 });
  loading = $state(true);
  /** Why the host itself could not be loaded. */
  problem = $state.raw<Failure | null>(null);
  /** Why the charts could not be loaded or refreshed. */
  chartsProblem = $state.raw<Failure | null>(null);
  /** Why the names of custom metrics are not known. */
  customProblem = $state<string | null>(null);
  /** When charts were refreshed last, in the server's time. */
  refreshedMs = $state<number | null>(null);

  #range: TimeRange = { kind: "relative", seconds: 3600 };
  #stop = new AbortController();
  #request: AbortController | null = null;
  #busy = false;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #detailsMs = 0;
  #askedMs = Number.NEGATIVE_INFINITY;
  #status: HostRow["status"] | null = null;
  readonly #unsubscribe: () => void;

  constructor(readonly name: string) {
    this.#unsubscribe = live.onHost(name, (row) => this.#heard(row));
    document.addEventListener("visibilitychange", this.#seen);
  }

  /** Lets go of everything. The object is of no use after that. */
  close(): void {
    this.#unsubscribe();
    document.removeEventListener("visibilitychange", this.#seen);
    clearTimeout(this.#timer);
    this.#request?.abort();
    this.#stop.abort();
  }

  /** Asks for the host and for everything in the range. */
  async load(range: TimeRange): Promise<void> {
    this.#range = range;
    this.loading = true;
    if (this.details === null || this.problem !== null) {
      // A host of the live picture is known well enough to ask for its charts at the same time.
      const charts = live.hosts.has(this.name) ? this.#loadAll() : null;
      await this.loadDetails();
      if (this.problem !== null) {
        this.#request?.abort();
        this.loading = false;
        return;
      }
      const plans = this.plans;
      await this.#findCustom();
      if (charts !== null && this.plans === plans) return charts;
    }
    await this.#loadAll();
  }

  async loadDetails(): Promise<void> {
    this.#detailsMs = performance.now();
    try {
      const details = await get<HostAnswer>(`/api/v1/hosts/${encodeURIComponent(this.name)}`, this.#stop.signal);
      this.details = details;
      this.problem = null;
      this.#status = details.host.status;
    } catch (error) {
      if (
        !this.#stop.signal.aborted &&
        (this.details === null || !(error instanceof ApiError) || error.status === 404)
      ) {
        this.problem = failure(error);
      }
    }
  }

  /** Names of metrics that only this client has: the server tells them with what the client sent. */
  async #findCustom(): Promise<void> {
    const agent = this.details?.agent;
    if (!agent || this.details?.host.kind === "weir") return;
    try {
      const path = `/api/v1/agents/${encodeURIComponent(agent.id)}/metrics?hours=24`;
      const { metrics } = await get<{ metrics: ClientPost[] }>(path, this.#stop.signal);
      const names = customNames(metrics);
      const custom = customPlans(names);
      if (custom.length > 0) this.plans = [...PLANS, ...custom];
      this.leftOut = names.length - custom.length;
      this.customProblem = null;
    } catch (error) {
      const { status, message } = failure(error);
      this.customProblem = status === 404 ? null : message;
    }
  }

  async #loadAll(): Promise<void> {
    clearTimeout(this.#timer);
    this.#request?.abort();
    const request = new AbortController();
    this.#request = request;
    this.loading = true;
    const span = resolve(this.#range, clock.now);
    const step = stepMs(span, (this.details?.host ?? live.hosts.get(this.name))?.interval_seconds ?? null);
    try {
      const answer = await this.#query(aligned(span, step), step, request.signal);
      if (request.signal.aborted) return;
      this.answer = answer;
      this.span = span;
      this.chartsProblem = null;
      this.refreshedMs = clock.now;
    } catch (error) {
      if (request.signal.aborted) return;
      this.chartsProblem = failure(error);
      // The axes show what was asked for, so that old values are not taken for those of the new range.
      if (this.answer !== null && this.#range.kind === "absolute") this.span = span;
    } finally {
      if (this.#request === request) {
        this.#request = null;
        this.loading = false;
      }
    }
  }

  #query(span: Span, step: number, signal: AbortSignal): Promise<QueryAnswer> {
    this.#askedMs = performance.now();
    const queries = queriesOf(this.plans, this.name);
    return post<QueryAnswer>(
      "/api/v1/query",
      { from_ms: span.fromMs, to_ms: span.toMs, step_ms: step, queries },
      signal,
    );
  }

  /** A new row of this host: there are new data, unless the page shows another time. */
  #heard(row: HostRow | null): void {
    if (row === null) return;
    if (this.details === null || this.problem !== null) {
      // A host that was not there has come, or the server that was away has: tried again by itself.
      if (!this.loading && performance.now() - this.#detailsMs > AFTER_FAILURE_MS) void this.load(this.#range);
      return;
    }
    const changed = row.status !== this.#status;
    this.#status = row.status;
    if (changed || performance.now() - this.#detailsMs > DETAILS_VALID_MS) void this.loadDetails();
    if (changed && this.#range.kind === "relative") void this.#loadAll();
    else this.#plan();
  }

  readonly #seen = (): void => this.#plan();

  /** Refreshes soon: not more often than makes sense, and not while nobody looks. */
  #plan(): void {
    if (this.#range.kind !== "relative" || this.#busy || this.#request !== null || document.hidden) return;
    clearTimeout(this.#timer);
    const pause = Math.max(
      LEAST_REFRESH_MS,
      (this.answer?.step_ms ?? 0) / 10,
      this.chartsProblem === null ? 0 : AFTER_FAILURE_MS,
    );
    this.#timer = setTimeout(() => void this.#refresh(), Math.max(0, this.#askedMs + pause - performance.now()));
  }

  async #refresh(): Promise<void> {
    const known = this.answer;
    if (this.#range.kind !== "relative" || this.#busy || this.#request !== null || document.hidden) return;
    if (known === null || clock.now - (this.refreshedMs ?? 0) > FORGET_AFTER_MS) return this.#loadAll();
    this.#busy = true;
    const request = new AbortController();
    this.#request = request;
    try {
      const span = resolve(this.#range, clock.now);
      const tail = await this.#query(
        aligned({ fromMs: tailFromMs(known), toMs: span.toMs }, known.step_ms),
        known.step_ms,
        request.signal,
      );
      if (request.signal.aborted || this.answer !== known) return;
      this.answer = withTail(known, tail, Math.floor(span.fromMs / known.step_ms) * known.step_ms);
      this.span = span;
      this.chartsProblem = null;
      this.refreshedMs = clock.now;
    } catch (error) {
      if (!request.signal.aborted) this.chartsProblem = failure(error);
    } finally {
      this.#busy = false;
      if (this.#request === request) this.#request = null;
    }
  }
}
