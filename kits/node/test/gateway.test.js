// The gateway object: usernames, exit.gate, the API, errors, and secrets.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";
import { once } from "node:events";
import { after, before, describe, it } from "node:test";
import { inspect } from "node:util";
import { ApiError, BadRequest, BadSelector, Denied, Gateway, KeyRefused, LimitReached, NoExit, NotFound, NotReady, TargetFailed, TokenRefused, Unreachable, identity } from "exitgate";
import { createFetch, dispatcher } from "exitgate/undici";
import { fetch as undiciFetch } from "undici";
import { ADDRESS, KEYED_API, KEYED_CA, KEYED_KEY, KEYED_PROXY, KEYED_TOKEN, SLOW_KEY, rejects, site } from "./site.js";

const gateway = new Gateway();

describe("usernames", () => {
  it("have selector, mode and session", () => {
    assert.equal(gateway.username("us"), "us");
    assert.equal(gateway.username("us", { strict: true, session: "cart42" }), "us-strict-session-cart42");
    assert.equal(gateway.username("us-strict", { strict: true }), "us-strict");
    assert.equal(gateway.username("us", { session: 7, ttl: "10m" }), "us-ttl-10m-session-7");
    assert.equal(gateway.username("us", { session: "dora-x@example.org" }), "us-session=dora-x@example.org");
    assert.equal(gateway.username(), "any");
  });

  it("refuse what the gateway could not read", () => {
    for (const [selector, choice] of [
      ["us", { session: "" }], ["us", { session: "a:b" }], ["us", { session: "a\nb" }], ["us", { session: "ü".repeat(65) }],
      ["us-session-a", { session: "b" }], ["us-session=a", { strict: true }], ["us:x", {}], ["x".repeat(256), {}],
    ]) assert.throws(() => gateway.username(selector, choice), BadSelector, JSON.stringify([selector, choice]));
  });

  it("survive every part of a proxy URL", () => {
    const keyed = new Gateway({ proxy: "http://127.0.0.1:1080", key: "p@ss:/?#%" });
    for (const session of ["cart42", "dora-x@example.org", "Jürgen Straße/7?#%", "日本"]) {
      const url = new URL(keyed.proxyUrl("de+fr", { session }));
      assert.equal(decodeURIComponent(url.username), keyed.username("de+fr", { session }));
      assert.equal(decodeURIComponent(url.password), "p@ss:/?#%");
      assert.equal(url.host, "127.0.0.1:1080");
    }
    assert.match(new Gateway({ proxy: "socks5://[::1]:1080" }).proxyUrl("us"), /^socks5h:\/\/us:x@\[::1\]:1080$/);
  });

  it("come from the proxy's URL, too", () => {
    const url = new Gateway({ proxy: "http://us-strict:secret@127.0.0.1:1080" });
    assert.equal(url.username(), "us-strict");
    assert.equal(url.credentials().password, "secret");
    for (const proxy of ["ftp://127.0.0.1", "127.0.0.1:1080:secret", "http://"]) {
      assert.throws(() => new Gateway({ proxy }), (error) => error instanceof BadSelector && !inspect(error).includes("secret"));
    }
  });
});

describe("the gateway's own host", () => {
  it("shows and changes the exit of a session", async () => {
    const choice = { session: "Jürgen-1@example.org" };
    assert.equal(await gateway.exit("us", choice), null);
    const { before, after } = await gateway.rotate("us", choice);
    assert.equal(before, null);
    assert.equal(after.country, "US");
    assert.deepEqual((await gateway.exit("us", choice)).id, after.id);
    const again = await gateway.rotate("us", choice);
    assert.equal(again.before.id, after.id);
    assert.notEqual(again.after.ip, after.ip);
  });

  it("takes reports about the session's exit and about a named exit", async () => {
    const choice = { session: "reporter" };
    const { after } = await gateway.rotate("us", choice);
    const said = await gateway.report("https://reported.example/path", "us", { ...choice, outcome: "captcha" });
    assert.deepEqual(said, { site: "reported.example", exit: after.id });
    const { bans } = await gateway.api.exit(after.id);
    assert.ok(bans.some((ban) => ban.site === "reported.example"));
    const [other] = await gateway.exits({ country: "FR", usable: true });
    assert.equal((await gateway.report("reported.example", "any", { exit: other.ip })).exit, other.id);
    await rejects(gateway.report("reported.example", "us"), BadRequest, { status: 400 });
  });

  it("fails with the gateway's words", async () => {
    const error = await rejects(gateway.exit("us-strcit"), BadRequest, { code: "bad_request", status: 400, retry: false, reason: /did you mean `strict`/, requestId: /^c-/ });
    assert.match(error.message, /\[bad_request\] Correct the username/);
    await rejects(gateway.rotate("jp", { session: "a" }), NoExit, { code: "no_exit", status: 503, retry: true });
  });

  it("is unreachable when nothing listens, and late when nothing answers", async () => {
    await rejects(new Gateway({ proxy: "http://127.97.0.3:1" }).exit("us"), Unreachable, { code: "unreachable", retry: true, reason: /127\.97\.0\.3:1 cannot be reached/ });
    const silent = createServer(() => {}).listen(0, "127.97.0.3");
    await once(silent, "listening");
    const proxy = `http://127.97.0.3:${silent.address().port}`;
    await rejects(new Gateway({ proxy, timeout: 200 }).exit("us"), Unreachable, { reason: /did not answer in 200 ms/ });
    await rejects(new Gateway({ proxy, timeout: 200 }).tunnel("echo.test", 80), Unreachable, { reason: /did not answer in time/ });
    await rejects(new Gateway({ api: proxy, timeout: 200 }).ready(), Unreachable);
    const abort = new AbortController();
    const gone = new Error("no longer wanted");
    const waiting = [new Gateway({ proxy }).exit("us", { signal: abort.signal }), new Gateway({ proxy }).tunnel("echo.test", 80, "us", { signal: abort.signal }), new Gateway({ api: proxy }).waitReady({ signal: abort.signal })];
    abort.abort(gone);
    for (const one of waiting) await assert.rejects(one, gone);
    silent.close();
  });
});

describe("the API", () => {
  it("explains a username", async () => {
    const why = await gateway.why("us-strict-asn-3320", { site: "https://shop.example/" });
    assert.equal(why.pool.length, 0);
    assert.ok(why.refused);
    assert.equal(why.funnel[0].step, "known");
    assert.equal((await gateway.why("us", { session: "a-b" })).username, "us-session=a-b");
  });

  it("lists exits, page by page", async () => {
    const all = await gateway.exits();
    assert.equal(all.length, 8);
    const us = await gateway.exits({ country: "US" });
    assert.deepEqual(us.map((exit) => exit.country), ["US", "US", "US"]);
    assert.ok((await gateway.api.countries()).countries.some(({ country }) => country === "FR"));
  });

  it("creates, changes, rotates and deletes a route", async () => {
    const route = await gateway.routes.create({ name: "kit-shop", selector: "us", pool: 2 });
    assert.equal(route.selector, "us");
    assert.equal((await gateway.routes.create({ name: "kit-shop", selector: "us", pool: 2 })).port, route.port);
    assert.equal((await gateway.routes.change("kit-shop", { pool: 1, mode: "strict" })).mode, "strict");
    assert.ok((await gateway.routes.list()).some(({ name }) => name === "kit-shop"));
    assert.equal((await gateway.routes.get(route.port)).name, "kit-shop");
    const rotated = await gateway.routes.rotate("kit-shop");
    assert.equal((await gateway.exit("kit-shop")).ip, rotated.after);
    assert.equal((await gateway.routes.exits("kit-shop")).route, "kit-shop");
    assert.equal((await gateway.routes.last("kit-shop")).id, rotated.exit.id);
    assert.equal((await gateway.routes.report("kit-shop", { site: "a.example" })).site, "a.example");
    const several = await gateway.routes.create({ selector: "nonus", count: 2 });
    for (const { name } of several.proxies) await gateway.routes.delete(name);
    assert.deepEqual(await gateway.routes.delete("kit-shop", { force: true }), { name: "kit-shop", state: "closed" });
    await rejects(gateway.routes.get("kit-shop"), NotFound, { code: "not_found", status: 404, requestId: /^r-/ });
  });

  it("says which field is wrong", async () => {
    const error = await rejects(gateway.routes.create({ selector: "us-strcit" }), ApiError, { status: 422, retry: false });
    assert.equal(error.details.field, "selector");
  });

  it("waits until the gateway is ready", async () => {
    assert.equal((await gateway.waitReady({ exits: 8, selector: "us" })).ready, true);
    await rejects(gateway.waitReady({ exits: 9, timeout: 50 }), NotReady, { reason: /8 of 8 exits/ });
    await rejects(gateway.waitReady({ selector: "jp", timeout: 50 }), NotReady, { reason: /none of the known exits/ });
    await rejects(gateway.waitReady({ selector: "us-strcit" }), BadRequest);
    await rejects(new Gateway({ api: "http://127.97.0.3:1" }).waitReady({ timeout: 50 }), NotReady, { reason: /cannot be reached/ });
  });
});

describe("a gateway with a key, a limit and a token", () => {
  const keyed = new Gateway({ proxy: KEYED_PROXY, api: KEYED_API, key: KEYED_KEY, token: KEYED_TOKEN });
  let shop;
  before(async () => { shop = await site("127.97.0.20"); });
  after(() => shop.close());

  it("takes the key", () => keyed.checkKey());

  it("refuses a missing and a wrong key, over HTTP and SOCKS", async () => {
    for (const key of ["", "wrong-key"]) {
      const other = new Gateway({ proxy: KEYED_PROXY, key });
      await rejects(other.checkKey(), KeyRefused, { code: "key_refused", status: 407, retry: false });
      await rejects(other.tunnel("127.97.0.20", 8000, "any-source-direct"), KeyRefused, { status: 407 });
      await rejects(new Gateway({ proxy: KEYED_PROXY.replace("http", "socks5"), key }).tunnel("127.97.0.20", 8000, "any-source-direct"), KeyRefused);
    }
  });

  it("refuses a missing token", async () => {
    await rejects(new Gateway({ proxy: KEYED_PROXY, api: KEYED_API }).exits(), TokenRefused, { code: "unauthorized", status: 401, retry: false });
    assert.deepEqual(await keyed.routes.list(), []);
  });

  it("says when to come back after too many connections", async () => {
    const slow = new Gateway({ proxy: KEYED_PROXY, key: SLOW_KEY });
    const open = async () => (await slow.tunnel("127.97.0.20", 8000, "any-source-direct")).socket.destroy();
    const error = await rejects((async () => { for (;;) await open(); })(), LimitReached, { code: "limit_reached", status: 429, retry: true });
    assert.ok(error.retryAfter >= 1, error.retryAfter);
  });

  it("tells a forbidden target from a target that failed", async () => {
    await rejects(keyed.tunnel("127.97.0.20", 25, "any-source-direct"), Denied, { code: "denied", status: 403, retry: false });
    await rejects(keyed.tunnel("127.97.0.20", 8001, "any-source-direct"), TargetFailed, { code: "target_failed", status: 502, retry: false });
    await rejects(keyed.tunnel("127.97.0.20", 8000, "us"), NoExit, { status: 503 });
  });

  it("takes TLS, and checks the gateway's certificate", async () => {
    const proxy = KEYED_PROXY.replace("http", "https");
    const secure = new Gateway({ proxy, key: KEYED_KEY, tls: { ca: readFileSync(KEYED_CA) } });
    await secure.checkKey();
    (await secure.tunnel("127.97.0.20", 8000, "any-source-direct")).socket.destroy();
    const fetch = createFetch(secure, { selector: "any-source-direct" });
    assert.equal((await fetch(shop.url)).status, 200);
    await fetch.close();
    await rejects(secure.tunnel("127.97.0.20", 8001, "any-source-direct"), TargetFailed);
    const bridge = await secure.bridge("any-source-direct");
    const through = dispatcher(new Gateway({ proxy: bridge.url }));
    assert.equal((await undiciFetch(shop.url, { dispatcher: through })).status, 200);
    await through.close();
    await secure.close();
    const other = new Gateway({ proxy, key: KEYED_KEY });
    await rejects(other.checkKey(), Unreachable, { reason: /certificate/ });
    await rejects(other.tunnel("127.97.0.20", 8000), Unreachable, { reason: /certificate/ });
  });

  it("shows no secret", async () => {
    const error = await new Gateway({ proxy: KEYED_PROXY, key: "wrong-key" }).checkKey().catch((why) => why);
    for (const shown of [inspect(keyed, { depth: 9, showHidden: true }), JSON.stringify(keyed), String(keyed), inspect(keyed.api, { depth: 9 }), inspect(error, { depth: 9 })]) {
      for (const secret of [KEYED_KEY, KEYED_TOKEN, "wrong-key", Buffer.from(`any:${KEYED_KEY}`).toString("base64")]) assert.ok(!shown.includes(secret), shown);
    }
  });
});

describe("the identity of a country", () => {
  it("has a locale and a time zone", () => {
    assert.deepEqual(identity("US"), { locale: "en-US", timezoneId: "America/New_York" });
    assert.deepEqual(identity("jp"), { locale: "ja-JP", timezoneId: "Asia/Tokyo" });
    for (const none of [null, undefined, "", "ZZ", "xyz"]) assert.deepEqual(identity(none), {});
    for (const { locale, timezoneId } of ["AT", "BR", "CA", "DE", "FR", "NL", "PL", "RU", "SE", "UA"].map(identity)) new Intl.DateTimeFormat(locale, { timeZone: timezoneId });
  });

  it("tunnels name their exit", async () => {
    const { socket, exit } = await gateway.tunnel("echo.test", 80, "us");
    socket.destroy();
    assert.equal(exit.country, "US");
    assert.match(exit.ip, ADDRESS);
  });
});
