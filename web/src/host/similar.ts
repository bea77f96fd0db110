/** Which names may have been meant by one that does not exist. */

const MOST = 5;

/** How many letters have to be added, left out or changed to make one name of the other. */
export function distance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= other.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (one[i - 1] === other[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[other.length] ?? 0;
}

/** Names that hold the wanted one, are held by it, or differ in a few letters; the nearest first. */
export function similar(wanted: string, names: readonly string[]): string[] {
  const text = wanted.toLowerCase();
  const near = Math.max(2, Math.floor(text.length / 4));
  return names
    .map((name) => {
      const other = name.toLowerCase();
      const holds = text.length >= 2 && (other.includes(text) || text.includes(other));
      return {
        name,
        distance: holds ? 1 : Math.abs(other.length - text.length) > near ? Infinity : distance(text, other),
      };
    })
    .filter((one) => one.distance <= near)
    .sort((one, other) => one.distance - other.distance || one.name.localeCompare(other.name, "en", { numeric: true }))
    .slice(0, MOST)
    .map((one) => one.name);
}
