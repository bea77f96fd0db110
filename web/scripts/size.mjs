// Fails when everything a browser may load from web/dist exceeds the budget of design.md: 250 KB, gzipped; or when what
// the first page needs exceeds its own: other pages and their libraries are loaded when somebody opens them.
import { readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 250_000;
const FIRST_PAGE_BYTES = 65_000;
const DIST = new URL("../dist/", import.meta.url).pathname;

const files = readdirSync(DIST, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && [".js", ".css"].includes(extname(entry.name)))
  .map((entry) => {
    const path = join(entry.parentPath, entry.name);
    const raw = readFileSync(path);
    return { name: path.slice(DIST.length), raw: raw.length, gzip: gzipSync(raw, { level: 9 }).length };
  })
  .sort((a, b) => b.gzip - a.gzip);

const kilobytes = (bytes) => (bytes / 1000).toFixed(1).padStart(8);
for (const file of files) {
  console.log(`${kilobytes(file.raw)} kB ${kilobytes(file.gzip)} kB gzip  ${file.name}`);
}
const total = files.reduce((sum, file) => sum + file.gzip, 0);
console.log(`${kilobytes(total)} kB gzip in all, budget ${kilobytes(BUDGET_BYTES).trim()} kB`);
if (files.length === 0) {
  console.error("nothing in web/dist: run `npm run build` first");
  process.exit(1);
}
// What index.html names: its script, what that imports at once, and the styles.
const page = readFileSync(join(DIST, "index.html"), "utf8");
const first = files.filter((file) => page.includes(file.name)).reduce((sum, file) => sum + file.gzip, 0);
console.log(`${kilobytes(first)} kB gzip for the first page, budget ${kilobytes(FIRST_PAGE_BYTES).trim()} kB`);
if (total > BUDGET_BYTES || first > FIRST_PAGE_BYTES) {
  console.error("over the budget");
  process.exit(1);
}
