import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { HostRow } from "../api/types";
import { sampleHost } from "../hosts/sample";

class FakeSocket {
  static readonly OPEN = 1;
  static all: FakeSocket[] = [];
  readyState = 1;
  sent: string[] = [];
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: (() => void) | null = null;

  constructor() {
    FakeSocket.all.push(this);
  }

  send(text: string): void {
    this.sent.push(text);
  }

  close(): void {
    this.readyState = 3;
  }

  /** What the server says. */
  say(message: object): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The connection breaks. */
  drop(): void {
    this.onclose?.();
  }
}

const page = { visibility: "visible", listeners: new Map<string, () => void>() };
let answer: () => Promise<Response>;
let live: (typeof import("./live.svelte"))["live"];

const rows = (...hosts: HostRow[]): object => ({ type: "hosts", now_ms: Date.now(), rows: hosts });
const socket = (): FakeSocket => {
  const last = FakeSocket.all.at(-1);
  if (last === undefined) throw new Error("nothing has connected");
  return last;
};
const frame = (): Promise<unknown> => vi.advanceTimersByTimeAsync(20);
const names = (): string[] => [...live.hosts.keys()];

beforeEach(async () => {
  vi.useFakeTimers();
  vi.resetModules();
  FakeSocket.all = [];
  page.visibility = "visible";
  answer = () => Promise.reject(new TypeError("no route"));
  vi.stubGlobal("WebSocket", FakeSocket);
  vi.stubGlobal("requestAnimationFrame", (callback: () => void) => setTimeout(callback, 16));
  vi.stubGlobal("cancelAnimationFrame", (id: number) => clearTimeout(id));
  vi.stubGlobal("fetch", () => answer());
  vi.stubGlobal("window", { location: { href: "http://weir.test:8088/" }, addEventListener() {}, removeEventListener() {} });
  vi.stubGlobal("document", {
    get visibilityState() {
      return page.visibility;
    },
    addEventListener: (name: string, callback: () => void) => page.listeners.set(name, callback),
    removeEventListener: (name: string) => page.listeners.delete(name),
  });
  live = (await import("./live.svelte")).live;
  live.start();
});

afterEach(() => {
  live.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("the live picture", () => {
  it("is applied once per frame, however many messages a burst holds", async () => {
    socket().say(rows(sampleHost("a"), sampleHost("b")));
    socket().say(rows(sampleHost("c")));
    socket().say({ type: "removed", names: ["b"] });
    expect(live.loaded).toBe(false);
    await frame();
    expect(names()).toEqual(["a", "c"]);
    expect(live.state).toBe("live");
  });

  it("tells the listeners of one host alone, and that it is gone", async () => {
    const heard: (string | null)[] = [];
    const leave = live.onHost("a", (row) => heard.push(row?.status ?? null));
    socket().say(rows(sampleHost("a"), sampleHost("b")));
    await frame();
    socket().say(rows(sampleHost("b", { status: "down" })));
    await frame();
    socket().say({ type: "removed", names: ["a"] });
    await frame();
    leave();
    socket().say(rows(sampleHost("a")));
    await frame();
    expect(heard).toEqual(["up", null]);
  });

  it("lets a host glow that appears by itself, but none of the first picture", async () => {
    socket().say(rows(sampleHost("a")));
    await frame();
    expect([...live.fresh]).toEqual([]);
    socket().say(rows(sampleHost("b")));
    await frame();
    expect([...live.fresh]).toEqual(["b"]);
    await vi.advanceTimersByTimeAsync(10_000);
    expect([...live.fresh]).toEqual([]);
  });

  it("forgets after an outage what the server no longer has", async () => {
    socket().say(rows(sampleHost("a"), sampleHost("b")));
    await frame();
    socket().drop();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(FakeSocket.all.length).toBeGreaterThan(1);
    expect(names()).toEqual(["a", "b"]);
    socket().say(rows(sampleHost("b")));
    await frame();
    expect(names()).toEqual(["b"]);
    expect(live.state).toBe("live");
  });

  it("says that the server is away, keeps the last picture, tries on, and recovers by itself", async () => {
    socket().say(rows(sampleHost("a")));
    await frame();
    socket().drop();
    expect(live.state).toBe("reconnecting");
    for (let attempt = 0; attempt < 5; attempt += 1) {
      await vi.advanceTimersByTimeAsync(16_000);
      socket().drop();
      await frame();
    }
    expect(live.state).toBe("away");
    expect(live.awaySinceMs).not.toBeNull();
    expect(live.nextTryMs).toBeGreaterThan(Date.now());
    expect(names()).toEqual(["a"]);
    await vi.advanceTimersByTimeAsync(16_000);
    socket().say(rows(sampleHost("a"), sampleHost("b")));
    await frame();
    expect(live.state).toBe("live");
    expect(live.awaySinceMs).toBeNull();
    expect(names()).toEqual(["a", "b"]);
  });

  it("asks for the hosts every few seconds where WebSockets do not get through", async () => {
    answer = () => Promise.resolve(Response.json({ now_ms: Date.now(), hosts: [sampleHost("a")] }));
    for (let attempt = 0; attempt < 3; attempt += 1) {
      socket().drop();
      await vi.advanceTimersByTimeAsync(6_000);
    }
    expect(live.state).toBe("polling");
    expect(names()).toEqual(["a"]);
    answer = () => Promise.resolve(Response.json({ now_ms: Date.now(), hosts: [sampleHost("b")] }));
    socket().drop();
    await vi.advanceTimersByTimeAsync(6_000);
    expect(names()).toEqual(["b"]);
  });

  it("notices a connection that is dead without saying so", async () => {
    socket().say(rows(sampleHost("a")));
    await frame();
    const dead = socket();
    await vi.advanceTimersByTimeAsync(24_000);
    expect(dead.sent).toEqual(['{"type":"ping"}']);
    await vi.advanceTimersByTimeAsync(12_000);
    expect(socket()).not.toBe(dead);
  });

  it("keeps a quiet connection whose server answers", async () => {
    socket().say(rows(sampleHost("a")));
    await frame();
    for (let round = 0; round < 6; round += 1) {
      await vi.advanceTimersByTimeAsync(12_000);
      socket().say({ type: "pong" });
    }
    expect(FakeSocket.all).toHaveLength(1);
  });

  it("pauses in a hidden tab and continues with a whole picture", async () => {
    socket().say(rows(sampleHost("a")));
    await frame();
    page.visibility = "hidden";
    page.listeners.get("visibilitychange")?.();
    await vi.advanceTimersByTimeAsync(15_000);
    expect(live.state).toBe("paused");
    page.visibility = "visible";
    page.listeners.get("visibilitychange")?.();
    socket().say(rows(sampleHost("b")));
    await frame();
    expect(live.state).toBe("live");
    expect(names()).toEqual(["b"]);
  });
});
