// The source of the dashboards. `node grafana/make.mjs` generates the JSON that Grafana reads.
//
// Each panel is one line: its queries and how they are drawn. The JSON is committed, so that nobody needs node to use it. A test checks that it
// was generated from this file, that it has Grafana's types, and that a Prometheus with data of a gateway under load answers the queries.
import { writeFile } from "node:fs/promises";
import path from "node:path";

const SOURCE = { type: "prometheus", uid: "${source}" };
// Every query of exitgate's metrics has the first filter; queries by route have the second.
const HERE = `instance=~"$instance"`;
const ROUTE = `${HERE}, route=~"$route"`;
// The outcomes of requests that failed; all others are successes. A tunnel whose client or target went away was open: its request succeeded.
const FAILED = `outcome=~"(auth|client|denied|limited|no_exit|engine|exit|target|answer|deadline|draining)(_.+)?", outcome!~"(client|target)_gone"`;
const OURS = `outcome=~"(ours|no_exit|engine|exit)_.+"`;
const BOX = `name=~".*(exitgate|tor).*"`;

let next = 0;
const target = ([expr, legendFormat], at) => ({
  refId: String.fromCharCode(65 + at), datasource: SOURCE, expr, legendFormat: legendFormat ?? "", editorMode: "code", range: true,
});

function panel(type, title, width, height, queries, { unit = "short", about = "", options = {}, custom, thresholds, min = 0, max, decimals } = {}) {
  next += 1;
  return {
    id: next, type, title, description: about, datasource: SOURCE, width, height,
    targets: queries.map(target),
    fieldConfig: {
      defaults: {
        unit, min, ...(max === undefined ? {} : { max }), ...(decimals === undefined ? {} : { decimals }),
        color: { mode: thresholds ? "thresholds" : "palette-classic" },
        thresholds: { mode: "absolute", steps: thresholds ?? [{ color: "green", value: null }] },
        ...(custom ? { custom } : {}),
      },
      overrides: [],
    },
    options,
  };
}

const legend = { displayMode: "table", placement: "bottom", showLegend: true, calcs: ["lastNotNull", "max"] };
const drawn = { drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 10, showPoints: "never", spanNulls: false };

const graph = (title, width, queries, more = {}) =>
  panel("timeseries", title, width, 8, queries, { ...more, options: { legend, tooltip: { mode: "multi", sort: "desc" } }, custom: drawn });
const stack = (title, width, queries, more = {}) =>
  panel("timeseries", title, width, 8, queries, {
    ...more, options: { legend, tooltip: { mode: "multi", sort: "desc" } },
    custom: { ...drawn, fillOpacity: 45, stacking: { mode: "normal", group: "A" } },
  });
const stat = (title, width, query, more = {}) =>
  panel("stat", title, width, 4, [[query]], {
    ...more, options: { reduceOptions: { calcs: ["lastNotNull"], fields: "", values: false }, colorMode: more.thresholds ? "value" : "none", graphMode: "area", textMode: "auto", justifyMode: "auto", orientation: "auto" },
  });
const bars = (title, width, queries, more = {}) =>
  panel("bargauge", title, width, 8, queries, {
    ...more, options: { reduceOptions: { calcs: ["lastNotNull"], fields: "", values: false }, displayMode: "gradient", orientation: "horizontal", showUnfilled: true, valueMode: "color" },
  });
const row = (title) => {
  next += 1;
  return { id: next, type: "row", title, collapsed: false, panels: [], width: 24, height: 1 };
};

// Colours of a value: green, from `warn` on orange, from `bad` on red; `falling` is the reverse.
const rising = (warn, bad) => [{ color: "green", value: null }, { color: "orange", value: warn }, { color: "red", value: bad }];
const falling = (bad, warn) => [{ color: "red", value: null }, { color: "orange", value: bad }, { color: "green", value: warn }];

// Places panels from left to right, in a new line when one is full.
function placed(panels) {
  let [x, y, tallest] = [0, 0, 0];
  return panels.map(({ width: w, height: h, ...rest }) => {
    if (x + w > 24) [x, y, tallest] = [0, y + tallest, 0];
    const gridPos = { x, y, w, h };
    x += w;
    tallest = Math.max(tallest, h);
    return { ...rest, gridPos };
  });
}

const variable = (name, label, query) => ({
  name, label, type: "query", datasource: SOURCE, query: { query, refId: name },
  refresh: 2, includeAll: true, allValue: ".*", multi: true, sort: 1, hide: 0, current: { text: "All", value: "$__all" }, options: [],
});

function dashboard(uid, title, description, variables, panels) {
  return {
    uid, title, description, tags: ["exitgate"], schemaVersion: 39, version: 1, editable: false, graphTooltip: 1,
    timezone: "browser", refresh: "30s", time: { from: "now-3h", to: "now" }, fiscalYearStartMonth: 0,
    links: [{ title: "exitgate", type: "dashboards", tags: ["exitgate"], asDropdown: false, includeVars: true, keepTime: true, icon: "dashboard", tooltip: "", url: "", targetBlank: false }],
    templating: { list: [
      { name: "source", label: "Prometheus", type: "datasource", query: "prometheus", refresh: 1, hide: 0, current: { text: "Prometheus", value: "prometheus" }, options: [] },
      ...variables,
    ] },
    panels: placed(panels),
  };
}

const instance = variable("instance", "Gateway", "label_values(exitgate_build_info, instance)");
const route = variable("route", "Route", `label_values(exitgate_requests_total{${HERE}}, route)`);
const rate = (metric, labels, by) => `sum${by ? ` by (${by})` : ""} (rate(${metric}{${labels}}[$__rate_interval]))`;
const quantile = (share, metric, labels, by = "") => `histogram_quantile(${share}, sum by (le${by && `, ${by}`}) (rate(${metric}_bucket{${labels}}[$__rate_interval])))`;
const share = (labels) => `(${rate("exitgate_requests_total", labels)} or vector(0)) / ${rate("exitgate_requests_total", ROUTE)}`;

function control() {
  next = 0;
  return dashboard("exitgate-control", "exitgate: Control Plane", "Requests, routes and the API: whether traffic flows, how fast, and the causes of failures.", [instance, route], [
    stat("Requests a second", 4, rate("exitgate_requests_total", ROUTE), { unit: "reqps" }),
    stat("Failed, all reasons", 4, share(`${ROUTE}, ${FAILED}`), { unit: "percentunit", thresholds: rising(0.02, 0.1), about: "Includes errors of clients and refusals by targets." }),
    stat("Failed in exitgate or an exit", 4, share(`${ROUTE}, ${OURS}`), { unit: "percentunit", thresholds: rising(0.01, 0.1), about: "There was no exit, an engine or an exit failed, or the gateway has a bug." }),
    stat("Time to open, p50", 4, quantile(0.5, "exitgate_open_seconds", HERE), { unit: "s", thresholds: rising(2, 10) }),
    stat("Open streams", 4, `sum(exitgate_streams_open{${ROUTE}})`, {}),
    stat("Usable exits", 4, `sum(exitgate_exits{${HERE}, state="usable"})`, { thresholds: falling(1, 10) }),
    row("Requests"),
    stack("Requests by outcome", 12, [[rate("exitgate_requests_total", ROUTE, "outcome"), "{{outcome}}"]], { unit: "reqps" }),
    graph("Failures by reason", 12, [[rate("exitgate_requests_total", `${ROUTE}, ${FAILED}`, "outcome"), "{{outcome}}"]], { unit: "reqps", about: "The words are those of the access line and of X-Exitgate-Error." }),
    graph("Time to open a stream", 12, [[quantile(0.5, "exitgate_open_seconds", HERE), "p50"], [quantile(0.95, "exitgate_open_seconds", HERE), "p95"], [quantile(0.99, "exitgate_open_seconds", HERE), "p99"], [quantile(0.95, "exitgate_handshake_seconds", HERE), "handshake, p95"]], { unit: "s", about: "From the complete request until the stream to its target is open. `handshake`: from accept to the complete request; that time depends on the client." }),
    graph("Time to the first byte", 12, [[quantile(0.5, "exitgate_first_byte_seconds", HERE), "p50"], [quantile(0.95, "exitgate_first_byte_seconds", HERE), "p95"]], { unit: "s", about: "From the complete request to the first byte from its target." }),
    graph("Time to open, p95 by source", 12, [[quantile(0.95, "exitgate_open_seconds", HERE, "source"), "{{source}}"]], { unit: "s" }),
    graph("Slowest countries, p95 to open", 12, [[`topk(10, ${quantile(0.95, "exitgate_open_seconds", HERE, "country")})`, "{{country}}"]], { unit: "s" }),
    row("Routes"),
    graph("Busiest routes", 12, [[`topk(10, ${rate("exitgate_requests_total", ROUTE, "route")})`, "{{route}}"]], { unit: "reqps", about: "`implicit`: all usernames that are not the name of a route." }),
    graph("Failed share by route", 12, [[`topk(10, (${rate("exitgate_requests_total", `${ROUTE}, ${FAILED}`, "route")} / ${rate("exitgate_requests_total", ROUTE, "route")}))`, "{{route}}"]], { unit: "percentunit", max: 1 }),
    graph("Distinct addresses by route", 12, [[`exitgate_pool_unique_ips{${ROUTE}}`, "{{route}}"]], { decimals: 0 }),
    graph("Exits missing from pools", 12, [[`exitgate_pool_wanted_exits{${ROUTE}} - exitgate_pool_exits{${ROUTE}}`, "{{route}}"]], { decimals: 0, about: "Some missing exits are normal in a country that has no more. If all are missing, there is an alert." }),
    graph("Keys with a budget that is nearly or fully used", 12, [[`sum by (state) (exitgate_key_budgets{${HERE}})`, "{{state}}"], [`sum(exitgate_keys{${HERE}})`, "keys"]], { decimals: 0 }),
    graph("Routes, pins, sessions, selectors in use", 12, [[`sum(exitgate_routes{${HERE}})`, "routes"], [`sum(exitgate_pins{${HERE}})`, "pins"], [`sum(exitgate_sessions{${HERE}})`, "sessions"], [`sum(exitgate_implicit_routes{${HERE}})`, "selectors"]], { decimals: 0 }),
    graph("Streams open by route", 12, [[`topk(10, sum by (route) (exitgate_streams_open{${ROUTE}}))`, "{{route}}"]], { decimals: 0 }),
    row("Traffic and connections"),
    graph("Bytes relayed", 12, [[rate("exitgate_relayed_bytes_total", ROUTE, "way"), "{{way}}"]], { unit: "Bps", about: "`up` from clients to targets, `down` back." }),
    graph("Connections accepted by protocol", 6, [[rate("exitgate_connections_total", HERE, "protocol"), "{{protocol}}"]], { unit: "cps" }),
    graph("Connections open by port", 6, [[`topk(10, sum by (listener) (exitgate_connections_open{${HERE}}))`, "{{listener}}"]], { decimals: 0 }),
    row("API"),
    graph("API requests", 12, [[rate("exitgate_api_requests_total", HERE, "endpoint, status"), "{{endpoint}} {{status}}"]], { unit: "reqps" }),
    graph("API, p95 by endpoint", 12, [[`topk(10, ${quantile(0.95, "exitgate_api_seconds", HERE, "endpoint")})`, "{{endpoint}}"]], { unit: "s" }),
  ]);
}

function tor() {
  next = 0;
  const exits = (labels, by) => `sum${by ? ` by (${by})` : ""} (exitgate_exits{${HERE}${labels}})`;
  return dashboard("exitgate-tor", "exitgate: Tor Node Intelligence", "Exits and the results of their checks, engines and their circuits, and the sources of exits.", [instance], [
    stat("Usable exits", 4, exits(`, state="usable"`), { thresholds: falling(1, 10) }),
    stat("Known exits", 4, exits(""), {}),
    stat("Countries with a usable exit", 4, `count(${exits(`, state="usable", country!="??"`, "country")} > 0) or vector(0)`, {}),
    stat("Checks a minute", 4, `60 * ${rate("exitgate_checks_total", HERE)}`, {}),
    stat("Checks that pass", 4, `(${rate("exitgate_checks_total", `${HERE}, outcome="good"`)} or vector(0)) / ${rate("exitgate_checks_total", HERE)}`, { unit: "percentunit", thresholds: falling(0.3, 0.7) }),
    stat("Engines that carry", 4, `sum(exitgate_engine_state{${HERE}, state=~"ready|degraded"}) or vector(0)`, { thresholds: falling(1, 2) }),
    row("Exits"),
    stack("Exits by state", 12, [[exits("", "state"), "{{state}}"]], { decimals: 0, about: "`down`: the exit is not in the network now, or is being removed." }),
    bars("Usable exits by country", 6, [[`topk(15, ${exits(`, state="usable"`, "country")} > 0)`, "{{country}}"]], { decimals: 0 }),
    graph("Usable exits by source", 6, [[exits(`, state="usable"`, "source"), "{{source}}"]], { decimals: 0 }),
    row("Tester"),
    stack("Checks by outcome", 12, [[rate("exitgate_checks_total", HERE, "outcome"), "{{outcome}}"]], { unit: "cps" }),
    graph("Checks running and waiting", 6, [[`sum(exitgate_checks_running{${HERE}})`, "running"], [`sum(exitgate_checks_waiting{${HERE}})`, "waiting"]], { decimals: 0 }),
    graph("Time to open through an exit", 6, [[quantile(0.5, "exitgate_check_open_seconds", HERE), "p50"], [quantile(0.95, "exitgate_check_open_seconds", HERE), "p95"]], { unit: "s", about: "In checks that passed." }),
    graph("Checks of sites by outcome", 8, [[`${rate("exitgate_site_checks_total", HERE, "check, outcome")} or vector(0)`, "{{check}}: {{outcome}}"]], { unit: "cps" }),
    graph("Bans made, exits condemned", 8, [[`${rate("exitgate_bans_total", HERE)} or vector(0)`, "bans"], [`${rate("exitgate_exits_condemned_total", HERE)} or vector(0)`, "condemned"]], { unit: "cps", about: "A ban is for one exit at one site and ends by itself. A condemned exit changed pages or broke TLS at two hosts, and is not used for two weeks." }),
    graph("Suspended pages of the tester", 8, [[`sum by (check) (exitgate_checks_suspended{${HERE}}) or vector(0)`, "{{check}}"]], { decimals: 0, about: "More than half of the good exits failed this page within a minute, so its results do not count until it works again." }),
    graph("Public proxies", 12, [[`sum by (outcome) (exitgate_public_proxies{${HERE}}) or vector(0)`, "{{outcome}}"]], { decimals: 0, about: "Proxies of the enabled lists, by the result of their last check." }),
    graph("Public proxies: checks running and waiting", 12, [[`sum(exitgate_public_checks_running{${HERE}}) or vector(0)`, "running"], [`sum(exitgate_public_checks_waiting{${HERE}}) or vector(0)`, "waiting"]], { decimals: 0 }),
    row("Engines"),
    graph("Circuits by kind", 8, [[`sum by (kind) (exitgate_engine_circuits{${HERE}})`, "{{kind}}"]], { decimals: 0, about: "`spare` circuits are also counted as open." }),
    graph("Circuits by engine", 8, [[`sum by (engine) (exitgate_engine_circuits{${HERE}, kind="open"})`, "engine {{engine}}"]], { decimals: 0 }),
    graph("Streams by engine", 8, [[`sum by (engine) (exitgate_engine_streams{${HERE}})`, "engine {{engine}}"]], { decimals: 0 }),
    graph("Engines whose tor is not recommended", 8, [[`exitgate_engine_outdated{${HERE}}`, "engine {{engine}}"]], { max: 1, decimals: 0, about: "1: the Tor network does not recommend this engine's version of tor." }),
    graph("Engines: state", 8, [[`exitgate_engine_state{${HERE}} == 1`, "engine {{engine}}: {{state}}"]], { max: 1, decimals: 0 }),
    graph("Engines: bootstrap", 8, [[`exitgate_engine_bootstrap_ratio{${HERE}}`, "engine {{engine}}"]], { unit: "percentunit", max: 1 }),
    graph("Engines: restarts since the gateway's start", 8, [[`exitgate_engine_restarts{${HERE}}`, "engine {{engine}}"]], { decimals: 0 }),
    row("Sources"),
    graph("Age of the last good answer", 8, [[`time() - exitgate_source_last_good_timestamp_seconds{${HERE}}`, "{{source}}"]], { unit: "s" }),
    graph("Exits that a source describes", 8, [[`exitgate_source_exits{${HERE}}`, "{{source}}"]], { decimals: 0 }),
    graph("Answers by source and outcome, last day", 8, [[`sum by (source, outcome) (max_over_time(exitgate_source_requests_total{${HERE}}[1d]))`, "{{source}}: {{outcome}}"]], { decimals: 0 }),
  ]);
}

function infrastructure() {
  next = 0;
  const process = (metric) => `${metric}{job="exitgate", ${HERE}}`;
  return dashboard("exitgate-infrastructure", "exitgate: Infrastructure", "The gateway's process, its database, and the containers around it.", [instance], [
    stat("Up since", 4, `time() - ${process("process_start_time_seconds")}`, { unit: "s" }),
    stat("CPU", 4, `rate(${process("process_cpu_seconds_total")}[$__rate_interval])`, { unit: "percentunit", about: "Of one core." }),
    stat("Memory", 4, process("process_resident_memory_bytes"), { unit: "bytes", about: "Memory of the gateway without its tor processes." }),
    stat("Files used", 4, `${process("process_open_fds")} / ${process("process_max_fds")}`, { unit: "percentunit", thresholds: rising(0.6, 0.8) }),
    stat("Panics", 4, `sum(exitgate_task_panics_total{${HERE}})`, { thresholds: rising(1, 1) }),
    stat("Database", 4, `sum(exitgate_store_failing{${HERE}})`, { thresholds: rising(1, 1), about: "1 while the database cannot be written." }),
    row("Process"),
    graph("CPU", 8, [[`rate(${process("process_cpu_seconds_total")}[$__rate_interval])`, "{{instance}}"]], { unit: "percentunit", about: "1 is one core." }),
    graph("Memory", 8, [[process("process_resident_memory_bytes"), "resident"], [process("process_virtual_memory_bytes"), "virtual"]], { unit: "bytes" }),
    graph("Open files", 8, [[process("process_open_fds"), "open"]], { decimals: 0, about: "A tunnel uses two files, and two more while it is spliced." }),
    graph("Tasks", 8, [[`exitgate_tasks{${HERE}}`, "{{instance}}"]], { decimals: 0 }),
    graph("Threads", 8, [[process("process_threads"), "{{instance}}"]], { decimals: 0 }),
    graph("Log lines lost", 8, [[rate("exitgate_log_lines_lost_total", HERE), "lost"]], { unit: "cps", about: "Lines are dropped so that a blocked terminal or a full disk does not stop traffic." }),
    row("Database"),
    graph("Time of a transaction", 8, [[quantile(0.5, "exitgate_store_write_seconds", HERE), "p50"], [quantile(0.99, "exitgate_store_write_seconds", HERE), "p99"]], { unit: "s" }),
    graph("Writes that wait", 8, [[`exitgate_store_queue{${HERE}}`, "{{instance}}"]], { decimals: 0 }),
    graph("Faults and lost notes", 8, [[`${rate("exitgate_store_faults_total", HERE)} or vector(0)`, "faults"], [`${rate("exitgate_store_notes_lost_total", HERE)} or vector(0)`, "notes lost"]], { unit: "cps" }),
    row("Containers"),
    graph("Container CPU", 12, [[`sum by (name) (rate(container_cpu_usage_seconds_total{${BOX}}[$__rate_interval]))`, "{{name}}"]], { unit: "percentunit", about: "1 is one core. Needs cAdvisor." }),
    graph("Container memory", 12, [[`sum by (name) (container_memory_working_set_bytes{${BOX}})`, "{{name}}"]], { unit: "bytes" }),
    graph("Container network, in", 12, [[`sum by (name) (rate(container_network_receive_bytes_total{${BOX}}[$__rate_interval]))`, "{{name}}"]], { unit: "Bps" }),
    graph("Container network, out", 12, [[`sum by (name) (rate(container_network_transmit_bytes_total{${BOX}}[$__rate_interval]))`, "{{name}}"]], { unit: "Bps" }),
  ]);
}

export const FOLDER = path.join(import.meta.dirname, "dashboards");
export const dashboards = () => ({ "control-plane.json": control(), "tor-node-intelligence.json": tor(), "infrastructure.json": infrastructure() });
export const written = (board) => `${JSON.stringify(board, null, 2)}\n`;

if (process.argv[1] === import.meta.filename) {
  for (const [name, board] of Object.entries(dashboards())) await writeFile(path.join(FOLDER, name), written(board));
}
