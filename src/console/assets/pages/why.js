// The page that explains which exits a username can use: all filter steps in order, with the number of exits left after
// each. The question is part of the address, so a link to this page shows the same result.
import { useAsk } from "../api.js";
import { Bar } from "../chart.js";
import { CopyButton, Empty, Field, Panel, Trouble } from "../parts.js";
import { html, useEffect, useState } from "../view.js";
import { count, country, millis, short } from "../words.js";

const TRY = ["us-strict", "nonus", "de+fr-session-cart42", "any-rotate"];

// The parts of a question, with their values if the address has none.
const DEFAULTS = { username: "us", port: "443", host: "" };

function fromAddress(query) {
  return Object.fromEntries(Object.entries(DEFAULTS).map(([name, value]) => [name, query.get(name) ?? value]));
}

function useSettled(value) {
  const [settled, settle] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => settle(value), 300);
    return () => clearTimeout(timer);
  }, [value]);
  return settled;
}

function Funnel({ answer }) {
  const all = Math.max(1, answer.funnel[0]?.left ?? 0);
  return html`<ol class="funnel">${answer.funnel.map(({ step, left }, at) => {
    const lost = at === 0 ? 0 : answer.funnel[at - 1].left - left;
    return html`<li key=${step}><span class="name">${step}</span><${Bar} share=${left / all} kind=${left === 0 ? "bad" : ""} /><span class="number"><b>${count(left)}</b></span><span class="removed number">${lost > 0 ? `−${count(lost)}` : ""}</span></li>`;
  })}</ol>`;
}

function Answer({ answer }) {
  return html`<${Panel} title=${answer.refused ? "Refused" : "It works"}>
      ${answer.refused ? html`<p class="bad">${answer.refused}</p>` : html`<p>Reads as <code>${answer.selector}</code>${answer.route !== "implicit" ? html`, of the route <a href=${`#/routes/${encodeURIComponent(answer.route)}`}>${answer.route}</a>` : ""}.</p>`}
      <${Funnel} answer=${answer} />
      ${answer.pin && html`<p>Pinned to <a class="mono" href=${`#/exits/${encodeURIComponent(answer.pin.exit)}`}>${answer.pin.ip}</a>.</p>`}
      ${answer.session && html`<p>Its session uses <a class="mono" href=${`#/exits/${encodeURIComponent(answer.session)}`}>${short(answer.session)}</a>.</p>`}
    </${Panel}>
    <${Panel} title="Its pool now" kind="flush">${answer.pool.length === 0 ? html`<${Empty} title=${answer.refused ? "No exit" : "None yet"}>${answer.refused ? "The first filter that leaves 0 is the reason." : "Its first request chooses among the exits that are left."}</${Empty}>`
      : html`<div class="scroll"><table><thead><tr><th scope="col">Exit</th><th scope="col">Country</th><th scope="col" class="number">Latency</th></tr></thead><tbody>${answer.pool.map((exit) => html`<tr key=${exit.id}><th scope="row"><a class="mono name" href=${`#/exits/${encodeURIComponent(exit.id)}`}>${exit.ip ?? short(exit.id)}</a></th><td>${country(exit.country)}</td><td class="number">${millis(exit.latency_ms)}</td></tr>`)}</tbody></table></div>`}</${Panel}>`;
}

// Returns the question, a function that changes one part of it, and the question as a query. The query becomes part of
// the address when the user stops typing.
function useQuestion(query) {
  const [question, setQuestion] = useState(() => fromAddress(query));
  useEffect(() => setQuestion(fromAddress(query)), [query]);
  const parts = Object.entries(question).map(([name, value]) => [name, value.trim()]);
  const asked = useSettled(new URLSearchParams(parts.filter(([, value]) => value)).toString());
  useEffect(() => {
    if (location.hash.startsWith("#/why")) history.replaceState(null, "", `#/why?${asked}`);
  }, [asked]);
  return [question, (name) => (value) => setQuestion((now) => ({ ...now, [name]: value })), asked];
}

export function Why({ query }) {
  const [{ username, port, host }, change, asked] = useQuestion(query);
  const { data, error, again } = useAsk(username.trim() ? `/explain?${asked}` : null, 5000);
  const wrong = error?.details?.field;
  const input = (value, set, more) => (id, about) => html`<input id=${id} aria-describedby=${about} autocomplete="off" spellcheck=${false} value=${value} onInput=${(event) => set(event.target.value)} ...${more} />`;
  return html`<div class="head"><h1 tabindex="-1">Why</h1>${data && !error && html`<span class="copyable"><span class="faint">Link to this result</span><${CopyButton} text=${`${location.origin}/#/why?${asked}`} label="Copy the link to this result" /></span>`}</div>
    <${Panel}><div class="triple">
      <${Field} label="Username" hint="As a scraper sends it: a selector, or a route's name." error=${wrong === "username" ? error.message : null}>${input(username, change("username"), { class: "mono" })}</${Field}>
      <${Field} label="Target's port" error=${wrong === "port" ? error.message : null}>${input(port, change("port"), { inputmode: "numeric" })}</${Field}>
      <${Field} label="Target's host" hint="Optional: exits that are banned there are excluded." error=${wrong === "host" ? error.message : null}>${input(host, change("host"), { placeholder: "shop.example" })}</${Field}>
    </div><p class="try">Try ${TRY.map((word) => html`<button type="button" class="quiet mono" key=${word} onClick=${() => change("username")(word)}>${word}</button>`)}</p></${Panel}>
    ${!wrong && html`<${Trouble} error=${error} again=${again} />`}
    ${data && !error && html`<div class="columns"><${Answer} answer=${data} /></div>`}`;
}
