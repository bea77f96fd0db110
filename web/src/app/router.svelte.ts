/**
 * Where the page is. The address is the only place where this is kept: a copied link opens exactly what was seen.
 */

import { tick } from "svelte";

export type Route = { view: "hosts" } | { view: "pipeline" } | { view: "host"; name: string } | { view: "not-found" };

/** The view a path stands for: `/` is the hosts, `/h/NAME` one host, `/pipeline` the way of the records. */
export function routeOf(path: string): Route {
  if (path === "/" || path === "/hosts") return { view: "hosts" };
  if (path === "/pipeline" || path === "/pipeline/") return { view: "pipeline" };
  const host = /^\/h\/([^/]+)\/?$/.exec(path)?.[1];
  if (host === undefined) return { view: "not-found" };
  try {
    return { view: "host", name: decodeURIComponent(host) };
  } catch {
    return { view: "not-found" };
  }
}

/** The address of one host's page. */
export function hostPath(name: string): string {
  return `/h/${encodeURIComponent(name)}`;
}

export type QueryChanges = Record<string, string | number | null | undefined>;

/** `search` with `changes` applied; null, undefined and the empty text remove a key. Starts with `?`, or is empty. */
export function withQuery(search: string, changes: QueryChanges): string {
  const query = new URLSearchParams(search);
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(key);
    else query.set(key, String(value));
  }
  const text = query.toString();
  return text === "" ? "" : `?${text}`;
}

class Router {
  #path = $state("/");
  #search = $state("");
  readonly #query = $derived(new URLSearchParams(this.#search));
  readonly #route = $derived(routeOf(this.#path));

  get path(): string {
    return this.#path;
  }

  get search(): string {
    return this.#search;
  }

  /** The query's parameters; read-only, change them with {@link setQuery}. */
  get query(): URLSearchParams {
    return this.#query;
  }

  get route(): Route {
    return this.#route;
  }

  /** Follows the browser's address from now on, and every plain click on a link of this site. */
  start(): void {
    this.show(window.location);
    window.history.scrollRestoration = "manual";
    window.addEventListener("popstate", (event) => void this.#back(event.state));
    document.addEventListener("click", followLink);
  }

  /** The browser scrolls back before the page is there again, so it is done here. */
  async #back(state: unknown): Promise<void> {
    const before = this.#path;
    this.show(window.location);
    if (this.#path === before) return;
    await tick();
    window.scrollTo(0, scrollIn(state));
  }

  show(address: { pathname: string; search: string }): void {
    this.#path = address.pathname;
    this.#search = address.search;
  }
}

export const router = new Router();

/** Goes to `to`, such as `/h/web-1?range=1h`. `replace` leaves no step in the browser's history. */
export function navigate(to: string, options: { replace?: boolean } = {}): void {
  const before = router.path;
  try {
    if (options.replace === true) {
      window.history.replaceState(window.history.state, "", to);
    } else {
      window.history.replaceState({ scroll: window.scrollY }, "");
      window.history.pushState(null, "", to);
    }
  } catch {
    // Some browsers refuse more than 100 changes in half a minute, which fast typing in a filter reaches. The page goes on
    // without, and the next change brings the address up to date.
  }
  router.show(new URL(to, window.location.href));
  if (router.path !== before) window.scrollTo(0, 0);
}

/** Changes query parameters and keeps the rest of the address. Leaves no step in the history unless `push` is set. */
export function setQuery(changes: QueryChanges, options: { push?: boolean } = {}): void {
  const search = withQuery(router.search, changes);
  if (search !== router.search) navigate(router.path + search, { replace: options.push !== true });
}

function scrollIn(state: unknown): number {
  return typeof state === "object" && state !== null && "scroll" in state && typeof state.scroll === "number" ? state.scroll : 0;
}

function followLink(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (link === null || link.origin !== window.location.origin || link.hasAttribute("download")) return;
  if (link.target !== "" && link.target !== "_self") return;
  if (/^\/(api|join|metrics|health|ready)(\/|$)/.test(link.pathname)) return;
  if (link.hash !== "" && link.pathname === window.location.pathname) return;
  event.preventDefault();
  navigate(link.pathname + link.search);
}
