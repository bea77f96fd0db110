/** Everything without a mouse. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { exampleHosts, keepReporting, lastHour, postMetrics } from "../harness/fleet.mjs";
import { scene } from "../harness/scene.mjs";
import { until, Weir } from "../harness/weir.mjs";

/** The host that the table's cursor is on. */
const selected = (page) => page.locator('[role="row"][aria-selected="true"] .name a').textContent();

scene("the whole dashboard is used by keyboard alone", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const press = (keys) => keys.split(" ").reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
  const hosts = await exampleHosts(weir);
  await postMetrics(weir, hosts, lastHour());
  test.after(keepReporting(weir, hosts, 2_000, postMetrics));
  await page.getByText("13 hosts").waitFor();

  await press("/");
  await page.keyboard.type("web production");
  await until("three hosts", 2_000, async () => (await visitor.rows.count()) === 3);
  await press("Enter");
  const first = await selected(page);
  await press("j");
  const second = await selected(page);
  assert.notEqual(second, first);
  await press("j j j");
  const last = await selected(page);
  assert.ok(last !== first && last !== second, "j ends at the last host");
  await press("k");
  assert.equal(await selected(page), second);
  await visitor.shot("keyboard-selected");
  const ring = await page.getByRole("grid").evaluate((grid) => getComputedStyle(grid).outlineStyle);
  assert.equal(ring, "solid", "the table shows that it has the focus");
  await press("Enter");
  await page.getByRole("heading", { level: 2, name: second }).waitFor();
  assert.equal(visitor.path, `/h/${second}`);
  await page.getByRole("figure").first().waitFor();

  const opened = async (key) => {
    const before = visitor.path;
    await press(key);
    await until(`${key} opens a neighbour`, 3_000, () => visitor.path !== before);
    return visitor.path;
  };
  const home = visitor.path;
  const next = await opened("l");
  assert.equal(await opened("h"), home, "h goes back where l came from");
  assert.notEqual(next, home);

  await page.getByRole("figure").first().waitFor();
  await press("ArrowLeft");
  await until("an earlier range", 2_000, () => visitor.query.has("from"));
  await page.getByText("paused", { exact: true }).waitFor();
  await press(".");
  await until("now again", 2_000, () => !visitor.query.has("from"));
  await press("Space");
  await until("standing still", 2_000, () => visitor.query.has("from"));
  await press("Space");
  await until("going on", 2_000, () => !visitor.query.has("from"));
  await press("+");
  await until("closer", 2_000, () => visitor.query.get("range") === "30m");
  await press("- -");
  await until("further", 2_000, () => visitor.query.get("range") === "3h");
  for (const [key, tab] of [["2", "processes"], ["3", "probes"], ["4", "collected"], ["1", null]]) {
    await press(key);
    await until(`tab ${tab}`, 2_000, () => visitor.query.get("tab") === tab);
  }

  const slider = page.getByRole("slider").first();
  await slider.focus();
  await press("ArrowLeft ArrowLeft");
  await page.locator(".tooltip").waitFor();
  assert.match(await slider.getAttribute("aria-valuetext"), /used \d/, "a screen reader is told the values under the crosshair");
  await visitor.shot("keyboard-crosshair");
  await press("Escape");
  await page.locator(".tooltip").waitFor({ state: "detached" });
  assert.equal(visitor.path, home, "the first Escape only leaves the crosshair");

  const theme = () => page.evaluate(() => document.documentElement.dataset.theme ?? "auto");
  assert.equal(await theme(), "auto");
  await press("t");
  assert.equal(await theme(), "light");
  await press("t");
  assert.equal(await theme(), "dark");
  await page.reload();
  assert.equal(await theme(), "dark", "the choice is kept");
  await page.getByRole("figure").first().waitFor();
  await press("t");
  assert.equal(await theme(), "auto");

  await press("?");
  await page.getByRole("dialog", { name: "Help" }).waitFor();
  await press("t");
  assert.equal(await theme(), "auto", "no key of the page fires behind a dialog");
  await visitor.accessible("help");
  await press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await press("g h");
  await until("all hosts", 2_000, () => visitor.path === "/");
  await press("a");
  await page.getByRole("dialog", { name: "Add a machine" }).getByText(/curl -fsSL/).waitFor();
  await visitor.accessible("add-a-machine");
  await press("Escape");
  await page.goBack();
  await page.getByRole("heading", { level: 2, name: second }).waitFor();
  await press("Backspace");
  await until("all hosts again", 2_000, () => visitor.path === "/");
});

scene("whatever has the focus shows it, in both themes", async (test) => {
  const weir = await Weir.start(test);
  for (const colorScheme of ["light", "dark"]) {
    const visitor = await Visitor.signedIn(test, weir, { colorScheme });
    const { page } = visitor;
    await page.getByRole("button", { name: "Make a join command" }).waitFor();
    const seen = [];
    for (const path of ["/", (await visitor.rows.locator(".name a").getAttribute("href")) ?? "/"]) {
      if (path !== "/") {
        await visitor.go(path);
        await page.getByRole("slider").first().waitFor();
      }
      for (let step = 0; step < 60; step += 1) {
        await page.keyboard.press("Tab");
        const focus = await page.evaluate(() => {
          const element = document.activeElement;
          if (element === null || element === document.body) return null;
          const { outlineStyle, outlineWidth } = getComputedStyle(element);
          const { top, bottom, left, right } = element.getBoundingClientRect();
          const inside = bottom > 0 && top < window.innerHeight && right > 0 && left < window.innerWidth;
          return { what: `${element.tagName} ${element.ariaLabel ?? element.textContent.trim().slice(0, 30)}`, ring: outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 1, inside };
        });
        if (focus === null) break;
        seen.push(focus.what);
        assert.ok(focus.ring, `${path}: ${focus.what} shows its focus`);
        assert.ok(focus.inside, `${path}: ${focus.what} is on the screen when it has the focus`);
        if (step === 0) await visitor.shot(`keyboard-skip-link-${colorScheme}`);
      }
    }
    assert.ok(seen.length > 20, `Tab reaches what can be used: ${seen}`);
  }
});
