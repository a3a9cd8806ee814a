// The start page: the figures of all routes together, and a table of the routes.
import { useAsk } from "../api.js";
import { Spark } from "../chart.js";
import { figures, series, useLive } from "../live.js";
import { addresses } from "../lines.js";
import { Badge, CopyButton, Empty, Icon, Panel, Trouble, Waiting } from "../parts.js";
import { html, useEffect, useMemo, useState } from "../view.js";
import { bytes, count, millis, percent, plural, rate } from "../words.js";
import { Create } from "./create.js";
import { FirstRun } from "./first.js";
import { History } from "./history.js";

function Tile({ name, value, note, values, kind = "" }) {
  return html`<div class="tile"><div class="name">${name}</div><div class="value">${value}</div>
    <div class="note">${note}</div>${values && html`<${Spark} values=${values} kind=${kind} label=${`${name}, last two minutes`} />`}</div>`;
}

// Returns the share of failed requests of the last minutes, or since the start if there was no request in these minutes.
export function failing(now) {
  return now?.recent.failed ?? (now?.total.requests ? now.total.failed / now.total.requests : null);
}

// Returns the colour class of a share of failed requests. Below 0.5 % failures are normal, and from 5 % on they are an
// alarm. Not tuned.
export function alarm(share) {
  return share == null || share < 0.005 ? "" : share < 0.05 ? "warn" : "bad";
}

function Tiles() {
  useLive();
  const { data: places } = useAsk("/countries", 5000);
  const all = figures();
  const usable = places?.countries.reduce((sum, { usable: n }) => sum + n, 0);
  const known = places?.countries.reduce((sum, { known: n }) => sum + n, 0);
  return html`<section class="tiles" aria-label="Now, all routes together">
    <${Tile} name="Requests" value=${html`${rate(all?.now.rate)}<small>/s</small>`} note=${`${count(all?.total.requests)} since start`} values=${series(undefined, "rate")} />
    <${Tile} name="Failed" value=${percent(failing(all) ?? 0)} note=${`${count(all?.total.failed)} since start`} values=${series(undefined, "failed")} kind="bad" />
    <${Tile} name="Time to open, p50" value=${millis(all?.now.p50)} note=${`p95 ${millis(all?.now.p95)}`} values=${series(undefined, "p50")} kind="second" />
    <${Tile} name="Traffic" value=${html`${bytes(all?.now.down)}<small>/s</small>`} note=${`${bytes(all?.now.up)}/s up · ${count(all?.streams)} open`} values=${series(undefined, "down")} />
    <${Tile} name="Usable exits" value=${count(usable)} note=${html`of ${count(known)} known · <a href="#/exits">see them</a>`} />
  </section>`;
}

// Shows the size of a pool. A strict route uses only one exit, so one exit is enough.
export function Pool({ pool, mode }) {
  const { have, unique_ips: ips } = pool;
  const wanted = mode === "strict" ? 1 : pool.wanted;
  const kind = have === 0 ? "bad" : have < wanted ? "warn" : "good";
  return html`<${Badge} kind=${kind}>${mode === "strict" ? have : `${have}/${wanted}`}</${Badge}> <span class="faint nowrap">${plural(ips, "IP")}</span>`;
}

function Row({ route }) {
  const now = figures(route.name);
  const { name, selector, mode, port, pool, urls, origin, state } = route;
  const share = failing(now);
  return html`<tr>
    <th scope="row"><a class="name" href=${`#/routes/${encodeURIComponent(name)}`}>${name}</a>
      ${origin === "config" && html`<${Badge}>config</${Badge}>`}${state === "warming" && html`<${Badge}>warming</${Badge}>`}${state === "port_taken" && html`<${Badge} kind="bad">port taken</${Badge}>`}
      <div class="faint mono">${selector}</div></th>
    <td class="mono nowrap wide">${port ?? "–"} ${urls && html`<${CopyButton} text=${addresses(route).socks5} label=${`Copy the address of ${name}`} />`}</td>
    <td class="nowrap wide"><${Pool} pool=${pool} mode=${mode} /></td>
    <td class="number nowrap">${rate(now?.now.rate)}<span class="faint">/s</span></td>
    <td class="wider"><${Spark} values=${series(name, "rate")} label=${`Requests of ${name}, last two minutes`} /></td>
    <td class="number nowrap middle">${millis(pool.latency_ms)}</td>
    <td class="number nowrap"><span class=${alarm(share)}>${percent(share)}</span></td>
    <td class="number nowrap wider">${bytes(now ? now.total.up + now.total.down : null)}</td>
    <td class="number nowrap middle">${count(now?.total.requests)}</td>
  </tr>`;
}

// One table row for all usernames that are not the name of a route.
function Implicit() {
  const now = figures("implicit");
  if (!now?.total.requests && !now?.streams) return null;
  return html`<tr class="implicit">
    <th scope="row"><span class="name">by username</span><div class="faint">shared port, all selectors together</div></th>
    <td class="faint wide">shared</td><td class="wide"></td>
    <td class="number nowrap">${rate(now.now.rate)}<span class="faint">/s</span></td>
    <td class="wider"><${Spark} values=${series("implicit", "rate")} label="Requests by username, last two minutes" /></td>
    <td class="number middle"></td>
    <td class="number nowrap"><span class=${alarm(failing(now))}>${percent(failing(now))}</span></td>
    <td class="number nowrap wider">${bytes(now.total.up + now.total.down)}</td>
    <td class="number nowrap middle">${count(now.total.requests)}</td>
  </tr>`;
}

function Table({ routes }) {
  useLive();
  return html`<div class="scroll"><table class="routes"><thead><tr>
    <th scope="col">Route</th><th scope="col" class="wide">Port</th><th scope="col" class="wide">Pool</th><th scope="col" class="number">Requests</th>
    <th scope="col" class="wider"><span class="sr">Last two minutes</span></th><th scope="col" class="number middle" title="The median time to open a stream, in the last checks of its exits">Latency</th><th scope="col" class="number">Failed</th>
    <th scope="col" class="number wider">Traffic</th><th scope="col" class="number middle">Total</th>
  </tr></thead><tbody>${routes.map((route) => html`<${Row} key=${route.name} route=${route} />`)}<${Implicit} /></tbody></table></div>`;
}

// The number of rows that are drawn at first. A phone cannot draw a thousand rows every two seconds.
const ROWS = 100;

// Returns true while no exit has been usable in the memory of the gateway, which keeps 24 hours and begins with its
// start. The overview then shows the steps of the start. An outage later does not count as a start.
function useStarting() {
  const { data: ready } = useAsk("/ready", 2000);
  const waits = ready?.ready === false;
  const { data: past } = useAsk(waits ? "/history" : null, 10_000);
  return waits && past && !past.usable_exits.some((usable) => usable > 0) ? ready : null;
}

export function Routes({ query }) {
  const starting = useStarting();
  const [pace, setPace] = useState(4000);
  const { data, error, again } = useAsk("/proxies?limit=1000", pace);
  // A thousand routes are a megabyte of data, so a long list is read less often.
  useEffect(() => setPace(data?.total > 200 ? 15_000 : 4000), [data?.total]);
  const [rows, showRows] = useState(ROWS);
  const [creating, create] = useState(false);
  // The address "#/routes?new" opens the dialog. When the dialog closes, the address must change, so that the same
  // address opens the dialog again.
  useEffect(() => {
    if (query.has("new")) create(true);
  }, [query]);
  const close = () => {
    create(false);
    if (location.hash === "#/routes?new") history.replaceState(null, "", "#/routes");
  };
  const [typed, type] = useState("");
  const found = useMemo(() => {
    const word = typed.trim().toLowerCase();
    return (data?.proxies ?? []).filter(({ name, selector, port }) => `${name} ${selector} ${port}`.toLowerCase().includes(word));
  }, [data, typed]);
  const button = html`<button type="button" class="primary" onClick=${() => create(true)}><${Icon} name="plus" />New route</button>`;
  return html`
    <div class="head"><h1 tabindex="-1">Routes</h1>${button}</div>
    ${starting ? html`<${FirstRun} ready=${starting} />` : html`<${Tiles} />`}
    <${Trouble} error=${error} again=${again} />
    <${Panel} title=${data ? plural(data.total, "route") : "Routes"} kind="flush"
      more=${data?.total > 8 && html`<input type="search" class="filter" aria-label="Filter the routes" placeholder="Filter" value=${typed} onInput=${(event) => type(event.target.value)} />`}>
      ${!data && !error && html`<${Waiting} />`}
      ${data && (data.total > 0 || figures("implicit")?.total.requests > 0) && html`<${Table} routes=${found.slice(0, rows)} />`}
      ${found.length > rows && html`<p class="inset"><button type="button" class="quiet" onClick=${() => showRows(rows + ROWS)}>Show more (${rows} of ${count(found.length)})</button></p>`}
      ${data?.total === 0 && html`<${Empty} title="No route yet">A route is a port of its own with the exits that you choose: in the US, anywhere but the US, or one fixed address.
        The shared port needs no route: the username chooses the exits, as in <code>us-strict</code>. ${button}</${Empty}>`}
      ${data?.total > 0 && found.length === 0 && html`<${Empty} title="No route found">Clear the filter to see all ${data.total}.</${Empty}>`}
    </${Panel}>
    ${!starting && html`<${History} />`}
    ${creating && html`<${Create} onClose=${close} />`}`;
}
