// Makes the screenshots of docs/console.md: target/ci/browser/site/NAME.png. Each is made only after the page shows what its text says.
import assert from "node:assert/strict";
import { mkdir, readFile, rm, stat } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { DESKTOP, PHONE, faultless, launch, open } from "./browser.js";
import { ROOT, curl, demo, stop } from "./gateway.js";

const FOLDER = path.join(ROOT, "target/ci/browser/site");
const WIDE = { ...DESKTOP, height: 720 };

// The name of each screenshot, its page, and a text that the page must show first.
const PAGES = [
  ["routes", "/#/routes", "news-de", WIDE, "light"],
  ["exits", "/#/exits", "Germany", WIDE, "light"],
  ["why", "/#/why?username=us-strict", /in us/, WIDE, "light"],
  ["engines", "/#/engines", /ready/, WIDE, "light"],
  ["phone", "/#/routes", "news-de", PHONE, "dark"],
];

describe("the screenshots of the documents", { concurrency: false }, () => {
  let browser;
  let gateway;

  before(async () => {
    await rm(FOLDER, { recursive: true, force: true });
    await mkdir(FOLDER, { recursive: true });
    [browser, gateway] = await Promise.all([launch(), demo("127.91.0.9")]);
    for (const [name, selector] of [["shop", "us-strict"], ["news-de", "de-rotate"]]) {
      const body = JSON.stringify({ name, selector });
      const made = await fetch(`${gateway.url}/proxies`, { method: "POST", body, headers: { "Content-Type": "application/json" } });
      assert.equal(made.status, 201, await made.text());
      for (let sent = 0; sent < 10; sent += 1) {
        assert.match(await curl(`http://${name}@${gateway.ip}:1080`, gateway.page) ?? "", /^127\./);
      }
    }
  });

  after(async () => {
    await browser?.close();
    await stop(gateway);
  });

  for (const [name, at, shown, viewport, colorScheme] of PAGES) {
    it(name, async () => {
      const page = await open(browser, gateway.url, { path: at, viewport, colorScheme });
      await page.getByText(shown).filter({ visible: true }).first().waitFor({ timeout: 20_000 });
      // Rates need two readings of the figures, two seconds apart.
      await page.waitForTimeout(4500);
      const file = path.join(FOLDER, `${name}.png`);
      await page.screenshot({ path: file });
      faultless(page);
      assert.ok((await stat(file)).size > 10_000, `${name}: the picture is nearly empty`);
      await page.context().close();
    });
  }

  it("are the ones that docs/console.md names", async () => {
    const text = await readFile(path.join(ROOT, "docs/console.md"), "utf8");
    const named = [...text.matchAll(/<!-- screenshot: ([a-z-]+):/g)].map((match) => match[1]);
    assert.deepEqual(named, PAGES.map(([name]) => name));
  });
});
