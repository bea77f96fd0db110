// `weir up` with its dashboard open in a real browser: what the program itself uses, first on the Hosts page, then
// on the page of this machine. Needs Chromium and the packages of tests/browser.
//
// node bench/board.mjs WEIR [SECONDS]

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";

const { chromium } = createRequire(new URL("../tests/browser/run.mjs", import.meta.url))("playwright-core");
const [program, seconds = "60"] = process.argv.slice(2);
const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A loopback port that is free now. */
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** CPU seconds (fields 14 and 15 of /proc/PID/stat, ticks of 10 ms) and resident MiB. */
function usage(pid) {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return { cpu: (Number(stat[11]) + Number(stat[12])) / 100, rss: Number(/VmRSS:\s+(\d+)/.exec(status)[1]) / 1024 };
}

async function measure(what, pid) {
  await sleep(20_000);
  const before = usage(pid);
  await sleep(Number(seconds) * 1000);
  const after = usage(pid);
  const percent = (100 * (after.cpu - before.cpu)) / Number(seconds);
  console.log(`| ${what} | ${percent.toFixed(2)} | ${after.rss.toFixed(1)} |`);
}

const data = mkdtempSync(join(tmpdir(), "weir-board-"));
const weir = spawn(program, ["up", "--listen", `127.0.0.1:${await freePort()}`, "--data", data], {
  stdio: ["ignore", "ignore", "pipe"],
});
let said = "";
weir.stderr.on("data", (bytes) => (said += bytes));
for (let wait = 0; !/dashboard +http/.test(said); wait += 1) {
  if (wait > 100) throw new Error(`weir up did not start: ${said}`);
  await sleep(100);
}
const link = /dashboard +(http\S+)/.exec(said)[1];
const browser = await chromium.launch({ executablePath: process.env.WEIR_CHROMIUM || "/usr/bin/chromium", args: FLAGS });
try {
  console.log(`this machine every 10 s, ${seconds} s each after 20 s of warm-up\n`);
  console.log("| `weir up` | % of a core | RSS MiB |\n|---|---|---|");
  await measure("no browser", weir.pid);
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  await page.goto(link);
  await page.getByText("live", { exact: true }).first().waitFor();
  await measure("Hosts page open", weir.pid);
  const host = readFileSync("/proc/sys/kernel/hostname", "utf8").trim();
  await page.goto(new URL(`/h/${encodeURIComponent(host)}?range=15m`, link).href);
  await page.getByText("live", { exact: true }).first().waitFor();
  await measure("page of this machine open, 15 minutes of charts", weir.pid);
} finally {
  await browser.close();
  weir.kill();
  rmSync(data, { recursive: true, force: true });
}
