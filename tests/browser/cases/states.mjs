/** Nothing there yet, still loading, not found, and errors: each says what it is and what comes next. */

import { Visitor } from "../harness/browser.mjs";
import { exampleHosts, lastHour, postMetrics } from "../harness/fleet.mjs";
import { scene } from "../harness/scene.mjs";
import { Weir } from "../harness/weir.mjs";

scene("a server without any host says what to do, and the first one appears by itself", async (test) => {
  const weir = await Weir.start(test, "server");
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await page.getByRole("heading", { name: "No host yet" }).waitFor();
  await visitor.accessible("hosts-empty");
  await page.getByRole("main").getByRole("button", { name: "Add a machine" }).click();
  await page.getByRole("dialog").getByText(/curl -fsSL/).waitFor();
  await page.keyboard.press("Escape");
  await weir.post("/api/servers", { hostname: "first" });
  await visitor.row("first").waitFor();
  await visitor.shot("hosts-first");
});

scene("an unknown address and an unknown host lead back", async (test) => {
  const weir = await Weir.start(test, "server");
  await postMetrics(weir, await exampleHosts(weir), lastHour());
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await visitor.go("/no/such/page");
  await page.getByRole("main").getByRole("link", { name: /hosts/i }).waitFor();
  await visitor.accessible("not-found");
  visitor.expect(/status of 404.*\/api\/v1\/hosts\//);
  await visitor.go("/h/web-11");
  await page.getByRole("link", { name: "web-1", exact: true }).waitFor();
  await visitor.accessible("host-unknown");
});

scene("what loads is a shape of what comes, and what fails says why and tries again", async (test) => {
  const weir = await Weir.start(test, "server");
  await postMetrics(weir, await exampleHosts(weir), lastHour());
  const visitor = await Visitor.signedIn(test, weir);
  const { page } = visitor;
  await page.routeWebSocket("**/ws?*", () => {}); // a server that takes the connection and says nothing
  await visitor.go("/");
  await page.getByLabel("Loading the hosts").waitFor();
  await visitor.accessible("hosts-loading");

  const answers = Promise.withResolvers?.() ?? withResolvers();
  await page.route("**/api/v1/query", async (route) => {
    await answers.promise;
    await route.continue();
  });
  await visitor.go("/h/web-1");
  await page.getByRole("heading", { level: 2, name: "web-1" }).waitFor();
  await page.getByLabel(/Loading/).first().waitFor();
  await visitor.accessible("host-loading");
  answers.resolve();
  await page.getByRole("figure").first().waitFor();
  await page.unroute("**/api/v1/query");

  visitor.expect(/status of 503.*\/api\/v1\/query\)$/);
  const body = JSON.stringify({ status: "error", code: "unavailable", message: "the store is being compacted" });
  await page.route("**/api/v1/query", (route) => route.fulfill({ status: 503, contentType: "application/json", body }));
  await visitor.go("/h/web-1");
  await page.getByText("The charts could not be loaded").waitFor();
  await page.getByText("The store is being compacted.").waitFor();
  await visitor.accessible("host-error");
  await page.unroute("**/api/v1/query");
  await page.getByRole("button", { name: /again/i }).click();
  await page.getByRole("figure").first().waitFor();
});

/** `Promise.withResolvers` for Node.js before 22. */
function withResolvers() {
  let resolve;
  const promise = new Promise((fulfil) => (resolve = fulfil));
  return { promise, resolve };
}
