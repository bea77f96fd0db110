/**
 * One ticking second for the whole page, in the server's time: hosts are dated by the server, and a browser whose clock is
 * wrong would otherwise call every host late.
 */
class Clock {
  /** Milliseconds the server's clock is ahead of this browser's. */
  #aheadMs = 0;
  #nowMs = $state(Date.now());

  /** The server's time, in milliseconds; changes once a second, so reading it in a template keeps words fresh. */
  get now(): number {
    return this.#nowMs;
  }

  /** Learns the server's time from an answer's `now_ms`. */
  learn(serverNowMs: number): void {
    const ahead = serverNowMs - Date.now();
    // The way here takes a while: small differences are the network's, not the clock's.
    this.#aheadMs = Math.abs(ahead) > 2_000 ? ahead : 0;
    this.tick();
  }

  tick(): void {
    this.#nowMs = Date.now() + this.#aheadMs;
  }
}

export const clock = new Clock();

if (typeof window !== "undefined") {
  setInterval(() => {
    if (document.visibilityState === "visible") clock.tick();
  }, 1000);
  document.addEventListener("visibilitychange", () => clock.tick());
}
