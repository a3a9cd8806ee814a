// Real Playwright and Puppeteer with the Chromium of this machine.
import assert from "node:assert/strict";
import http from "node:http";
import { after, describe, it } from "node:test";
import { BadRequest, BadSelector, Gateway, NoExit } from "exitgate";
import * as forPlaywright from "exitgate/playwright";
import * as forPuppeteer from "exitgate/puppeteer";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";
import { ADDRESS, KEYED_KEY, KEYED_PROXY, PAGE, SECURE_PAGE, rejects, site } from "./site.js";

const executablePath = process.env.CHROMIUM;
const skip = !executablePath && "Chromium is not installed";
const NO_SANDBOX = process.getuid() === 0 ? ["--no-sandbox"] : [];
const gateway = new Gateway();
after(() => gateway.close());

describe("Playwright", { skip }, () => {
  it("launches a browser behind an exit, and contexts behind exits of their own", async () => {
    const browser = await chromium.launch({ executablePath, args: NO_SANDBOX, ...(await forPlaywright.launchOptions(gateway, { selector: "de" })) });
    try {
      const read = async (page, url) => {
        await page.goto(url);
        return (await page.textContent("body")).trim();
      };
      const page = await browser.newPage({ ignoreHTTPSErrors: true });
      const ip = await read(page, PAGE);
      assert.equal(await read(page, SECURE_PAGE), ip);
      const [de] = await gateway.exits({ country: "DE" });
      assert.equal(ip, de.ip);

      await gateway.rotate("us", { session: "anna" });
      const context = await browser.newContext({ ignoreHTTPSErrors: true, ...(await forPlaywright.contextOptions(gateway, { selector: "us", session: "anna" })) });
      const anna = await context.newPage();
      assert.equal(await read(anna, SECURE_PAGE), (await gateway.exit("us", { session: "anna" })).ip);
      assert.deepEqual(await anna.evaluate(() => [navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone]), ["en-US", "America/New_York"]);
      const bridge = await gateway.bridge("us", { session: "anna" });
      assert.equal(bridge.exit(SECURE_PAGE).country, "US");

      const nowhere = await browser.newContext(await forPlaywright.contextOptions(gateway, { selector: "jp" }));
      await assert.rejects((await nowhere.newPage()).goto(SECURE_PAGE), /ERR_TUNNEL_CONNECTION_FAILED/);
      await rejects(Promise.reject((await gateway.bridge("jp")).failure(SECURE_PAGE)), NoExit, { status: 503 });
    } finally {
      await browser.close();
    }
  });

  it("works with a gateway that has keys, and refuses a wrong selector before the launch", async () => {
    const shop = await site("127.97.0.52");
    const keyed = new Gateway({ proxy: KEYED_PROXY, key: KEYED_KEY });
    const browser = await chromium.launch({ executablePath, args: NO_SANDBOX, ...(await forPlaywright.launchOptions(keyed, { selector: "any-source-direct" })) });
    const page = await browser.newPage();
    assert.equal((await page.goto(shop.url)).status(), 200);
    await browser.close();
    await keyed.close();
    await rejects(forPlaywright.contextOptions(gateway, { selector: "us-strcit" }), BadRequest);
    await rejects(forPlaywright.launchOptions(gateway, { session: "a:b" }), BadSelector);
    await shop.close();
  });
});

describe("Puppeteer", { skip }, () => {
  it("launches a browser behind an exit, and contexts behind exits of their own", async () => {
    const browser = await puppeteer.launch({ executablePath, acceptInsecureCerts: true, ...(await forPuppeteer.launchOptions(gateway, { selector: "fr", args: NO_SANDBOX })) });
    try {
      const read = async (page, url) => {
        await page.goto(url);
        return page.evaluate(() => document.body.innerText.trim());
      };
      const page = await browser.newPage();
      const [fr] = await gateway.exits({ country: "FR" });
      assert.equal(await read(page, PAGE), fr.ip);
      assert.equal(await read(page, SECURE_PAGE), fr.ip);
      const choice = { selector: "us", session: "bert@example.org" };
      await gateway.rotate("us", { session: choice.session });
      const context = await browser.createBrowserContext(await forPuppeteer.contextOptions(gateway, choice));
      const bert = await context.newPage();
      await forPuppeteer.matchExit(bert, gateway, choice);
      assert.equal(await read(bert, PAGE), (await gateway.exit("us", { session: choice.session })).ip);
      assert.equal(await bert.evaluate(() => Intl.DateTimeFormat().resolvedOptions().timeZone), "America/New_York");
    } finally {
      await browser.close();
    }
  });
});

describe("a bridge", () => {
  const get = (bridge, url, options = {}) => new Promise((resolve, reject) => {
    const { hostname, port } = new URL(bridge.url);
    const request = http.request({ hostname, port, path: url, headers: { host: new URL(url).host }, agent: false, ...options }, (answer) => {
      let body = "";
      answer.setEncoding("utf8").on("data", (part) => { body += part; }).on("end", () => resolve({ status: answer.statusCode, body, headers: answer.headers })).on("error", reject);
    });
    request.on("error", reject).end(options.body);
  });

  it("is shared by equal choices, and forwards bodies", async () => {
    const shop = await site("127.97.0.51");
    const bridge = await gateway.bridge("us");
    assert.equal(await gateway.bridge("us"), bridge);
    assert.notEqual(await gateway.bridge("us", { session: "a" }), bridge);
    const big = "ü".repeat(200_000);
    assert.equal((await get(bridge, `${shop.url}/`, { method: "POST", body: big })).body, big);
    assert.match((await get(bridge, `${shop.url}/`)).body, /127\./);
    // The site sees nothing of the proxy.
    for (const { headers } of shop.visits) assert.ok(!Object.keys(headers).some((name) => name.startsWith("proxy") || name.startsWith("x-exitgate")), JSON.stringify(headers));
    assert.match(bridge.exit("127.97.0.51").ip, ADDRESS);
    await shop.close();
  });

  it("passes the gateway's refusals on, remembers them, and never asks for a password", async () => {
    const wrong = new Gateway({ proxy: KEYED_PROXY, key: "wrong" });
    const bridge = await wrong.bridge("us");
    const answer = await get(bridge, PAGE);
    assert.equal(answer.status, 502);
    assert.equal(answer.headers["proxy-authenticate"], undefined);
    assert.equal(bridge.failure(PAGE).code, "key_refused");
    const none = await gateway.bridge("jp");
    assert.equal((await get(none, PAGE)).status, 503);
    assert.equal(none.failure(PAGE).code, "no_exit");
    assert.equal((await get(bridge, "ftp://a.test/")).status, 400);
    await wrong.close();
    await assert.rejects(get(bridge, PAGE));
    assert.notEqual(await wrong.bridge("us"), bridge);
    await wrong.close();
  });
});
