// The page of the sources of exits: when each source was last fetched, and the result.
import { ask, refresh, useAsk } from "../api.js";
import { Badge, Empty, Icon, Panel, Trouble, Waiting, When, say } from "../parts.js";
import { html } from "../view.js";
import { count, plain } from "../words.js";

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

export function Sources() {
  const { data, error, again: retry } = useAsk("/sources", 4000);
  const { data: ready } = useAsk("/ready", 4000);
  return html`<div class="head"><h1 tabindex="-1">Sources</h1></div>
    <${Trouble} error=${error} again=${retry} />
    ${ready && html`<div class="grid">${Object.entries(ready.sources).map(([name, source]) => html`<${Panel} key=${name} title=${name} more=${html`<${Badge} kind=${source.ready ? "good" : "warn"}>${source.ready ? "ready" : "not ready"}</${Badge}>`}>
      <p class="big">${count(source.usable)} <small>usable exits</small></p><p class="faint">${source.reason}</p></${Panel}>`)}</div>`}
    <${Panel} title="Lists and directories" kind="flush">
      ${!data && !error && html`<${Waiting} rows=${3} />`}
      ${data?.sources.length === 0 && html`<${Empty} title="No source is switched on">Switch on Tor, or a list of public proxies, in the configuration and restart.</${Empty}>`}
      ${data?.sources.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Source</th><th scope="col">Last answer</th><th scope="col" class="number">Exits</th><th scope="col" class="number wide">Skipped</th><th scope="col" class="wide">Good</th><th scope="col" class="wider">Made</th><th scope="col" class="wide">Next</th><th scope="col"><span class="sr">Fetch now</span></th></tr></thead>
        <tbody>${data.sources.map((source) => html`<${Row} key=${source.name} source=${source} />`)}</tbody></table></div>`}
    </${Panel}>`;
}
