/** The server goes away and comes back: the page says so, keeps what it knows, and needs nobody. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { figure, scene } from "../harness/scene.mjs";
import { until, Weir } from "../harness/weir.mjs";

const TELLS_MS = 5_000;
const RECOVERS_MS = 15_000;
/** Chromium itself logs every request to a server that is not there. */
const AWAY = [/net::ERR_(CONNECTION_REFUSED|CONNECTION_RESET|EMPTY_RESPONSE|SOCKET_NOT_CONNECTED|INCOMPLETE_CHUNKED_ENCODING)/, /WebSocket connection to 'ws:.*' failed/];

for (const [signal, how] of [["SIGTERM", "stopped"], ["SIGKILL", "killed"]]) {
  scene(`a server that was ${how} and started again: the page says so and recovers without a reload`, async (test) => {
    const weir = await Weir.start(test);
    const visitor = await Visitor.signedIn(test, weir);
    const { page } = visitor;
    await visitor.rows.locator(".cpu", { hasText: "%" }).waitFor();
    const name = await visitor.rows.locator(".name a").textContent();
    await page.evaluate(() => (globalThis.notReloaded = true));
    visitor.expect(...AWAY);

    await weir.stop(signal);
    const stopped = performance.now();
    await page.locator("header").getByText(/server away since \d\d:\d\d.*trying/).waitFor({ timeout: TELLS_MS });
    const toldMs = performance.now() - stopped;
    assert.ok(toldMs <= TELLS_MS);
    await visitor.rows.getByText(name).waitFor();
    await page.getByText(/^as of \d\d:\d\d/).waitFor();
    await visitor.accessible(`away-${how}`);

    const again = performance.now();
    await weir.run();
    await visitor.connection.getByText("live", { exact: true }).waitFor({ timeout: RECOVERS_MS });
    const recoveredMs = performance.now() - again;
    figure(`a server that was ${how}: the page says so, and is live again`, `after ${(toldMs / 1000).toFixed(1)} s, ${(recoveredMs / 1000).toFixed(1)} s after the start (limits ${TELLS_MS / 1000} s, ${RECOVERS_MS / 1000} s)`);
    await visitor.row(name).getByText("up", { exact: true }).waitFor();
    assert.equal(await page.evaluate(() => globalThis.notReloaded), true, "the page was not reloaded");
    assert.equal(await page.evaluate(() => fetch("/api/v1/session").then((answer) => answer.status)), 200, "the session still works");

    // The same on the host's page, whose charts then go on.
    await visitor.rows.click();
    await page.locator("canvas").first().waitFor();
    await weir.stop(signal);
    await page.getByText("not connected", { exact: true }).waitFor();
    await visitor.accessible(`host-away-${how}`);
    await weir.run();
    await visitor.connection.getByText("live", { exact: true }).waitFor({ timeout: RECOVERS_MS });
    await page.locator(".state").getByText(/^live/).waitFor();
    await until("no error stays", RECOVERS_MS, async () => (await page.getByRole("alert").count()) === 0);
    await visitor.shot(`host-recovered-${how}`);
  });
}

scene("a page that is opened while the server is away shows itself when the server is back", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  visitor.expect(...AWAY);
  // The files come from the browser's memory; only the API is not there.
  await page.route("**/api/**", (route) => route.abort("connectionrefused"));
  await visitor.go("/");
  await page.getByText("The server cannot be reached").first().waitFor();
  await visitor.accessible("unreachable");
  await page.unroute("**/api/**");
  await visitor.rows.waitFor();
});
