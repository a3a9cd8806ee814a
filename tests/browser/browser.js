// Starts Chromium, records every error of a page, and checks pages for accessibility and width.
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { ROOT } from "./gateway.js";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
export const SHOTS = path.join(ROOT, "target/ci/browser");
export const DESKTOP = { width: 1360, height: 900 };
export const PHONE = { width: 390, height: 844 };

export async function launch() {
  await mkdir(SHOTS, { recursive: true });
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  return chromium.launch({ executablePath, args: process.getuid() === 0 ? ["--no-sandbox"] : [] });
}

// Opens a page that records its faults: console errors, exceptions, policy violations, requests to other origins.
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, colorScheme: "light", ...options });
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await context.newPage();
  page.faults = [];
  page.expected = options.expected ?? /$^/;
  page.on("pageerror", (error) => page.faults.push(`exception: ${error.message}`));
  page.on("console", (message) => {
    if (message.type() === "error" && !page.expected.test(message.text())) page.faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(url)) page.faults.push(`request to ${request.url()}`);
  });
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
    });
    window.shifted = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifted += entry.value;
    }).observe({ type: "layout-shift", buffered: true });
  });
  // A route of the context stays when a test removes the routes of its page.
  if (process.env.EXITGATE_ASSETS) await context.route(/\/console\/[0-9a-f]{16}\//, fromFolder);
  await page.goto(url + (options.path ?? "/"));
  return page;
}

// Serves the files of the tree instead of those in the binary.
async function fromFolder(route) {
  const name = new URL(route.request().url()).pathname.split("/").slice(3).join("/");
  await route.fulfill({ path: path.join(ROOT, "src/console/assets", name) });
}

export async function shoot(page, name) {
  await page.screenshot({ path: path.join(SHOTS, `${name}.png`), fullPage: true });
}

// Fails on a serious or critical finding of axe-core, and on a page wider than the screen. Returns the other findings.
export async function inspect(page, name) {
  // It runs in an isolated world, because the policy of the page forbids other scripts.
  const session = await page.context().newCDPSession(page);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId: contextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
  const { readFile } = await import("node:fs/promises");
  const run = async (expression) => {
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, contextId, awaitPromise: true, returnByValue: true });
    assert.equal(exceptionDetails, undefined, `${name}: ${exceptionDetails?.exception?.description}`);
    return result.value;
  };
  await run(await readFile(AXE, "utf8") + ";0");
  const found = await run(`axe.run(document, { resultTypes: ["violations"] }).then(({ violations }) => violations.map((one) => ({
    id: one.id, impact: one.impact, nodes: one.nodes.slice(0, 3).map((node) => node.target.join(" ") + ": " + node.failureSummary) })))`);
  await session.detach();
  const serious = found.filter(({ impact }) => impact === "serious" || impact === "critical");
  assert.deepEqual(serious, [], `${name}: findings of axe-core`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name}: the page is ${wide} px wider than the screen`);
  return found.map(({ id, impact }) => `${id} (${impact})`);
}

export function faultless(page) {
  assert.deepEqual(page.faults, []);
}

// The narrowest screen for which the pages are made.
const NARROW = { width: 320, height: 700 };
const LOOKS = [["light", DESKTOP, "desktop"], ["dark", DESKTOP, "desktop"], ["light", NARROW, "320"], ["dark", NARROW, "320"]];

// Inspects a page in light and dark colours, on a wide and on a narrow screen. `ready` waits until the page is complete.
export async function inEveryLook(page, name, ready) {
  for (const [theme, viewport, size] of LOOKS) {
    await page.emulateMedia({ colorScheme: theme });
    await page.setViewportSize(viewport);
    await ready();
    await inspect(page, `${name}-${size}-${theme}`);
    await shoot(page, `${name}-${size}-${theme}`);
  }
  await page.setViewportSize(DESKTOP);
  await page.emulateMedia({ colorScheme: "light" });
}
