/** The pictures of `docs/images`: this machine for some minutes, among machines that are not there. Only with WEIR_SCREENSHOTS=1. */

import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { DESKTOP, Visitor } from "../harness/browser.mjs";
import { exampleHosts, keepReporting, lastHour, postMetrics, times } from "../harness/fleet.mjs";
import { scene } from "../harness/scene.mjs";
import { Weir } from "../harness/weir.mjs";

const FOLDER = fileURLToPath(new URL("../../../docs/images/", import.meta.url));
/** So long this machine is watched before its charts are worth a picture. */
const WATCH_MS = 310_000;
/** Only mounts that every reader has too. */
const CONFIGURATION = "integrations:\n  host:\n    interval: 2s\n    mounts: [/]\n";

scene("the pictures of the documents", { timeoutMs: WATCH_MS + 120_000 }, async (test) => {
  mkdirSync(FOLDER, { recursive: true });
  const weir = await Weir.start(test, "up", CONFIGURATION);
  const begun = Date.now();
  const hosts = await exampleHosts(weir);
  const [away, ...others] = [...hosts].reverse();
  await postMetrics(weir, others, lastHour());
  await postMetrics(weir, [away], times(begun - 3_300_000, begun - 900_000, 60_000));
  test.after(keepReporting(weir, others, 5_000, postMetrics));
  const visitor = await Visitor.signedIn(test, weir, { viewport: DESKTOP });
  const { page } = visitor;
  const own = await visitor.rows.filter({ hasText: "Linux" }).locator(".name a").getAttribute("href");
  await new Promise((resolve) => setTimeout(resolve, begun + WATCH_MS - Date.now()));
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    await visitor.go("/");
    await visitor.row("web-1").getByText("up", { exact: true }).waitFor();
    await page.mouse.move(1, 1);
    await page.evaluate(() => new Promise((resolve) => setTimeout(resolve, 7_000))); // the rows are in their order
    await page.screenshot({ path: `${FOLDER}hosts-${colorScheme}.png` });
    await visitor.go(`${own}?range=5m`);
    await page.locator("canvas").nth(4).waitFor();
    const box = await page.locator(".u-over").nth(1).boundingBox();
    await page.mouse.move(box.x + box.width * 0.3, box.y + box.height * 0.5);
    await page.locator(".tooltip").waitFor();
    await page.screenshot({ path: `${FOLDER}host-${colorScheme}.png` });
  }
});
