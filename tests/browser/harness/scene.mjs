/** One behaviour that a person can see: everything it started ends with it, the last first. */

import test from "node:test";

/** Figures that the tests measured, printed at the end. */
export const figures = [];

/** Keeps a figure for the table at the end. */
export function figure(what, value) {
  figures.push([what, value]);
}

/** `timeoutMs` of the options: how long it may take, two minutes without it. */
export function scene(name, ...rest) {
  const body = rest.pop();
  const { timeoutMs = 120_000 } = rest.pop() ?? {};
  test(name, { timeout: timeoutMs }, async () => {
    const endings = [];
    const failures = [];
    try {
      await body({ after: (ending) => endings.unshift(ending) });
    } catch (error) {
      failures.push(error);
    }
    for (const ending of endings) {
      try {
        await ending(failures.length > 0);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length === 1) throw failures[0];
    if (failures.length > 1) throw new AggregateError(failures, failures.map((error) => error.message).join("\n\nand then: "));
  });
}
