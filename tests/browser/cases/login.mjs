/** Signing in: one link, once. */

import assert from "node:assert/strict";
import { Visitor } from "../harness/browser.mjs";
import { figure, scene } from "../harness/scene.mjs";
import { Weir } from "../harness/weir.mjs";

const FIRST_ROW_MS = 10_000;
/** Chromium itself logs every refusal, and asking who is signed in is refused to those who are not. */
const REFUSED = /status of 401.*\/api\/v1\/(session|login)\)$/;

scene("the printed link signs in, and this machine is live within 10 s of the start", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.come(test, weir);
  const { page } = visitor;
  await page.goto(weir.loginLink);
  const row = visitor.rows;
  await row.getByText("up", { exact: true }).waitFor();
  await row.locator(".cpu .number", { hasText: "%" }).waitFor();
  await visitor.connection.getByText("live", { exact: true }).waitFor();
  const passedMs = Date.now() - weir.startedMs;
  figure("start of the program to the first live row in the browser", `${(passedMs / 1000).toFixed(1)} s (limit ${FIRST_ROW_MS / 1000} s)`);
  assert.ok(passedMs <= FIRST_ROW_MS, `the first live row took ${passedMs} ms`);
  assert.equal(new URL(page.url()).hash, "", "the token does not stay in the address");
  const cookies = await visitor.context.cookies();
  assert.deepEqual(
    cookies.map(({ name, httpOnly, sameSite }) => ({ name, httpOnly, sameSite })),
    [{ name: "weir_session", httpOnly: true, sameSite: "Strict" }],
  );
  await page.getByRole("heading", { name: "What Weir sees here" }).waitFor();
  await page.getByRole("button", { name: "Make a join command" }).waitFor();
  await visitor.accessible("first-run");

  await page.getByRole("button", { name: "Make a join command" }).click();
  await page.getByText(/curl -fsSL http:\S+\/join\/\S+ \| sh/).waitFor();
  await page.getByText(/Other machines cannot reach/).waitFor();
  await visitor.accessible("first-run-command");
});

scene("a link works once, and the page says so and how to get another", async (test) => {
  const weir = await Weir.start(test);
  const link = weir.loginLink;
  const first = await Visitor.come(test, weir);
  await first.page.goto(link);
  await first.rows.waitFor();

  const second = await Visitor.come(test, weir);
  second.expect(REFUSED);
  await second.page.goto(link);
  await second.page.getByRole("alert").getByText(/This link did not work: .*used/).waitFor();
  await second.page.getByRole("button", { name: "Copy the command" }).waitFor();
  await second.accessible("login-used-link");

  // Whoever has a session keeps it, and loses nothing by an old link.
  await first.page.goto("about:blank");
  first.expect(REFUSED);
  await first.page.goto(link);
  await first.rows.waitFor();
});

scene("without a session the page explains how to get one, and then shows what was asked for", async (test) => {
  const weir = await Weir.start(test);
  const visitor = await Visitor.come(test, weir);
  visitor.expect(REFUSED);
  const { page } = visitor;
  const host = await hostName(weir);
  await page.goto(`${weir.origin}/h/${host}?range=15m`);
  await page.getByRole("heading", { name: "Log in with a link" }).waitFor();
  await page.getByText("On the machine that runs Weir, print a link").waitFor();
  await visitor.accessible("login");

  await page.getByLabel("Or paste the link").fill("what is this");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").getByText("does not look like a login link").waitFor();
  await visitor.shot("login-not-a-link");

  await page.getByLabel("Or paste the link").fill(await weir.login());
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("heading", { level: 2, name: host }).waitFor();
  assert.equal(new URL(page.url()).search, "?range=15m");

  const [cookie] = await visitor.context.cookies();
  await page.keyboard.press("?");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.getByRole("alert").getByText("You have logged out.").waitFor();
  const again = await fetch(`${weir.origin}/api/v1/session`, { headers: { cookie: `weir_session=${cookie.value}` } });
  assert.equal(again.status, 401, "a session that was logged out is worth nothing");
});

/** The name of this machine as the program sees it, read by a person with a session. */
async function hostName(weir) {
  const token = new URL(weir.loginLink).hash.slice("#t=".length);
  const login = await fetch(`${weir.origin}/api/v1/login`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: weir.origin },
    body: JSON.stringify({ token }),
  });
  assert.equal(login.status, 200);
  const cookie = login.headers.get("set-cookie").split(";")[0];
  return (await (await fetch(`${weir.origin}/api/v1/status`, { headers: { cookie } })).json()).host_name;
}
