// The console in a real Chromium, while real requests go through a private Tor network.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { DESKTOP, PHONE, faultless, inspect, launch, open, shoot } from "./browser.js";
import { ROOT, curl, demo, locked, stop } from "./gateway.js";

const ASSETS = path.join(ROOT, "src/console/assets");
const TOKEN = "a-token-for-the-browser-tests";
// The limit in bytes of what a browser loads first; a unit test on the files has the same limit. Files from the tree are
// not compressed.
const FIRST_PAINT = process.env.EXITGATE_ASSETS ? Infinity : 100_000;
const PAGES = ["routes", "exits", "why?username=us-strict", "engines", "sources", "public", "connections", "events"];

// The width at which WCAG 2.2 (1.4.10, reflow) requires that nothing needs sideways scrolling.
const NARROW = { width: 320, height: 700 };

const NAMES = (at) => at.split("?")[0];

describe("the console", { concurrency: false }, () => {
  let browser;
  let gateway;
  let shut;
  let page;

  before(async () => {
    [browser, gateway, shut] = await Promise.all([launch(), demo("127.91.0.1"), locked("127.91.0.2", TOKEN)]);
  });

  after(async () => {
    await browser?.close();
    await Promise.all([stop(gateway), stop(shut)]);
  });

  const total = () => page.locator("[data-figure=total]");
  const seen = (text) => page.getByText(text).first().waitFor({ timeout: 15_000 });

  it("opens without a login, with few bytes, and loads nothing from other hosts", async () => {
    page = await open(browser, gateway.url, { expected: /the server responded with a status of (404|422)/ });
    await page.getByRole("heading", { name: "Routes", level: 1 }).waitFor();
    await seen("No route yet");
    const loaded = await page.evaluate(() => performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"))
      .filter(({ name }) => /^\/(console\/.*)?$/.test(new URL(name).pathname)).reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0));
    assert.ok(loaded > 10_000 && loaded < FIRST_PAINT, `the first paint loads ${loaded} bytes`);
    assert.ok(await page.evaluate(() => window.shifted) < 0.05, "the layout shifts while the page loads");
    faultless(page);
    console.log(`first paint: ${loaded} bytes`);
  });

  it("belongs to a demo that names its configuration file", async () => {
    assert.match(await readFile(gateway.config, "utf8"), /^data_dir = /m);
  });

  it("has immutable files and a page that is revalidated", async () => {
    const first = await fetch(gateway.url);
    const again = await fetch(gateway.url, { headers: { "If-None-Match": first.headers.get("etag") } });
    assert.deepEqual([first.status, again.status, first.headers.get("cache-control")], [200, 304, "no-cache"]);
    const [script] = /\/console\/[0-9a-f]+\/app\.js/.exec(await first.text());
    const file = await fetch(gateway.url + script);
    assert.match(file.headers.get("cache-control"), /immutable/);
    for (const bad of ["/console/", script.replace("app.js", "../../etc/passwd"), script.replace(/[0-9a-f]{16}/, "0000000000000000")]) {
      assert.equal((await fetch(gateway.url + bad)).status, 404, bad);
    }
  });

  it("creates a route by clicking", async () => {
    await page.getByRole("button", { name: "New route" }).first().click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("One address").click();
    await dialog.getByText(/us-strict .*tested exits? would do now/).waitFor();
    await dialog.getByLabel("Name").fill("Shop!");
    await dialog.getByRole("button", { name: "Create route" }).click();
    await dialog.locator(".field.wrong").waitFor();
    await shoot(page, "create-fault");
    await dialog.getByText("Pool", { exact: true }).click();
    await dialog.getByLabel("Name").fill("shop");
    await inspect(page, "create");
    await shoot(page, "create");
    await dialog.getByRole("button", { name: "Create route" }).click();
    await page.getByRole("heading", { name: "shop", level: 1 }).waitFor();
    await seen("Exits in its pool");
    faultless(page);
  });

  it("shows examples to paste, and counts the requests through them", async () => {
    const line = await page.locator("pre code").textContent();
    const [, proxy] = /^curl -x (\S+) /.exec(line);
    await page.getByRole("button", { name: "Copy the curl example" }).click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);
    for (const [tab, word] of [["Python", "requests"], ["Playwright", "chromium"], ["Scrapy", "meta="]]) {
      await page.getByRole("tab", { name: tab }).click();
      assert.match(await page.locator("pre code").textContent(), new RegExp(word));
    }
    for (let sent = 0; sent < 40; sent += 1) {
      assert.match(await curl(proxy, gateway.page) ?? "", /^127\.\d+\.\d+\.\d+$/);
    }
    await page.waitForFunction(() => Number(document.querySelector("[data-figure=total]")?.textContent) >= 40, null, { timeout: 20_000 });
    assert.equal(await total().textContent(), "40");
    await Promise.all(Array.from({ length: 30 }, () => curl(`http://de@${gateway.ip}:1080`, gateway.page)));
    await page.waitForTimeout(4500);
    await shoot(page, "route-light");
    await inspect(page, "route");
    faultless(page);
  });

  it("changes a route, and reports one of its exits", async () => {
    await page.getByRole("button", { name: "Change" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Exits in the pool").fill("many");
    await dialog.getByRole("button", { name: "Change route" }).click();
    await dialog.locator(".field.wrong").waitFor();
    await dialog.getByLabel("Exits in the pool").fill("2");
    await inspect(page, "change");
    await shoot(page, "change");
    await dialog.getByRole("button", { name: "Change route" }).click();
    await page.locator(".facts .badge", { hasText: "2/2" }).waitFor();
    await page.getByRole("button", { name: /^A site refuses / }).first().click();
    await dialog.getByLabel("Site").fill("shop.example");
    await dialog.getByRole("button", { name: "Report" }).click();
    await seen("is not used for shop.example for a while");
    faultless(page);
  });

  it("searches with the keyboard alone", async () => {
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox").fill("german");
    await page.getByRole("option", { name: /Germany/ }).waitFor();
    await inspect(page, "search");
    await shoot(page, "search");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Exits", level: 1 }).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1", "the focus begins at the new page's heading");
    await page.getByRole("button", { name: /^Germany/, pressed: true }).waitFor();
  });

  it("closes the search with one press of Escape", async () => {
    await page.keyboard.press("Control+k");
    await page.getByRole("dialog").getByRole("combobox").fill("us");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached", timeout: 3000 });
  });

  it("finds one of nine thousand exits, and draws a hundred at a time", async () => {
    // The private network has eight: these answers are written as the API writes them.
    const all = Array.from({ length: 9000 }, (_, at) => ({ id: at.toString(16).toUpperCase().padStart(40, "0"), source: "tor", ip: `192.0.${at >> 8}.${at & 255}`, announced: [], country: "nl", nickname: `relay${at}`, usable: true, verdict: "good", latency_ms: at % 900, streams: 0, checked: new Date().toISOString(), passed: [], bans: [] }));
    await page.route(/\/exits\?/, (route) => {
      const asked = new URL(route.request().url()).searchParams;
      const begin = all.findIndex(({ id }) => id > (asked.get("after") ?? ""));
      const exits = all.slice(begin, begin + Number(asked.get("limit")));
      return route.fulfill({ json: { total: all.length, exits, next: exits.at(-1) === all.at(-1) ? null : exits.at(-1).id } });
    });
    await page.goto(`${gateway.url}/#/sources`);
    await page.goto(`${gateway.url}/#/exits`);
    const rows = page.locator("tbody tr");
    await seen("9,000 exits");
    await page.getByRole("button", { name: "Show more (100 of 9,000)" }).click();
    await page.getByRole("button", { name: "Show more (200 of 9,000)" }).waitFor();
    const began = Date.now();
    await page.getByLabel(/^Filter by address/).fill("relay8765");
    await page.getByRole("link", { name: "192.0.34.61" }).waitFor();
    console.log(`one of 9,000 exits found after ${Date.now() - began} ms`);
    assert.equal(await rows.count(), 1);
    await page.getByLabel(/^Filter by address/).fill("relay8");
    await page.getByRole("button", { name: /^Show more \(100 of 1,111\)/ }).waitFor();
    assert.equal(await rows.count(), 100);
    await shoot(page, "exits-9000");
    await page.getByLabel(/^Filter by address/).fill("");
    await page.unrouteAll();
    faultless(page);
  });

  it("shows an exit with the history of its checks", async () => {
    await page.goto(`${gateway.url}/#/exits?country=de`);
    await page.getByRole("button", { name: /^Germany/, pressed: true }).waitFor();
    await page.locator("tbody tr").nth(1).waitFor({ state: "detached" });
    await page.locator("tbody a.name").first().click();
    await page.getByRole("button", { name: "Check now" }).click();
    await seen("It passed.");
    await page.locator("svg .check.good").nth(1).waitFor({ state: "attached", timeout: 20_000 });
    await inspect(page, "exit");
    await shoot(page, "exit-light");
    faultless(page);
  });

  it("rotates a route, and says so on that page only", async () => {
    await page.goto(`${gateway.url}/#/routes/shop`);
    await page.getByRole("button", { name: "Rotate" }).click();
    await page.locator(".toasts p").first().waitFor({ timeout: 60_000 });
    assert.doesNotMatch(await page.locator(".toasts p").first().getAttribute("class"), /bad/);
    assert.match(await page.locator(".toasts p").first().textContent(), /^shop: 127\.\S+ → 127\.\S+$/);
    await page.goto(`${gateway.url}/#/engines`);
    await page.locator(".toasts p").waitFor({ state: "detached", timeout: 3000 });
  });

  it("names the route that cannot rotate", async () => {
    await page.route(/\/proxies\/shop\/rotate$/, (route) => route.fulfill({ status: 409, json: { error: { code: "no_other_exit", message: "there is no other exit", details: {} } } }));
    await page.goto(`${gateway.url}/#/routes/shop`);
    await page.getByRole("button", { name: "Rotate" }).click();
    await page.locator(".toasts p.bad", { hasText: /^shop: there is no other exit$/ }).waitFor();
    await page.unrouteAll();
    page.faults = page.faults.filter((fault) => !/status of 409/.test(fault));
    faultless(page);
  });

  it("creates a route from the keyboard alone, and never loses the focus", async () => {
    const focus = () => page.evaluate(() => document.activeElement.tagName);
    await page.goto(`${gateway.url}/#/routes`);
    await page.getByRole("button", { name: "New route" }).first().focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.closest("label")?.textContent), "United Statesonly US exits", "the dialog opens at its first field");
    await page.getByRole("dialog").getByLabel("Name").focus();
    await page.keyboard.type("typed");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "typed", level: 1 }).waitFor();
    await seen("Exits in its pool");
    assert.equal(await focus(), "H1");
    await page.getByRole("button", { name: "Delete" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("dialog").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel", "a question begins at the harmless answer");
    await page.getByRole("dialog").getByRole("button", { name: "Delete route" }).click();
    await page.getByRole("heading", { name: "Routes", level: 1 }).waitFor();
    await page.getByRole("link", { name: "typed", exact: true }).waitFor({ state: "detached" });
    faultless(page);
  });

  it("draws no box where a filter excludes no exit", async () => {
    await page.goto(`${gateway.url}/#/why?username=us`);
    await page.locator(".funnel li").nth(2).waitFor();
    const drawn = await page.locator(".funnel li > span:last-child").evaluateAll((list) => list.map((one) => getComputedStyle(one).backgroundColor));
    assert.deepEqual([...new Set(drawn)], ["rgba(0, 0, 0, 0)"]);
  });

  it("tells how to use a public exit only where that works", async () => {
    // The private network has none: these answers are written as the API writes them.
    const id = "socks5://192.0.2.7:1080";
    const exit = { id, source: "public", ip: null, announced: ["192.0.2.7"], country: null, asn: null, as_name: null, usable: false, verdict: "bad", checked: new Date(Date.now() - 47_000).toISOString(), good: null, latency_ms: null, passed: [], streams: 0, bans: [] };
    const shown = async (json) => {
      await page.unrouteAll();
      await page.route(/\/exits\/socks5[^/]*\/checks/, (route) => route.fulfill({ json: { checks: [], next: null } }));
      await page.route(/\/exits\/socks5[^/]*$/, (route) => route.fulfill({ json }));
      await page.goto(`${gateway.url}/#/engines`);
      await page.goto(`${gateway.url}/#/exits/${encodeURIComponent(id)}`);
    };
    await shown(exit);
    await seen("No username selects only this exit until a site has seen its address.");
    await seen("No stored results");
    await seen(/It was checked 4\d s ago, but the history has no results of it/);
    assert.equal(await page.getByText("any-exit-").count(), 0);
    await shown({ ...exit, ip: "192.0.2.7", checked: null });
    await seen("any-source-public-exit-192.0.2.7");
    await seen("Not checked yet");
    await page.unrouteAll();
    faultless(page);
  });

  it("is accessible: every page, light and dark, large and small", async () => {
    const minor = new Set();
    for (const [theme, viewport, size] of [["light", DESKTOP, "desktop"], ["dark", DESKTOP, "desktop"], ["light", PHONE, "390"], ["dark", PHONE, "390"], ["light", NARROW, "320"]]) {
      await page.emulateMedia({ colorScheme: theme });
      await page.setViewportSize(viewport);
      for (const at of [...PAGES, "routes/shop", "nowhere"]) {
        await page.goto(`${gateway.url}/#/${at}`);
        await page.locator("h1").waitFor();
        await page.waitForTimeout(400);
        await page.locator(".waiting").waitFor({ state: "detached" });
        const name = `${NAMES(at).replace("/", "-")}-${size}-${theme}`;
        (await inspect(page, name)).forEach((finding) => minor.add(finding));
        await shoot(page, name);
      }
    }
    await page.setViewportSize(PHONE);
    await page.emulateMedia({ colorScheme: "dark" });
    await page.getByRole("button", { name: "Menu" }).click();
    await inspect(page, "menu");
    await page.screenshot({ path: path.join(ROOT, "target/ci/browser/menu-390-dark.png") });
    await page.keyboard.press("Escape");
    await page.locator("#menu.open").waitFor({ state: "detached", timeout: 3000 });
    assert.equal(await page.evaluate(() => document.activeElement.ariaLabel), "Menu", "the focus returns to the button");
    await page.setViewportSize(DESKTOP);
    await page.emulateMedia({ colorScheme: "light" });
    console.log(`axe-core, below serious: ${[...minor].join(", ") || "nothing"}`);
    faultless(page);
  });

  it("switches colours by hand", async () => {
    await page.goto(`${gateway.url}/#/engines`);
    await page.getByRole("button", { name: "Use dark colours" }).click();
    await page.getByRole("button", { name: "Use light colours" }).click();
    await page.locator('html[data-theme="light"]').waitFor();
  });

  it("deletes a route, and shows the event at once", async () => {
    await page.goto(`${gateway.url}/#/routes/shop`);
    const line = await page.locator("pre code").textContent();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete route" }).click();
    await page.getByRole("heading", { name: "Routes", level: 1 }).waitFor();
    await page.getByRole("link", { name: "shop", exact: true }).waitFor({ state: "detached" });
    assert.equal(await curl(/-x (\S+) /.exec(line)[1], gateway.page), null, "the port is closed");
    await page.getByRole("link", { name: "Events" }).click();
    for (const word of ["route opened", "route closed"]) await page.locator(".events", { hasText: word }).waitFor();
    await shoot(page, "events-after");
    faultless(page);
  });

  it("shows hostile names as text", async () => {
    await page.goto(`${gateway.url}/#/routes/${encodeURIComponent("<img src=x onerror=alert(1)>")}`);
    await seen("There is no such route");
    assert.equal(await page.locator("main img").count(), 0);
    assert.equal(await page.locator("h1").textContent(), "<img src=x onerror=alert(1)>");
    faultless(page);
  });

  it("lists public proxies", async () => {
    // The private network has none: these answers are written as the API writes them.
    const proxy = (port, anonymity) => ({ url: `socks5://192.0.2.7:${port}`, protocol: "socks5", ip: "192.0.2.7", port, exit_ip: "192.0.2.7", country: "NL", anonymity, https: true, connect: true, response_ms: 240 + port, reliability: 0.95, checked: new Date().toISOString(), age_seconds: 3, list: "proxifly" });
    const list = [proxy(1080, "elite"), proxy(1081, "transparent"), { ...proxy(1082, "unknown"), reliability: null, country: null }];
    const asked = [];
    await page.route(/\/stats$/, (route) => route.fulfill({ json: { total_proxies: 9, working_proxies: 3, failed_proxies: 6, enabled: true, last_meta_update: new Date().toISOString(), lists: [] } }));
    await page.route(/\/list\?/, (route) => {
      asked.push(new URL(route.request().url()).search);
      return route.fulfill({ json: list });
    });
    await page.goto(`${gateway.url}/#/public`);
    await seen("3 working proxies, fastest first");
    await page.getByRole("link", { name: "socks5://192.0.2.7:1081" }).waitFor();
    const narrowed = page.waitForRequest(/\/list\?.*anonymity=elite/);
    await page.getByLabel("anonymity").selectOption("elite");
    await seen("anonymity=elite");
    await narrowed;
    assert.ok(asked.some((query) => query.includes("format=json")), asked.join(" "));
    await inspect(page, "public with proxies");
    await shoot(page, "public-list");
    await page.unrouteAll();
    faultless(page);
  });

  it("asks for the token, keeps it in memory only, and forgets it", async () => {
    const guest = await open(browser, shut.url, { expected: /the server responded with a status of (401|404|503)/ });
    await guest.getByRole("heading", { name: /asks for its API token/ }).waitFor();
    await inspect(guest, "login");
    await shoot(guest, "login");
    await guest.getByLabel("API token").fill("wrong");
    await guest.getByRole("button", { name: "Open the console" }).click();
    await guest.getByText("This is not the token").waitFor();
    await guest.getByLabel("API token").fill(TOKEN);
    await guest.keyboard.press("Enter");
    await guest.getByRole("heading", { name: "Routes", level: 1 }).waitFor();
    await guest.getByRole("link", { name: "Engines" }).click();
    await guest.getByText("Tor is switched off").waitFor();
    await guest.getByRole("link", { name: "Exits", exact: true }).click();
    await guest.getByText("No exit").first().waitFor();
    await shoot(guest, "empty-exits");
    await guest.getByRole("link", { name: "Public list" }).click();
    await guest.getByText("Set sources.proxifly.enabled = true in the configuration and restart.").waitFor();
    const stored = await guest.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, location.href]));
    assert.ok(!stored.includes(TOKEN), stored);
    await guest.getByRole("button", { name: "Forget the token" }).click();
    await guest.getByLabel("API token").waitFor();
    await guest.reload();
    await guest.getByLabel("API token").waitFor();
    faultless(guest);
    await guest.context().close();
  });

  it("says so when the gateway is gone", async () => {
    const guest = await open(browser, shut.url, { expected: /ERR_|status of (401|404|503)/ });
    await guest.getByLabel("API token").fill(TOKEN);
    await guest.keyboard.press("Enter");
    await guest.getByRole("heading", { name: "Routes", level: 1 }).waitFor();
    await guest.setViewportSize(PHONE); // where the menu is closed: it shows the same message
    await stop(shut);
    await guest.getByRole("alert").getByText("The gateway does not answer").waitFor({ timeout: 20_000 });
    await inspect(guest, "lost");
    await shoot(guest, "lost-390");
    await guest.setViewportSize(DESKTOP);
    await guest.getByText("Connection lost, trying again").waitFor({ timeout: 20_000 });
    await guest.getByText("The gateway cannot be reached").first().waitFor({ timeout: 20_000 });
    await shoot(guest, "lost");
    await guest.context().close();
  });

  it("has the libraries of the named versions", async () => {
    const plain = (text) => text.replace(/^\/\/# sourceMappingURL=.*$/m, "");
    for (const [ours, theirs] of [["preact.js", "preact/dist/preact.mjs"], ["hooks.js", "preact/hooks/dist/hooks.mjs"], ["htm.js", "htm/dist/htm.mjs"]]) {
      const [mine, source] = await Promise.all([readFile(path.join(ASSETS, "vendor", ours), "utf8"), readFile(path.join(import.meta.dirname, "node_modules", theirs), "utf8")]);
      assert.equal(mine.trim(), plain(source).replace('from"preact"', 'from"./preact.js"').trim(), ours);
    }
  });
});
