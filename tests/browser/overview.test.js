// The parts of the console that show a whole day or the whole world, in a real Chromium: the page of the first start,
// the history, kept events, commands, links to a Why result, and the map.
import assert from "node:assert/strict";
import { after, afterEach, before, describe, it } from "node:test";
import { DESKTOP, faultless, inEveryLook, inspect, launch, open, shoot } from "./browser.js";
import { curl, demo, locked, stop } from "./gateway.js";

const TOKEN = "a-token-for-the-overview-tests";

describe("the overview", { concurrency: false }, () => {
  let browser;
  let gateway;
  let shut;
  let page;

  before(async () => {
    [browser, gateway, shut] = await Promise.all([launch(), demo("127.91.0.4"), locked("127.91.0.5", TOKEN)]);
    page = await open(browser, gateway.url, { expected: /the server responded with a status of (404|503)/ });
  });

  after(async () => {
    await browser?.close();
    await Promise.all([stop(gateway), stop(shut)]);
  });

  afterEach(async () => {
    await page.unrouteAll();
    await page.setViewportSize(DESKTOP);
  });

  const seen = (text) => page.getByText(text).first().waitFor({ timeout: 20_000 });

  const everyLook = (name, ready) => inEveryLook(page, name, ready);

  it("shows what a starting gateway waits for, and becomes the overview by itself", async () => {
    // The private network is ready within seconds: these answers are written as the API writes them, until the test
    // lets the gateway's own answers through.
    const engine = { id: 0, attached: false, state: "bootstrapping", usable: false, why: "loading relay descriptors", bootstrap_percent: 62, pid: 7, version: "0.4.9.11", version_status: "recommended", version_advice: null, guard: null, guard_answers: false, circuits: 0, building: 0, spares: 0, streams: 0, restarts: 0 };
    const reason = "no engine is up: bootstrapping 62%";
    await page.route(/\/ready$/, (route) => route.fulfill({ status: 503, json: { ready: false, sources: { tor: { ready: false, usable: 0, reason } } } }));
    await page.route(/\/engines$/, (route) => route.fulfill({ json: { enabled: true, only_tor: false, engines: [engine] } }));
    await page.route(/\/countries$/, (route) => route.fulfill({ json: { countries: [] } }));
    await page.route(/\/history(\?|$)/, (route) => route.fulfill({ json: { from: null, step_seconds: 60, requests: [], failed: {}, usable_exits: [], open_p50_ms: [], open_p95_ms: [] } }));
    await page.reload();
    await page.getByRole("heading", { name: "Not ready yet" }).waitFor();
    await seen(/^62%: loading relay descriptors/);
    await page.locator(".steps li.now", { hasText: "Connect to the Tor network" }).waitFor();
    assert.equal(await page.locator(".steps li.later").count(), 3);
    assert.equal(await page.locator(".tile").count(), 0);
    await page.getByRole("button", { name: "New route" }).first().waitFor();
    await everyLook("first-run", () => page.locator(".steps").waitFor());
    Object.assign(engine, { state: "ready", usable: true, bootstrap_percent: null, why: null });
    await page.locator(".steps li.trouble", { hasText: "check this machine's network and firewall" }).waitFor();
    await shoot(page, "first-run-guard");
    await page.unrouteAll();
    await page.locator(".tile", { hasText: "Usable exits" }).waitFor({ timeout: 20_000 });
    assert.equal(await page.locator(".steps").count(), 0);
    faultless(page);
  });

  it("says which source to switch on if none is", async () => {
    const guest = await open(browser, shut.url, { expected: /the server responded with a status of (401|404|503)/ });
    await guest.getByLabel("API token").fill(TOKEN);
    await guest.keyboard.press("Enter");
    await guest.locator(".steps li.trouble", { hasText: "No source of exits is switched on" }).waitFor();
    await inspect(guest, "first-run-nothing");
    await shoot(guest, "first-run-nothing");
    faultless(guest);
    await guest.context().close();
  });

  it("keeps the history over a reload, with whose fault failures were", async () => {
    for (let sent = 0; sent < 12; sent += 1) assert.notEqual(await curl(`http://us@${gateway.ip}:1080`, gateway.page), null);
    for (let sent = 0; sent < 3; sent += 1) assert.equal(await curl(`http://jp@${gateway.ip}:1080`, gateway.page), null);
    await page.goto(`${gateway.url}/#/routes`);
    await page.reload();
    const failed = page.locator(".four figure", { hasText: "Failed, by whose fault" });
    // The gateway takes a reading every ten seconds, and the page asks as often.
    await failed.getByText(/^no exit 3$/).waitFor({ timeout: 30_000 });
    await page.reload();
    await failed.getByText(/^no exit 3$/).waitFor();
    await page.locator(".tile", { hasText: "Failed" }).getByText("20%").waitFor();
    await page.getByText("The same as a table").click();
    const rows = page.getByRole("region", { name: "The history as a table" }).locator("tbody tr");
    await rows.first().waitFor();
    const all = (await rows.evaluateAll((list) => list.map((row) => row.children[1].textContent))).reduce((sum, text) => sum + Number(text), 0);
    assert.equal(all, 15);
    assert.ok(await rows.filter({ hasText: /no exit \d/ }).count() > 0, "the table says whose fault failures were");
    await everyLook("history", () => failed.waitFor());
    for (const name of ["6 hours", "24 hours"]) {
      await page.getByLabel("How much of the history").selectOption(name);
      await page.locator(".four").getByText(`${name} ago`).first().waitFor();
      await failed.getByText(/^no exit 3$/).waitFor();
    }
    faultless(page);
  });

  it("draws a day of figures", async () => {
    // A gateway that is a minute old has no day: this answer is written as the API writes it.
    const wave = (base, by) => Array.from({ length: 1440 }, (_, at) => (at > 600 && at < 660 ? null : Math.round(base + by * Math.sin(at / 90) + (at % 7))));
    const failed = Object.fromEntries(["client", "no_exit", "gateway", "exit", "target", "unknown"].map((word, at) => [word, wave(at === 5 ? -7 : 6 - at, at === 5 ? 0 : 2).map((one) => one === null ? null : Math.max(0, one))]));
    await page.route(/\/history(\?|$)/, (route) => route.fulfill({ json: { from: new Date(Math.floor(Date.now() / 60_000 - 1439) * 60_000).toISOString(), step_seconds: 60, requests: wave(240, 90), failed, usable_exits: wave(900, 60), open_p50_ms: wave(380, 60), open_p95_ms: wave(1400, 300) } }));
    await page.goto(`${gateway.url}/#/engines`);
    await page.goto(`${gateway.url}/#/routes`);
    await page.getByLabel("How much of the history").selectOption("24 hours");
    await page.locator(".four figure", { hasText: "Failed, by whose fault" }).getByText(/^target /).waitFor();
    await everyLook("history-day", () => page.locator(".four").waitFor());
    await page.unrouteAll();
    faultless(page);
  });

  it("keeps events over a reload, and filters them by kind and text", async () => {
    await page.goto(`${gateway.url}/#/events`);
    await page.reload();
    await page.locator(".events", { hasText: "engine 0 is ready" }).waitFor();
    await page.getByLabel("Which events").selectOption("engine");
    await page.getByLabel(/^Filter by text/).fill("engine 1");
    await page.locator(".events li").nth(1).waitFor({ state: "detached" });
    assert.match(await page.locator(".events li").textContent(), /engine 1 is ready/);
    await page.waitForURL(/#\/events\?kind=engine&text=engine\+1$/);
    await page.reload();
    await page.locator(".events", { hasText: "engine 1 is ready" }).waitFor();
    assert.equal(await page.getByLabel("Which events").inputValue(), "engine");
    assert.equal(await page.locator(".events li").count(), 1);
    await everyLook("events-filtered", () => page.locator(".events li").waitFor());
    await page.getByLabel(/^Filter by text/).fill("no such event");
    await seen("No event found");
    faultless(page);
  });

  it("runs commands from the keyboard alone", async () => {
    const run = async (typed, option) => {
      await page.keyboard.press("Control+k");
      await page.getByRole("dialog").getByRole("combobox").waitFor();
      await page.keyboard.type(typed);
      await page.getByRole("option", { name: option, selected: true }).waitFor();
      await page.keyboard.press("Enter");
    };
    await page.goto(`${gateway.url}/#/routes`);
    await run("new route", /^New route/);
    await page.getByRole("dialog", { name: "New route" }).waitFor();
    // Anywhere, and one address: the exits of a pool may be all there are, and then there is none to rotate to.
    for (const key of ["ArrowLeft", "Tab", "ArrowRight"]) await page.keyboard.press(key);
    await page.getByRole("dialog").getByText(/^any-strict/).waitFor();
    await page.getByRole("dialog").getByLabel("Name").focus();
    await page.keyboard.type("keys");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "keys", level: 1 }).waitFor();
    await run("copy keys", /^Copy the curl line of keys/);
    await page.locator(".toasts p", { hasText: /^Copied: curl -x / }).waitFor();
    const [, proxy] = /^curl -x (socks5h:\S+) /.exec(await page.evaluate(() => navigator.clipboard.readText()));
    assert.notEqual(await curl(proxy, gateway.page), null);
    await run("rotate keys", /^Rotate keys/);
    await page.locator(".toasts p", { hasText: /^keys: 127\.\S+ → 127\.\S+$/ }).waitFor({ timeout: 60_000 });
    await run("check de1", /^Check 127\./);
    await page.locator(".toasts p", { hasText: /passed its check/ }).waitFor({ timeout: 60_000 });
    await run("explain de-strict", /^Why de-strict/);
    await page.getByRole("heading", { name: "Why", level: 1 }).waitFor();
    assert.equal(await page.getByLabel("Username").inputValue(), "de-strict");
    await run("go sources", /^Sources/);
    await page.getByRole("heading", { name: "Sources", level: 1 }).waitFor();
    await run("theme", /^Switch light and dark/);
    await page.locator('html[data-theme="dark"]').waitFor();
    await run("theme", /^Switch light and dark/);
    await page.locator('html[data-theme="light"]').waitFor();
    await page.evaluate(() => localStorage.clear());
    await page.reload();
    await page.getByRole("heading", { name: "Sources", level: 1 }).waitFor();
    await page.keyboard.press("Control+k");
    await page.getByRole("dialog").getByRole("combobox").waitFor();
    await page.keyboard.type("keys");
    await page.getByRole("option", { name: /^Rotate keys/ }).waitFor();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowUp");
    await page.getByRole("option", { name: /^Copy the curl line/, selected: true }).waitFor();
    await everyLook("commands", () => page.getByRole("listbox").waitFor());
    await page.keyboard.press("Escape");
    faultless(page);
  });

  it("gives a Why result a link that shows it again", async () => {
    await page.goto(`${gateway.url}/#/why`);
    await page.getByLabel("Username").fill("de+fr-strict");
    await page.getByLabel("Target's port").fill("80");
    await page.getByLabel("Target's host").fill("shop.example");
    await page.locator(".funnel li", { hasText: "allow 80" }).waitFor();
    const shown = await page.locator(".funnel").textContent();
    await page.getByRole("button", { name: "Copy the link to this result" }).click();
    const link = await page.evaluate(() => navigator.clipboard.readText());
    assert.equal(link, `${gateway.url}/#/why?username=de%2Bfr-strict&port=80&host=shop.example`);
    assert.equal(page.url(), link);
    const guest = await open(browser, gateway.url, { path: link.slice(gateway.url.length), expected: /status of 503/ });
    await guest.locator(".funnel li", { hasText: "allow 80" }).waitFor();
    assert.deepEqual([await guest.getByLabel("Username").inputValue(), await guest.getByLabel("Target's host").inputValue()], ["de+fr-strict", "shop.example"]);
    assert.equal(await guest.locator(".funnel").textContent(), shown);
    await guest.evaluate(() => { location.hash = "#/why?username=us"; });
    await guest.locator(".funnel li", { hasText: "in us" }).waitFor();
    assert.equal(await guest.getByLabel("Target's port").inputValue(), "443");
    faultless(guest);
    await guest.context().close();
  });

  it("has a world map that is loaded with the exits alone, and filters them", async () => {
    await page.goto(`${gateway.url}/#/routes`);
    await page.reload();
    await page.locator(".four").waitFor();
    const maps = () => page.evaluate(() => performance.getEntriesByType("resource").filter(({ name }) => /\/map\.js$/.test(name)).length);
    assert.equal(await maps(), 0, "the overview does not load the map");
    await page.goto(`${gateway.url}/#/exits`);
    await page.locator(".map circle").first().waitFor();
    assert.equal(await maps(), 2);
    assert.equal(await page.locator(".map circle").count(), 6, "one circle for each country with a usable exit");
    await page.getByRole("img", { name: /^Usable exits on the world map: 6 countries, most in United States 3,.*The list of countries has each number\.$/ }).waitFor();
    await everyLook("map", () => page.locator(".map circle").first().waitFor());
    await page.locator(".map circle").first().click();
    await page.getByRole("button", { name: /^United States/, pressed: true }).waitFor();
    await page.locator("tbody tr").nth(3).waitFor({ state: "detached" });
    assert.equal(await page.locator("tbody tr").count(), 3);
    // The way without a mouse: the list of countries changes the map.
    await page.getByRole("button", { name: /^Germany/ }).focus();
    await page.keyboard.press("Enter");
    await page.locator(".map circle.chosen title", { hasText: "Germany: 1 usable exit" }).waitFor({ state: "attached" });
    await page.locator("tbody tr").nth(1).waitFor({ state: "detached" });
    await shoot(page, "map-chosen");
    assert.ok(await page.evaluate(() => window.shifted) < 0.1, "the map keeps its place while it loads");
    faultless(page);
  });
});
