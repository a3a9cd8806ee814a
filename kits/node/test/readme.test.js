// Runs every example of the README as it is written there. Only the page, the path of Chromium and the names of the browser packages are replaced:
// the packages of the tests bring no browser.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { inspect, promisify } from "node:util";
import * as kit from "exitgate";
import { PAGE, SECURE_PAGE } from "./site.js";

const run = promisify(execFile);
const readme = await readFile(new URL("README.md", import.meta.url), "utf8");
const CHROMIUM = process.env.CHROMIUM;
const launch = `launch({ executablePath: ${JSON.stringify(CHROMIUM)}, args: ["--no-sandbox"],`;
const ADDRESS = /\b127\.10\d\.\d+\.\d+\b/;

const KINDS = {
  "": { right: (output) => assert.match(output, ADDRESS) },
  playwright: { browser: true, change: (code) => code.replace('"playwright"', '"playwright-core"').replace("launch({", launch), right: (output) => assert.match(output, ADDRESS) },
  puppeteer: {
    browser: true,
    change: (code) => code.replace('"puppeteer"', '"puppeteer-core"').replace("launch({", `launch({ executablePath: ${JSON.stringify(CHROMIUM)},`).replace('session: "bert"', 'session: "bert", args: ["--no-sandbox"]'),
    right: (output) => assert.match(output, ADDRESS),
  },
  gateway: { right: (output) => assert.match(output, ADDRESS) },
};

describe("the README", () => {
  let folder;
  // Here and not in /tmp, because Node must find the packages.
  before(async () => { folder = await mkdtemp(path.join(import.meta.dirname, "run-")); });
  after(() => rm(folder, { recursive: true, force: true }));

  const examples = [...readme.matchAll(/^```js ?(\w*)\n([\s\S]*?)^```$/gm)];

  for (const [at, [, kind, code]] of examples.entries()) {
    const { right, change = (same) => same, browser } = KINDS[kind] ?? assert.fail(kind);
    const name = /from "(exitgate\/?\w*)";\n(?![\s\S]*from "exitgate\/)/.exec(code)?.[1];
    it(`example ${at + 1}: ${name}`, { skip: browser && !CHROMIUM && "Chromium is not installed" }, async () => {
      const file = path.join(folder, `example${at}.mjs`);
      await writeFile(file, change(code).replaceAll("https://check.torproject.org/api/ip", SECURE_PAGE).replaceAll("http://check.torproject.org/api/ip", PAGE));
      // An example that leaves something open would not end.
      const { stdout, stderr } = await run(process.execPath, [file], { cwd: folder, timeout: 90_000 }).catch((why) => assert.fail(`${why.message}\n${why.stdout}\n${why.stderr}`));
      right(stdout + stderr);
    });
  }

  it("has an example of every part", () => {
    for (const part of ["exitgate", "exitgate/undici", "exitgate/crawlee", "exitgate/playwright", "exitgate/puppeteer"]) assert.ok(examples.some(([, , code]) => code.includes(`"${part}"`)), part);
  });

  it("lists every error with its code", () => {
    for (const [name, value] of Object.entries(kit)) {
      if (!(value.prototype instanceof kit.ExitgateError) || name === "GatewayError") continue;
      assert.ok(readme.includes(`\`${name}\``), name);
      if (value.prototype instanceof kit.ApiError || name === "ApiError") continue;
      const { code } = new value({ reason: "test", exits: [] });
      assert.ok(readme.includes(`| \`${name}\` | \`${code}\` |`), inspect([name, code]));
    }
  });
});
