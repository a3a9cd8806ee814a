// The page of the keys of clients: who may use what until when, and how much of each budget is used.
import { useAsk } from "../api.js";
import { Bar } from "../chart.js";
import { budgets, fullest } from "../budgets.js";
import { Badge, Empty, Icon, Panel, Trouble, Waiting, When } from "../parts.js";
import { html, useEffect, useState } from "../view.js";
import { bytes, count, percent, plural } from "../words.js";
import { CreateKey, Secret } from "./key-form.js";

export const COLOUR = { fine: "", near: "warn", spent: "bad" };
export const LEVEL = { fine: "", near: "nearly used up", spent: "used up" };

// Returns what a budget counts as text, such as "bytes this month of tor".
export const named = ({ name, source }) => `${name[0].toLowerCase()}${name.slice(1)}${source ? ` of ${source}` : ""}`;

export function Meter({ budget }) {
  const { text, limitText, share, level } = budget;
  return html`<${Bar} share=${share} kind=${COLOUR[level]} /><span class="faint">${text} of ${limitText} (${percent(share)})</span>${level !== "fine" && html` <${Badge} kind=${COLOUR[level]}>${LEVEL[level]}</${Badge}>`}`;
}

// Warns about budgets of which 80 % or more are used.
function Alarm({ keys }) {
  const [near, spent] = ["near", "spent"].map((level) => keys.filter((key) => !key.expired).flatMap((key) => budgets(key).filter((one) => one.level === level).map((one) => ({ key: key.name, ...one }))));
  if (near.length + spent.length === 0) return null;
  const item = (one) => html`<li key=${one.key + one.source + one.field}><a href=${`#/keys/${encodeURIComponent(one.key)}`}>${one.key}</a>: ${named(one)}, ${percent(one.share)} used; begins again <${When} at=${one.resets} /></li>`;
  // Only the sentence is read aloud, and not the figures below it, which change all the time.
  return html`<div class="trouble alarm"><p role="alert">${spent.length > 0 ? `${plural(spent.length, "budget is", "budgets are")} used up: what ${spent.length === 1 ? "it counts" : "they count"} is refused.` : `80 % or more of ${plural(near.length, "budget is", "budgets are")} used.`}</p>
    <ul>${[...spent, ...near].map(item)}</ul></div>`;
}

const some = (names, all) => (names === null ? html`<span class="faint">${all}</span>` : names.join(", "));

function Row({ item }) {
  const { name, origin, expired, expires, routes, sources, usage, open_connections: open } = item;
  const full = fullest(item);
  return html`<tr><th scope="row"><a class="name" href=${`#/keys/${encodeURIComponent(name)}`}>${name}</a> ${origin === "config" && html`<${Badge}>config</${Badge}>`}${expired && html`<${Badge} kind="bad">expired</${Badge}>`}</th>
    <td class="wide nowrap">${expires ? html`<${When} at=${expires} />` : html`<span class="faint">never</span>`}</td>
    <td class="wider">${some(routes, "all routes")}<br />${some(sources, "all sources")}</td>
    <td class="meter">${full ? html`<${Meter} budget=${full} /><div class="faint">${named(full)}</div>` : html`<span class="faint">no budget</span>`}</td>
    <td class="number wide nowrap">${count(usage.day.requests)}</td><td class="number wide nowrap">${bytes(usage.day.bytes)}</td><td class="number middle">${count(open)}</td></tr>`;
}

// The number of rows that are drawn at first.
const ROWS = 100;

export function Keys({ query }) {
  const { data, error, again } = useAsk("/keys?limit=1000", 4000);
  const [creating, create] = useState(false);
  const [made, setMade] = useState(null);
  const [rows, showRows] = useState(ROWS);
  const [typed, type] = useState("");
  useEffect(() => {
    if (query.has("new")) create(true);
  }, [query]);
  const close = () => {
    create(false);
    if (location.hash === "#/keys?new") history.replaceState(null, "", "#/keys");
  };
  const keys = data?.keys ?? [];
  const found = keys.filter(({ name }) => name.toLowerCase().includes(typed.trim().toLowerCase()));
  return html`<div class="head"><h1 tabindex="-1">Keys</h1><button type="button" class="primary" onClick=${() => create(true)}><${Icon} name="plus" />New key</button></div>
    <${Trouble} error=${error} again=${again} />
    <${Alarm} keys=${keys} />
    ${data?.next && html`<p class="faint">The first ${count(keys.length)} keys by name, of ${count(data.total)}.</p>`}
    <${Panel} title=${data ? plural(data.total, "key") : "Keys"} kind="flush"
      more=${data?.total > 8 && html`<input type="search" class="filter" aria-label="Filter the keys" placeholder="Filter" value=${typed} onInput=${(event) => type(event.target.value)} />`}>
      ${!data && !error && html`<${Waiting} />`}
      ${data?.total === 0 && html`<${Empty} title="No key yet">Without keys, everybody who can reach a port of the gateway may use it. From the first key on, every client needs one.</${Empty}>`}
      ${keys.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Key</th><th scope="col" class="wide">Expires</th><th scope="col" class="wider">May use</th><th scope="col">Fullest budget</th><th scope="col" class="number wide">Requests today</th><th scope="col" class="number wide">Bytes today</th><th scope="col" class="number middle">Open</th></tr></thead>
        <tbody>${found.slice(0, rows).map((item) => html`<${Row} key=${item.name} item=${item} />`)}</tbody></table></div>`}
      ${found.length > rows && html`<p class="inset"><button type="button" class="quiet" onClick=${() => showRows(rows + ROWS)}>Show more (${rows} of ${count(found.length)})</button></p>`}
    </${Panel}>
    ${creating && html`<${CreateKey} onClose=${close} onMade=${setMade} first=${data?.total === 0} />`}
    ${made && html`<${Secret} made=${made} onClose=${() => setMade(null)} />`}`;
}
