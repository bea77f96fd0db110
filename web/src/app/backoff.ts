const FIRST_MS = 500;
const LONGEST_MS = 8_000;

/**
 * How long to wait before attempt number `failures + 1`: doubles from 0.5 s to 8 s, of which a random half is taken, so that
 * a thousand open pages do not all come back in the same instant.
 */
export function backoffMs(failures: number, random: () => number = Math.random): number {
  const full = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.max(0, Math.min(failures - 1, 10)));
  return Math.round(full / 2 + (full / 2) * random());
}
