// Converts the answer of /history into points for charts and tables. It draws nothing, so a test runs it without a
// browser (tests/browser/figures.test.js).

const MINUTE = 60_000;

// The spans that the user can choose. `step` is the number of minutes that one point covers: more points than about a
// hundred would not be visible in a chart.
export const SPANS = [
  { name: "1 hour", minutes: 60, step: 1 },
  { name: "6 hours", minutes: 360, step: 5 },
  { name: "24 hours", minutes: 1440, step: 15 },
];

// The parties that can be at fault, with the name for people and the class of the line's colour.
export const PARTIES = [
  { word: "exit", name: "exit", kind: "bad" },
  { word: "target", name: "target", kind: "second" },
  { word: "client", name: "client", kind: "third" },
  { word: "no_exit", name: "no exit", kind: "warn" },
  { word: "gateway", name: "gateway", kind: "" },
  { word: "unknown", name: "unknown", kind: "ink" },
];

// Returns the points of a span, the oldest first: { at, minutes, requests, failed, parties, usable, p50, p95 }. `minutes`
// is the number of minutes with a value. `requests` and
// `failed` are means per minute. `usable` is the smallest number of usable exits. `p50` is the median of the medians of
// the minutes, weighted by their requests, and `p95` is the largest of the minutes' values. A value is null if the
// gateway has none.
export function points(answer, { minutes, step }) {
  if (!answer?.from) return [];
  const first = Math.round(Date.parse(answer.from) / MINUTE);
  const end = first + answer.requests.length;
  // Points begin at multiples of the step, so a point does not change when the next minute begins.
  const begin = Math.floor((end - 1) / step) * step - minutes + step;
  return Array.from({ length: minutes / step }, (_, at) => {
    const from = begin + at * step;
    const known = [];
    for (let minute = from; minute < from + step; minute += 1) {
      if (answer.requests[minute - first] != null) known.push(minute - first);
    }
    return { at: from * MINUTE, ...point(answer, known) };
  });
}

function point(answer, known) {
  const nothing = known.length === 0;
  const sum = (list) => known.reduce((all, at) => all + list[at], 0);
  const parties = Object.fromEntries(PARTIES.map(({ word }) => [word, nothing ? null : sum(answer.failed[word]) / known.length]));
  const failed = nothing ? null : Object.values(parties).reduce((all, one) => all + one, 0);
  const largest = (list) => known.reduce((high, at) => (list[at] == null ? high : Math.max(high ?? 0, list[at])), null);
  return {
    minutes: known.length,
    requests: nothing ? null : sum(answer.requests) / known.length,
    failed,
    parties,
    usable: nothing ? null : Math.min(...known.map((at) => answer.usable_exits[at])),
    p50: median(known.filter((at) => answer.open_p50_ms[at] != null).map((at) => [answer.open_p50_ms[at], Math.max(1, answer.requests[at])])),
    p95: largest(answer.open_p95_ms),
  };
}

function median(weighted) {
  const sorted = [...weighted].sort((a, b) => a[0] - b[0]);
  const half = sorted.reduce((all, [, weight]) => all + weight, 0) / 2;
  let below = 0;
  for (const [value, weight] of sorted) {
    below += weight;
    if (below >= half) return value;
  }
  return null;
}
