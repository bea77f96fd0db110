/**
 * The dashboard in a real browser against the real program. Started by `tests/all/browser.rs`, or by hand:
 *
 *     WEIR_BIN=target/debug/weir node tests/browser/run.mjs [CASE…]
 *
 * CASE is a file of `cases/` without `.mjs`; without any, all run. WEIR_CHROMIUM names another browser, WEIR_SHOTS a folder
 * for a screenshot of every state, and WEIR_SCREENSHOTS=1 writes the pictures of `docs/images` too.
 */

import { after } from "node:test";
import { closeBrowser } from "./harness/browser.mjs";
import { figures } from "./harness/scene.mjs";

const CASES = ["login", "hosts", "host", "pipeline", "keyboard", "layout", "states", "outage", "weight", "many"];

const begun = performance.now();
after(async () => {
  await closeBrowser();
  if (figures.length > 0) {
    const width = Math.max(...figures.map(([what]) => what.length));
    console.log(["", "Measured:", ...figures.map(([what, value]) => `  ${what.padEnd(width)}  ${value}`)].join("\n"));
  }
  console.log(`Browser tests: ${((performance.now() - begun) / 1000).toFixed(0)} s.`);
});

const chosen = process.argv.slice(2);
const pictures = process.env.WEIR_SCREENSHOTS === "1" && chosen.length === 0 ? ["pictures"] : [];
for (const name of chosen.length > 0 ? chosen : [...CASES, ...pictures]) await import(`./cases/${name}.mjs`);
