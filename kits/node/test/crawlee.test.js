// Real Crawlee: HttpCrawler, CheerioCrawler and PlaywrightCrawler.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { CheerioCrawler, Configuration, HttpCrawler, PlaywrightCrawler, SessionError, log } from "crawlee";
import { BadRequest, Gateway } from "exitgate";
import { ProxyConfiguration, crawlerOptions, httpCrawlerOptions } from "exitgate/crawlee";
import { chromium } from "playwright-core";
import { ADDRESS, PAGE, SECURE_PAGE, site, text } from "./site.js";

log.setLevel(log.LEVELS.OFF);
const gateway = new Gateway();
const CHROMIUM = process.env.CHROMIUM;
const NO_SANDBOX = process.getuid() === 0 ? ["--no-sandbox"] : [];

// Each crawler has a storage of its own, in memory.
const configuration = () => new Configuration({ persistStorage: false, purgeOnStart: true });
const pages = (url, count) => Array.from({ length: count }, (_, at) => ({ url: `${url}/?page=${at}`, uniqueKey: `${url} ${at} ${Math.random()}` }));
// The bans of a site, by the address of the exit.
async function banned(host) {
  const found = [];
  for (const { id, ip } of await gateway.exits()) if ((await gateway.api.exit(id)).bans.some((ban) => ban.site === host)) found.push(ip);
  return found;
}

describe("Crawlee", () => {
  let shop;
  before(async () => { shop = await site("127.97.0.41"); });
  after(() => shop.close());

  it("gives each session one exit", async () => {
    const options = crawlerOptions(gateway, { selector: "any" });
    const seen = new Map();
    const crawler = new HttpCrawler({
      ...options,
      sessionPoolOptions: { ...options.sessionPoolOptions, maxPoolSize: 3 },
      requestHandler: async ({ session, body, request }) => {
        const ip = text(String(body));
        assert.equal(request.userData.exit.ip, ip);
        if (!seen.has(session.id)) seen.set(session.id, new Set());
        seen.get(session.id).add(ip);
        assert.equal((await options.proxyConfiguration.exit(session)).ip, ip);
      },
    }, configuration());
    const { requestsFinished, requestsFailed } = await crawler.run(pages(shop.url, 12));
    assert.deepEqual([requestsFinished, requestsFailed], [12, 0]);
    assert.ok(seen.size > 1);
    for (const addresses of seen.values()) assert.equal(addresses.size, 1);
    for (const { from } of shop.visits) assert.match(from, ADDRESS);
    assert.deepEqual(await banned("127.97.0.41"), []);
  });

  it("goes through tunnels for https", async () => {
    const got = [];
    const crawler = new CheerioCrawler({
      ...httpCrawlerOptions(gateway, { selector: "de+fr" }),
      requestHandler: ({ body }) => { got.push(String(body)); },
    }, configuration());
    await crawler.run([SECURE_PAGE]);
    assert.equal(got.length, 1);
    assert.match(got[0], ADDRESS);
  });

  it("reports a blocked status and goes on with another exit", async () => {
    const refusing = await site("127.97.0.42");
    for (const { ip } of await gateway.exits({ country: "US" })) refusing.refused.add(ip);
    const got = [];
    const options = crawlerOptions(gateway, { selector: "us+fr" });
    const crawler = new CheerioCrawler({
      ...options,
      maxRequestRetries: 8,
      maxConcurrency: 1,
      requestHandler: ({ $ }) => { got.push($("p").text()); },
    }, configuration());
    const { requestsFinished } = await crawler.run(pages(refusing.url, 6));
    await options.proxyConfiguration.settled();
    assert.equal(requestsFinished, 6);
    assert.equal(got.filter((ip) => refusing.refused.has(ip)).length, 0);
    // Each refused exit is used once: the report keeps it away from this site.
    const refusals = refusing.visits.filter((visit) => refusing.refused.has(visit.from)).map((visit) => visit.from);
    assert.equal(new Set(refusals).size, refusals.length, refusals.join());
    assert.deepEqual((await banned("127.97.0.42")).sort(), refusals.sort());
    await refusing.close();
  });

  it("reports markBad, retire and SessionError of the handler, and no other failure", async () => {
    const acts = {
      "127.97.0.43": ({ session }) => { session.markBad(); throw new Error("captcha"); },
      "127.97.0.44": ({ session }) => { session.retire(); throw new Error("captcha"); },
      "127.97.0.45": () => { throw new SessionError("captcha"); },
      "127.97.0.46": () => { throw new TypeError("a bug in the handler"); },
    };
    for (const [ip, act] of Object.entries(acts)) {
      const one = await site(ip);
      let first = true;
      const options = crawlerOptions(gateway, { selector: "us" });
      const crawler = new CheerioCrawler({
        ...options,
        requestHandler: (context) => {
          if (!first) return;
          first = false;
          act(context);
        },
      }, configuration());
      const { requestsFinished } = await crawler.run(pages(one.url, 1));
      await options.proxyConfiguration.settled();
      assert.equal(requestsFinished, 1, ip);
      const expected = ip === "127.97.0.46" ? [] : [one.visits[0].from];
      assert.deepEqual(await banned(ip), expected, ip);
      await one.close();
    }
  });

  it("does not retry what no retry can cure, and reports no exit for it", async () => {
    for (const [selector, page, tries] of [["us-strcit", PAGE, 1], ["us-strcit", SECURE_PAGE, 1], ["jp", PAGE, 2]]) {
      let failed;
      let attempts = 0;
      const crawler = new HttpCrawler({
        ...httpCrawlerOptions(gateway, { selector }),
        maxRequestRetries: 1,
        maxSessionRotations: 1,
        preNavigationHooks: [() => { attempts++; }],
        requestHandler: () => assert.fail("there is no answer of a site"),
        failedRequestHandler: (_, error) => { failed = error; },
      }, configuration());
      await crawler.run([page]);
      assert.ok(failed, selector);
      assert.match(failed.message, page === PAGE ? /did you mean `strict`|no exit to use/ : /400/);
      assert.equal(attempts, tries, `${selector} ${page}: ${failed.message}`);
    }
  });

  it("refuses a wrong session prefix at once, and works without a session pool", async () => {
    assert.throws(() => new ProxyConfiguration(gateway, { prefix: "a:b" }));
    const plain = new ProxyConfiguration(gateway, { selector: "us" });
    assert.match(await plain.newUrl(), /^http:\/\/us:x@/);
    assert.equal((await plain.newProxyInfo("s1")).hostname, "127.97.0.1");
    await assert.rejects(new ProxyConfiguration(gateway, { selector: "us-strcit" }).exit("a"), BadRequest);
  });

  for (const [ip, useIncognitoPages] of [["127.97.0.47", false], ["127.97.0.48", true]]) {
    it(`drives Chromium, ${useIncognitoPages ? "a context" : "a browser"} for each session`, { skip: !CHROMIUM && "Chromium is not installed" }, async () => {
      const refusing = await site(ip);
      const got = [];
      const failures = [];
      const options = crawlerOptions(gateway, { selector: "us" });
      let first;
      const crawler = new PlaywrightCrawler({
        ...options,
        sessionPoolOptions: { ...options.sessionPoolOptions, maxPoolSize: 1 },
        maxConcurrency: 1,
        // Chromium sends requests for loopback addresses to a proxy only with this argument.
        launchContext: { launcher: chromium, useIncognitoPages, launchOptions: { executablePath: CHROMIUM, args: [...NO_SANDBOX, "--proxy-bypass-list=<-loopback>"] } },
        browserPoolOptions: { useFingerprints: false },
        failedRequestHandler: (_, error) => failures.push(error.message),
        requestHandler: async ({ page, session }) => {
          const from = (await page.textContent("body")).trim();
          first ??= from;
          // The site refuses the first exit from now on.
          refusing.refused.add(first);
          assert.equal((await options.proxyConfiguration.exit(session)).ip, from);
          got.push(from);
        },
      }, configuration());
      const { requestsFinished } = await crawler.run(pages(refusing.url, 3));
      await options.proxyConfiguration.settled();
      assert.equal(requestsFinished, 3, failures.join());
      assert.equal(got.filter((from) => from === first).length, 1);
      assert.deepEqual(await banned(ip), [first]);
      await refusing.close();
    });
  }
});
