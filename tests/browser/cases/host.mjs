/** One host's page: charts that live, and a time range that a link carries. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { exampleHosts, keepReporting, lastHour, postMetrics, times } from "../harness/fleet.mjs";
import { figure, scene } from "../harness/scene.mjs";
import { until, Weir } from "../harness/weir.mjs";

const MINUTE_MS = 60_000;

/** Lets time pass where the passing of time is what is tested. */
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const chart = (page, title) => page.getByRole("figure").filter({ has: page.getByRole("heading", { name: title, exact: true }) });

/** What a screen reader is told of a chart: its lines with last value and time. */
const told = (page, title) => chart(page, title).locator("table.visually-hidden, .visually-hidden table").innerText();

/** Where the pixels of the canvas are: in each of `parts` equal columns of the plot, how many are coloured like the first line. */
function painted(page, title, parts) {
  return chart(page, title).locator(".plot").evaluate((plot, count) => {
    const canvas = plot.querySelector("canvas");
    const over = plot.querySelector(".u-over").getBoundingClientRect();
    const box = canvas.getBoundingClientRect();
    const scale = canvas.width / box.width;
    const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    probe.fillStyle = getComputedStyle(plot).getPropertyValue("--series-1");
    probe.fillRect(0, 0, 1, 1);
    const wanted = probe.getImageData(0, 0, 1, 1).data;
    const width = (over.width * scale) / count;
    // A copy: the browser complains when the page's own canvas is read again and again.
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(canvas, 0, 0);
    return Array.from({ length: count }, (_, part) => {
      const left = (over.left - box.left) * scale + part * width;
      const top = (over.top - box.top) * scale;
      const { data } = context.getImageData(Math.round(left), Math.round(top), Math.floor(width), Math.round(over.height * scale));
      let found = 0;
      for (let at = 0; at < data.length; at += 4) {
        const near = [0, 1, 2].every((channel) => Math.abs(data[at + channel] - wanted[channel]) < 40);
        if (near && data[at + 3] > 200) found += 1;
      }
      return found;
    });
  }, parts);
}

scene("charts of this machine move on by themselves", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await visitor.rows.click();
  await chart(page, "CPU").waitFor();
  const fiveMinutes = page.getByRole("button", { name: "5m", exact: true });
  assert.equal(await fiveMinutes.getAttribute("aria-pressed"), "true", "of a machine that has just come the last minutes are shown");
  await page.getByRole("button", { name: "15m", exact: true }).click();
  assert.equal(visitor.query.get("range"), "15m");
  await fiveMinutes.click();
  await chart(page, "CPU").locator("canvas").waitFor();
  const before = await told(page, "CPU");
  const begun = performance.now();
  await until("a newer point in the chart", 15_000, async () => (await told(page, "CPU")) !== before);
  figure("a newer point in the charts, without anybody doing anything", `after ${((performance.now() - begun) / 1000).toFixed(1)} s (interval 10 s)`);
  await until("the newest point is drawn", 5_000, async () => (await painted(page, "Load", 30)).slice(-3).some((count) => count > 0));
  await visitor.accessible("host");
  for (const [tab, title] of [["processes", "Processes"], ["probes", "Probes"], ["collected", "What is collected"]]) {
    await page.getByRole("link", { name: title, exact: true }).click();
    assert.equal(visitor.query.get("tab"), tab);
    if (tab === "processes") await page.getByRole("row").nth(1).waitFor();
    await page.getByText("Loading").waitFor({ state: "detached" });
    await visitor.accessible(`host-${tab}`);
  }
});

scene("crosshair in all charts, drag zoom in the address, and a link that opens the same view", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const hosts = await exampleHosts(weir);
  await postMetrics(weir, hosts, lastHour());
  test.after(keepReporting(weir, hosts, 5_000, postMetrics));
  await visitor.go("/h/web-1");
  const plot = chart(page, "CPU").locator(".u-over");
  await plot.waitFor();

  const box = await plot.boundingBox();
  const at = (part) => [box.x + box.width * part, box.y + box.height / 2];
  await page.mouse.move(...at(0.5));
  await chart(page, "CPU").locator(".tooltip").getByText("used").waitFor();
  const times = await page.getByRole("slider").evaluateAll((sliders) => sliders.map((slider) => slider.getAttribute("aria-valuenow")));
  assert.equal(new Set(times).size, 1, `the crosshair stands at one time in all charts: ${times}`);
  await visitor.shot("host-crosshair");

  await page.mouse.move(...at(0.3));
  await page.mouse.down();
  await page.mouse.move(...at(0.45), { steps: 5 });
  await page.mouse.move(...at(0.6), { steps: 5 });
  await visitor.shot("host-dragging");
  await page.mouse.up();
  await until("the address holds the range", 3_000, () => visitor.query.has("from") && visitor.query.has("to"));
  const lengthMs = Number(visitor.query.get("to")) - Number(visitor.query.get("from"));
  assert.ok(Math.abs(lengthMs - 0.3 * 60 * MINUTE_MS) < 0.02 * 60 * MINUTE_MS, `0.3 of an hour was dragged, not ${lengthMs / MINUTE_MS} min`);
  await page.mouse.move(5, 5);
  await chart(page, "Memory").getByRole("button", { name: /used/ }).click();
  await page.getByText("paused").waitFor();
  await page.locator(".plot").first().waitFor();
  await page.getByText("Loading").waitFor({ state: "detached" });
  const seen = await sight(page);

  const later = await visitor.context.newPage();
  await later.goto(page.url());
  await chart(later, "CPU").locator("canvas").waitFor();
  await until("the link shows what was seen", 3_000, async () => JSON.stringify(await sight(later)) === JSON.stringify(seen)).catch(async () => {
    assert.deepEqual(await sight(later), seen, "a link with a time range opens the same view");
  });
  assert.equal(later.url(), page.url());
  await later.close();
  await visitor.shot("host-zoomed");

  await page.mouse.dblclick(...at(0.5));
  await until("a double click goes back", 3_000, () => !visitor.query.has("from"));
  await page.goBack();
  await until("and the browser's back to the zoom", 3_000, () => visitor.query.has("from"));
});

/** What a person sees of a view: range, lines, figures. */
async function sight(page) {
  const lines = await page.locator(".legend button").evaluateAll((buttons) => buttons.map((button) => `${button.innerText} ${button.ariaPressed}`));
  const range = await page.locator(".shown").innerText();
  return { range, lines, cpu: await told(page, "CPU"), pixels: await painted(page, "CPU", 20) };
}

scene("a stretch without data is a gap", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const [host] = await exampleHosts(weir);
  const now = Date.now();
  await postMetrics(weir, [host], times(now - 55 * MINUTE_MS, now - 40 * MINUTE_MS, 15_000));
  await postMetrics(weir, [host], times(now - 20 * MINUTE_MS, now, 15_000));
  await visitor.go("/h/web-1");
  await chart(page, "CPU").locator("canvas").waitFor();
  await page.mouse.move(5, 5);

  // Of 60 columns of a minute each, 5 to 20 and 40 to 60 have a line, and between them is nothing.
  const columns = await painted(page, "CPU", 60);
  assert.ok(columns.slice(7, 18).every((count) => count > 0), `a line before the gap: ${columns}`);
  assert.ok(columns.slice(22, 38).every((count) => count === 0), `nothing in the gap: ${columns}`);
  assert.ok(columns.slice(42, 58).every((count) => count > 0), `a line after the gap: ${columns}`);

  const box = await chart(page, "CPU").locator(".u-over").boundingBox();
  await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
  await chart(page, "CPU").locator(".tooltip").waitFor();
  assert.equal(await chart(page, "CPU").locator(".legend .number").first().innerText(), "–", "no value in the gap");
  await visitor.accessible("host-gap");
});

scene("a host that was away for a while: the page names the stretch", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const [host] = await exampleHosts(weir);
  await visitor.go("/h/web-1?range=5m");
  const before = keepReporting(weir, [host], 500, postMetrics);
  await chart(page, "CPU").locator("canvas").waitFor();
  await pause(5_000);
  await before();
  await pause(8_000);
  test.after(keepReporting(weir, [host], 500, postMetrics));
  await page.getByText(/^Not connected \d\d:\d\d:\d\d–(\d\d:)?\d\d:\d\d; no data\.$/).waitFor();
  await visitor.accessible("host-disconnected");
});
