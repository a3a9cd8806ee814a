// Functions that write numbers, times and countries as text.

const regions = new Intl.DisplayNames(["en"], { type: "region" });

export function country(code) {
  if (!code || code === "??") return "Unknown";
  try {
    return regions.of(code) ?? code;
  } catch {
    return code;
  }
}

export function count(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value < 10_000) return Math.round(value).toLocaleString("en");
  const [size, unit] = value < 1e6 ? [1e3, "k"] : value < 1e9 ? [1e6, "M"] : [1e9, "G"];
  return `${trim(value / size)}${unit}`;
}

// Returns a rate as text. A small rate has one decimal place, so 0.4 per second is not shown as 0.
export function rate(value) {
  if (value == null || Number.isNaN(value)) return "–";
  if (value === 0) return "0";
  return value < 0.05 ? "<0.1" : value < 10 ? trim(value) : count(value);
}

export function bytes(value) {
  if (value == null || Number.isNaN(value)) return "–";
  const units = ["B", "KB", "MB", "GB", "TB"];
  let at = 0;
  while (value >= 999.5 && at < units.length - 1) {
    value /= 1000;
    at += 1;
  }
  return `${at === 0 ? Math.round(value) : trim(value)} ${units[at]}`;
}

export function millis(value) {
  if (value == null || Number.isNaN(value)) return "–";
  return value < 1 ? "<1 ms" : value < 1000 ? `${Math.round(value)} ms` : `${trim(value / 1000)} s`;
}

export function percent(share) {
  if (share == null || Number.isNaN(share)) return "–";
  if (share === 0) return "0%";
  const value = share * 100;
  return value < 0.1 ? "<0.1%" : `${value < 10 ? trim(value) : Math.round(value)}%`;
}

function trim(value) {
  return value < 10 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value).toString();
}

export function span(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

// Returns a time as text, such as "3 min ago" or "in 20 s". Less than two seconds is "now", because the clocks of two
// machines are rarely more exact.
export function age(when, now = Date.now()) {
  if (!when) return "never";
  const seconds = (now - new Date(when).getTime()) / 1000;
  if (Math.abs(seconds) < 2) return "now";
  return seconds > 0 ? `${span(seconds)} ago` : `in ${span(-seconds)}`;
}

export function clock(when) {
  return new Date(when).toLocaleTimeString("en-GB");
}

export function dated(when) {
  return when ? new Date(when).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" }) : "";
}

export function short(id) {
  return /^[0-9A-F]{40}$/.test(id) ? `${id.slice(0, 8)}…` : id;
}

// Returns a word of the API (`several_ips`, `bad_exit`) in a form for people.
export function plain(word) {
  return String(word ?? "").replaceAll("_", " ").replaceAll(".", " ");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
