// The parts of the console that compute and draw nothing: the points of the history, the steps of the start, the filter
// of events, and the search with its commands.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { PARTIES, SPANS, points } from "../../src/console/assets/history.js";
import { FAILED } from "../../src/console/assets/live.js";
import { radius } from "../../src/console/assets/pages/map.js";
import { fits } from "../../src/console/assets/pages/events.js";
import { LANDS, POINTS } from "../../src/console/assets/map.js";
import { find } from "../../src/console/assets/search.js";
import { steps } from "../../src/console/assets/steps.js";
import { ROOT } from "./gateway.js";

const lists = (length, value) => Array.from({ length }, () => value);

function answer(from, length, change = {}) {
  const failed = Object.fromEntries(PARTIES.map(({ word }) => [word, lists(length, 0)]));
  return { from, step_seconds: 60, requests: lists(length, 10), failed, usable_exits: lists(length, 8), open_p50_ms: lists(length, 100), open_p95_ms: lists(length, 300), ...change };
}

describe("the points of the history", () => {
  const [hour, , day] = SPANS;

  it("are one for each minute of an hour, with nulls before the first reading", () => {
    const list = points(answer("2026-01-01T10:00:00.000Z", 3), hour);
    assert.equal(list.length, 60);
    assert.deepEqual(list.slice(-4).map(({ requests }) => requests), [null, 10, 10, 10]);
    assert.equal(new Date(list.at(-1).at).toISOString(), "2026-01-01T10:02:00.000Z");
    assert.deepEqual([list[0].usable, list[0].p50, list[0].failed], [null, null, null]);
  });

  it("begin at multiples of the step, and average what is known", () => {
    const list = points(answer("2026-01-01T10:10:00.000Z", 10, {
      requests: [10, null, 10, 10, 10, 30, 30, 30, 30, 30],
      usable_exits: [8, null, 3, 8, 8, 9, 9, 7, 9, 9],
      open_p50_ms: [100, null, 100, 900, 100, null, null, null, null, null],
      open_p95_ms: [300, null, 200, 950, 300, null, null, null, null, null],
      failed: { ...answer("", 10).failed, exit: [4, null, 0, 0, 0, 0, 0, 0, 0, 0], target: [0, null, 4, 0, 0, 0, 0, 0, 0, 0] },
    }), day);
    assert.equal(list.length, 96);
    const [before, last] = list.slice(-2);
    assert.equal(new Date(last.at).toISOString(), "2026-01-01T10:15:00.000Z");
    assert.deepEqual([before.minutes, last.minutes], [4, 5]);
    assert.deepEqual([before.requests, before.failed, before.parties.exit, before.parties.target], [10, 2, 1, 1]);
    assert.deepEqual([before.usable, before.p50, before.p95], [3, 100, 950]);
    assert.deepEqual([last.requests, last.usable, last.p50, last.p95], [30, 7, null, null]);
  });

  it("weigh the median of a minute by its requests", () => {
    const change = { requests: [1, 1, 100], open_p50_ms: [10, 20, 500], open_p95_ms: [1, 1, 1] };
    assert.equal(points(answer("2026-01-01T10:00:00.000Z", 3, change), day).at(-1).p50, 500);
  });

  it("are none before the first reading", () => {
    assert.deepEqual(points(undefined, hour), []);
    assert.deepEqual(points(answer(null, 0), hour), []);
  });
});

it("an outcome counts as failed if the gateway's own list of failures has it", async () => {
  const rows = await readFile(path.join(ROOT, "src/gateway/failure.rs"), "utf8");
  const labels = [...rows.matchAll(/^ {8}\(Failure::.*"([a-z_]+)"\),$/gm)].map(([, label]) => label);
  assert.ok(labels.length > 50, `${labels.length} labels`);
  assert.deepEqual(labels.filter((label) => !FAILED.test(label)), []);
  const relay = await readFile(path.join(ROOT, "src/gateway/relay.rs"), "utf8");
  const ends = [...relay.matchAll(/^ {12}Self::\w+(?:\(.*\))? => "([a-z_]+)",$/gm)].map(([, label]) => label);
  assert.ok(ends.includes("client_gone") && ends.includes("target_gone"), ends.join(" "));
  for (const good of [...ends, "answered", "resolved", "here", "cut"]) assert.doesNotMatch(good, FAILED);
});

describe("the steps of the start", () => {
  const source = (usable = 0) => ({ ready: usable > 0, usable, reason: "" });
  const engine = (change) => ({ id: 0, state: "ready", usable: true, attached: false, pid: 7, bootstrap_percent: null, why: null, guard_answers: true, ...change });
  const all = (change = {}) => ({ ready: { ready: false, sources: { tor: source() } }, engines: { engines: [engine()] }, sources: { sources: [] }, countries: { countries: [{ known: 9, usable: 0 }] }, checks: { done: 3, running: 2, waiting: 1 }, ...change });
  const states = (list) => list.map(({ state }) => state).join(" ");

  it("follow each other, and only one is in progress", () => {
    const booting = all({ engines: { engines: [engine({ state: "bootstrapping", usable: false, bootstrap_percent: 45, why: "loading descriptors", guard_answers: false })] }, countries: { countries: [] } });
    assert.equal(states(steps(booting)), "done now later later later");
    assert.match(steps(booting)[1].text, /^45%: loading descriptors/);
    assert.equal(steps(booting)[1].share, 0.45);
    assert.equal(states(steps(all())), "done done done done now");
    assert.match(steps(all()).at(-1).text, /^3 checks ended, 2 running, 1 waiting/);
    assert.equal(states(steps(all({ ready: { ready: true, sources: { tor: source(2) } } }))), "done done done done done");
  });

  it("name a guard that does not answer, and a tor that does not run", () => {
    const silent = steps(all({ engines: { engines: [engine({ guard_answers: false })] } }));
    assert.equal(states(silent), "done done trouble done later");
    assert.match(silent[2].text, /network and firewall/);
    const dead = steps(all({ engines: { engines: [engine({ state: "stopped", usable: false, pid: null, why: "tor was not found", guard_answers: false })] } }));
    assert.equal(dead[0].state, "trouble");
    assert.match(dead[0].text, /tor was not found/);
  });

  it("name a list that cannot be read", () => {
    const failed = all({ countries: { countries: [] }, sources: { sources: [{ name: "onionoo", failures: 2, outcome: "timeout", why: "no answer within 10 s" }] } });
    assert.match(steps(failed)[3].text, /^onionoo: no answer/);
    assert.equal(states(steps(failed)), "done done done trouble later");
  });

  it("of lists of public proxies do not wait for tor", () => {
    const list = steps(all({ ready: { ready: false, sources: { public: source() } }, countries: { countries: [] } }));
    assert.equal(states(list), "now now");
  });

  it("say what to switch on if no source is", () => {
    const [only] = steps({ ready: { ready: false, sources: {} } });
    assert.equal(only.state, "trouble");
    assert.match(only.text, /tor\.enabled = true/);
  });
});

it("events are found by kind and by the text that was typed", () => {
  const event = { kind: "pin.moved", data: { at: "2026-01-01T10:00:00.000Z", text: "Session cart42 moved", exit: "AB12", cause: "died" } };
  for (const [kind, typed, found] of [["", "", true], ["pin", "", true], ["engine", "", false], ["pin", " CART42 moved", true], ["", "moved cart42", false], ["", "died", true], ["", "ab12", true], ["", "pin.moved", true]]) {
    assert.equal(fits(event, kind, typed), found, `${kind} ${typed}`);
  }
});

it("the search finds by all words, explains usernames, and looks up unknown addresses", () => {
  const all = [{ name: "shop", words: "shop us", to: "#/routes/shop" }, { name: "Rotate shop", words: "Rotate shop another", run() {} }, { name: "Why shop", words: "Why shop", to: "#/why?username=shop" }];
  const names = (typed) => find(all, typed).map(({ name }) => name);
  assert.deepEqual(names("shop"), ["shop", "Rotate shop", "Why shop"]);
  assert.deepEqual(names("SHOP rot"), ["Rotate shop"]);
  assert.deepEqual(names("why shop"), ["Why shop"]);
  assert.equal(find(all, "explain de+fr-session-a")[0].to, "#/why?username=de%2Bfr-session-a");
  assert.equal(find(all, "192.0.2.7")[0].to, "#/exits/192.0.2.7");
  assert.equal(find(all, "us-strict")[0].hint, "explain this username");
  assert.deepEqual(find(all, "no such thing"), []);
});

describe("the world map", () => {
  it("has a place for every country that has outlines, inside the map", () => {
    const missing = Object.keys(LANDS).filter((code) => code && !POINTS[code]);
    assert.deepEqual(missing, []);
    for (const [code, [x, y]] of Object.entries(POINTS)) assert.ok(x >= 0 && x <= 1000 && y >= 0 && y <= 450, `${code} ${x} ${y}`);
    for (const code of ["SG", "HK", "LU", "MT", "SC", "XK"]) assert.ok(POINTS[code], code);
  });

  it("has no outline that runs around the world", () => {
    for (const [code, d] of Object.entries(LANDS)) {
      for (const [, ring] of d.matchAll(/l([^z]*)z/g)) {
        const across = (ring.match(/-?\d+/g) ?? []).filter((_, at) => at % 2 === 0).map(Number);
        assert.ok(Math.max(...across.map(Math.abs)) < 200, `${code}: a line of ${Math.max(...across.map(Math.abs))} units`);
      }
    }
  });

  it("draws circles whose area grows with the number of exits", () => {
    assert.deepEqual([radius(0, 400), radius(400, 400), radius(900, 900)], [0, 26, 26]);
    assert.ok(radius(100, 400) > radius(1, 400) && radius(100, 400) < 15);
    assert.ok(radius(3, 3) < 8, "few exits have small circles");
  });
});
