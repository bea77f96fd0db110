/** The home page with machines of many kinds. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { exampleHosts, keepReporting, lastHour, postMetrics, times } from "../harness/fleet.mjs";
import { scene } from "../harness/scene.mjs";
import { until, Weir } from "../harness/weir.mjs";

const names = (visitor) =>
  visitor.rows.evaluateAll((rows) => rows.sort((one, other) => one.ariaRowIndex - other.ariaRowIndex).map((row) => row.querySelector(".name a").textContent));

scene("hosts appear by themselves, are filtered and ordered, and the address holds both", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await visitor.rows.waitFor();
  const hosts = await exampleHosts(weir);
  await postMetrics(weir, hosts, lastHour());
  test.after(keepReporting(weir, hosts, 2_000, postMetrics));
  await page.getByText("13 hosts").waitFor();
  await until("the posted values are shown", 5_000, async () => /\d.%/.test(await visitor.row("web-1").locator(".cpu").textContent()));
  await until("the last hour is drawn", 5_000, async () => ((await visitor.row("web-1").locator("path.line:not(.dots)").getAttribute("d")) ?? "").length > 100);
  await visitor.accessible("hosts");

  const filter = page.getByPlaceholder("Name, tag or status");
  await filter.fill("web production");
  assert.deepEqual((await names(visitor)).sort(), ["web-1", "web-2", "web-3"]);
  assert.equal(visitor.query.get("q"), "web production");
  await visitor.shot("hosts-filtered");
  await filter.fill("no such host");
  await page.getByRole("heading", { name: "No host matches “no such host”" }).waitFor();
  await visitor.accessible("hosts-no-match");
  await page.getByRole("button", { name: "Show all hosts" }).click();

  await page.getByRole("columnheader", { name: "Host" }).getByRole("button").click();
  const ascending = await names(visitor);
  assert.deepEqual(ascending, [...ascending].sort((one, other) => one.localeCompare(other, "en", { numeric: true })));
  await page.getByRole("columnheader", { name: "Host" }).getByRole("button").click();
  assert.deepEqual(await names(visitor), [...ascending].reverse());
  await filter.fill("production");
  const copied = page.url();

  const friend = await Visitor.signedIn(test, weir);
  await friend.page.goto(copied);
  await friend.rows.first().waitFor();
  assert.deepEqual(await names(friend), await names(visitor), "a copied link opens the same hosts in the same order");
});

scene("a host that stopped is named down and since when, one that never sent says so, few fields stay few", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  const [gone] = await exampleHosts(weir);
  const now = Date.now();
  await postMetrics(weir, [gone], times(now - 1_800_000, now - 600_000, 10_000));
  await weir.post("/api/servers", { hostname: "sparse" });
  await weir.post("/api/metrics", [{ serverId: "sparse", cpuUsage: 12.5 }]);

  await visitor.row("web-1").getByText(/^down/).waitFor();
  await visitor.row("web-2").getByText("no data yet").waitFor();
  await visitor.row("sparse").locator(".cpu", { hasText: "%" }).waitFor();
  for (const column of ["memory", "disk", "network", "load"]) {
    assert.equal((await visitor.row("sparse").locator(`.${column}`).textContent()).replace(/Memory|Disk/, "").trim(), "–", `${column} is missing, not 0`);
  }
  await visitor.accessible("hosts-down");

  await page.getByRole("button", { name: /1 down/ }).click();
  assert.deepEqual(await names(visitor), ["web-1"]);
  assert.equal(visitor.query.get("q"), "status:down");

  await visitor.go("/h/web-1");
  await page.getByRole("status").getByText("Its last values are shown.").waitFor();
  await visitor.accessible("host-down");
  await visitor.go("/h/web-1?range=5m");
  await page.getByRole("button", { name: "Show its last hour" }).click();
  await page.getByRole("figure").first().waitFor();
  await visitor.shot("host-down-last-hour");

  await visitor.go("/h/web-2");
  await page.getByRole("heading", { name: "web-2 has never sent data" }).waitFor();
  await visitor.accessible("host-without-data");

  await visitor.go("/h/sparse?range=5m");
  await page.getByRole("figure").first().waitFor();
  assert.equal(await page.getByRole("figure").count(), 1, "one chart for the one field");
  await page.getByText(/^Not reported: .*memory.*/).waitFor();
  const tiles = await page.getByLabel("Values of now").innerText();
  assert.match(tiles, /Memory\n–\nnot reported/);
  assert.doesNotMatch(tiles, /NaN|undefined|null/);
  await visitor.accessible("host-sparse");
});

scene("the server sends every field of a row, null where it knows nothing, as the dashboard takes for granted", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.signedIn(test, weir);
  await weir.post("/api/servers", { hostname: "sparse" });
  await visitor.row("sparse").waitFor();
  const missing = await visitor.page.evaluate(async () => {
    const ask = async (path) => (await fetch(path)).json();
    const { schemas } = (await ask("/api/v1/openapi.json")).components;
    const lacking = (name, value) => Object.keys(schemas[name].properties).filter((field) => !(field in value)).map((field) => `${name}.${field}`);
    const { hosts } = await ask("/api/v1/hosts");
    const found = hosts.flatMap((row) => lacking("HostRow", row));
    for (const { name } of hosts) {
      const detail = await ask(`/api/v1/hosts/${name}`);
      found.push(...lacking("HostDetail", detail), ...(detail.agent === null ? [] : lacking("HostAgent", detail.agent)));
      const { processes } = await ask(`/api/v1/hosts/${name}/processes`);
      found.push(...processes.flatMap((one) => lacking("Process", one)));
    }
    return [hosts.length, ...found];
  });
  assert.deepEqual(missing, [2], "both hosts have every field");
});
