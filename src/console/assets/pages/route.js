// The page of one route: its traffic, examples to copy, its exits, and buttons to rotate, change and delete the route.
import { ask, refresh, useAsk } from "../api.js";
import { Chart } from "../chart.js";
import { addresses, lines } from "../lines.js";
import { figures, series, useLive } from "../live.js";
import { Badge, Confirm, CopyButton, Empty, Icon, Mono, Panel, Tabs, Trouble, Waiting, When, say } from "../parts.js";
import { html, useState } from "../view.js";
import { bytes, count, country, millis, percent, plain, rate, short } from "../words.js";
import { Carried } from "./carried.js";
import { Edit, Report } from "./change.js";
import { Pool, alarm, failing } from "./routes.js";
import { Rules } from "./rules.js";

function Figures({ route }) {
  useLive();
  const { name, pool, live } = route;
  const now = figures(name);
  const share = failing(now);
  return html`<dl class="figures">
    <div><dt>Requests</dt><dd>${rate(now?.now.rate)}<small>/s</small></dd></div>
    <div><dt>Total</dt><dd data-figure="total">${count(now?.total.requests)}</dd></div>
    <div title="The median time to open a stream, in the last checks of its exits"><dt>Latency</dt><dd>${millis(pool.latency_ms)}</dd></div>
    <div><dt>Unique IPs</dt><dd>${count(pool.unique_ips)}</dd></div>
    <div><dt>Failed</dt><dd class=${alarm(share)}>${percent(share)}</dd></div>
    <div><dt>Traffic</dt><dd>${bytes(now ? now.total.up + now.total.down : null)}</dd></div>
    <div><dt>Open</dt><dd>${count(live?.connections ?? now?.streams)}</dd></div>
  </dl>
  <div class="charts">
    <${Chart} title="Requests a second" unit=${rate} lines=${[{ name: "requests", values: series(name, "rate"), kind: "" }]} />
    <${Chart} title="Bytes a second" unit=${bytes} lines=${[{ name: "up", values: series(name, "up"), kind: "third" }, { name: "down", values: series(name, "down"), kind: "second" }]} />
  </div>
  ${now?.why.length > 0 && html`<p class="reasons">Failures since start: ${now.why.slice(0, 5).map(([word, number]) => html`<${Badge} kind="warn">${plain(word)} ${count(number)}</${Badge}> `)}</p>`}`;
}

function Use({ route }) {
  const [list, { http, socks5 }] = [lines(route), addresses(route)];
  return html`<${Panel} title="Use it">
    <p class="address"><${Mono} text=${socks5} label="Copy the SOCKS5 address" /><${Mono} text=${http} label="Copy the HTTP address" /></p>
    <${Tabs} label="Examples to paste" names=${list.map(([name]) => name)}>
      ${(at) => html`<div class="code"><pre tabindex="0" aria-label=${`${list[at][0]} example`}><code>${list[at][1]}</code></pre><${CopyButton} text=${list[at][1]} label=${`Copy the ${list[at][0]} example`} /></div>`}
    </${Tabs}>
    ${route.auth === "key" && html`<p class="hint">Replace YOUR_KEY by your key.</p>`}
  </${Panel}>`;
}

function Members({ route }) {
  const { name, mode } = route;
  const [reported, report] = useState(null);
  const { data, error, again } = useAsk(`/proxies/${encodeURIComponent(name)}/exits`, 5000);
  return html`<${Panel} title="Exits in its pool" kind="flush">
    <${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} rows=${3} />`}
    ${data?.exits.length === 0 && html`<${Empty} title="No exit serves this route now">Until one does, requests fail with the reason. <a href=${`#/why?username=${encodeURIComponent(name)}`}>See why</a></${Empty}>`}
    ${data?.exits.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Exit</th><th scope="col">Country</th><th scope="col" class="number">Latency</th><th scope="col" class="number">Open</th><th scope="col" class="wide">Checked</th><th scope="col"><span class="sr">Report</span></th></tr></thead>
      <tbody>${data.exits.map((exit) => html`<tr key=${exit.id}><th scope="row"><a class="mono name" href=${`#/exits/${encodeURIComponent(exit.id)}`}>${exit.ip ?? short(exit.id)}</a> <span class="faint">${exit.nickname ?? ""}</span></th>
        <td>${country(exit.country)}</td><td class="number">${millis(exit.latency_ms)}</td><td class="number">${count(exit.streams)}</td><td class="wide nowrap"><${When} at=${exit.checked} /></td><td class="number"><button type="button" class="quiet square" title="A site refuses it" aria-label=${`A site refuses ${exit.ip ?? exit.id}`} onClick=${() => report(exit)}><${Icon} name="flag" /></button></td></tr>`)}</tbody></table></div>`}
    ${mode === "strict" && html`<p class="hint inset">A strict route uses one of these and stays with it.</p>`}
    ${reported && html`<${Report} route=${route} exit=${reported} onClose=${() => report(null)} />`}
  </${Panel}>`;
}

function Actions({ route }) {
  const [asking, setAsking] = useState(false);
  const [editing, edit] = useState(false);
  const [busy, setBusy] = useState(false);
  const path = `/proxies/${encodeURIComponent(route.name)}`;
  const rotate = async () => {
    setBusy(true);
    try {
      const { before, after } = await ask(`${path}/rotate`, { method: "POST", deadline: 60_000 });
      say(before && after ? `${route.name}: ${before} → ${after}` : `${route.name}: the next connection uses another exit.`);
      refresh("/proxies");
    } catch (why) {
      say(`${route.name}: ${why.message}`, "bad");
    }
    setBusy(false);
  };
  const remove = async () => {
    await ask(path, { method: "DELETE" });
    refresh("/proxies");
    location.hash = "#/routes";
    say(`The route ${route.name} is deleted; its open tunnels may finish.`);
  };
  const fixed = route.origin === "config";
  return html`<div class="actions">
    <button type="button" onClick=${rotate} disabled=${busy}><${Icon} name="rotate" />${busy ? "Rotating …" : "Rotate"}</button>
    <button type="button" disabled=${fixed} title=${fixed ? "This route is from the configuration: change it there and reload" : undefined} onClick=${() => edit(true)}><${Icon} name="edit" />Change</button>
    <button type="button" class="danger quiet" disabled=${fixed} title=${fixed ? "This route is from the configuration: remove it there and reload" : undefined} onClick=${() => setAsking(true)}><${Icon} name="trash" />Delete</button>
    ${editing && html`<${Edit} route=${route} onClose=${() => edit(false)} />`}
    ${asking && html`<${Confirm} title=${`Delete the route ${route.name}?`} action="Delete route" onYes=${remove} onClose=${() => setAsking(false)}>
      <p>Port ${route.port} will take no new connections. Open tunnels may finish.</p></${Confirm}>`}
  </div>`;
}

export function RoutePage({ id }) {
  const { data: route, error, again } = useAsk(`/proxies/${encodeURIComponent(id)}`, 4000);
  const missing = error?.status === 404;
  // The heading gets the focus when the page opens. So the heading must be the same element before and after the data
  // arrives.
  return html`
    <p class="crumb"><a href="#/routes">Routes</a></p>
    <div class="head"><h1 tabindex="-1">${route?.name ?? id}</h1>${route && html`<${Actions} route=${route} />`}</div>
    ${missing && html`<${Panel}><${Empty} title="There is no such route">It was deleted, it has ended, or the name is wrong. <a href="#/routes">To all routes</a></${Empty}></${Panel}>`}
    ${!missing && !route && (error ? html`<${Trouble} error=${error} again=${again} />` : html`<${Waiting} />`)}
    ${route && html`<${Details} route=${route} error=${error} again=${again} />`}`;
}

function Details({ route, error, again }) {
  return html`
    <p class="facts"><code>${route.selector}</code><span>port <b class="mono">${route.port ?? "none"}</b></span><span>pool <${Pool} pool=${route.pool} mode=${route.mode} /></span>
      ${route.exit && html`<span>pinned to <a class="mono" href=${`#/exits/${encodeURIComponent(route.exit.id)}`}>${route.exit.ip}</a></span>`}
      <span>sources <b>${route.policy.source.join(route.policy.fallback ? ", then " : ", ")}</b>${route.policy.fallback && html` <span class="faint">a later one only where the earlier ones cannot serve</span>`}</span>
      ${route.check && html`<span>check ${route.check}</span>`}
      <${Badge}>${route.auth === "key" ? "requires a key" : "open: no key needed"}</${Badge}>${route.origin === "config" && html`<${Badge}>from the configuration</${Badge}>`}
      <span class="faint">created <${When} at=${route.created} /></span>${route.expires && html`<span class="warn">ends <${When} at=${route.expires} /></span>`}</p>
    ${route.state === "warming" && html`<div class="trouble" role="status"><p>No exit is tested yet; the first requests wait. ${route.missing}</p></div>`}
    ${route.state === "port_taken" && html`<div class="trouble" role="alert"><p>Another program listens on port ${route.port}. Stop it; the gateway tries again by itself.</p></div>`}
    <${Trouble} error=${error} again=${again} />
    <${Panel} title="Now"><${Figures} route=${route} /></${Panel}>
    <div class="columns">${route.urls && html`<${Use} route=${route} />`}<${Members} route=${route} /></div>
    <${Rules} route=${route} />
    ${Object.keys(route.live.by_source ?? {}).length > 0 && html`<${Panel} title="Carried by each source since the start" kind="flush"><${Carried} carried=${route.live.by_source} /></${Panel}>`}`;
}
