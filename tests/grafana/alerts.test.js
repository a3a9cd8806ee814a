// Each alert is seen to fire, and to keep quiet beside it; each has a runbook that is there to be read.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { it } from "node:test";
import { ROOT } from "../browser/gateway.js";
import { dashboards } from "../../grafana/make.mjs";
import { run } from "./stage.js";

const RULES = path.join(ROOT, "config/alerts.yml");
const HERE = 'instance="gate:8080", job="exitgate"';
const BUSY = 'exitgate_requests_total{instance="gate:8080", job="exitgate", outcome="answered"}';

// For each alert: series that make it fire at `at`, and series that are like them and must not. `a+bxn`: Prometheus' own
// way to write a series, one value a minute.
const CASES = [
  { alert: "ExitgateDown", fires: { [`up{${HERE}}`]: "0x10" }, quiet: { [`up{${HERE}}`]: "1x10" } },
  { alert: "ExitgateNoUsableExit", fires: { [`up{${HERE}}`]: "1x10", [`exitgate_exits{${HERE}, state="usable"}`]: "0x10", [`exitgate_exits{${HERE}, state="bad"}`]: "9x10" }, quiet: { [`up{${HERE}}`]: "1x10", [`exitgate_exits{${HERE}, state="usable"}`]: "3x10" } },
  { alert: "ExitgateNoUsableExit", fires: { [`up{${HERE}}`]: "1x10" }, quiet: { [`up{${HERE}}`]: "0x10" } },
  { alert: "ExitgateEngineDown", fires: { [`exitgate_engine_state{${HERE}, engine="1", state="restarting"}`]: "1x10", [`exitgate_engine_state{${HERE}, engine="1", state="ready"}`]: "0x10" }, quiet: { [`exitgate_engine_state{${HERE}, engine="1", state="restarting"}`]: "0x10", [`exitgate_engine_state{${HERE}, engine="1", state="degraded"}`]: "1x10" } },
  { alert: "ExitgateNoGuardAnswers", fires: { [`exitgate_engine_guard_up{${HERE}, engine="0"}`]: "0x10", [`exitgate_engine_guard_up{${HERE}, engine="1"}`]: "0x10" }, quiet: { [`exitgate_engine_guard_up{${HERE}, engine="0"}`]: "0x10", [`exitgate_engine_guard_up{${HERE}, engine="1"}`]: "1x10" } },
  { alert: "ExitgateEngineRestarts", at: "30m", fires: { [`exitgate_engine_restarts{${HERE}, engine="0"}`]: "0+1x60" }, quiet: { [`exitgate_engine_restarts{${HERE}, engine="0"}`]: "0x10 1x50" } },
  { alert: "ExitgateTorOutdated", at: "2h", fires: { [`exitgate_engine_outdated{${HERE}, engine="0"}`]: "1x200" }, quiet: { [`exitgate_engine_outdated{${HERE}, engine="0"}`]: "0x200" } },
  { alert: "ExitgateFailures", at: "30m", fires: { [BUSY]: "0+60x60", [`exitgate_requests_total{${HERE}, outcome="exit_died"}`]: "0+20x60" }, quiet: { [BUSY]: "0+60x60", [`exitgate_requests_total{${HERE}, outcome="target_refused"}`]: "0+60x60" } },
  { alert: "ExitgateFailures", at: "30m", fires: { [BUSY]: "0+60x60", [`exitgate_requests_total{${HERE}, outcome="no_exit_match"}`]: "0+20x60" }, quiet: { [BUSY]: "0+1x60", [`exitgate_requests_total{${HERE}, outcome="no_exit_match"}`]: "0+1x60" } },
  { alert: "ExitgateSlow", at: "40m", fires: slow(20), quiet: slow(1) },
  { alert: "ExitgateRouteEmpty", at: "15m", fires: { [`exitgate_pool_exits{${HERE}, route="shop"}`]: "0x30" }, quiet: { [`exitgate_pool_exits{${HERE}, route="shop"}`]: "1x30" } },
  { alert: "ExitgateSourceStale", at: "27h", fires: { [`exitgate_source_last_good_timestamp_seconds{${HERE}, source="onionoo"}`]: "0x2000" }, quiet: { [`exitgate_source_last_good_timestamp_seconds{${HERE}, source="onionoo"}`]: "0+60x2000" } },
  { alert: "ExitgateCheckBacklog", at: "3h", fires: { [`exitgate_checks_waiting{${HERE}}`]: "900x300" }, quiet: { [`exitgate_checks_waiting{${HERE}}`]: "900x60 20x300" } },
  { alert: "ExitgateStoreFailing", fires: { [`exitgate_store_failing{${HERE}}`]: "1x10" }, quiet: { [`exitgate_store_failing{${HERE}}`]: "0x10" } },
  { alert: "ExitgatePanic", fires: { [`exitgate_task_panics_total{${HERE}}`]: "0x3 1x10" }, quiet: { [`exitgate_task_panics_total{${HERE}}`]: "5x10" } },
  { alert: "ExitgateFilesShort", fires: { [`process_open_fds{${HERE}}`]: "900x10", [`process_max_fds{${HERE}}`]: "1024x10" }, quiet: { [`process_open_fds{${HERE}}`]: "90x10", [`process_max_fds{${HERE}}`]: "1024x10" } },
  { alert: "ExitgateBudgetNear", fires: { [`exitgate_key_budgets{${HERE}, state="near"}`]: "1x10" }, quiet: { [`exitgate_key_budgets{${HERE}, state="near"}`]: "0x10", [`exitgate_key_budgets{${HERE}, state="spent"}`]: "1x10" } },
  { alert: "ExitgateBudgetSpent", fires: { [`exitgate_key_budgets{${HERE}, state="spent"}`]: "1x10" }, quiet: { [`exitgate_key_budgets{${HERE}, state="spent"}`]: "0x10", [`exitgate_key_budgets{${HERE}, state="near"}`]: "1x10" } },
  { alert: "ExitgateGuessing", at: "15m", fires: { [`exitgate_requests_total{${HERE}, outcome="auth_wrong"}`]: "0+120x30" }, quiet: { [`exitgate_requests_total{${HERE}, outcome="auth_wrong"}`]: "0+6x30" } },
];

function slow(seconds) {
  const bucket = (le) => `exitgate_open_seconds_bucket{${HERE}, le="${le}"}`;
  const grow = "0+60x60";
  return { [bucket("1")]: seconds <= 1 ? grow : "0x60", [bucket("20")]: grow, [bucket("+Inf")]: grow, [`exitgate_open_seconds_count{${HERE}}`]: grow };
}

const series = (values) => Object.entries(values).map(([name, written]) => ({ series: name, values: written }));

async function promtool(tests, rules = []) {
  const folder = await mkdtemp(path.join(tmpdir(), "exitgate-promtool-"));
  const file = path.join(folder, "tests.yml");
  await writeFile(file, JSON.stringify({ rule_files: rules, evaluation_interval: "1m", tests }));
  try {
    await run("promtool", ["test", "rules", file]);
  } catch (why) {
    assert.fail(`${why.stdout}\n${why.stderr}`);
  } finally {
    await rm(folder, { recursive: true });
  }
}

// promtool wants the whole text of an alert; whether it fires at all is a query of ALERTS, which needs no text.
const firing = ({ alert, at = "10m" }, values, count) => ({
  interval: "1m", input_series: series(values),
  promql_expr_test: [{ expr: `count(ALERTS{alertname="${alert}", alertstate="firing"}) or vector(0)`, eval_time: at, exp_samples: [{ labels: "{}", value: count }] }],
});

it("the files are well-formed", async () => {
  await run("promtool", ["check", "rules", "--lint=all", "--lint-fatal", RULES]);
  await run("promtool", ["check", "config", "--syntax-only", path.join(ROOT, "config/prometheus.yml")]);
});

for (const one of CASES) {
  it(`${one.alert} fires when it should, and not beside it`, () => promtool([firing(one, one.fires, 1), firing(one, one.quiet, 0)], [RULES]));
}

it("every alert is tried, and has its runbook", async () => {
  const [rules, manual] = await Promise.all([readFile(RULES, "utf8"), readFile(path.join(ROOT, "docs/operations.md"), "utf8")]);
  const alerts = [...rules.matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
  assert.deepEqual([...new Set(CASES.map(({ alert }) => alert))].sort(), [...alerts].sort());
  const books = [...rules.matchAll(/runbook_url: \S+\/docs\/operations\.md#(\S+)/g)].map(([, anchor]) => anchor);
  assert.deepEqual(books, alerts.map((name) => name.toLowerCase()));
  for (const name of alerts) assert.match(manual, new RegExp(`^#{2,4} ${name}$`, "m"), `docs/operations.md has no section ${name}`);
});

it("the panels of containers show what cAdvisor says", async () => {
  const fill = (expr) => expr.replaceAll("$__rate_interval", "4m");
  const panels = dashboards()["infrastructure.json"].panels.filter(({ targets = [] }) => targets.some(({ expr }) => expr.includes("container_")));
  assert.ok(panels.length >= 4);
  const names = { "exitgate-exitgate-1": 2, "exitgate-tor-1": 1, grafana: 5 };
  const input = {};
  for (const [name, pace] of Object.entries(names)) {
    input[`container_cpu_usage_seconds_total{name="${name}", cpu="total"}`] = `0+${30 * pace}x20`;
    input[`container_memory_working_set_bytes{name="${name}"}`] = `${pace * 1e6}x20`;
    input[`container_network_receive_bytes_total{name="${name}", interface="eth0"}`] = `0+${600 * pace}x20`;
    input[`container_network_transmit_bytes_total{name="${name}", interface="eth0"}`] = `0+${60 * pace}x20`;
  }
  const want = { cpu_usage: 0.5, memory_working: 1e6, network_receive: 10, network_transmit: 1 };
  await promtool([{
    interval: "1m", input_series: series(input),
    promql_expr_test: panels.flatMap(({ targets }) => targets).map(({ expr }) => {
      const one = Object.entries(want).find(([word]) => expr.includes(word))[1];
      const sample = (name) => ({ labels: `{name="${name}"}`, value: names[name] * one });
      return { expr: fill(expr), eval_time: "15m", exp_samples: [sample("exitgate-exitgate-1"), sample("exitgate-tor-1")] };
    }),
  }]);
});
