/** What a browser downloads. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { figure, scene } from "../harness/scene.mjs";
import { Weir } from "../harness/weir.mjs";

const LIMIT_BYTES = 250 * 1024;

scene("JavaScript and CSS of all views together weigh at most 250 KiB as they are sent", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.come(test, weir);
  const { page } = visitor;
  const sizes = new Map();
  const waiting = [];
  page.on("requestfinished", (request) => {
    if (!/\.(js|css)$/.test(new URL(request.url()).pathname)) return;
    waiting.push(
      Promise.all([request.sizes(), request.response()]).then(async ([{ responseBodySize }, response]) => {
        sizes.set(request.url(), { size: responseBodySize, headers: await response.allHeaders() });
      }),
    );
  });
  await page.goto(weir.loginLink);
  await visitor.rows.click();
  await page.locator("canvas").first().waitFor();
  for (const key of ["2", "3", "4", "?"]) await page.keyboard.press(key);
  await page.getByRole("dialog").waitFor();
  for (const key of ["Escape", "g", "p"]) await page.keyboard.press(key);
  await page.locator("[data-box]").first().waitFor();
  await Promise.all(waiting);

  const total = [...sizes.values()].reduce((sum, { size }) => sum + size, 0);
  figure("JavaScript and CSS as they are sent", `${(total / 1024).toFixed(1)} KiB in ${sizes.size} files (limit ${LIMIT_BYTES / 1024} KiB)`);
  assert.ok(sizes.size >= 3 && total > 10_000, `files were measured: ${[...sizes.keys()]}`);
  assert.ok(total <= LIMIT_BYTES, `${total} bytes`);
  for (const [url, { size, headers }] of sizes) {
    if (size > 1_000) assert.equal(headers["content-encoding"], "gzip", `${url} is sent compressed`);
    if (/\/assets\//.test(url)) assert.match(headers["cache-control"], /immutable/, `${url} is kept`);
  }
  assert.match(await policy(weir), /default-src 'none'.*script-src 'self'/, "nothing inline, nothing from elsewhere");
});

const policy = async (weir) => (await fetch(weir.origin)).headers.get("content-security-policy");
