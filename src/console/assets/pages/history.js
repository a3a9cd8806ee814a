// The charts of the last hours in the overview, from the gateway's own memory, and the same figures as a table.
import { useAsk } from "../api.js";
import { Chart } from "../chart.js";
import { PARTIES, SPANS, points } from "../history.js";
import { Panel, Trouble, Waiting } from "../parts.js";
import { html, useMemo, useState } from "../view.js";
import { clock, count, millis, rate } from "../words.js";

// The gateway adds to the history every ten seconds.
const EVERY = 10_000;

function Charts({ list, span }) {
  const line = (name, kind, pick, shown) => ({ name, kind, values: list.map(pick), shown });
  const failing = PARTIES.filter(({ word }) => list.some(({ parties }) => parties[word] > 0));
  const total = (pick) => Math.round(list.reduce((sum, one) => sum + (pick(one) ?? 0) * one.minutes, 0));
  const parties = failing.map(({ word, name, kind }) => line(name, kind, ({ parties: all }) => all[word], count(total(({ parties: all }) => all[word]))));
  return html`<div class="four">
    <${Chart} title="Requests a minute" unit=${rate} from=${`${span.name} ago`} lines=${[line("all", "", (one) => one.requests)]} />
    <${Chart} title="Failed, by whose fault" unit=${rate} from=${`${span.name} ago`} lines=${parties.length ? parties : [line("none", "third", (one) => one.failed, "")]} />
    <${Chart} title="Usable exits, at least" unit=${count} least=${2} from=${`${span.name} ago`} lines=${[line("exits", "", (one) => one.usable)]} />
    <${Chart} title="Time to open" unit=${millis} least=${2} from=${`${span.name} ago`} lines=${[line("p95", "third", (one) => one.p95), line("p50", "second", (one) => one.p50)]} />
  </div>`;
}

function Table({ list, span }) {
  const sum = ({ minutes }, value) => count(Math.round(value * minutes));
  const reasons = (one) => PARTIES.filter(({ word }) => one.parties[word] > 0).map(({ word, name }) => `${name} ${sum(one, one.parties[word])}`).join(", ");
  const known = list.filter(({ requests }) => requests != null).reverse();
  return html`<div class="scroll tall" tabindex="0" role="region" aria-label="The history as a table"><table><caption class="sr">The last ${span.name}, newest first. Each row covers ${span.step} min.</caption>
    <thead><tr><th scope="col">From</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Failed</th><th scope="col" class="wide">Whose fault</th><th scope="col" class="number">Usable exits</th><th scope="col" class="number">p50</th><th scope="col" class="number middle">p95</th></tr></thead>
    <tbody>${known.map((one) => html`<tr key=${one.at}><th scope="row" class="nowrap">${clock(one.at).slice(0, 5)}</th><td class="number">${sum(one, one.requests)}</td><td class="number">${sum(one, one.failed)}</td><td class="wide">${reasons(one) || "–"}</td>
      <td class="number">${count(one.usable)}</td><td class="number nowrap">${millis(one.p50)}</td><td class="number nowrap middle">${millis(one.p95)}</td></tr>`)}</tbody></table></div>`;
}

export function History() {
  const [chosen, choose] = useState(SPANS[0].name);
  const [open, setOpen] = useState(false);
  const span = SPANS.find(({ name }) => name === chosen);
  const { data, error, again } = useAsk(`/history?minutes=${span.minutes}`, EVERY);
  const list = useMemo(() => points(data, span), [data, span]);
  return html`<${Panel} title="History" kind="day" more=${html`<select aria-label="How much of the history" value=${chosen} onChange=${(event) => choose(event.target.value)}>${SPANS.map(({ name }) => html`<option key=${name} value=${name}>last ${name}</option>`)}</select>`}>
    <${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} rows=${3} />`}
    ${data && html`<${Charts} list=${list} span=${span} />
      <details open=${open} onToggle=${(event) => setOpen(event.target.open)}><summary>The same as a table</summary>${open && html`<${Table} list=${list} span=${span} />`}</details>`}
  </${Panel}>`;
}
