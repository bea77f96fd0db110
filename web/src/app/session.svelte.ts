/** Who is looking. A link `…/#t=TOKEN` signs in once; after that an HttpOnly cookie does, which this code never sees. */

import { ApiError, get, post, whenUnauthorized } from "../api/client";
import type { SessionAnswer } from "../api/types";

export type SessionState = "checking" | "in" | "out" | "unreachable";

const RETRY_MS = 3_000;

class Session {
  state = $state<SessionState>("checking");
  name = $state("");
  scopes = $state.raw<readonly string[]>([]);
  version = $state("");
  /** Why the login page is shown, when there is more to say than "no session". */
  problem = $state<string | null>(null);

  /** True when this session may create join tokens and forget hosts. */
  get admin(): boolean {
    return this.scopes.includes("admin");
  }

  async start(): Promise<void> {
    whenUnauthorized(() => {
      if (this.state === "in") this.problem = "Your session has ended.";
      this.state = "out";
    });
    window.addEventListener("hashchange", () => void this.#loginFromAddress());
    if (!(await this.#loginFromAddress())) await this.check();
  }

  /** Asks the server whether the cookie is good; tries again by itself while the server is away. */
  async check(): Promise<void> {
    try {
      this.#accept(await get<SessionAnswer>("/api/v1/session"));
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.state = "out";
        return;
      }
      this.problem = error instanceof Error ? error.message : String(error);
      this.state = "unreachable";
      setTimeout(() => void this.check(), RETRY_MS);
    }
  }

  /** Trades a one-time token for a session. Throws {@link ApiError} with the server's reason. */
  async login(token: string): Promise<void> {
    await post<SessionAnswer>("/api/v1/login", { token });
    this.#accept(await get<SessionAnswer>("/api/v1/session"));
  }

  async logout(): Promise<void> {
    await post<void>("/api/v1/logout", {});
    this.problem = "You have logged out.";
    this.state = "out";
  }

  /** True when the address held a token; the token never stays in the address, whatever came of it. */
  async #loginFromAddress(): Promise<boolean> {
    const token = tokenIn(window.location.hash);
    if (token === null) return false;
    window.history.replaceState(null, "", window.location.pathname + window.location.search);
    try {
      await this.login(token);
      return true;
    } catch (error) {
      // A used link is no harm where a session exists already: then that one is kept.
      await this.check();
      if (this.state === "out") this.problem = `This link did not work: ${error instanceof Error ? error.message : String(error)}.`;
      return true;
    }
  }

  #accept(answer: SessionAnswer): void {
    this.name = answer.name;
    this.scopes = answer.scopes;
    this.version = answer.version ?? "";
    this.problem = null;
    this.state = "in";
  }
}

/** The token of a login link, of its `#t=` part, or of a bare token as somebody pastes it; null when there is none. */
export function tokenIn(text: string): string | null {
  const trimmed = text.trim();
  const marked = /#t=([^&\s]+)/.exec(trimmed)?.[1];
  if (marked !== undefined) {
    try {
      return decodeURIComponent(marked);
    } catch {
      return null;
    }
  }
  return /^[A-Za-z0-9_-]{6,}$/.test(trimmed) ? trimmed : null;
}

export const session = new Session();
