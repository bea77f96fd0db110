/** Short notices at the edge of the page: `toast("Copied")`. */

export interface Notice {
  id: number;
  text: string;
  kind: "done" | "problem";
}

const SHOWN_MS = 5_000;

export const notices = $state<{ all: Notice[] }>({ all: [] });
let lastId = 0;

export function toast(text: string, kind: Notice["kind"] = "done"): void {
  lastId += 1;
  const id = lastId;
  notices.all.push({ id, text, kind });
  setTimeout(() => dismiss(id), SHOWN_MS);
}

export function dismiss(id: number): void {
  notices.all = notices.all.filter((notice) => notice.id !== id);
}
