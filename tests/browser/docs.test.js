// The page /docs in a real Chromium, on a gateway without Tor.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { faultless, inspect, launch, open, shoot } from "./browser.js";
import { locked, stop } from "./gateway.js";

describe("/docs", { concurrency: false }, () => {
  let browser;
  let gateway;
  let page;

  before(async () => {
    [browser, gateway] = await Promise.all([launch(), locked("127.91.0.3", "a-token-for-the-docs-test")]);
    page = await open(browser, gateway.url, { path: "/docs" });
    await page.getByRole("heading", { name: "types" }).waitFor();
  });

  after(async () => {
    await browser?.close();
    await stop(gateway);
  });

  it("shows code as code, and loads all that it names", async () => {
    for (const entry of await page.locator("details").all()) await entry.evaluate((element) => { element.open = true; });
    const text = await page.locator("main").innerText();
    assert.ok(!text.includes("`"), text.split("\n").find((line) => line.includes("`")));
    const icon = await page.locator("link[rel=icon]").getAttribute("href");
    assert.equal((await fetch(gateway.url + icon)).status, 200);
    await inspect(page, "docs");
    await shoot(page, "docs");
    faultless(page);
  });

  const find = async (text) => {
    await page.getByLabel("Find").fill(text);
    const visible = async (selector) => (await page.locator(selector).all()).reduce(
      async (all, one) => (await one.isVisible() ? [...await all, await one.innerText()] : all), Promise.resolve([]));
    return { entries: await visible("summary"), headings: await visible("h2") };
  };

  it("finds an endpoint by its method and URL, and hides headings without entries", async () => {
    const { entries, headings } = await find("POST /proxies");
    assert.match(entries[0], /^POST\s+\/proxies\s/);
    assert.ok(entries.every((entry) => entry.startsWith("POST")), entries.join("; "));
    assert.equal(headings.length, 1, headings.join("; "));
  });

  it("finds entries by several words, and says when there is nothing", async () => {
    assert.ok((await find("proxies rotate")).entries.some((entry) => entry.includes("/proxies/{route}/rotate")));
    const { entries, headings } = await find("no such words here");
    assert.deepEqual([entries, headings], [[], []]);
    assert.ok(await page.getByText("Nothing contains these words.").isVisible());
    assert.ok((await find("")).entries.length > 30);
  });
});
