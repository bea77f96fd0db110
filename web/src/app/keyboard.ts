/**
 * Keyboard shortcuts of the page. A view binds its keys while it is on the screen:
 *
 *     $effect(() => bindKeys({ j: () => move(1), "g h": () => navigate("/") }));
 *
 * Keys are `KeyboardEvent.key` values; two keys with a space between them are pressed one after the other. Nothing fires
 * while somebody types, while a dialog is open, or together with Ctrl, Alt or Meta.
 */

export type Bindings = Record<string, (event: KeyboardEvent) => void>;

const SEQUENCE_MS = 1_200;

const layers: Bindings[] = [];
let pending: { key: string; atMs: number } | null = null;
let listening = false;

/** Binds keys until the returned function is called. The latest binding of a key wins. */
export function bindKeys(bindings: Bindings): () => void {
  if (!listening) {
    listening = true;
    document.addEventListener("keydown", onKey);
  }
  layers.push(bindings);
  return () => {
    const index = layers.indexOf(bindings);
    if (index >= 0) layers.splice(index, 1);
  };
}

function onKey(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (typing(event.target) || document.querySelector("dialog[open]") !== null) return;
  const first = pending;
  pending = null;
  if (first !== null && event.timeStamp - first.atMs < SEQUENCE_MS && run(`${first.key} ${event.key}`, event)) return;
  if (run(event.key, event)) return;
  if (layers.some((layer) => Object.keys(layer).some((key) => key.startsWith(`${event.key} `)))) {
    pending = { key: event.key, atMs: event.timeStamp };
  }
}

function run(key: string, event: KeyboardEvent): boolean {
  const action = layers.findLast((layer) => Object.hasOwn(layer, key))?.[key];
  if (action === undefined) return false;
  // A focused link or button keeps its own Enter and space.
  if ((event.key === "Enter" || event.key === " ") && event.target instanceof Element && event.target.closest("a, button, summary") !== null) {
    return false;
  }
  event.preventDefault();
  action(event);
  return true;
}

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}
