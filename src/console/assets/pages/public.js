// Public proxies that passed their checks, as /list gives them to whoever curls it.
import { useAsk } from "../api.js";
import { Badge, CopyButton, Empty, Mono, Panel, Trouble, Waiting, When } from "../parts.js";
import { html, useState } from "../view.js";
import { count, country, millis, plural } from "../words.js";

const WHERE = `${location.origin}/list`;

export function PublicList() {
  const [protocol, setProtocol] = useState("");
  const stats = useAsk("/stats", 5000);
  const { data, error, again } = useAsk(`/exits?source=public&usable=true&limit=200`, 5000);
  const exits = (data?.exits ?? []).filter(({ id }) => id.startsWith(protocol)).sort((a, b) => (a.latency_ms ?? 1e9) - (b.latency_ms ?? 1e9));
  const off = data?.total === 0 && (stats.error?.status === 404 || !stats.data?.total_proxies);
  return html`<div class="head"><h1 tabindex="-1">Public list</h1></div>
    ${stats.data && html`<dl class="figures panel"><div><dt>Working</dt><dd>${count(stats.data.working_proxies)}</dd></div><div><dt>Known</dt><dd>${count(stats.data.total_proxies)}</dd></div><div><dt>Failed</dt><dd>${count(stats.data.failed_proxies)}</dd></div><div><dt>List made</dt><dd class="small"><${When} at=${stats.data.last_meta_update} /></dd></div></dl>`}
    <${Trouble} error=${error} again=${again} />
    <${Panel} title=${off ? "Public proxies" : `${plural(exits.length, "working proxy", "working proxies")}, fastest first`} kind="flush" more=${!off && html`<div class="filters">
        <select aria-label="Protocol" value=${protocol} onChange=${(event) => setProtocol(event.target.value)}><option value="">any protocol</option><option value="http:">HTTP</option><option value="socks4:">SOCKS4</option><option value="socks5:">SOCKS5</option></select></div>`}>
      ${!data && !error && html`<${Waiting} />`}
      ${off && html`<${Empty} title="No public proxy yet">Free proxies are off by default. Set <code>sources.proxifly.enabled = true</code> in the configuration and restart; each is tested without mercy before it is listed here.</${Empty}>`}
      ${!off && data && exits.length === 0 && html`<${Empty} title="None works now">They are tested all the time; those that answer appear here.</${Empty}>`}
      ${exits.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Proxy</th><th scope="col">Country</th><th scope="col" class="number">Latency</th><th scope="col" class="wide">Checked</th></tr></thead>
        <tbody>${exits.map((exit) => html`<tr key=${exit.id}><th scope="row"><a class="mono name" href=${`#/exits/${encodeURIComponent(exit.id)}`}>${exit.id}</a> <${CopyButton} text=${exit.id} label=${`Copy ${exit.id}`} /></th><td>${country(exit.country)}</td><td class="number nowrap">${millis(exit.latency_ms)}</td><td class="wide"><${When} at=${exit.checked} /></td></tr>`)}</tbody></table></div>`}
    </${Panel}>
    <${Panel} title="From a terminal"><p class="address"><${Mono} text=${`curl '${WHERE}?limit=20&protocol=socks5'`} label="Copy the line" /></p><p class="hint">The same list as plain text, for programs. <${Badge}>read token</${Badge}> is enough where tokens are asked for.</p></${Panel}>`;
}
