/** The program under test: started, stopped, asked and fed over its public interfaces. */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const PROGRAM = process.env.WEIR_BIN;
if (!PROGRAM) throw new Error("WEIR_BIN names no program; start the tests with: cargo test -p weir-tests --test all browser");

const START_MS = 30_000;
const STOP_MS = 15_000;

/** A port of 127.0.0.1 that nothing listens on. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Asks until `ask` answers something truthy; fails with what was awaited after `longestMs`. */
export async function until(what, longestMs, ask) {
  const begun = performance.now();
  let last;
  for (;;) {
    try {
      const answer = await ask();
      if (answer) return answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() - begun > longestMs) {
      throw new Error(`${what}: not within ${longestMs / 1000} s`, last === undefined ? {} : { cause: last });
    }
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** `weir up` or `weir server` on a loopback port, with a data folder of its own. */
export class Weir {
  #child = null;
  #output = "";

  constructor(command, port, folder) {
    this.command = command;
    this.port = port;
    this.folder = folder;
    this.origin = `http://127.0.0.1:${port}`;
  }

  /** A running one. `test` is the scene: the program ends with it. */
  static async start(test, command = "up", configuration = null) {
    const weir = new Weir(command, await freePort(), mkdtempSync(join(tmpdir(), "weir-browser-")));
    if (configuration !== null) {
      weir.configuration = join(weir.folder, "weir.yaml");
      writeFileSync(weir.configuration, configuration);
    }
    test.after(async () => {
      await weir.stop("SIGKILL");
      rmSync(weir.folder, { recursive: true, force: true });
    });
    await weir.run();
    return weir;
  }

  /** Starts the process, again after {@link stop}: same port, same data. Returns when it prints its login link. */
  async run() {
    this.startedMs = Date.now();
    this.#output = "";
    const environment = { ...process.env };
    for (const name of ["WEIR_CONFIG", "WEIR_DATA", "WEIR_LISTEN", "RUST_LOG"]) delete environment[name];
    const options = ["--listen", `127.0.0.1:${this.port}`, "--data", this.folder];
    if (this.configuration !== undefined) options.push("--config", this.configuration);
    const child = spawn(PROGRAM, [this.command, ...options], {
      env: environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (this.#output += part));
    child.on("error", (error) => (this.#output += `\n${error}`));
    await until(`${this.command} prints its login link`, START_MS, () => {
      if (child.exitCode !== null) throw new Error(`it has ended: ${this.#output}`);
      return this.loginLink;
    });
  }

  /** The link that the introduction prints. */
  get loginLink() {
    return /http:\/\/\S+\/#t=\S+/.exec(this.#output)?.[0];
  }

  /** Ends the process and waits for its end. */
  async stop(signal = "SIGTERM") {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(timer);
  }

  /** A new link, as `weir login` prints it. */
  async login() {
    const child = spawn(PROGRAM, ["login", "--data", this.folder], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (part) => (output += part));
    await new Promise((resolve) => child.once("close", resolve));
    const token = /#t=(\S+)/.exec(output)?.[1];
    if (token === undefined) throw new Error(`weir login printed no link: ${output}`);
    return `${this.origin}/#t=${token}`;
  }

  /** POSTs JSON as a program on this machine, which needs no key. */
  async post(path, body) {
    const response = await fetch(this.origin + path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`POST ${path}: ${response.status} ${(await response.text()).slice(0, 600)}`);
    return response.json();
  }
}
