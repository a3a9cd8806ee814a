// The page of events: shows in real time when routes open and close, pins change, and engines or sources change.
import { events, state, useLive } from "../live.js";
import { Badge, Empty, Panel } from "../parts.js";
import { html, useState } from "../view.js";
import { clock, dated, plain, short } from "../words.js";

const KINDS = ["all", "route", "pin", "ban", "exit", "check", "engine", "source"];

function tone({ kind, data }) {
  if (/\.(moved|ended|closed)$|^ban\./.test(kind)) return "warn";
  if (kind === "exit.condemned" || kind === "check.suspended") return "bad";
  if (kind === "engine") return data.usable ? "good" : "bad";
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

export function Events() {
  useLive();
  const [kind, choose] = useState("all");
  const shown = events.filter((event) => kind === "all" || event.kind.startsWith(kind));
  return html`<div class="head"><h1 tabindex="-1">Events</h1><span class=${`readiness ${state.events === "live" ? "good" : "warn"}`}><span class="dot" aria-hidden="true" />${state.events === "live" ? "Live" : "Reconnecting"}</span></div>
    <${Panel} title="Since this page was opened" kind="flush" more=${html`<select aria-label="Which events" value=${kind} onChange=${(event) => choose(event.target.value)}>${KINDS.map((word) => html`<option key=${word} value=${word}>${word}</option>`)}</select>`}>
      ${shown.length === 0 && html`<${Empty} title="No event yet">Routes that open or close, pins that move, and engines or sources that change appear here at once.</${Empty}>`}
      <ol class="events" aria-live="off">${shown.map((event) => html`<li key=${event.id}><time datetime=${event.data.at} title=${dated(event.data.at)}>${clock(event.data.at)}</time><${Badge} kind=${tone(event)}>${plain(event.kind)}</${Badge}><span>${sentence(event)}${exitOf(event)}</span></li>`)}</ol>
    </${Panel}>`;
}
