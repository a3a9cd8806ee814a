// The pages of keys in a real Chromium, on a gateway whose exit is this machine: what a key has used is counted from
// real requests.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, it } from "node:test";
import { faultless, inEveryLook, inspect, launch, open, shoot } from "./browser.js";
import { curl, locked, stop } from "./gateway.js";

const TOKEN = "a-token-for-the-tests-of-keys";
const STRAIGHT = "any-source-direct";

describe("the keys", { concurrency: false }, () => {
  let browser;
  let gateway;
  let site;
  let page;
  let secret;

  before(async () => {
    site = createServer((_, answer) => answer.end("page"));
    await new Promise((up) => site.listen(0, "127.91.0.12", up));
    [browser, gateway] = await Promise.all([launch(), locked("127.91.0.11", TOKEN, { EXITGATE__GATEWAY__ALLOW_DIRECT: "true", EXITGATE__GATEWAY__ALLOW_PRIVATE_TARGETS: "true" })]);
    page = await open(browser, gateway.url, { path: "/#/keys", expected: /the server responded with a status of (401|404|409|412|422|503)/ });
    await page.getByLabel("API token").fill(TOKEN);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Keys", level: 1 }).waitFor();
  });

  after(async () => {
    await browser?.close();
    await stop(gateway);
    await new Promise((down) => site.close(down));
  });

  const seen = (text) => page.getByText(text).first().waitFor({ timeout: 15_000 });
  const dialog = () => page.getByRole("dialog");
  const api = (method, path, body) => fetch(gateway.url + path, { method, body: body && JSON.stringify(body), headers: { Authorization: `Bearer ${TOKEN}`, "Content-Type": "application/json" } });
  const send = (user, key) => curl(`http://${user}:${key}@${gateway.ip}:1080`, `http://127.91.0.12:${site.address().port}/`);

  const everyLook = (name, ready) => inEveryLook(page, name, ready);

  it("creates the first key from the keyboard, and shows its secret once", async () => {
    await seen("No key yet");
    assert.equal(await send(STRAIGHT, "x"), "page", "without keys, everybody may use the gateway");
    await page.getByRole("button", { name: "New key" }).focus();
    await page.keyboard.press("Enter");
    await dialog().getByText("This is the first key").waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.closest(".field")?.querySelector("label").textContent), "Name");
    await page.keyboard.type("no spaces!");
    await page.keyboard.press("Enter");
    await dialog().locator(".field.wrong", { hasText: "Name" }).waitFor();
    await dialog().getByLabel("Name").fill("team-a");
    await dialog().getByLabel("Expires after").fill("30d");
    await dialog().getByLabel("Requests per day").first().fill("10");
    await dialog().getByLabel("Bytes per month").first().fill("lots");
    await page.keyboard.press("Enter");
    await dialog().getByRole("alert").getByText("budget").waitFor();
    await dialog().getByLabel("Bytes per month").first().fill("100GB");
    await everyLook("key-create", () => dialog().waitFor());
    await dialog().getByLabel("Name").press("Enter");
    await page.getByRole("heading", { name: "The secret of team-a" }).waitFor();
    secret = await page.locator("[data-secret]").textContent();
    assert.match(secret, /^xg_[a-z2-9]{32}$/);
    await inspect(page, "key-secret");
    await page.keyboard.press("Escape");
    await page.mouse.click(3, 300);
    assert.equal(await page.locator("[data-secret]").count(), 1, "only the button closes it");
    await dialog().getByRole("button", { name: "Copy the secret" }).click();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
    await dialog().getByRole("button", { name: "I have stored it" }).click();
    await page.getByRole("link", { name: "team-a" }).waitFor();
    const kept = await page.evaluate(() => document.documentElement.outerHTML + JSON.stringify([{ ...localStorage }, { ...sessionStorage }, location.href]));
    assert.ok(!kept.includes(secret));
    assert.deepEqual([await send(STRAIGHT, "x"), await send(STRAIGHT, secret)], [null, "page"], "from now on every client needs a key");
    faultless(page);
  });

  it("shows what a key has used, and warns at 80 %", async () => {
    assert.equal(await page.locator(".alarm").count(), 0);
    for (let sent = 1; sent < 8; sent += 1) assert.equal(await send(STRAIGHT, secret), "page");
    await page.getByRole("alert").getByText("80 % or more of 1 budget is used.").waitFor({ timeout: 15_000 });
    await seen("team-a: requests today, 80% used");
    await seen("8 of 10 (80%)");
    await everyLook("keys-near", () => page.locator(".alarm").waitFor());
    for (let sent = 8; sent < 10; sent += 1) assert.equal(await send(STRAIGHT, secret), "page");
    assert.equal(await send(STRAIGHT, secret), null, "the budget is used up");
    await page.getByRole("alert").getByText("1 budget is used up: what it counts is refused.").waitFor({ timeout: 15_000 });
    await page.locator("tbody tr", { hasText: "team-a" }).getByText("used up").waitFor();
    await page.getByRole("link", { name: "team-a" }).last().click();
    await page.getByRole("heading", { name: "team-a", level: 1 }).waitFor();
    await seen("10 of 10 (100%)");
    await page.getByRole("heading", { name: "Of the source direct" }).waitFor();
    await seen(/of 100 GB \(/);
    await everyLook("key", () => page.locator(".meter").first().waitFor());
    faultless(page);
  });

  it("changes a key, and does not undo what somebody else has changed meanwhile", async () => {
    await page.getByRole("button", { name: "Change", exact: true }).click();
    await dialog().getByLabel("Requests per day").first().fill("1000");
    const changed = await api("PATCH", "/keys/team-a", { limits: { connections: 7 } });
    assert.equal(changed.status, 200);
    await dialog().getByRole("button", { name: "Change key" }).click();
    await dialog().getByRole("alert").getByText("Somebody else has changed this key").waitFor();
    await inspect(page, "key-stale");
    const { usage, limits } = await (await api("GET", "/keys/team-a")).json();
    assert.deepEqual([usage.budget.requests_per_day, limits.connections], [10, 7], "nothing was overwritten");
    await dialog().getByRole("button", { name: "Load its present settings" }).click();
    await dialog().getByText("Limits at the same time").click();
    await page.waitForFunction(() => [...document.querySelectorAll("dialog input")].some(({ value }) => value === "7"));
    assert.equal(await dialog().getByLabel("Open connections").inputValue(), "7");
    await dialog().getByLabel("Requests per day").first().fill("1000");
    await dialog().getByRole("button", { name: "Change key" }).click();
    await seen("10 of 1,000 (1%)");
    await seen("at most 7 open");
    assert.equal(await send(STRAIGHT, secret), "page", "the secret stays");
    await page.getByRole("button", { name: "Change", exact: true }).click();
    await dialog().getByText("tor", { exact: true }).or(dialog().getByText("direct", { exact: true })).first().click();
    await dialog().getByRole("button", { name: "Change key" }).click();
    await dialog().waitFor({ state: "detached" });
    assert.deepEqual((await (await api("GET", "/keys/team-a")).json()).sources, ["direct"]);
    faultless(page);
  });

  it("shows at a source what it carried, and the budgets of keys for it", async () => {
    assert.equal((await api("PATCH", "/keys/team-a", { source_budgets: { direct: { requests_per_month: 12 } } })).status, 200);
    await page.goto(`${gateway.url}/#/sources`);
    const card = page.getByRole("region", { name: "direct", exact: true });
    await card.getByText("11 of 12 (92%)").waitFor();
    await card.getByText("nearly used up").waitFor();
    // Twelve requests: one without a key, eleven with it.
    await card.getByText(/^12 100% of all$/).waitFor({ timeout: 15_000 });
    await everyLook("sources-carried", () => card.waitFor());
    // A gateway that counts the bytes by source shows them: this answer is written as such an API writes it.
    await page.route(/\/sources$/, (route) => route.fulfill({ json: { sources: [], carried: { direct: { requests: 3, bytes_up: 1000, bytes_down: 2000 }, acme: { requests: 1, bytes_up: 0, bytes_down: 9000 } } } }));
    await card.getByText(/^3 KB 25% of all$/).waitFor({ timeout: 15_000 });
    await page.unrouteAll();
    faultless(page);
  });

  it("is found by the search, and a key that is gone says so", async () => {
    await page.goto(`${gateway.url}/#/keys/nobody`);
    await seen("There is no such key");
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox").fill("team");
    await page.getByRole("option", { name: /^team-a/ }).waitFor();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "team-a", level: 1 }).waitFor();
    await page.getByText("There is no such key").waitFor({ state: "detached" });
    faultless(page);
  });

  it("deletes a key with its connections, and the last one only on purpose", async () => {
    await page.getByRole("button", { name: "Delete" }).click();
    await dialog().waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.type), "checkbox", "the dialog begins at its first field");
    await dialog().getByLabel(/^Close its open connections too/).check();
    await dialog().getByRole("button", { name: "Delete key" }).click();
    await dialog().getByRole("alert").getByText("is the only key").waitFor();
    await inspect(page, "key-delete-last");
    await shoot(page, "key-delete-last");
    await dialog().getByLabel("Let everybody who can reach a port use the gateway without a key").check();
    const sent = page.waitForRequest((request) => request.method() === "DELETE");
    await dialog().getByRole("button", { name: "Delete key" }).click();
    assert.deepEqual(Object.fromEntries(new URL((await sent).url()).searchParams), { cut: "true", open: "true" });
    await seen("No key yet");
    assert.equal(await send(STRAIGHT, "x"), "page");
    faultless(page);
  });

  it("offers no change of a key of the configuration", async () => {
    // This gateway has none: the answer is written as the API writes it.
    const none = { requests: 0, bytes: 0, resets: "2030-01-01T00:00:00Z" };
    const item = { name: "fixed", origin: "config", version: "0", expired: false, created: null, expires: null, routes: ["shop"], sources: null, limits: {}, open_connections: 0, usage: { budget: {}, level: "fine", day: none, month: none }, source_usage: [] };
    await page.route(/\/keys\/fixed$/, (route) => route.fulfill({ json: item }));
    await page.goto(`${gateway.url}/#/keys/fixed`);
    await seen("from the configuration");
    assert.deepEqual(await Promise.all(["Change", "Delete"].map((name) => page.getByRole("button", { name }).isDisabled())), [true, true]);
    await page.unrouteAll();
    faultless(page);
  });
});
