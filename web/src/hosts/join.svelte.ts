/** The join command of this visit. It is shared by the dialog and the first-run card, so that looking twice makes no second token. */

import { post } from "../api/client";
import type { JoinToken } from "../api/types";
import { clock } from "../ui/clock.svelte";

/** A command about to expire is no help to anybody who still has to log in elsewhere. */
const SPARE_MS = 60_000;

class Join {
  token = $state.raw<JoinToken | null>(null);
  busy = $state(false);
  problem = $state<string | null>(null);
  uses = $state(10);
  expiresInSeconds = $state(86_400);

  /** True while the shown command can still be used. */
  get good(): boolean {
    return this.token !== null && this.token.expires_ms - SPARE_MS > clock.now;
  }

  async create(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    this.problem = null;
    try {
      this.token = await post<JoinToken>("/api/v1/tokens", {
        name: "made in the dashboard",
        uses: this.uses,
        expires_in_seconds: this.expiresInSeconds,
      });
    } catch (error) {
      this.problem = error instanceof Error ? error.message : String(error);
    } finally {
      this.busy = false;
    }
  }
}

export const join = new Join();
