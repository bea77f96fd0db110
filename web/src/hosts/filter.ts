import type { HostRow } from "../api/types";
import { statusWords } from "../ui/status";

interface Term {
  field: string | null;
  text: string;
  negated: boolean;
}

const FIELDS: Record<string, (host: HostRow) => string> = {
  name: (host) => host.name,
  status: (host) => host.status,
  tag: (host) => host.tags.join("\n"),
  env: (host) => host.environment ?? "",
  environment: (host) => host.environment ?? "",
  location: (host) => host.location ?? "",
  kind: (host) => host.kind,
  os: (host) => host.os ?? "",
  ip: (host) => host.ip_address ?? "",
};

/** What a bare word is looked for in; kept per row object, as rows are replaced and never changed. */
const texts = new WeakMap<HostRow, string>();

function textOf(host: HostRow, nowMs: number): string {
  let text = texts.get(host);
  if (text === undefined) {
    text = [
      host.name,
      host.tags.join("\n"),
      host.environment,
      host.location,
      host.ip_address,
      host.os,
      host.kind,
      statusWords(host, nowMs),
    ]
      .join("\n")
      .toLowerCase();
    texts.set(host, text);
  }
  return text;
}

function termsOf(query: string): Term[] {
  return query
    .toLowerCase()
    .split(/\s+/)
    .filter((word) => word !== "" && word !== "-")
    .map((word) => {
      const negated = word.startsWith("-") && word.length > 1;
      const rest = negated ? word.slice(1) : word;
      const colon = rest.indexOf(":");
      const field = colon > 0 ? rest.slice(0, colon) : null;
      return field !== null && Object.hasOwn(FIELDS, field)
        ? { field, text: rest.slice(colon + 1), negated }
        : { field: null, text: rest, negated };
    });
}

/** The hosts that hold every word of `query`; see the help dialog for the words. An empty query finds all. */
export function filterHosts(hosts: Iterable<HostRow>, query: string, nowMs: number): HostRow[] {
  const terms = termsOf(query);
  const all = [...hosts];
  if (terms.length === 0) return all;
  return all.filter((host) =>
    terms.every((term) => {
      const text = term.field === null ? textOf(host, nowMs) : (FIELDS[term.field]?.(host).toLowerCase() ?? "");
      return text.includes(term.text) !== term.negated;
    }),
  );
}
