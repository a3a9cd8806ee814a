// The page of the sources of exits: usable exits, what each source has carried, the budgets of keys for it, and when its
// lists were last fetched, with the result.
import { ask, refresh, useAsk } from "../api.js";
import { budgets } from "../budgets.js";
import { Bar } from "../chart.js";
import { Badge, Empty, Icon, Panel, Trouble, Waiting, When, say } from "../parts.js";
import { html } from "../view.js";
import { bytes, count, percent, plain } from "../words.js";
import { Meter, named } from "./keys.js";

function kind({ outcome, failures }) {
  return failures > 0 ? "bad" : outcome === "stale" ? "warn" : outcome === "never" ? "" : "good";
}

async function again(name) {
  try {
    await ask(`/sources/${encodeURIComponent(name)}/refresh`, { method: "POST" });
    say(`Fetching ${name}.`);
    setTimeout(() => refresh("/sources"), 800);
  } catch (why) {
    say(why.message, "bad");
  }
}

function Row({ source }) {
  return html`<tr><th scope="row"><b>${source.name}</b>${source.why && html`<div class="faint">${source.why}</div>`}</th>
    <td><${Badge} kind=${kind(source)}>${plain(source.outcome)}</${Badge}></td><td class="number">${count(source.records)}</td>
    <td class="number wide">${count(source.skipped)}</td><td class="wide nowrap"><${When} at=${source.good} /></td><td class="wider nowrap"><${When} at=${source.published} /></td><td class="wide nowrap"><${When} at=${source.next} /></td>
    <td class="number"><button type="button" class="quiet" onClick=${() => again(source.name)} aria-label=${`Fetch now: ${source.name}`}><${Icon} name="rotate" /><span class="wide">Fetch now</span></button></td></tr>`;
}

// What the exits of a source have carried since the gateway started. `all` is the same of all sources together.
function Traffic({ carried, all }) {
  const size = (one) => one.bytes_up + one.bytes_down;
  const share = (of) => (of(all) > 0 ? of(carried) / of(all) : 0);
  const rows = [["Requests", ({ requests }) => requests, count], ["Bytes", size, bytes]];
  return html`<div><${Bar} share=${share(size)} /><dl class="known">${rows.map(([name, of, shown]) => html`<div key=${name}><dt>${name}</dt><dd>${shown(of(carried))} <span class="faint">${percent(share(of))} of all</span></dd></div>`)}</dl></div>`;
}

// The budgets that keys have for this source.
function KeyBudgets({ source, keys }) {
  const list = keys.flatMap((key) => budgets(key).filter((one) => one.source === source).map((one) => ({ key: key.name, ...one }))).sort((a, b) => b.share - a.share);
  if (list.length === 0) return null;
  return html`<div><h3>Budgets of keys</h3><ul class="stack">${list.slice(0, 5).map((one) => html`<li key=${one.key + one.field} class="meter"><a href=${`#/keys/${encodeURIComponent(one.key)}`}>${one.key}</a> <span class="faint">${named({ ...one, source: null })}</span><${Meter} budget=${one} /></li>`)}</ul>
    ${list.length > 5 && html`<p class="faint">And ${count(list.length - 5)} more: <a href="#/keys">see the keys</a></p>`}</div>`;
}

const NOTHING = { requests: 0, bytes_up: 0, bytes_down: 0 };

function Cards({ sources, carried, keys }) {
  const add = (sum, one) => ({ requests: sum.requests + one.requests, bytes_up: sum.bytes_up + one.bytes_up, bytes_down: sum.bytes_down + one.bytes_down });
  const all = Object.values(carried ?? {}).reduce(add, NOTHING);
  return html`<div class="grid">${Object.entries(sources).map(([name, source]) => html`<${Panel} key=${name} title=${name} more=${html`<${Badge} kind=${source.ready ? "good" : "warn"}>${source.ready ? "ready" : "not ready"}</${Badge}>`}>
    <p class="big">${count(source.usable)} <small>usable exits</small></p><p class="faint">${source.reason}</p>
    <${Traffic} carried=${carried?.[name] ?? NOTHING} all=${all} />
    <${KeyBudgets} source=${name} keys=${keys} /></${Panel}>`)}</div>`;
}

export function Sources() {
  const { data, error, again: retry } = useAsk("/sources", 4000);
  const { data: ready } = useAsk("/ready", 4000);
  const { data: keys } = useAsk("/keys?limit=1000", 10_000);
  return html`<div class="head"><h1 tabindex="-1">Sources</h1></div>
    <${Trouble} error=${error} again=${retry} />
    ${ready && html`<${Cards} sources=${ready.sources} carried=${data?.carried} keys=${keys?.keys ?? []} />`}
    <${Panel} title="Lists and directories" kind="flush">
      ${!data && !error && html`<${Waiting} rows=${3} />`}
      ${data?.sources.length === 0 && html`<${Empty} title="No source has a list">Tor, public lists and upstream sources have one. Switch them on in the configuration and restart.</${Empty}>`}
      ${data?.sources.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Source</th><th scope="col">Last answer</th><th scope="col" class="number">Exits</th><th scope="col" class="number wide">Skipped</th><th scope="col" class="wide">Good</th><th scope="col" class="wider">Made</th><th scope="col" class="wide">Next</th><th scope="col"><span class="sr">Fetch now</span></th></tr></thead>
        <tbody>${data.sources.map((source) => html`<${Row} key=${source.name} source=${source} />`)}</tbody></table></div>`}
    </${Panel}>`;
}
