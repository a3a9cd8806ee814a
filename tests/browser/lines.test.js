// The examples that the console shows are the recipes of docs/recipes.md, which tests/recipes runs.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { addresses, lines } from "../../src/console/assets/lines.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
const text = await readFile(path.join(ROOT, "docs/recipes.md"), "utf8");

// The blocks below a heading.
function recipes(heading) {
  const section = text.split(/^## /m).find((one) => one.startsWith(`${heading}\n`)) ?? assert.fail(`no recipe ${heading}`);
  return [...section.matchAll(/^```\S.*\n([\s\S]*?)^```$/gm)].map(([, code]) => code.trimEnd());
}

// A route as the API gives it. Where it has a key, the API's URLs hold a placeholder.
const route = (name, port, auth = "key") => ({
  name, auth, urls: { http: `http://${auth === "key" ? "x:YOUR_KEY@" : ""}127.0.0.1:${port}`, socks5: `socks5h://127.0.0.1:${port}` },
});

describe("the examples of the console", () => {
  it("are the tested recipes", () => {
    const shown = (name) => Object.fromEntries(lines(route(name, 1080)).map(([tab, code]) => [tab, code.replaceAll("YOUR_KEY", "KEY")]));
    for (const [tab, heading, username] of [["curl", "curl", "us"], ["Python", "Python: requests", "us"], ["Playwright", "Playwright", "us-session-cart42"],
      ["Scrapy", "Scrapy", "us"], ["Node", "Node", "us"], ["Shell", "Any program that reads the environment", "us"]]) {
      assert.equal(shown(username)[tab], recipes(heading)[0], tab);
    }
    assert.equal(lines(route("us", 1080)).length, 6, "every example is compared above");
  });

  it("log in with the route's name where it has a key, and not at all where it has none", () => {
    assert.deepEqual(addresses(route("shop", 20000)), { server: "127.0.0.1:20000", login: { username: "shop", password: "YOUR_KEY" },
      http: "http://shop:YOUR_KEY@127.0.0.1:20000", socks5: "socks5h://shop:YOUR_KEY@127.0.0.1:20000" });
    assert.deepEqual(addresses(route("shop", 20000, "open")), { server: "127.0.0.1:20000", login: null, http: "http://127.0.0.1:20000", socks5: "socks5h://127.0.0.1:20000" });
    for (const [tab, code] of lines(route("shop", 20000))) assert.match(code, /shop.{1,20}YOUR_KEY/, tab);
    for (const [tab, code] of lines(route("shop", 20000, "open"))) assert.doesNotMatch(code, /YOUR_KEY|username/, tab);
  });

  it("use the page of the gateway's own examples", () => {
    for (const examples of [{ curl: "curl -x socks5h://127.0.0.1:20000 http://echo.test/ip" }, { url: "http://echo.test/ip" }]) {
      for (const [tab, code] of lines({ ...route("shop", 20000, "open"), examples })) {
        assert.match(code, /http:\/\/echo\.test\/ip/, tab);
        assert.doesNotMatch(code, /torproject/, tab);
      }
    }
  });
});
