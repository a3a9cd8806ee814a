// Live data: the counters of /metrics, which are read every two seconds and converted to rates, and the events of
// /events.
//
// All charts of a page use this data. The last five minutes are kept.
import { follow, refresh, session, text } from "./api.js";
import { useEffect, useState } from "./view.js";

const EVERY = 2000;
const KEPT = 150;
const MINUTE = 60_000 / EVERY;
// An answer of /metrics with more bytes than this (from about a thousand routes) is expensive, so it is read only every
// ten seconds.
const LARGE = 1_000_000;
// As many events as the gateway keeps.
const EVENTS_KEPT = 2048;
// A rate is the mean over this number of readings, because the rate of a single interval varies too much.
const WINDOW = 5;

const looks = [];
export const events = [];
export const state = { metrics: "waiting", events: "waiting" };
const watchers = new Set();
const tell = () => watchers.forEach((draw) => draw());

// The outcomes that count as failed requests. All other outcomes are successes: a tunnel whose client or target went
// away (`client_gone`, `target_gone`) was open, so its request succeeded. tests/browser/figures.test.js compares
// them with the gateway's own list.
export const FAILED = /^(?!(client|target)_gone$)(auth|client|denied|limited|no_exit|engine|exit|target|answer|deadline|draining)(_|$)/;
const LINE = /^(exitgate_[a-z_]+)(?:\{([^}]*)\})? (\S+)/;

function fresh() {
  return { requests: 0, failed: 0, up: 0, down: 0, streams: 0, checking: { running: 0, waiting: 0 }, buckets: new Map(), why: new Map() };
}

function labels(written) {
  const found = {};
  for (const [, name, value] of (written ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)) found[name] = value;
  return found;
}

const TAKE = {
  exitgate_requests_total: (of, { outcome }, value) => {
    of.requests += value;
    if (!FAILED.test(outcome)) return;
    of.failed += value;
    of.why.set(outcome, (of.why.get(outcome) ?? 0) + value);
  },
  exitgate_relayed_bytes_total: (of, { way }, value) => {
    of[way] += value;
  },
  exitgate_streams_open: (of, _, value) => {
    of.streams += value;
  },
  exitgate_checks_running: (of, _, value) => {
    of.checking.running += value;
  },
  exitgate_public_checks_running: (of, _, value) => {
    of.checking.running += value;
  },
  exitgate_checks_waiting: (of, _, value) => {
    of.checking.waiting += value;
  },
  exitgate_public_checks_waiting: (of, _, value) => {
    of.checking.waiting += value;
  },
  exitgate_open_seconds_bucket: (of, { le }, value) => {
    const bound = le === "+Inf" ? Infinity : Number(le);
    of.buckets.set(bound, (of.buckets.get(bound) ?? 0) + value);
  },
};

function read(body) {
  const look = { at: performance.now(), all: fresh(), routes: new Map(), checks: 0 };
  for (const line of body.split("\n")) {
    if (line.startsWith("exitgate_checks_total")) look.checks += Number(line.slice(line.lastIndexOf(" ")));
    const [, name, written, number] = LINE.exec(line) ?? [];
    const take = TAKE[name];
    if (!take) continue;
    const named = labels(written);
    const value = Number(number);
    take(look.all, named, value);
    // Histograms have the labels source and country, but no label for the route.
    if (named.route === undefined) continue;
    if (!look.routes.has(named.route)) look.routes.set(named.route, fresh());
    take(look.routes.get(named.route), named, value);
  }
  return look;
}

const NOTHING = fresh();
const of = (look, route) => (route === undefined ? look.all : look.routes.get(route)) ?? NOTHING;

function between(a, b, route) {
  const [x, y, seconds] = [of(a, route), of(b, route), (b.at - a.at) / 1000];
  const per = (pick) => Math.max(0, y[pick] - x[pick]) / seconds;
  const [requests, failed] = [y.requests - x.requests, y.failed - x.failed];
  return {
    rate: per("requests"),
    failed: requests > 0 ? failed / requests : null,
    up: per("up"),
    down: per("down"),
    p50: quantile(x.buckets, y.buckets, 0.5),
    p95: quantile(x.buckets, y.buckets, 0.95),
  };
}

// Returns a quantile of the durations of requests between two readings, in milliseconds. Interpolates within a bucket.
function quantile(before, after, share) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const counts = bounds.map((le) => after.get(le) - (before.get(le) ?? 0));
  const total = counts.at(-1) ?? 0;
  if (total <= 0) return null;
  const at = counts.findIndex((sum) => sum >= total * share);
  const [low, below] = at === 0 ? [0, 0] : [bounds[at - 1], counts[at - 1]];
  const high = Number.isFinite(bounds[at]) ? bounds[at] : low;
  return 1000 * (low + ((high - low) * (total * share - below)) / (counts[at] - below || 1));
}

// Returns the rates of the last ten seconds, and the totals since the gateway's start.
export function figures(route) {
  const last = looks.at(-1);
  if (!last) return null;
  const before = looks.at(-1 - WINDOW) ?? looks[0];
  const { requests, failed, streams, up, down, why } = of(last, route);
  const long = looks.length > 1 ? between(looks[0], last, route) : {};
  const now = before === last ? {} : between(before, last, route);
  return {
    now: { rate: 0, up: 0, down: 0, ...now, p50: now.p50 ?? long.p50 ?? null, p95: now.p95 ?? long.p95 ?? null },
    total: { requests, failed, up, down, p50: quantile(new Map(), of(last, route).buckets, 0.5) },
    recent: { failed: long.failed ?? null },
    streams,
    why: [...why].sort((a, b) => b[1] - a[1]),
  };
}

// Returns the number of checks of exits that ended, run and wait, or null before the first reading.
export function checking() {
  const last = looks.at(-1);
  return last ? { done: last.checks, ...last.all.checking } : null;
}

// Returns one value for each reading, the oldest first. If there is less than a minute of data, the beginning is filled
// with null. A rate covers one interval between readings. Quantiles and shares cover several intervals, because they
// need more requests.
export function series(route, pick) {
  const back = pick === "p50" || pick === "p95" || pick === "failed" ? WINDOW : 1;
  const values = looks.slice(1).map((look, at) => between(looks[Math.max(0, at + 1 - back)], look, route)[pick]);
  return [...Array(Math.max(0, MINUTE - values.length)).fill(null), ...values];
}

// Returns the age of the first value of a series as text.
export function reach(values) {
  const minutes = (values.length * EVERY) / 60_000;
  return minutes < 1.5 ? "1 min ago" : `${Math.round(minutes)} min ago`;
}

async function look() {
  let pause = EVERY;
  try {
    const body = await text("/metrics");
    const next = read(body);
    // If a counter has become smaller, the gateway was restarted, so the old readings are dropped.
    if (looks.length > 0 && next.all.requests < looks.at(-1).all.requests) looks.length = 0;
    looks.push(next);
    if (looks.length > KEPT + 1) looks.shift();
    if (body.length > LARGE) pause = 5 * EVERY;
    state.metrics = "live";
  } catch {
    state.metrics = "lost";
  }
  tell();
  return pause;
}

const PREFIXES = { route: ["/proxies", "/explain"], pin: ["/proxies"], ban: ["/exits/"], exit: ["/exits", "/countries"], engine: ["/engines"], source: ["/sources", "/countries"] };

// Events arrive in bursts: all that the gateway keeps, when the page opens, and one for each pin when an exit dies. So
// the pages are refreshed and drawn once for all events of this time, in milliseconds.
const BURST = 100;
let burst = null;

function take(event) {
  events.unshift(event);
  if (events.length > EVENTS_KEPT) events.pop();
  if (burst === null) {
    burst = new Set();
    setTimeout(() => {
      refresh(...burst);
      burst = null;
      tell();
    }, BURST);
  }
  (PREFIXES[event.kind.split(".")[0]] ?? []).forEach((prefix) => burst.add(prefix));
}

// Starts to read the metrics and events. Returns a function that stops it.
export function start() {
  let over = false;
  let timer = 0;
  const run = async () => {
    const pause = document.hidden || session.state !== "open" ? EVERY : await look();
    if (!over) timer = setTimeout(run, pause);
  };
  run();
  const stop = follow(take, (now) => {
    state.events = now;
    tell();
  });
  return () => {
    over = true;
    clearTimeout(timer);
    stop();
    looks.length = 0;
    events.length = 0;
  };
}

export function useLive() {
  const [, draw] = useState(0);
  useEffect(() => {
    const again = () => draw((n) => n + 1);
    watchers.add(again);
    return () => watchers.delete(again);
  }, []);
}
