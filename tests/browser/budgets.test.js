// The arithmetic of budgets, and the patch that the form of a key sends.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { budgets, exact, formOf, fullest, level, limits, patchOf } from "../../src/console/assets/budgets.js";

const period = (requests, bytes) => ({ requests, bytes, resets: "2026-12-02T00:00:00Z" });
const usage = (budget, day = period(0, 0), month = period(0, 0)) => ({ budget, level: "fine", day, month });
const KEY = {
  name: "a", routes: null, sources: ["tor"], limits: { connections: 5, bytes_per_second: 2_500_000 },
  usage: usage({ requests_per_day: 10, bytes_per_month: 100e9 }, period(8, 5), period(9, 25e9)),
  source_usage: [{ source: "tor", ...usage({ bytes_per_day: 2 ** 30 }, period(0, 2 ** 30)) }, { source: "public", ...usage({}) }],
};

describe("budgets", () => {
  it("are near from 80 % on and spent from 100 % on", () => {
    assert.deepEqual([null, 0, 0.79, 0.8, 0.999, 1, 1.2].map(level), ["fine", "fine", "fine", "near", "near", "spent", "spent"]);
  });

  it("have the counts of their day or month", () => {
    assert.deepEqual(limits(KEY.usage).map(({ used, limit, share }) => [used, limit, share]), [[8, 10, 0.8], [9, null, null], [5, null, null], [25e9, 100e9, 0.25]]);
    assert.deepEqual(budgets(KEY).map(({ source, field, level: now }) => [source, field, now]), [[null, "requests_per_day", "near"], [null, "bytes_per_month", "fine"], ["tor", "bytes_per_day", "spent"]]);
    assert.equal(fullest(KEY).source, "tor");
    assert.equal(fullest({ ...KEY, source_usage: [] }).field, "requests_per_day");
    assert.equal(fullest({ ...KEY, usage: usage({}), source_usage: [] }), null);
  });

  it("are written exactly as the API reads them", () => {
    assert.deepEqual([1, 1500, 1e6, 1_500_000, 2 ** 20, 100e9, 3 * 2 ** 30].map(exact), ["1", "1500", "1MB", "1500000", "1MiB", "100GB", "3GiB"]);
  });
});

describe("the form of a key", () => {
  it("sends only what was changed", () => {
    const first = formOf(KEY);
    assert.equal(first["budget.bytes_per_month"], "100GB");
    assert.equal(first["limits.bytes_per_second"], "2500000");
    assert.deepEqual(patchOf(first, { ...first }), {});
    const now = { ...first, ttl: "30d", routes: "shop,  news", "limits.connections": "", "budget.requests_per_day": "20", "source_budgets.tor.bytes_per_day": " 5GB ", "source_budgets.public.bytes_per_day": "lots" };
    assert.deepEqual(patchOf(first, now), {
      ttl: "30d", routes: ["shop", "news"], limits: { connections: null }, budget: { requests_per_day: 20 },
      source_budgets: { tor: { bytes_per_day: "5GB" }, public: { bytes_per_day: "lots" } },
    });
    const routed = formOf({ ...KEY, routes: ["shop"] });
    assert.deepEqual(patchOf(routed, { ...routed, routes: "" }), { routes: null });
  });

  it("sends a new key without what was left empty", () => {
    const empty = { name: "", ...formOf(null) };
    assert.deepEqual(patchOf(empty, { ...empty, "budget.bytes_per_day": "1GB" }), { budget: { bytes_per_day: "1GB" } });
  });
});
