import { expect, it } from "vitest";
import { hostPath, routeOf, withQuery } from "./router.svelte";
import { tokenIn } from "./session.svelte";
import { backoffMs } from "./backoff";

it("finds the view of an address, whatever a host is called", () => {
  expect(routeOf("/")).toEqual({ view: "hosts" });
  expect(routeOf("/pipeline")).toEqual({ view: "pipeline" });
  for (const name of ["web-1", "ä/ö ?#%", "a.b.c"]) expect(routeOf(hostPath(name))).toEqual({ view: "host", name });
  for (const path of ["/h/", "/h/a/b", "/h/%E0%A4%A", "/settings"]) expect(routeOf(path)).toEqual({ view: "not-found" });
});

it("changes only the parameters it is told to, and leaves no empty ones", () => {
  expect(withQuery("?q=a&sort=cpu", { q: "b c" })).toBe("?q=b+c&sort=cpu");
  expect(withQuery("?q=a", { q: "" })).toBe("");
  expect(withQuery("", { from: 5, q: null })).toBe("?from=5");
});

it("finds the token in whatever is pasted", () => {
  expect(tokenIn("http://10.0.0.5:8088/#t=abc-DEF_123 ")).toBe("abc-DEF_123");
  expect(tokenIn("#t=abc%2Ddef")).toBe("abc-def");
  expect(tokenIn(" abcdef_123456 ")).toBe("abcdef_123456");
  for (const text of ["", "http://10.0.0.5:8088/", "hello world", "#t=%E0%A4%A"]) expect(tokenIn(text)).toBeNull();
});

it("waits longer after each failure, at random, and never beyond 8 s", () => {
  expect(backoffMs(1, () => 0)).toBe(250);
  expect(backoffMs(1, () => 1)).toBe(500);
  expect(backoffMs(4, () => 1)).toBe(4_000);
  expect(backoffMs(1_000, () => 1)).toBe(8_000);
  expect(backoffMs(1_000, () => 0)).toBe(4_000);
});
