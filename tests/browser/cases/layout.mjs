/** A phone, a laptop, a large screen; light and dark: nothing sticks out, nothing is cut off. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { exampleHosts, keepReporting, lastHour, postMetrics } from "../harness/fleet.mjs";
import { scene } from "../harness/scene.mjs";
import { Weir } from "../harness/weir.mjs";

const SIZES = { 390: { width: 390, height: 844 }, 1280: { width: 1280, height: 800 }, 1920: { width: 1920, height: 1080 } };
const REFUSED = /status of 401.*\/api\/v1\/session\)$/;

scene("no view scrolls sideways, whatever the size of the screen", async (test) => {
  const weir = await Weir.start(test);
  const hosts = await exampleHosts(weir);
  await postMetrics(weir, hosts, lastHour());
  test.after(keepReporting(weir, hosts, 2_000, postMetrics));
  for (const [width, viewport] of Object.entries(SIZES)) {
    const colorScheme = width === "1280" ? "dark" : "light";
    const stranger = await Visitor.come(test, weir, { viewport, colorScheme });
    stranger.expect(REFUSED);
    await stranger.go("/");
    await stranger.page.getByRole("heading", { name: "Log in with a link" }).waitFor();
    await stranger.shot(`login-${width}`, { fullPage: true });

    const visitor = await Visitor.signedIn(test, weir, { viewport, colorScheme, hasTouch: width === "390" });
    const { page } = visitor;
    await visitor.row("web-1").locator(".cpu", { hasText: "%" }).waitFor();
    await visitor.shot(`hosts-${width}`);
    const own = (await visitor.rows.filter({ hasText: "Linux" }).locator(".name a").getAttribute("href")) ?? "";
    for (const tab of ["charts", "processes", "probes", "collected"]) {
      await visitor.go(`${own}?tab=${tab}&range=5m`);
      await page.getByRole("link", { name: "Charts", exact: true }).waitFor();
      if (tab === "charts") await page.locator("canvas").first().waitFor();
      if (tab === "processes") await page.getByRole("row").nth(1).waitFor();
      await visitor.shot(`host-${tab}-${width}`, { fullPage: true });
    }
    for (const [key, name] of [["?", "help"], ["a", "add"]]) {
      await page.keyboard.press(key);
      await page.getByRole("dialog").waitFor();
      if (name === "add") await page.getByText(/curl -fsSL/).first().waitFor();
      await visitor.shot(`${name}-${width}`);
      await page.keyboard.press("Escape");
    }
    const small = await page.getByRole("button").evaluateAll((buttons) =>
      buttons
        .filter((button) => button.checkVisibility())
        .map((button) => ({ text: button.innerText || button.ariaLabel, box: button.getBoundingClientRect() }))
        .filter(({ box }) => box.width < 24 || box.height < 24)
        .map(({ text, box }) => `${text}: ${box.width} × ${box.height}`),
    );
    assert.deepEqual(small, [], "a finger meets every button (WCAG 2.2: 24 px)");
  }
});
