import type { ErrorAnswer } from "./types";

/** How long an answer may take before the request is given up. */
const TIMEOUT_MS = 20_000;

/**
 * A request that did not succeed. `status` is 0 when the server could not be reached at all; `code` is the server's word
 * for the problem (or `unreachable`, `timeout`, `bad_answer`).
 */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field?: string,
  ) {
    super(message);
  }

  /** True when trying again later may help without anybody changing anything. */
  get temporary(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

let onUnauthorized: () => void = () => {};

/** Registers what happens when the server no longer knows this session; used by `src/app/session.svelte.ts` alone. */
export function whenUnauthorized(callback: () => void): void {
  onUnauthorized = callback;
}

/** GETs `path` (such as `/api/v1/hosts`) and returns its JSON. Throws {@link ApiError}; an abort by `signal` is thrown as it is. */
export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return request<T>("GET", path, undefined, signal);
}

/** POSTs `body` as JSON. Same errors as {@link get}. */
export function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return request<T>("POST", path, body, signal);
}

/** DELETEs `path`. Same errors as {@link get}. `del`, because `delete` is a reserved word. */
export function del(path: string, signal?: AbortSignal): Promise<void> {
  return request<void>("DELETE", path, undefined, signal);
}

async function request<T>(method: string, path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const init: RequestInit = {
    method,
    credentials: "same-origin",
    cache: "no-store",
    headers: { accept: "application/json" },
    signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
  };
  if (body !== undefined) {
    init.headers = { accept: "application/json", "content-type": "application/json" };
    init.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(path, init);
    if (!response.ok) {
      throw await errorOf(response, path);
    }
    return response.status === 204 ? (undefined as T) : ((await response.json()) as T);
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted === true) {
      throw error;
    }
    if (timeout.aborted) {
      throw new ApiError(0, "timeout", `the server did not answer within ${TIMEOUT_MS / 1000} s`);
    }
    if (error instanceof SyntaxError) {
      throw new ApiError(502, "bad_answer", `${path} was not answered with JSON; is a proxy between here and the server?`);
    }
    throw new ApiError(0, "unreachable", "the server cannot be reached");
  }
}

async function errorOf(response: Response, path: string): Promise<ApiError> {
  let answer: Partial<ErrorAnswer> = {};
  try {
    answer = (await response.json()) as Partial<ErrorAnswer>;
  } catch {
    // A proxy may answer with a page of its own; the status alone is told then.
  }
  if (response.status === 401 && path !== "/api/v1/login") {
    onUnauthorized();
  }
  const message = answer.message ?? `${path}: the server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(response.status, answer.code ?? `http_${response.status}`, message, answer.field ?? undefined);
}
