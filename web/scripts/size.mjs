// Fails when everything a browser may load from web/dist exceeds the budget of design.md: 250 KB, gzipped.
import { readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET_BYTES = 250_000;
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
if (files.length === 0 || total > BUDGET_BYTES) {
  console.error(files.length === 0 ? "nothing in web/dist: run `npm run build` first" : "over the budget");
  process.exit(1);
}
