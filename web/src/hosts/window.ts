const SPARE_ROWS = 6;

/** The most rows {@link visibleRange} ever asks for. */
export function poolSize(viewHeight: number, rowHeight: number, spare = SPARE_ROWS): number {
  return Math.ceil(viewHeight / rowHeight) + 1 + 2 * spare;
}

/** Which rows of a long list are in the document: those on the screen and a few on either side. `last` is exclusive. */
export function visibleRange(
  listTop: number,
  viewHeight: number,
  rowHeight: number,
  count: number,
  spare = SPARE_ROWS,
): { first: number; last: number } {
  const first = Math.max(0, Math.min(count, Math.floor(-listTop / rowHeight) - spare));
  const last = Math.max(first, Math.min(count, Math.ceil((viewHeight - listTop) / rowHeight) + spare));
  return { first, last };
}
