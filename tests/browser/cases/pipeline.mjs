/** Where records come from, where they go, and what became of them. */

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Visitor } from "../harness/browser.mjs";
import { scene } from "../harness/scene.mjs";
import { until, Weir } from "../harness/weir.mjs";

const FLOWS_MS = 15_000;
const SIZES = { 390: { width: 390, height: 844 }, 1280: { width: 1280, height: 800 }, 1920: { width: 1920, height: 1080 } };

/** A backend that takes everything, or refuses everything for good. */
async function backend(test) {
  const state = { refuses: false, taken: 0 };
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      state.taken += state.refuses ? 0 : 1;
      response.writeHead(state.refuses ? 400 : 204).end(state.refuses ? "the field `host` is not known here" : undefined);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => new Promise((resolve) => server.close(resolve).closeAllConnections()));
  state.port = server.address().port;
  return state;
}

const configuration = ({ port }) => `integrations:
  host: {interval: 1s}
  webhook: {url: "http://127.0.0.1:${port}/", queue: disk, flush_interval: 1s}
`;

const box = (page, id) => page.locator(`[data-box="${id}"]`);
const details = (page) => page.getByRole("complementary");

scene("records are followed from their source to their exporter, and what is refused is looked at, replayed or dropped", async (test) => {
  const target = await backend(test);
  const weir = await Weir.start(test, "up", configuration(target));
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await page.getByRole("navigation", { name: "Views", exact: true }).getByRole("link", { name: "Pipeline" }).click();
  const exporter = box(page, "exporter:webhook");
  await exporter.waitFor();
  assert.equal(visitor.path, "/pipeline");
  await until("records flow", FLOWS_MS, async () => target.taken > 0 && /out\s*[1-9]/.test((await exporter.innerText()).replace(/\s+/g, " ")));
  await exporter.getByText("✓").waitFor();
  assert.equal(await page.getByText("The ledger does not add up").count(), 0);
  await visitor.accessible("pipeline-graph");

  await exporter.click();
  await details(page).getByText("None: nothing that was accepted has been refused for good.").waitFor();
  await details(page).getByText("adds up").first().waitFor();
  target.refuses = true;
  await details(page).getByText(/refused payloads?, /).waitFor({ timeout: FLOWS_MS });
  await details(page).getByRole("button", { name: /status 400/ }).first().click();
  const letter = page.getByRole("dialog", { name: "Dead letter" });
  await letter.getByText("the field `host` is not known here").last().waitFor();
  await letter.getByText("resourceMetrics").waitFor();
  await visitor.accessible("pipeline-dead-letter");
  await page.keyboard.press("Escape");
  await letter.waitFor({ state: "detached" });

  target.refuses = false;
  await details(page).getByRole("button", { name: "Replay all" }).click();
  const replay = page.getByRole("dialog", { name: "Replay dead letters" });
  await replay.getByText(/Replay \d+ dead letters? of webhook\?/).waitFor();
  await visitor.accessible("pipeline-replay");
  await replay.getByRole("button", { name: /^Replay \d+ dead letters?$/ }).click();
  await page.getByText(/dead letters? put back into the queue/).first().waitFor();
  await details(page).getByText("None: nothing").waitFor({ timeout: FLOWS_MS });

  target.refuses = true;
  await details(page).getByText(/refused payloads?, /).waitFor({ timeout: FLOWS_MS });
  target.refuses = false;
  await details(page).getByRole("button", { name: "Drop all…" }).click();
  const drop = page.getByRole("dialog", { name: "Drop dead letters" });
  await drop.getByText(/Drop \d+ dead letters? of webhook\? .*cannot be taken back/).waitFor();
  await drop.getByRole("button", { name: "Cancel" }).click();
  await details(page).getByText(/refused payloads?, /).waitFor();
  await until("all are dropped", FLOWS_MS, async () => {
    if ((await details(page).getByText("None: nothing").count()) > 0) return true;
    // What was under way when the backend began to take records again may be refused after the first drop.
    await details(page).getByRole("button", { name: "Drop all…" }).click();
    await drop.getByRole("button", { name: /^Drop \d+ dead letters?$/ }).click();
    await drop.waitFor({ state: "detached" });
    await page.waitForTimeout(1_000);
    return false;
  });
  assert.equal(await page.getByText("The ledger does not add up").count(), 0);

  await page.getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("button", { name: "Reload configuration" }).click();
  await page.getByText("The configuration was read; nothing in it has changed.").waitFor();
  await visitor.accessible("pipeline-reload");
  await page.keyboard.press("Escape");

  // What only a start changes is named.
  writeFileSync(weir.configuration, `limits: {disk: 5GiB}\ndelivery: {sync: each}\n${configuration(target)}`);
  await page.getByRole("button", { name: "More" }).click();
  await page.getByRole("button", { name: "Reload configuration" }).click();
  await page.getByText("The configuration was read; what runs stays as it is.").waitFor();
  const waiting = page.getByRole("dialog", { name: "Reload configuration" }).getByRole("listitem");
  assert.deepEqual(await waiting.allInnerTexts(), ["delivery.sync", "limits.disk"]);
  await visitor.accessible("pipeline-reload-pending");
});

scene("dead letters are chosen by source and signal, and what is replayed is what is shown", async (test) => {
  const weir = await Weir.start(test, "server");
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await pretend(page, (step) => {
    const answer = many(step);
    const flow = { ...answer.flows[0], exporter: "backend-01", accepted: 10, delivered: 0, dead_lettered: 10, route: 0 };
    answer.flows = [
      { ...flow, source: "nginx-01", signal: "logs" },
      { ...flow, source: "probe-03", signal: "metrics" },
      { ...flow, source: "dead_letters", signal: "logs", route: null },
    ];
    return answer;
  });
  const letter = (index) => ({
    id: String(index).padStart(16, "0"),
    exporter: "backend-01",
    source: index % 2 ? "nginx-01" : "probe-03",
    signal: index % 2 ? "logs" : "metrics",
    records: 1,
    of: 1,
    reason: `no such field ${index}`,
    status: 400,
    answer: null,
    first_ms: Date.now() - 60_000,
    last_ms: Date.now() - 1_000,
    times: 1,
    bytes: 100,
  });
  const asked = [];
  await page.route("**/api/v1/dead-letters?*", (route) => {
    const query = new URL(route.request().url()).searchParams;
    const fits = (one) => ["source", "signal"].every((name) => (query.get(name) ?? one[name]) === one[name]);
    const dead_letters = Array.from({ length: 20 }, (_, index) => letter(index)).filter(fits);
    return route.fulfill({ json: { dead_letters, total: dead_letters.length, bytes: 100 * dead_letters.length } });
  });
  await page.route("**/api/v1/dead-letters/replay", (route) => {
    asked.push(route.request().postDataJSON());
    return route.fulfill({ json: { done: 10, left: 0, refused: 0, reason: null } });
  });
  await visitor.go("/pipeline?at=exporter:backend-01");
  await details(page).getByText("20 refused payloads, ").waitFor();
  const source = details(page).getByLabel("Source");
  assert.deepEqual(await source.locator("option").allInnerTexts(), ["All sources", "nginx-01", "probe-03"]);
  await source.selectOption("nginx-01");
  await details(page).getByText("10 refused payloads, ").waitFor();
  await visitor.accessible("pipeline-letters-chosen");
  await details(page).getByRole("button", { name: "Replay these 10" }).click();
  const replay = page.getByRole("dialog", { name: "Replay dead letters" });
  await replay.getByText("Replay 10 dead letters of backend-01 from nginx-01?").waitFor();
  await replay.getByRole("button", { name: /^Replay 10 dead letters$/ }).click();
  await replay.waitFor({ state: "detached" });
  assert.deepEqual(asked, [{ exporter: "backend-01", source: "nginx-01" }]);
  await details(page).getByLabel("Signal").selectOption("metrics");
  await details(page).getByText("None of these.").waitFor();
  await source.selectOption("");
  await details(page).getByText("10 refused payloads, ").waitFor();
});

scene("the graph is used by keyboard alone, and the table says the same", async (test) => {
  const target = await backend(test);
  const weir = await Weir.start(test, "up", configuration(target));
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("data-box") ?? document.activeElement?.tagName);
  const press = (keys) => keys.split(" ").reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());
  await press("g p");
  await box(page, "exporter:webhook").waitFor();
  await press("ArrowDown");
  assert.match(await focused(), /^source:/);
  await press("ArrowRight");
  assert.match(await focused(), /^route:/);
  await press("/");
  await page.keyboard.type("webhook");
  await press("Enter");
  assert.equal(await focused(), "exporter:webhook", "Enter leads from the search to what it found");
  await press("Enter");
  await details(page).waitFor();
  assert.equal(visitor.query.get("at"), "exporter:webhook", "the address holds what is open");
  await press("Escape");
  await details(page).waitFor({ state: "detached" });
  assert.equal(await focused(), "exporter:webhook");
  await press("Escape");
  await until("no search", 2_000, () => !visitor.query.has("q"));

  await press("2");
  await page.getByRole("table", { name: "Exporters" }).getByRole("row", { name: /webhook.*healthy/ }).waitFor();
  const row = page.getByRole("table", { name: "Ledger" }).getByRole("row", { name: /host.*webhook.*metrics/ });
  await row.getByText("adds up").waitFor({ timeout: FLOWS_MS });
  await visitor.accessible("pipeline-table");
  await press("?");
  await page.getByRole("dialog", { name: "Help" }).getByText("graph, table").waitFor();
  await press("Escape");
  await press("g h");
  await until("all hosts", 2_000, () => visitor.path === "/");
});

/** An answer with many parts: sources of three kinds, seven routes, fourteen exporters. */
function many(step) {
  const name = (word, index) => `${word}-${String(index + 1).padStart(2, "0")}`;
  const health = { state: "healthy", since_ms: Date.now() - 3_600_000, reason: null };
  const broken = { state: "unhealthy", since_ms: Date.now() - 60_000, reason: "connection refused" };
  const queue = { kind: "disk", records: 0, bytes: 0, limit_bytes: 2 ** 30, oldest_age_seconds: null, when_full: "block", short_of: null };
  const sources = Array.from({ length: 39 }, (_, index) => ({
    name: name(["nginx", "redis", "probe"][index % 3], index),
    kind: ["nginx", "redis", "probe"][index % 3],
    role: "collect",
    health: index === 4 ? broken : health,
    skipped_polls: { overlap: 0, memory_full: 0 },
  }));
  const exporters = Array.from({ length: 14 }, (_, index) => ({
    name: name("backend", index),
    kind: `kind-${index}`,
    health: index === 9 ? broken : health,
    queue: { ...queue, exporter: name("backend", index) },
    in_flight_limit: 4,
    paused_until_ms: null,
    requests: { succeeded: step, failed: 0 },
    last_error: null,
    dead_letters: 0,
  }));
  const flows = sources.flatMap((source, index) =>
    [index * 5, index * 5 + 7].map((at) => ({
      source: source.name,
      exporter: exporters[at % 14].name,
      signal: "metrics",
      route: (index * 3) % 7,
      accepted: step * (index + 1) * 20,
      delivered: step * (index + 1) * 20,
      queued: 0,
      in_flight: 0,
      dead_lettered: 0,
      dropped: {},
      difference: 0,
    })),
  );
  const routes = Array.from({ length: 7 }, (_, index) => ({ name: `route ${index + 1}`, keep: null, set: {} }));
  return { time_ms: Date.now(), sources, routes, exporters, flows };
}

/** Answers for the pipeline what `answer` says from now on. */
async function pretend(page, answer) {
  let step = 0;
  await page.unroute("**/api/v1/pipeline");
  await page.route("**/api/v1/pipeline", (route) => route.fulfill({ json: answer(++step) }));
}

scene("sixty parts are read on a phone, a laptop and a large screen", async (test) => {
  const weir = await Weir.start(test, "server");
  for (const [width, viewport] of Object.entries(SIZES)) {
    const colorScheme = width === "1280" ? "dark" : "light";
    const visitor = await Visitor.signedIn(test, weir, { viewport, colorScheme, hasTouch: width === "390" });
    const { page } = visitor;
    await pretend(page, many);
    await visitor.go("/pipeline");
    if (width === "390") {
      await page.getByRole("table", { name: "Ledger" }).waitFor();
      assert.ok(!visitor.requests.some((url) => /\/Picture-/.test(url)), "the table does not load the graph's library");
      await page.getByRole("table", { name: "Sources" }).getByRole("button", { name: "redis-05" }).click();
      await page.getByRole("dialog", { name: "redis-05" }).getByText("connection refused").waitFor();
      await visitor.shot("pipeline-phone-details");
      await page.getByRole("button", { name: "Close" }).click();
    } else {
      await box(page, "group:source:nginx").waitFor();
      assert.equal(await page.locator("[data-box]").count(), 3 + 7 + 14, "parts of one kind are one box");
      await page.getByLabel("Find in the pipeline").fill("unhealthy");
      await page.getByText("2 of 60 parts found").waitFor();
      await visitor.accessible(`pipeline-found-${width}`);
      await page.getByLabel("Find in the pipeline").fill("");
      await visitor.go("/pipeline?group=off");
      await until("every part", 5_000, async () => (await page.locator("[data-box]").count()) === 60);
      await page.locator('[data-box^="source:"]').first().focus();
      await page.keyboard.press("End");
      const inside = await page.evaluate(() => {
        const [own, frame] = [document.activeElement, document.querySelector(".frame")].map((element) => element.getBoundingClientRect());
        return own.top >= frame.top && own.bottom <= frame.bottom;
      });
      assert.ok(inside, "what has the focus is on the screen");
    }
    await visitor.shot(`pipeline-many-${width}`);
  }
});

scene("the pipeline's other states say what they are, and what comes next", async (test) => {
  const weir = await Weir.start(test, "server");
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  let release = () => {};
  const held = new Promise((resolve) => (release = resolve));
  await page.route("**/api/v1/pipeline", async (route) => {
    await held;
    await route.fulfill({ json: many(1) });
  });
  await visitor.go("/pipeline");
  await page.getByLabel("Loading the pipeline").first().waitFor();
  await visitor.accessible("pipeline-loading");
  release();
  await page.locator("[data-box]").first().waitFor();

  await pretend(page, () => ({ time_ms: Date.now(), sources: many(1).sources.slice(0, 2), routes: [], exporters: [], flows: [] }));
  await page.getByRole("heading", { name: "Nothing is delivered yet" }).waitFor();
  await visitor.accessible("pipeline-empty");

  await pretend(page, (step) => {
    const answer = many(step);
    answer.flows[0].difference = -3;
    answer.flows[1].difference = 12;
    return answer;
  });
  const alert = page.getByRole("alert").filter({ hasText: "The ledger does not add up: please report" });
  await alert.getByText("nginx-01 → backend-01, metrics: 3 too many").waitFor();
  await alert.getByText("metrics: 12 missing").waitFor();
  await visitor.accessible("pipeline-wrong");

  visitor.expect(/status of 503.*\/api\/v1\/pipeline\)$/);
  await page.unroute("**/api/v1/pipeline");
  const body = JSON.stringify({ status: "error", code: "unavailable", message: "the pipeline is being stopped" });
  await page.route("**/api/v1/pipeline", (route) => route.fulfill({ status: 503, contentType: "application/json", body }));
  await page.getByText(/as of \d\d:\d\d:\d\d: not refreshed, the pipeline is being stopped/).waitFor();
  await page.reload();
  await page.getByText("The pipeline cannot be shown").waitFor();
  await visitor.accessible("pipeline-error");
  await pretend(page, many);
  await page.getByRole("button", { name: "Try again" }).click();
  await page.locator("[data-box]").first().waitFor();
});
