// The page of public proxies that passed their checks. It shows the data of /list.
import { useAsk } from "../api.js";
import { Badge, CopyButton, Empty, Mono, Panel, Trouble, Waiting, When } from "../parts.js";
import { html, useState } from "../view.js";
import { count, country, millis, percent, plural } from "../words.js";

const SHOWN = 200;
const FILTERS = [
  ["protocol", "any protocol", ["http", "socks4", "socks5"]],
  ["anonymity", "any anonymity", ["elite", "anonymous", "transparent"]],
  ["https", "HTTPS or not", ["true", "false"]],
];
const SAID = { true: "HTTPS works", false: "no HTTPS" };
const KIND = { elite: "good", anonymous: "", transparent: "warn", unknown: "" };

function Figures({ stats }) {
  const facts = [["Working", count(stats.working_proxies)], ["Known", count(stats.total_proxies)], ["Failed", count(stats.failed_proxies)]];
  return html`<dl class="figures panel">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    <div><dt>List made</dt><dd class="small"><${When} at=${stats.last_meta_update} /></dd></div></dl>`;
}

function Row({ proxy: { url, country: code, anonymity, https, response_ms: took, reliability, checked } }) {
  return html`<tr><th scope="row"><a class="mono name" href=${`#/exits/${encodeURIComponent(url)}`}>${url}</a> <${CopyButton} text=${url} label=${`Copy ${url}`} /></th>
    <td class="wide">${country(code)}</td><td class="wide"><${Badge} kind=${KIND[anonymity] ?? ""}>${anonymity}</${Badge}></td><td class="wide">${https ? "yes" : html`<span class="faint">no</span>`}</td>
    <td class="number nowrap">${millis(took)}</td><td class="number wide">${percent(reliability)}</td><td class="wider nowrap"><${When} at=${checked} /></td></tr>`;
}

function List({ query }) {
  const { data, error, again } = useAsk(`/list?format=json&limit=${SHOWN}${query}`, 5000);
  return html`<${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} />`}
    ${data?.length === 0 && html`<${Empty} title="No such proxy now">Proxies are tested all the time; working ones appear here, the fastest first.</${Empty}>`}
    ${data?.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Proxy</th><th scope="col" class="wide">Country</th><th scope="col" class="wide">Anonymity</th><th scope="col" class="wide">HTTPS</th><th scope="col" class="number">Answers in</th><th scope="col" class="number wide" title="The share of successful requests in its long test">Reliable</th><th scope="col" class="wider">Checked</th></tr></thead>
      <tbody>${data.map((proxy) => html`<${Row} key=${proxy.url} proxy=${proxy} />`)}</tbody></table></div>`}
    ${data?.length === SHOWN && html`<p class="hint inset">The fastest ${SHOWN}; /list has more.</p>`}`;
}

export function PublicList() {
  const [chosen, choose] = useState({ protocol: "", anonymity: "", https: "" });
  const { data: stats, error, again } = useAsk("/stats", 5000);
  const off = error?.status === 404 || stats?.enabled === false;
  const query = Object.entries(chosen).filter(([, value]) => value).map(([name, value]) => `&${name}=${value}`).join("");
  const filters = html`<div class="filters">${FILTERS.map(([name, all, words]) => html`<select key=${name} aria-label=${name} value=${chosen[name]} onChange=${(event) => choose({ ...chosen, [name]: event.target.value })}>
    <option value="">${all}</option>${words.map((word) => html`<option key=${word} value=${word}>${SAID[word] ?? word}</option>`)}</select>`)}</div>`;
  return html`<div class="head"><h1 tabindex="-1">Public list</h1></div>
    ${!off && stats && html`<${Figures} stats=${stats} />`}
    ${!off && html`<${Trouble} error=${error} again=${again} />`}
    <${Panel} title=${off || !stats ? "Public proxies" : `${plural(stats.working_proxies, "working proxy", "working proxies")}, fastest first`} kind="flush" more=${!off && filters}>
      ${off && html`<${Empty} title="Public proxies are switched off">Their unknown owners can read everything that is not encrypted, so they are off by default. Set <code>sources.proxifly.enabled = true</code> in the configuration and restart. Each proxy is tested before it is listed here.</${Empty}>`}
      ${!off && !stats && !error && html`<${Waiting} />`}
      ${!off && stats && html`<${List} query=${query} />`}
    </${Panel}>
    <${Panel} title="From a terminal"><p class="address"><${Mono} text=${`curl '${location.origin}/list?limit=20${query}'`} label="Copy the command" /></p><p class="hint">The same list as plain text, one proxy a line, for programs. With tokens, the read token is enough.</p></${Panel}>`;
}
