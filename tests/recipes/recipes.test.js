// Runs every recipe of docs/recipes.md as it is written there; it must print an address of the private network.
//
// Only addresses, the page (the network has no internet) and the path of this machine's Chromium are replaced.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { promisify } from "node:util";
import { ROOT, demo, stop } from "../browser/gateway.js";
import { repository } from "./repository.js";

const run = promisify(execFile);
const PATIENCE = 90_000;
const GATE = "127.93.0.1";
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
const PYTHON = process.env.PYTHON ?? "python3";

const text = await readFile(path.join(ROOT, "docs/recipes.md"), "utf8");

// The blocks of code, each with the words of its fence and the heading above it.
function recipes() {
  let heading = "";
  const found = [];
  for (const [, title, fence, code] of text.matchAll(/^## (.+)$|^```(\S+(?: \S+)*)\n([\s\S]*?)^```$/gm)) {
    if (title) heading = title;
    else found.push({ name: heading || "a route", kind: fence, code });
  }
  return found;
}

// An exit of the private network, as its sites see it.
const ADDRESS = /\b127\.\d+\.\d+\.\d+\b/;
const seen = (output) => assert.match(output, ADDRESS);
const chromium = (code) => code.replace(/launch\(\{/, `launch({ executablePath: ${JSON.stringify(CHROMIUM)},`).replace('args: ["--proxy', 'args: ["--no-sandbox", "--proxy');

// How each kind is run, and what its output must be.
const KINDS = {
  sh: { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: seen },
  "sh route": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.equal(JSON.parse(output).port, 20000) },
  "sh exit.gate": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.match(JSON.parse(output).exit.ip, ADDRESS) },
  "sh git": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.match(output, /^[0-9a-f]{40}\tHEAD/) },
  "sh proxychains": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: seen },
  "sh rotate": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.ok(JSON.parse(output).after, output) },
  "sh rules": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.deepEqual(JSON.parse(output).rules.map((rule) => rule.use ?? rule.refuse), ["nonus-strict", true, true]) },
  "sh why": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.deepEqual(JSON.parse(output).rules.map((rule) => rule.number), [1]) },
  "sh report": { file: "recipe.sh", start: (file) => ["bash", "-euo", "pipefail", file], right: (output) => assert.equal(JSON.parse(output).site, "shop.example") },
  python: { file: "recipe.py", start: (file) => [PYTHON, file], right: seen },
  "python scrapy one": { file: "recipe.py", start: (file) => [PYTHON, "-m", "scrapy", "runspider", "--nolog", file], right: seen },
  "python scrapy": { file: "recipe.py", start: (file) => [PYTHON, "-m", "scrapy", "runspider", "--nolog", file], right: (output) => assert.equal(output.trim().split("\n").filter((line) => ADDRESS.test(line)).length, 2, output) },
  js: { file: "recipe.mjs", start: (file) => [process.execPath, file], right: seen },
  "js playwright": { file: "recipe.mjs", start: (file) => [process.execPath, file], right: seen, change: (code) => chromium(code.replace('"playwright"', '"playwright-core"').replace("launch({ proxy", 'launch({ args: ["--no-sandbox"], proxy')) },
  "js playwright route": { file: "recipe.mjs", start: (file) => [process.execPath, file], right: seen, change: (code) => chromium(code.replace('"playwright"', '"playwright-core"').replace("launch({ proxy", 'launch({ args: ["--no-sandbox"], proxy')) },
  "js puppeteer": { file: "recipe.mjs", start: (file) => [process.execPath, file], right: seen, change: (code) => chromium(code.replace('"puppeteer"', '"puppeteer-core"')) },
  go: { file: "main.go", start: (file) => ["go", "run", file], right: seen },
  java: { file: "Ip.java", start: (file) => ["java", file], right: seen },
};

describe("recipes", { concurrency: false }, () => {
  let gateway;
  let git;
  let folder;

  before(async () => {
    // The git repository is on this machine, where targets are refused by default.
    gateway = await demo(GATE, { EXITGATE__GATEWAY__ALLOW_PRIVATE_TARGETS: "true" });
    git = await repository("127.93.0.2", 8000);
    // Here and not in /tmp, because node must find the packages beside this file.
    folder = await mkdtemp(path.join(import.meta.dirname, "run-"));
  });

  after(async () => {
    git?.close();
    if (folder) await rm(folder, { recursive: true, force: true });
    await stop(gateway);
  });

  const here = (code) => code
    .replaceAll("https://check.torproject.org/api/ip", gateway.page)
    .replaceAll("https://github.com/exitgate/exitgate", git.url)
    .replaceAll("127.0.0.1", GATE);

  for (const { name, kind, code } of recipes()) {
    it(`${name} (${kind})`, async () => {
      const { file, start, right, change = (same) => same } = KINDS[kind] ?? assert.fail(`no rule to run ${kind}`);
      const written = path.join(folder, file);
      await writeFile(written, here(change(code)));
      const [program, ...args] = start(written);
      const { NO_PROXY, no_proxy, HTTP_PROXY, http_proxy, HTTPS_PROXY, https_proxy, ALL_PROXY, all_proxy, ...env } = process.env;
      const output = await run(program, args, { cwd: folder, timeout: PATIENCE, env: { ...env, GOFLAGS: "-mod=mod", GOPROXY: "off" } })
        .catch((why) => assert.fail(`${why.message}\n${why.stdout}\n${why.stderr}`));
      right(output.stdout);
    });
  }

  it("leaves no client out", () => {
    for (const client of ["curl", "requests", "httpx", "aiohttp", "Scrapy", "Playwright", "Puppeteer", "Node", "Go", "Java", "git", "proxychains"]) {
      assert.match(text, new RegExp(`^## .*${client}`, "m"), client);
    }
  });
});
