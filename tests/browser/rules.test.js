// The rules of a route by destination in a real Chromium. The exit is this machine, and real requests obey the rules.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, it } from "node:test";
import { EMPTY, fieldsOf, moved, placeOf, ruleOf } from "../../src/console/assets/rules.js";
import { faultless, inEveryLook, inspect, launch, open } from "./browser.js";
import { curl, locked, stop } from "./gateway.js";

const TOKEN = "a-token-for-the-tests-of-rules";

describe("the form of a rule", () => {
  it("reads back what it shows", () => {
    for (const rule of [
      { host: ["*.shop.example", "10.0.0.0/8"], port: [443, "8000-8099"], use: "us-strict" },
      { host: ["a.example"], route: "dear" },
      { port: [25], refuse: true },
      { host: ["*"], direct: true },
    ]) assert.deepEqual(ruleOf(fieldsOf(rule)), rule);
    assert.deepEqual(ruleOf({ ...EMPTY, host: " a.example,b.example ", port: "70000", value: " us " }), { host: ["a.example", "b.example"], port: ["70000"], use: "us" });
    assert.deepEqual(fieldsOf({ host: "a.example", port: 25, refuse: true }), { host: "a.example", port: "25", action: "refuse", value: "" });
  });

  it("moves a rule, and never beyond the ends", () => {
    assert.deepEqual([moved([1, 2, 3], 0, 1), moved([1, 2, 3], 2, 1), moved([1, 2, 3], 0, -1), moved([1, 2, 3], 2, 3)], [[2, 1, 3], [1, 3, 2], [1, 2, 3], [1, 2, 3]]);
  });

  it("knows the field of an error", () => {
    assert.deepEqual(["rules[2].host", "rules[0].port", "rules[10].use", "rules[1].direct"].map(placeOf), [{ at: 2, field: "host" }, { at: 0, field: "port" }, { at: 10, field: "value" }, { at: 1, field: "value" }]);
    assert.deepEqual([placeOf("pool"), placeOf(undefined)], [null, null]);
  });
});

describe("the rules of a route", { concurrency: false }, () => {
  let browser;
  let gateway;
  let sites;
  let page;

  before(async () => {
    sites = await Promise.all(["127.91.0.14", "127.91.0.15"].map(async (ip) => {
      const site = createServer((_, answer) => answer.end("page"));
      await new Promise((up) => site.listen(0, ip, up));
      return site;
    }));
    [browser, gateway] = await Promise.all([launch(), locked("127.91.0.13", TOKEN, { EXITGATE__GATEWAY__ALLOW_DIRECT: "true", EXITGATE__GATEWAY__ALLOW_PRIVATE_TARGETS: "true" })]);
    const made = await api("POST", "/proxies", { name: "shop", selector: "any", source: ["direct"] });
    assert.equal(made.status, 201, await made.text());
    page = await open(browser, gateway.url, { path: "/#/routes/shop", expected: /the server responded with a status of (401|404|422|503)/ });
    await page.getByLabel("API token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "shop", level: 1 }).waitFor();
  });

  after(async () => {
    await browser?.close();
    await stop(gateway);
    await Promise.all((sites ?? []).map((site) => new Promise((down) => site.close(down))));
  });

  const api = (method, path, body) => fetch(gateway.url + path, { method, body: body && JSON.stringify(body), headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" } });
  const rules = async () => (await (await api("GET", "/proxies/shop")).json()).rules;
  const dialog = () => page.getByRole("dialog");
  const rule = (number) => dialog().getByRole("group", { name: `Rule ${number}`, exact: true });
  const send = () => Promise.all(sites.map((site) => curl(`http://shop:x@${gateway.ip}:1080`, `http://${site.address().address}:${site.address().port}/`)));

  const everyLook = (name, ready) => inEveryLook(page, name, ready);

  it("are added from the keyboard, and requests obey them", async () => {
    await page.getByText("No rule", { exact: true }).waitFor();
    assert.deepEqual(await send(), ["page", "page"]);
    await page.getByRole("button", { name: "Change rules" }).focus();
    await page.keyboard.press("Enter");
    await dialog().waitFor();
    await page.keyboard.type("127.91.0.14:80");
    await rule(1).getByLabel("Action").selectOption("refuse");
    await page.keyboard.press("Tab");
    await rule(1).getByLabel("Hosts").press("Enter");
    await rule(1).locator(".field.wrong", { hasText: "Hosts" }).waitFor();
    await inspect(page, "rules-fault");
    await rule(1).getByLabel("Hosts").fill("127.91.0.14");
    await dialog().getByRole("button", { name: "Add a rule" }).press("Enter");
    await rule(2).getByLabel("Hosts").waitFor();
    await page.waitForFunction(() => document.activeElement.closest("fieldset")?.querySelector("legend").textContent === "Rule 2");
    await page.keyboard.type("*.bank.example bank.example");
    await rule(2).getByLabel("Ports").fill("443 8000-8099");
    await rule(2).getByLabel("Selector").fill("any-source-dirct");
    await rule(2).getByLabel("Selector").press("Enter");
    await rule(2).locator(".field.wrong", { hasText: "Selector" }).waitFor();
    await rule(2).getByLabel("Selector").fill("any-source-direct");
    await everyLook("rules-editor", () => rule(2).waitFor());
    await dialog().getByRole("button", { name: "Save rules" }).click();
    await page.getByText("the route shop has 2 rules", { exact: false }).or(page.getByText("The route shop has 2 rules")).first().waitFor();
    assert.deepEqual(await rules(), [{ host: ["127.91.0.14"], refuse: true }, { host: ["*.bank.example", "bank.example"], port: [443, "8000-8099"], use: "any-source-direct" }]);
    assert.deepEqual(await send(), [null, "page"]);
    await everyLook("rules", () => page.getByRole("cell", { name: "*.bank.example bank.example" }).waitFor());
    faultless(page);
  });

  it("change their order, and keep the focus at the moved rule", async () => {
    await page.getByRole("button", { name: "Change rules" }).click();
    await dialog().getByRole("button", { name: "Move down rule 1" }).press("Enter");
    await page.waitForFunction(() => document.activeElement.ariaLabel === "Move up rule 2");
    assert.equal(await rule(2).getByLabel("Hosts").inputValue(), "127.91.0.14");
    await dialog().getByRole("button", { name: "Remove rule 1" }).click();
    await rule(2).waitFor({ state: "detached" });
    await dialog().getByRole("button", { name: "Save rules" }).click();
    await dialog().waitFor({ state: "detached" });
    assert.deepEqual(await rules(), [{ host: ["127.91.0.14"], refuse: true }]);
    faultless(page);
  });

  it("of somebody else are not overwritten", async () => {
    await page.getByRole("button", { name: "Change rules" }).click();
    await rule(1).getByLabel("Hosts").fill("mine.example");
    const theirs = [{ host: ["theirs.example"], refuse: true }];
    assert.equal((await api("PATCH", "/proxies/shop", { rules: theirs })).status, 200);
    await dialog().getByRole("button", { name: "Save rules" }).click();
    await dialog().getByRole("alert").getByText("Somebody else has changed these rules").waitFor();
    await inspect(page, "rules-stale");
    assert.deepEqual(await rules(), theirs);
    await dialog().getByRole("button", { name: "Load the present rules" }).click();
    await page.waitForFunction(() => document.querySelector("dialog fieldset input")?.value === "theirs.example");
    await dialog().getByRole("button", { name: "Remove rule 1" }).click();
    await dialog().getByRole("button", { name: "Save rules" }).click();
    await page.getByText("No rule", { exact: true }).waitFor();
    assert.deepEqual(await rules(), []);
    faultless(page);
  });

  it("are named by Why if they match", async () => {
    await api("PATCH", "/proxies/shop", { rules: [{ host: ["a.example"], refuse: true }, { host: ["*.shop.example"], use: "any-source-direct" }] });
    await page.goto(`${gateway.url}/#/why?username=shop&host=www.shop.example`);
    await page.locator(".matched li", { hasText: "Rule 2 of shop matches: *.shop.example use any-source-direct" }).waitFor();
    await everyLook("why-rule", () => page.locator(".matched").waitFor());
    await page.getByLabel("Target's host").fill("a.example");
    await page.locator(".matched li", { hasText: "Rule 1 of shop matches: a.example refuse" }).waitFor();
    await page.getByLabel("Target's host").fill("other.example");
    await page.locator(".matched").waitFor({ state: "detached" });
    faultless(page);
  });

  it("stand beside the sources of a route, which can be changed too", async () => {
    await page.goto(`${gateway.url}/#/routes/shop`);
    await page.getByText("sources direct").waitFor();
    await page.getByRole("button", { name: "Change", exact: true }).click();
    await dialog().getByLabel(/^Use a later source only/).check();
    await dialog().getByRole("button", { name: "Change route" }).click();
    await dialog().getByRole("alert").waitFor();
    await dialog().getByLabel("Sources, preferred first").fill("nowhere");
    await dialog().getByRole("button", { name: "Change route" }).click();
    await dialog().locator(".field.wrong", { hasText: "Sources" }).waitFor();
    await dialog().getByLabel("Sources, preferred first").fill("public, direct");
    await inspect(page, "route-sources");
    await dialog().getByRole("button", { name: "Change route" }).click();
    await page.getByText("sources public, then direct").waitFor();
    const { policy } = await (await api("GET", "/proxies/shop")).json();
    assert.deepEqual([policy.source, policy.fallback], [["public", "direct"], true]);
    assert.deepEqual(await send(), ["page", "page"]);
    faultless(page);
  });

  it("of the configuration cannot be changed here, and traffic by source is shown where it is counted", async () => {
    const route = await (await api("GET", "/proxies/shop")).json();
    // Written as an API writes it that counts the traffic of a route by source.
    const by_source = { tor: { requests: 9, bytes_up: 1000, bytes_down: 8000 }, acme: { requests: 1, bytes_up: 0, bytes_down: 1000 } };
    await page.route(/\/proxies\/shop$/, (asked) => asked.fulfill({ json: { ...route, origin: "config", live: { ...route.live, by_source } } }));
    await page.getByRole("row", { name: /^tor 9 9 KB 90%/ }).waitFor({ timeout: 15_000 });
    assert.ok(await page.getByRole("button", { name: "Change rules" }).isDisabled());
    await inspect(page, "route-by-source");
    await page.unrouteAll();
    faultless(page);
  });
});
