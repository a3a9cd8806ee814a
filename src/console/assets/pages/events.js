// The page of events: those that the gateway still keeps, and new ones as they happen. The filter is part of the
// address, so a reload or a link shows the same events.
import { events, state, useLive } from "../live.js";
import { Badge, Empty, Panel } from "../parts.js";
import { html, useEffect, useState } from "../view.js";
import { clock, count, dated, plain, short } from "../words.js";

const KINDS = ["route", "pin", "ban", "exit", "check", "engine", "network", "source", "missed"];
const ROWS = 200;
const DAY = 86_400_000;

function tone({ kind, data }) {
  if (/\.(moved|ended|closed)$|^ban\./.test(kind)) return "warn";
  if (kind === "exit.condemned" || kind === "check.suspended") return "bad";
  if (kind === "engine") return data.usable ? "good" : "bad";
  if (kind === "network") return data.reached ? "good" : "bad";
  if (kind === "source") return data.failures > 0 ? "bad" : "good";
  return kind === "missed" ? "bad" : "good";
}

// Returns the event as a sentence: the gateway's own sentence, if the event has one.
function sentence({ kind, data }) {
  if (data.text) return data.text;
  if (kind.startsWith("route.")) return `${data.route}${data.port ? ` on port ${data.port}` : ""}`;
  if (kind === "engine") return `engine ${data.id} is ${data.state}${data.why ? `: ${data.why}` : ""}`;
  if (kind === "source") return `${data.name}: ${plain(data.outcome)}, ${data.records} exits${data.why ? ` (${data.why})` : ""}`;
  if (kind === "missed") return "some events were dropped; the pages are up to date";
  return Object.entries(data).filter(([name]) => name !== "at").map(([name, value]) => `${plain(name)} ${typeof value === "object" ? JSON.stringify(value) : short(String(value))}`).join(", ");
}

// Returns a link to the exit of the event.
function exitOf({ data }) {
  const id = data.to?.exit ?? data.exit;
  return typeof id === "string" ? html` <a href=${`#/exits/${encodeURIComponent(id)}`}>see it</a>` : null;
}

export function EventLine({ event }) {
  const { at } = event.data;
  const old = at && Date.now() - Date.parse(at) > DAY;
  return html`<li><time datetime=${at} title=${dated(at)}>${at ? (old ? dated(at) : clock(at)) : ""}</time><${Badge} kind=${tone(event)}>${plain(event.kind)}</${Badge}><span>${sentence(event)}${exitOf(event)}</span></li>`;
}

// Returns true if the event is of this kind and contains the text, in its sentence or in its data: names of routes,
// addresses, ids, reasons.
export function fits(event, kind, typed) {
  if (kind && event.kind.split(".")[0] !== kind) return false;
  return `${event.kind} ${sentence(event)} ${JSON.stringify(event.data)}`.toLowerCase().includes(typed.trim().toLowerCase());
}

export function Events({ query }) {
  useLive();
  const [kind, choose] = useState(query.get("kind") ?? "");
  const [typed, type] = useState(query.get("text") ?? "");
  const [rows, showRows] = useState(ROWS);
  useEffect(() => {
    choose(query.get("kind") ?? "");
    type(query.get("text") ?? "");
  }, [query]);
  useEffect(() => {
    showRows(ROWS);
    const now = new URLSearchParams({ ...(kind && { kind }), ...(typed.trim() && { text: typed.trim() }) }).toString();
    history.replaceState(null, "", `#/events${now && `?${now}`}`);
  }, [kind, typed]);
  const shown = events.filter((event) => fits(event, kind, typed));
  const filtered = kind || typed.trim();
  return html`<div class="head"><h1 tabindex="-1">Events</h1><span class=${`readiness ${state.events === "live" ? "good" : "warn"}`}><span class="dot" aria-hidden="true" />${state.events === "live" ? "Live" : "Reconnecting"}</span></div>
    <${Panel} title=${filtered ? `${count(shown.length)} of ${count(events.length)} events` : `${count(events.length)} events since the gateway's start`} kind="flush" more=${html`<div class="filters">
        <select aria-label="Which events" value=${kind} onChange=${(event) => choose(event.target.value)}><option value="">all</option>${KINDS.map((word) => html`<option key=${word} value=${word}>${word}</option>`)}</select>
        <input type="search" class="filter" aria-label="Filter by text: a route, an address, an exit, a reason" placeholder="Filter" value=${typed} onInput=${(event) => type(event.target.value)} /></div>`}>
      ${shown.length === 0 && (filtered ? html`<${Empty} title="No event found">None of the ${count(events.length)} events that the gateway keeps matches the filter.</${Empty}>`
        : html`<${Empty} title="No event yet">Routes that open or close, pins that move, and engines or sources that change appear here at once.</${Empty}>`)}
      <ol class="events" aria-live="off">${shown.slice(0, rows).map((event) => html`<${EventLine} key=${event.id} event=${event} />`)}</ol>
      ${shown.length > rows && html`<p class="inset"><button type="button" class="quiet" onClick=${() => showRows(rows + ROWS)}>Show more (${rows} of ${count(shown.length)})</button></p>`}
      <p class="hint inset">The gateway keeps the last 1,024 events about pins and bans and the last 1,024 others, until it restarts.</p>
    </${Panel}>`;
}
