// The page of the tor processes (engines): their state and their load.
import { useAsk } from "../api.js";
import { Bar } from "../chart.js";
import { Badge, Empty, Mono, Panel, Trouble, Waiting } from "../parts.js";
import { html } from "../view.js";
import { count, plural, short } from "../words.js";

const KIND = { ready: "good", degraded: "warn", bootstrapping: "warn", starting: "warn", restarting: "bad", stopped: "bad" };

function Engine({ engine }) {
  const facts = [["Circuits", engine.circuits], ["Building", engine.building], ["Spares", engine.spares], ["Streams", engine.streams], ["Restarts", engine.restarts]];
  return html`<${Panel} title=${`Engine ${engine.id}`} more=${html`<${Badge} kind=${KIND[engine.state]}>${engine.state}</${Badge}>`}>
    ${engine.why && html`<p class=${engine.usable ? "" : "bad"}>${engine.why}</p>`}
    ${engine.version_advice && html`<p class="bad">${engine.version_advice}</p>`}
    ${engine.bootstrap_percent !== null && html`<p class="progress"><${Bar} share=${engine.bootstrap_percent / 100} /><span class="number">${engine.bootstrap_percent}%</span></p>`}
    <dl class="figures">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${count(value)}</dd></div>`)}</dl>
    <dl class="known">
      <div><dt>Guard</dt><dd>${engine.guard ? html`<${Mono} text=${engine.guard} shown=${short(engine.guard)} label="Copy the guard's fingerprint" />` : "none yet"}</dd></div>
      <div><dt>tor</dt><dd>${engine.version ?? "–"}</dd></div>
      <div><dt>Process</dt><dd class="mono">${engine.attached ? "attached, runs elsewhere" : (engine.pid ?? "none")}</dd></div>
    </dl>
  </${Panel}>`;
}

export function Engines() {
  const { data, error, again } = useAsk("/engines", 2000);
  const usable = data?.engines.filter((engine) => engine.usable).length;
  return html`<div class="head"><h1 tabindex="-1">Engines</h1>${data?.enabled && html`<p class="faint">${usable} of ${plural(data.engines.length, "engine")} usable · each has its own guard</p>`}</div>
    ${data?.only_tor && html`<p class="faint">exitgate itself connects to nothing but Tor: lists are fetched and public proxies are reached through Tor exits.</p>`}
    <${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} />`}
    ${data && !data.enabled && html`<${Panel}><${Empty} title="Tor is switched off">Set <code>tor.enabled = true</code> in the configuration and restart, or use public exits.</${Empty}></${Panel}>`}
    <div class="grid">${data?.engines.map((engine) => html`<${Engine} key=${engine.id} engine=${engine} />`)}</div>`;
}
