// The page of open connections, each with a button that closes the connection.
import { ask, refresh, useAsk } from "../api.js";
import { Empty, Icon, Panel, Trouble, Waiting, say } from "../parts.js";
import { html } from "../view.js";
import { bytes, count, plural, short, span } from "../words.js";

async function cut(id) {
  try {
    await ask(`/connections/${encodeURIComponent(id)}`, { method: "DELETE" });
    say("The connection was closed.");
    refresh("/connections");
  } catch (why) {
    say(why.message, "bad");
  }
}

function Row({ connection: one }) {
  const { id, client, listener, protocol, route, scope, exit, exit_ip: ip, requests, age_seconds: age } = one;
  return html`<tr><th scope="row" class="mono nowrap">${client}</th><td>${scope ?? route ?? html`<span class="faint">not known yet</span>`}${listener === "shared" && html` <span class="faint">shared port</span>`}</td><td class="wide">${protocol ?? "–"}</td>
    <td class="mono">${exit ? html`<a href=${`#/exits/${encodeURIComponent(exit)}`}>${ip ?? short(exit)}</a>` : "–"}</td><td class="number wide">${count(requests)}</td>
    <td class="number nowrap wide">${bytes(one.bytes_down)}</td><td class="number wide nowrap">${bytes(one.bytes_up)}</td><td class="number wide nowrap">${span(age)}</td>
    <td class="number"><button type="button" class="quiet danger square" aria-label=${`Close the connection of ${client}`} onClick=${() => cut(id)}><${Icon} name="close" /></button></td></tr>`;
}

export function Connections() {
  const { data, error, again } = useAsk("/connections?limit=500", 2000);
  const absent = error?.status === 404;
  const list = data?.connections ?? [];
  return html`<div class="head"><h1 tabindex="-1">Connections</h1></div>
    ${!absent && html`<${Trouble} error=${error} again=${again} />`}
    <${Panel} title=${data ? plural(data.total ?? list.length, "open connection") : "Open connections"} kind="flush">
      ${!data && !error && html`<${Waiting} />`}
      ${absent && html`<${Empty} title="This gateway does not list its connections">Its version has no /connections; the figures of each route are on the routes' page.</${Empty}>`}
      ${data && list.length === 0 && html`<${Empty} title="No open connection">Tunnels and requests appear here while they are open.</${Empty}>`}
      ${list.length > 0 && html`<div class="scroll"><table><thead><tr><th scope="col">Client</th><th scope="col">Route</th><th scope="col" class="wide">Protocol</th><th scope="col">Exit</th><th scope="col" class="number wide">Requests</th><th scope="col" class="number wide">Down</th><th scope="col" class="number wide">Up</th><th scope="col" class="number wide">Age</th><th scope="col"><span class="sr">Close</span></th></tr></thead>
        <tbody>${list.map((one) => html`<${Row} key=${one.id} connection=${one} />`)}</tbody></table></div>`}
    </${Panel}>`;
}
