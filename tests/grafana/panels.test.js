// What is drawn exists: every query of every panel is asked of a Prometheus that scrapes a gateway under load.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { ROOT, demo, stop } from "../browser/gateway.js";
import { FOLDER, dashboards } from "../../grafana/make.mjs";
import { load, prometheus } from "./stage.js";

// What Grafana fills in. The rate's width is four scrapes, as Grafana reckons it.
const FILL = { $__rate_interval: "15s", $__interval: "1s", $__range: "60s", $instance: ".*", $route: ".*" };
export const filled = (expr) => Object.entries(FILL).reduce((text, [name, value]) => text.replaceAll(name, value), expr);

const queries = Object.entries(dashboards()).flatMap(([file, { panels }]) =>
  panels.flatMap(({ title, targets = [] }) => targets.map(({ expr, refId }) => ({ name: `${file}: ${title} (${refId})`, expr }))));
// Only cAdvisor has those; containers.test.js asks them of made-up series.
const live = queries.filter(({ expr }) => !expr.includes("container_"));

describe("dashboards", { concurrency: false }, () => {
  let gateway;
  let watcher;
  let rest;

  before(async () => {
    gateway = await demo("127.92.0.1");
    watcher = await prometheus(gateway, "127.92.0.1");
    rest = await load(gateway);
    // As many scrapes as the widest rate has, and some more.
    await new Promise((resume) => setTimeout(resume, 20_000));
  });

  after(async () => {
    await rest?.();
    await watcher?.stop();
    await stop(gateway);
  });

  it("are many enough to mean something", () => {
    assert.ok(live.length > 50, `${live.length} queries`);
  });

  for (const { name, expr } of live) {
    it(name, async () => {
      const series = await watcher.ask(filled(expr));
      const numbers = series.flatMap(({ values }) => values).filter(([, value]) => value !== "NaN");
      assert.ok(numbers.length > 0, `no data: ${filled(expr)}`);
    });
  }

  it("name only metrics that the gateway has", async () => {
    const page = await readFile(path.join(ROOT, "src/telemetry/metrics.rs"), "utf8");
    const known = new Set([...page.matchAll(/"(exitgate_[a-z_]+)"/g)].map(([, name]) => name));
    const texts = [...queries.map(({ expr }) => expr), await readFile(path.join(ROOT, "config/alerts.yml"), "utf8")];
    for (const [name] of texts.join("\n").matchAll(/exitgate_[a-z_]+/g)) {
      assert.ok(known.has(name.replace(/_(bucket|count|sum)$/, "")) || known.has(name), name);
    }
  });

  it("speaks Prometheus' own language well", async () => {
    const { execFileSync } = await import("node:child_process");
    const text = await (await fetch(`${gateway.url}/metrics`)).text();
    execFileSync("promtool", ["check", "metrics"], { input: text });
  });
});

describe("the JSON", () => {
  it("is what grafana/make.mjs makes", async () => {
    const { written } = await import("../../grafana/make.mjs");
    for (const [name, board] of Object.entries(dashboards())) {
      assert.equal(await readFile(path.join(FOLDER, name), "utf8"), written(board), `${name}: run node grafana/make.mjs`);
    }
  });

  it("shows each thing once, on a grid without holes or overlaps", () => {
    for (const { title, panels } of Object.values(dashboards())) {
      const taken = new Map();
      for (const { id, title: name, gridPos: { x, y, w, h } } of panels) {
        assert.ok(x + w <= 24, `${title}: ${name} is too wide`);
        for (let column = x; column < x + w; column += 1) {
          for (let line = y; line < y + h; line += 1) {
            const place = `${column},${line}`;
            assert.ok(!taken.has(place), `${title}: ${name} lies on ${taken.get(place)}`);
            taken.set(place, name);
          }
        }
        assert.equal(panels.filter((other) => other.id === id).length, 1, name);
      }
    }
  });
});
