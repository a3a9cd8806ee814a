// Real undici, and the `fetch` of Node.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { BadRequest, Gateway, KeyRefused, LimitReached, NoExit, SiteRefused } from "exitgate";
import { createFetch, dispatcher, exit } from "exitgate/undici";
import { fetch as undiciFetch, request } from "undici";
import { ADDRESS, KEYED_PROXY, PAGE, SECURE_PAGE, SLOW_KEY, rejects, site, text } from "./site.js";

const gateway = new Gateway();
const socks = new Gateway({ proxy: process.env.EXITGATE_PROXY.replace("http", "socks5h") });
const open = [];
const through = (...args) => {
  const made = dispatcher(...args);
  open.push(made);
  return made;
};
const fetcher = (...args) => {
  const made = createFetch(...args);
  open.push(made);
  return made;
};
after(() => Promise.all(open.map((one) => one.close())));

describe("the dispatcher", () => {
  it("serves undici's request and fetch, and the fetch of Node", async () => {
    const us = through(gateway, { selector: "us", session: "three ways" });
    const answers = [await undiciFetch(SECURE_PAGE, { dispatcher: us }), await fetch(SECURE_PAGE, { dispatcher: us }), await undiciFetch(PAGE, { dispatcher: us })];
    const bodies = await Promise.all(answers.map((answer) => answer.text()));
    const { body, headers } = await request(SECURE_PAGE, { dispatcher: us });
    assert.deepEqual(new Set([...bodies, await body.text()]).size, 1);
    for (const answer of [...answers, { headers }]) assert.deepEqual([exit(answer).ip, exit(answer).country], [bodies[0], "US"]);
  });

  it("uses connections again", async () => {
    const shop = await site("127.97.0.31");
    const us = through(gateway, { selector: "us", connections: 2 });
    for (let at = 0; at < 6; at++) assert.match(text(await (await undiciFetch(shop.url, { dispatcher: us })).text()), ADDRESS);
    await Promise.all(Array.from({ length: 8 }, async () => (await undiciFetch(shop.url, { dispatcher: us })).text()));
    assert.ok(new Set(shop.visits.map((visit) => visit.connection)).size <= 2);
    us.retire(shop.url);
    await (await undiciFetch(shop.url, { dispatcher: us })).text();
    assert.ok(new Set(shop.visits.map((visit) => visit.connection)).size >= 2);
    await shop.close();
  });

  it("goes over SOCKS5", async () => {
    const us = through(socks, { selector: "us", session: "dora-x@example.org" });
    const [plain, secure] = await Promise.all([PAGE, SECURE_PAGE].map(async (page) => (await undiciFetch(page, { dispatcher: us })).text()));
    assert.match(plain, ADDRESS);
    assert.equal(plain, secure);
    assert.equal((await gateway.exit("us", { session: "dora-x@example.org" })).ip, plain);
  });

  it("gives the gateway's reason as the cause", async () => {
    for (const page of [PAGE, SECURE_PAGE]) {
      const error = await undiciFetch(page, { dispatcher: through(gateway, { selector: "us-strcit" }) }).catch((why) => why);
      await rejects(Promise.reject(error.cause), BadRequest, { reason: /did you mean `strict`/ });
    }
    await rejects(request(SECURE_PAGE, { dispatcher: through(gateway, { selector: "jp" }) }), NoExit, { status: 503 });
  });

  it("checks certificates", async () => {
    const error = await undiciFetch(SECURE_PAGE, { dispatcher: through(gateway, { selector: "us", tls: { ca: [] } }) }).catch((why) => why);
    assert.match(String(error.cause.code), /CERT|ISSUER|VERIFY/);
  });

  it("ends when it is closed or destroyed", async () => {
    const closed = dispatcher(gateway, { selector: "us" });
    await (await undiciFetch(PAGE, { dispatcher: closed })).text();
    await closed.close();
    await assert.rejects(undiciFetch(PAGE, { dispatcher: closed }));
    const destroyed = dispatcher(gateway, { selector: "us" });
    const waiting = undiciFetch(new URL("/hang", PAGE), { dispatcher: destroyed });
    await destroyed.destroy();
    await assert.rejects(waiting);
  });

  it("ends a request by its signal and by the time limit", async () => {
    const abort = new AbortController();
    const waiting = undiciFetch(new URL("/hang", SECURE_PAGE), { dispatcher: through(gateway, { selector: "us" }), signal: abort.signal });
    abort.abort();
    await assert.rejects(waiting, { name: "AbortError" });
    const late = await undiciFetch(new URL("/hang", PAGE), { dispatcher: through(gateway, { selector: "us", timeout: 300 }) }).catch((why) => why);
    assert.equal(late.cause.code, "UND_ERR_HEADERS_TIMEOUT");
  });
});

describe("createFetch", () => {
  let shop;
  before(async () => { shop = await site("127.97.0.32"); });
  after(() => shop.close());

  it("reports a refusal and goes on with another exit, for a session", async () => {
    const us = fetcher(gateway, { selector: "us", session: "shopper" });
    const first = text(await (await us(shop.url)).text());
    shop.refused.add(first);
    const second = text(await (await us(shop.url)).text());
    assert.match(second, ADDRESS);
    assert.notEqual(second, first);
    assert.equal((await gateway.exit("us", { session: "shopper" })).ip, second);
    // Another client does not get the refused exit for this site at all.
    const strangers = fetcher(gateway, { selector: "us" });
    for (let at = 0; at < 4; at++) {
      strangers.dispatcher.retire(shop.url);
      assert.notEqual(text(await (await strangers(shop.url)).text()), first);
    }
  });

  it("reports a refused POST, but does not send it again", async () => {
    const us = fetcher(gateway, { selector: "de+fr+ch", session: "poster" });
    const first = text(await (await us(shop.url)).text());
    shop.refused.add(first);
    const error = await rejects(us(shop.url, { method: "POST", body: "größer" }), SiteRefused);
    assert.deepEqual(error.exits, [first]);
    assert.equal(await (await us(shop.url, { method: "POST", body: "größer" })).text(), "größer");
    shop.refused.add("all");
    const before = shop.visits.length;
    await rejects(us(shop.url, { method: "POST", body: Readable.from(["a"]), duplex: "half" }), SiteRefused);
    assert.equal(shop.visits.length, before + 1);
    shop.refused.delete("all");
  });

  it("stops after `tries` exits", async () => {
    const other = await site("127.97.0.33");
    other.refused.add("all");
    const error = await rejects(fetcher(gateway, { selector: "any", tries: 2 })(other.url), SiteRefused, { code: "site_refused", status: 403, retry: false });
    assert.equal(new Set(error.exits).size, 2);
    assert.equal(error.response.status, 403);
    assert.equal(other.visits.length, 2);
    // A function decides from the page.
    const pages = fetcher(gateway, { selector: "nonus", tries: 2, refused: async (answer) => /blocked/.test(await answer.clone().text()) });
    await rejects(pages(other.url), SiteRefused);
    const never = fetcher(gateway, { selector: "nonus", refused: [] });
    assert.equal((await never(PAGE)).status, 200);
    await other.close();
  });

  it("throws the gateway's refusals, and repeats only those that can pass", async () => {
    await rejects(fetcher(gateway, { selector: "us-strcit" })(SECURE_PAGE), BadRequest);
    await rejects(fetcher(gateway, { selector: "jp", tries: 2, waitMax: 10 })(SECURE_PAGE), NoExit);
    await rejects(fetcher(new Gateway({ proxy: KEYED_PROXY, key: "wrong" }))(SECURE_PAGE), KeyRefused);
    assert.throws(() => createFetch(gateway, { session: "a:b" }));
  });

  it("waits as long as the gateway says, and then goes on", async () => {
    const slow = new Gateway({ proxy: KEYED_PROXY, key: SLOW_KEY });
    const other = await site("127.97.0.34");
    const limited = async () => { for (;;) (await slow.tunnel("127.97.0.34", 8000, "any-source-direct")).socket.destroy(); };
    await rejects(limited(), LimitReached, { status: 429 });
    assert.equal((await fetcher(slow, { selector: "any-source-direct", tries: 20 })(other.url)).status, 200);
    await other.close();
  });

  it("sends a GET again when its connection broke, and a POST only once", async () => {
    for (const [ip, method, visits] of [["127.97.0.36", "GET", 2], ["127.97.0.37", "POST", 1]]) {
      const fragile = await site(ip);
      const sent = fetcher(gateway, { selector: "nonus" })(`${fragile.url}/break`, { method });
      if (method === "GET") assert.equal((await sent).status, 200);
      else await assert.rejects(sent, TypeError);
      assert.equal(fragile.visits.length, visits);
      await fragile.close();
    }
  });

  it("can be aborted while it waits", async () => {
    const abort = new AbortController();
    const waiting = fetcher(gateway, { selector: "jp", tries: 9 })(PAGE, { signal: abort.signal });
    abort.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
  });
});

describe("a gateway that is no gateway", () => {
  it("is named as such", async () => {
    const web = createServer((_, answer) => answer.end("hello")).listen(0, "127.97.0.35");
    await once(web, "listening");
    const wrong = new Gateway({ proxy: `http://127.97.0.35:${web.address().port}` });
    await assert.rejects(wrong.exit("us"), /is not an exitgate gateway/);
    await assert.rejects(wrong.tunnel("a.test", 80));
    web.close();
  });
});
