/** A real Chromium whose pages are watched: what they log, what they request, what their policy forbids. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

const EXECUTABLE = process.env.WEIR_CHROMIUM || "/usr/bin/chromium";
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
/** Folder for a screenshot of every state that the tests pass through; none are taken without it. */
const SHOTS = process.env.WEIR_SHOTS || null;
if (SHOTS !== null) mkdirSync(SHOTS, { recursive: true });

export const DESKTOP = { width: 1440, height: 900 };

let browser = null;

export async function closeBrowser() {
  await browser?.close();
  browser = null;
}

/** One person's browser: its own cookies, its own pages, and a record of everything that went wrong in them. */
export class Visitor {
  problems = [];
  requests = [];
  /** What is expected to be logged in this moment: the browser itself logs every answer of 400 and above. */
  #expected = [];

  /** `test` is the scene: the visitor leaves with it, and must have nothing to complain about. */
  static async come(test, weir, options = {}) {
    browser ??= await chromium.launch({ executablePath: EXECUTABLE, args: FLAGS });
    const visitor = new Visitor();
    visitor.weir = weir;
    visitor.context = await browser.newContext({
      viewport: DESKTOP,
      colorScheme: "light",
      locale: "en-GB",
      timezoneId: "Europe/Berlin",
      ...options,
    });
    visitor.context.setDefaultTimeout(15_000);
    await visitor.context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => {
        console.error(`forbidden by the policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`);
      });
    });
    visitor.context.on("page", (page) => visitor.#watch(page));
    visitor.page = await visitor.context.newPage();
    test.after(async (failed) => {
      if (failed) await visitor.#lastSight();
      await visitor.context.close();
      visitor.calm();
    });
    return visitor;
  }

  /** The same, signed in by a fresh link and on the home page with its hosts. */
  static async signedIn(test, weir, options = {}) {
    const visitor = await Visitor.come(test, weir, options);
    await visitor.page.goto(await weir.login());
    await visitor.connection.getByText("live", { exact: true }).waitFor();
    return visitor;
  }

  #watch(page) {
    const { origin } = new URL(this.weir.origin);
    page.on("console", (message) => {
      if (message.type() !== "error" && message.type() !== "warning") return;
      const text = `${message.type()}: ${message.text()} (${message.location().url})`;
      if (!this.#expected.some((pattern) => pattern.test(text))) this.problems.push(text);
    });
    page.on("pageerror", (error) => this.problems.push(`uncaught: ${error.stack ?? error.message}`));
    page.on("request", (request) => {
      const url = new URL(request.url());
      this.requests.push(request.url());
      if (url.origin !== origin && url.protocol !== "data:") this.problems.push(`request to another origin: ${request.url()}`);
    });
    page.on("websocket", (socket) => {
      if (new URL(socket.url()).host !== new URL(origin).host) this.problems.push(`socket to another origin: ${socket.url()}`);
    });
  }

  /** What was on the screen when a test failed. */
  async #lastSight() {
    const folder = SHOTS ?? tmpdir();
    for (const [index, page] of this.context.pages().entries()) {
      const path = join(folder, `failed-${Date.now()}-${index}.png`);
      await page.screenshot({ path }).then(
        () => console.error(`the page of the failed test: ${path} (${page.url()})`),
        (error) => console.error(`no picture of the failed test: ${error.message}`),
      );
    }
  }

  /** From now on such lines of the browser's own are no problem. */
  expect(...patterns) {
    this.#expected.push(...patterns);
  }

  /** That nothing went wrong so far. */
  calm() {
    assert.deepEqual(this.problems, [], "the console, the requests and the policy are calm");
  }

  /** Keeps a picture of this state, if somebody asked for pictures, and checks that nothing sticks out sideways. */
  async shot(name, options = {}) {
    if (SHOTS !== null) await this.page.screenshot({ path: join(SHOTS, `${name}.png`), ...options });
    const session = await this.context.newCDPSession(this.page);
    // The size of the content, whatever is clipped: nothing may lie where nobody can scroll to.
    const { cssContentSize, cssLayoutViewport } = await session.send("Page.getLayoutMetrics");
    await session.detach();
    assert.ok(cssContentSize.width <= cssLayoutViewport.clientWidth, `${name}: the content is ${cssContentSize.width} px wide, the page ${cssLayoutViewport.clientWidth} px`);
  }

  /** The lines of the Hosts view that are on the screen. */
  get rows() {
    return this.page.locator('.line[role="row"]');
  }

  /** What the header says about the connection, as a screen reader is told. */
  get connection() {
    return this.page.locator("header").getByRole("status");
  }

  /** The line of one host. */
  row(name) {
    return this.rows.filter({ has: this.page.locator(".name a", { hasText: new RegExp(`^${name}$`) }) });
  }

  /** Goes to an address of this server. */
  async go(path) {
    await this.page.goto(this.weir.origin + path);
  }

  /** The query of the address. */
  get query() {
    return new URL(this.page.url()).searchParams;
  }

  /** The path of the address. */
  get path() {
    return new URL(this.page.url()).pathname;
  }

  /** That axe finds nothing to object to, light and dark. */
  async accessible(name) {
    const session = await this.context.newCDPSession(this.page);
    try {
      await session.send("Runtime.evaluate", { expression: AXE });
      for (const colorScheme of ["light", "dark"]) {
        await this.page.emulateMedia({ colorScheme });
        // Colours fade from one theme to the other, and half-way contrast is nobody's.
        await this.page.evaluate(() => Promise.allSettled(document.getAnimations().filter((one) => one.effect?.getTiming().iterations !== Infinity).map((one) => one.finished)));
        const violations = await this.page.evaluate(async () => {
          const { violations: found } = await globalThis.axe.run({ preload: false });
          return found.map(({ id, impact, nodes }) => `${id} (${impact}): ${nodes.slice(0, 4).map((node) => `${node.target.join(" ")} – ${node.failureSummary}`).join("; ")}`);
        });
        assert.deepEqual(violations, [], `axe on ${name}, ${colorScheme}`);
        await this.shot(`${name}-${colorScheme}`);
      }
    } finally {
      await this.page.emulateMedia({ colorScheme: "light" });
      await session.detach();
    }
  }
}
