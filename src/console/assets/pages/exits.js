// The number of usable exits in each country, and the list of exits.
import { ask, useAsk } from "../api.js";
import { Bar } from "../chart.js";
import { Badge, Empty, Panel, Trouble, Waiting, When, say } from "../parts.js";
import { html, useEffect, useState } from "../view.js";
import { count, country, millis, plain, plural, short } from "../words.js";

const PAGE = 100;
// The largest page that the API returns. It is used for a filter that needs all exits.
const MANY = 1000;
const BARS = 14;

export function Verdict({ exit }) {
  if (exit.usable) return html`<${Badge} kind="good">usable</${Badge}>`;
  const why = exit.marks?.[0] ?? (exit.verdict === "good" ? "not now" : exit.verdict === "bad" ? "failed its check" : "untested");
  return html`<${Badge} kind=${exit.verdict === "untested" && !exit.marks ? "" : "bad"}>${plain(why)}</${Badge}>`;
}

function Countries({ chosen, onChoose }) {
  const { data, error, again } = useAsk("/countries", 5000);
  const [all, setAll] = useState(false);
  const list = [...(data?.countries ?? [])].sort((a, b) => b.usable - a.usable || b.known - a.known);
  const high = Math.max(1, ...list.map(({ known }) => known));
  const shown = all ? list : list.slice(0, BARS);
  return html`<${Panel} title="Usable exits by country" more=${chosen && html`<button type="button" class="quiet" onClick=${() => onChoose(null)}>All countries</button>`}>
    <${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} rows=${8} />`}
    ${data && list.length === 0 && html`<${Empty} title="No exit is known yet">The sources are loading. <a href="#/sources">See their state</a></${Empty}>`}
    <ul class="bars">${shown.map(({ country: code, usable, known }) => html`<li key=${code}>
      <button type="button" aria-pressed=${chosen === code ? "true" : "false"} onClick=${() => onChoose(chosen === code ? null : code)}>
        <span class="name">${country(code)}</span><${Bar} share=${usable / high} /><span class="number"><b>${count(usable)}</b><span class="faint"> of ${count(known)}</span></span></button></li>`)}</ul>
    ${list.length > BARS && html`<button type="button" class="quiet" onClick=${() => setAll(!all)}>${all ? "Only the first" : `All ${list.length} countries`}</button>`}
  </${Panel}>`;
}

// The world map. Its outlines are loaded only now, after everything else, because no other page needs them.
function World({ chosen, onChoose }) {
  const { data } = useAsk("/countries", 5000);
  const [loaded, load] = useState(null);
  useEffect(() => {
    let over = false;
    import("./map.js").then(({ WorldMap: map }) => over || load({ map }), () => over || load({ failed: true }));
    return () => { over = true; };
  }, []);
  return html`<${Panel} title="World map">${loaded?.failed ? html`<p class="faint">The map could not be loaded. The list of countries below has the same numbers.</p>`
    : loaded && data ? html`<${loaded.map} countries=${data.countries} chosen=${chosen} onChoose=${onChoose} />` : html`<div class="map"><div class="blank" /></div>`}</${Panel}>`;
}

// A list that is loaded page by page. It starts again from the first page when the query changes.
function usePages(query) {
  const first = useAsk(`/exits?limit=${PAGE}${query}`, 8000);
  const [more, setMore] = useState({ query, exits: [], next: undefined });
  const rest = more.query === query ? more : { query, exits: [], next: undefined };
  const next = rest.next === undefined ? first.data?.next : rest.next;
  const load = async (all) => {
    let [list, after] = [rest.exits, next];
    do {
      const page = await ask(`/exits?limit=${all ? MANY : PAGE}${query}&after=${encodeURIComponent(after)}`);
      [list, after] = [[...list, ...page.exits], page.next ?? null];
    } while (all && after);
    setMore({ query, exits: list, next: after });
  };
  return { ...first, exits: [...(first.data?.exits ?? []), ...rest.exits], total: first.data?.total, load: next ? load : null };
}

export function Exits({ query }) {
  const asked = query.get("country")?.toUpperCase() ?? null;
  const [place, setPlace] = useState(asked);
  const [usable, setUsable] = useState("true");
  const [source, setSource] = useState("");
  const [typed, type] = useState("");
  useEffect(() => setPlace(asked), [asked]);
  const filters = Object.entries({ country: place, usable, source }).filter(([, value]) => value);
  const { exits, total, error, again, data, load } = usePages(filters.map(([name, value]) => `&${name}=${encodeURIComponent(value)}`).join(""));
  const word = typed.trim().toLowerCase();
  const [rows, showRows] = useState(PAGE);
  const [looking, look] = useState(false);
  useEffect(() => showRows(PAGE), [word, place, usable, source]);
  useEffect(() => {
    if (!word || !load || looking) return;
    look(true);
    load(true).catch((why) => say(why.message, "bad")).finally(() => look(false));
  }, [word, load === null]);
  const more = () => {
    showRows(rows + PAGE);
    if (load && exits.length < rows + PAGE) load().catch((why) => say(why.message, "bad"));
  };
  const found = exits.filter(({ id, ip, nickname, as_name: as }) => !word || `${id} ${ip} ${nickname ?? ""} ${as ?? ""}`.toLowerCase().includes(word));
  return html`
    <div class="head"><h1 tabindex="-1">Exits</h1></div>
    <${World} chosen=${place} onChoose=${setPlace} />
    <div class="columns narrow">
      <${Countries} chosen=${place} onChoose=${setPlace} />
      <${Panel} title=${total === undefined ? "Exits" : plural(total, "exit")} kind="flush" more=${html`<div class="filters">
          <select aria-label="Which exits" value=${usable} onChange=${(event) => setUsable(event.target.value)}><option value="true">usable</option><option value="false">not usable</option><option value="">all</option></select>
          <select aria-label="Of which source" value=${source} onChange=${(event) => setSource(event.target.value)}><option value="">any source</option><option value="tor">Tor</option><option value="public">public</option><option value="direct">direct</option></select>
          <input type="search" class="filter" aria-label="Filter by address, nickname, network or fingerprint" placeholder="Filter" value=${typed} onInput=${(event) => type(event.target.value)} /></div>`}>
        <${Trouble} error=${error} again=${again} />
        ${!data && !error && html`<${Waiting} rows=${10} />`}
        ${data && found.length === 0 && html`<${Empty} title="No exit found">${looking ? `Searching ${count(total)} …` : word ? "No address, nickname, network or fingerprint contains this." : usable === "true" ? "No exit has passed its check yet, or none matches the filter." : "None matches the filter."}</${Empty}>`}
        ${found.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Exit</th><th scope="col">Country</th><th scope="col" class="wider">Network</th><th scope="col">State</th><th scope="col" class="number wide">Latency</th><th scope="col" class="number wide">Open</th><th scope="col" class="wide">Checked</th></tr></thead>
          <tbody>${found.slice(0, rows).map((exit) => html`<tr key=${exit.id}><th scope="row"><a class="mono name" href=${`#/exits/${encodeURIComponent(exit.id)}`}>${exit.ip ?? short(exit.id)}</a> <span class="faint cut">${exit.nickname ?? ""}</span></th>
            <td>${country(exit.country)}</td><td class="wider"><span class="cut">${exit.as_name ?? (exit.asn ? `AS${exit.asn}` : "–")}</span></td><td><${Verdict} exit=${exit} /></td>
            <td class="number wide">${millis(exit.latency_ms)}</td><td class="number wide">${count(exit.streams)}</td><td class="wide nowrap"><${When} at=${exit.checked} /></td></tr>`)}</tbody></table></div>`}
        ${(found.length > rows || (load && !word)) && html`<p class="inset"><button type="button" class="quiet" onClick=${more}>Show more (${count(Math.min(rows, found.length))} of ${count(word ? found.length : total)})</button></p>`}
      </${Panel}>
    </div>`;
}
