// Computes how much of each budget of a key is used. No part of the page is made here.
import { bytes, count } from "./words.js";

// From this share on a budget is nearly used up, as in the gateway (the level `near`).
export const NEAR = 0.8;

const LIMITS = [
  ["requests_per_day", "Requests today", "day", "requests"],
  ["requests_per_month", "Requests this month", "month", "requests"],
  ["bytes_per_day", "Bytes today", "day", "bytes"],
  ["bytes_per_month", "Bytes this month", "month", "bytes"],
];

export const BUDGET_FIELDS = LIMITS.map(([field]) => field);

const SHOWN = { requests: count, bytes };

// Returns the four counts of a key, or of one of its sources. `limit` and `share` are null for a count without a limit.
export function limits(usage) {
  return LIMITS.map(([field, name, period, what]) => {
    const [used, limit] = [usage[period][what], usage.budget[field] ?? null];
    const share = limit === null ? null : used / limit;
    return { field, name, used, limit, share, level: level(share), resets: usage[period].resets, text: SHOWN[what](used), limitText: limit === null ? null : SHOWN[what](limit) };
  });
}

export function level(share) {
  return share === null || share < NEAR ? "fine" : share < 1 ? "near" : "spent";
}

// Returns all budgets of a key that have a limit. `source` is null for the budget of all sources together.
export function budgets(key) {
  const scopes = [{ source: null, ...key.usage }, ...key.source_usage];
  return scopes.flatMap((scope) => limits(scope).filter(({ limit }) => limit !== null).map((one) => ({ source: scope.source, ...one })));
}

// Returns the budget of which the largest share is used, or null if the key has no budget.
export function fullest(key) {
  return budgets(key).reduce((most, one) => (most === null || one.share > most.share ? one : most), null);
}

const UNITS = [["GB", 1e9], ["GiB", 2 ** 30], ["MB", 1e6], ["MiB", 2 ** 20]];

// Returns a number of bytes as the API reads it, in the largest unit that keeps the exact value.
export function exact(value) {
  const [unit, size] = UNITS.find(([, one]) => value >= one && value % one === 0) ?? ["", 1];
  return `${value / size}${unit}`;
}

// Returns the fields of the form for a key. Every field is a text, and a limit that is not set is an empty text.
export function formOf(key) {
  const text = (name, value) => (value == null ? "" : name.startsWith("bytes") ? exact(value) : String(value));
  const form = { ttl: "", routes: (key?.routes ?? []).join(" ") };
  for (const name of ["connections", "per_second", "bytes_per_second"]) form[`limits.${name}`] = text(name, key?.limits[name]);
  const scope = (prefix, budget) => BUDGET_FIELDS.forEach((name) => { form[`${prefix}.${name}`] = text(name, budget?.[name]); });
  scope("budget", key?.usage.budget);
  for (const { source, budget } of key?.source_usage ?? []) scope(`source_budgets.${source}`, budget);
  return form;
}

const value = (text) => (/^\d+$/.test(text) ? Number(text) : text);

// Returns the JSON merge patch that turns the form `first` into `now`: only fields that differ, and null for a field that
// was emptied. The names of the fields are paths, such as `budget.bytes_per_day`. A budget of a source without any limit
// is removed as a whole, because the gateway may not have this source any more.
export function patchOf(first, now) {
  const patch = {};
  for (const [path, given] of Object.entries(now)) {
    const text = given.trim();
    if (text === (first[path] ?? "")) continue;
    const names = path.split(".");
    const last = names.pop();
    const place = names.reduce((at, name) => (at[name] ??= {}), patch);
    place[last] = text === "" ? null : last === "routes" ? text.split(/[\s,]+/) : last === "ttl" ? text : value(text);
  }
  const isEmpty = (source) => BUDGET_FIELDS.every((name) => !(now[`source_budgets.${source}.${name}`] ?? "").trim());
  for (const source of Object.keys(patch.source_budgets ?? {})) if (isEmpty(source)) patch.source_budgets[source] = null;
  return patch;
}
