/** Hosts that are not there: posted over the real interfaces as agents would post them. */

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
const GIBIBYTE = 2 ** 30;

/** The same numbers in every run, so that pictures and orders do not differ by chance. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A plausible load: a base, a slow wave, some noise and a peak now and then; 0 to 1. */
function loadAt(host, atMs) {
  const wave = Math.sin(atMs / (host.period * MINUTE_MS) + host.phase) * host.swing;
  const noise = (host.noise() - 0.5) * host.swing * 0.6;
  const peak = host.noise() < 0.03 ? host.swing : 0;
  return Math.min(0.99, Math.max(0.005, host.base + wave + noise + peak));
}

function described(name, index) {
  const noise = random(index * 7_919 + 17);
  return {
    name,
    noise,
    base: 0.05 + noise() * 0.5,
    swing: 0.02 + noise() * 0.2,
    period: 4 + noise() * 20,
    phase: noise() * 6,
    memory: 0.2 + noise() * 0.65,
    disk: 0.1 + noise() * 0.8,
    memoryTotal: [8, 16, 32, 64][Math.floor(noise() * 4)] * GIBIBYTE,
  };
}

/** A fleet of `count` hosts that report by OTLP: `fleet-0001` and so on. */
export function fleet(count) {
  return Array.from({ length: count }, (_, index) => described(`fleet-${String(index + 1).padStart(4, "0")}`, index + 1));
}

function gauge(name, unit, dataPoints) {
  return { name, unit, gauge: { dataPoints } };
}

function point(atMs, value, attributes = {}) {
  return {
    timeUnixNano: `${atMs}000000`,
    asDouble: value,
    attributes: Object.entries(attributes).map(([key, text]) => ({ key, value: { stringValue: text } })),
  };
}

function resource(host, atTimesMs) {
  const at = (make) => atTimesMs.map(make);
  const metrics = [
    gauge("system.cpu.utilization", "1", at((ms) => point(ms, loadAt(host, ms)))),
    gauge("system.memory.utilization", "1", at((ms) => point(ms, host.memory, { "system.memory.state": "used" }))),
    gauge("system.memory.limit", "By", at((ms) => point(ms, host.memoryTotal))),
    gauge("system.filesystem.utilization", "1", at((ms) => point(ms, host.disk, { "system.filesystem.mountpoint": "/" }))),
  ];
  return {
    resource: { attributes: [{ key: "host.name", value: { stringValue: host.name } }] },
    scopeMetrics: [{ metrics }],
  };
}

/** Posts these hosts' values of these times by OTLP/HTTP with JSON, a few hundred hosts a request. */
export async function postOtlp(weir, hosts, atTimesMs) {
  const most = Math.max(20, Math.floor(1_000 / atTimesMs.length));
  for (let from = 0; from < hosts.length; from += most) {
    await weir.post("/v1/metrics", { resourceMetrics: hosts.slice(from, from + most).map((host) => resource(host, atTimesMs)) });
  }
}

/** Keeps the hosts alive: all of them report every `everyMs` until the returned function is called. */
export function keepReporting(weir, hosts, everyMs, post = postOtlp) {
  let running = true;
  let failure = null;
  const done = (async () => {
    while (running) {
      const begun = Date.now();
      try {
        await post(weir, hosts, [begun]);
      } catch (error) {
        failure ??= error;
      }
      while (running && Date.now() - begun < everyMs) await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  return async () => {
    running = false;
    await done;
    if (failure !== null) throw failure;
  };
}

/** Machines of a small company, for pictures and for the look of many kinds of hosts side by side. */
const EXAMPLES = [
  ["web-1", "production", "fra1", ["web", "nginx"], 0.32],
  ["web-2", "production", "fra1", ["web", "nginx"], 0.29],
  ["web-3", "production", "ams2", ["web", "nginx"], 0.35],
  ["api-1", "production", "fra1", ["api", "team=core"], 0.54],
  ["api-2", "production", "ams2", ["api", "team=core"], 0.61],
  ["db-primary", "production", "fra1", ["postgres"], 0.46],
  ["db-replica", "production", "ams2", ["postgres"], 0.18],
  ["cache-1", "production", "fra1", ["redis"], 0.09],
  ["queue-1", "production", "fra1", ["rabbitmq"], 0.22],
  ["build-1", "ci", "ams2", ["runner"], 0.93],
  ["staging", "staging", "ams2", ["web", "postgres"], 0.06],
  ["backup", "production", "hel1", ["restic"], 0.03],
];

/** Those machines, registered with what a person tells about them. */
export async function exampleHosts(weir) {
  const hosts = [];
  for (const [index, [name, environment, location, tags, base]] of EXAMPLES.entries()) {
    const ipAddress = `10.0.${location === "fra1" ? 1 : location === "ams2" ? 2 : 3}.${index + 11}`;
    await weir.post("/api/servers", { hostname: name, ipAddress, environment, location, tags });
    hosts.push({ ...described(name, index + 101), base, swing: Math.min(0.12, base / 2) });
  }
  return hosts;
}

/** Posts these hosts' values of these times as seed clients do, with its few fields. */
export async function postMetrics(weir, hosts, atTimesMs) {
  const rows = atTimesMs.flatMap((ms) =>
    hosts.map((host) => {
      const cpu = loadAt(host, ms);
      return {
        serverId: host.name,
        timestamp: new Date(ms).toISOString(),
        cpuUsage: Number((cpu * 100).toFixed(1)),
        memoryUsage: Number((host.memory * 100).toFixed(1)),
        memoryTotal: host.memoryTotal / 2 ** 20,
        diskUsage: Number((host.disk * 100).toFixed(1)),
        diskTotal: 500,
        networkLatency: Number((2 + cpu * 10).toFixed(2)),
        networkThroughput: Number((cpu * 120).toFixed(2)),
        processCount: Math.round(120 + cpu * 80),
      };
    }),
  );
  for (let from = 0; from < rows.length; from += 500) await weir.post("/api/metrics", rows.slice(from, from + 500));
}

/** Times from `fromMs` to `toMs`, both included, `stepMs` apart. */
export function times(fromMs, toMs, stepMs) {
  return Array.from({ length: Math.floor((toMs - fromMs) / stepMs) + 1 }, (_, index) => fromMs + index * stepMs);
}

/** The minutes of the last hour, the newest some seconds ago. */
export function lastHour(nowMs = Date.now()) {
  return times(nowMs - HOUR_MS + MINUTE_MS, nowMs - 5_000, MINUTE_MS);
}
