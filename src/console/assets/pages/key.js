// The page of one key: its settings, what it has used in all and of each source, and buttons to change and delete it.
import { ask, refresh, useAsk } from "../api.js";
import { limits } from "../budgets.js";
import { Badge, Confirm, Empty, Icon, Panel, Trouble, Waiting, When, say } from "../parts.js";
import { html, useState } from "../view.js";
import { bytes, count, plural } from "../words.js";
import { ChangeKey } from "./key-form.js";
import { Meter } from "./keys.js";

function Usage({ usage }) {
  return html`<dl class="known wider-names">${limits(usage).map((one) => html`<div key=${one.field}><dt>${one.name}</dt><dd class="meter">${one.limit === null ? html`${one.text} <span class="faint">no limit</span>` : html`<${Meter} budget=${one} /> <span class="faint">begins again <${When} at=${one.resets} /></span>`}</dd></div>`)}</dl>`;
}

const list = (names, all) => (names === null ? all : names.join(", "));

function Settings({ item }) {
  const { limits: of, routes, sources, created, expires, expired } = item;
  const rows = [
    ["Routes", list(routes, "all, and usernames without a route")],
    ["Sources", list(sources, "all")],
    ["Connections", of.connections ? `at most ${count(of.connections)} open` : "no limit"],
    ["New connections", of.per_second ? `${count(of.per_second)} per second` : "no limit"],
    ["Bytes per second", of.bytes_per_second ? bytes(of.bytes_per_second) : "no limit"],
    ["Expires", expires ? html`<${When} at=${expires} />${expired && html` <${Badge} kind="bad">expired</${Badge}>`}` : "never"],
    ["Created", created ? html`<${When} at=${created} />` : "in the configuration"],
  ];
  return html`<dl class="known wider-names">${rows.map(([name, shown]) => html`<div key=${name}><dt>${name}</dt><dd>${shown}</dd></div>`)}</dl>`;
}

function Delete({ item, onClose }) {
  const [cut, setCut] = useState(false);
  const [open, setOpen] = useState(false);
  const [last, setLast] = useState(false);
  const { name, version, open_connections: connections } = item;
  const remove = async () => {
    const query = new URLSearchParams({ ...(cut && { cut }), ...(open && { open }) });
    try {
      await ask(`/keys/${encodeURIComponent(name)}?${query}`, { method: "DELETE", version });
    } catch (why) {
      if (why.code === "last_key") setLast(true);
      if (why.status === 412) throw new Error("Somebody else has changed this key since you opened this dialog. Close it, and look at the key again.");
      throw why;
    }
    refresh("/keys");
    location.hash = "#/keys";
    say(`The key ${name} is deleted${cut ? ", and its open connections are closed" : ""}.`);
  };
  const box = (on, set, text) => html`<label class="check"><input type="checkbox" checked=${on} onChange=${() => set(!on)} /><span>${text}</span></label>`;
  return html`<${Confirm} title=${`Delete the key ${name}?`} action="Delete key" onYes=${remove} onClose=${onClose}>
    <p>The next connection with its secret is refused. What the key has used is forgotten.</p>
    ${box(cut, setCut, `Close its open connections too (now ${count(connections)})`)}
    ${last && box(open, setOpen, "Let everybody who can reach a port use the gateway without a key")}
  </${Confirm}>`;
}

export function KeyPage({ id }) {
  const { data: item, error, again } = useAsk(`/keys/${encodeURIComponent(id)}`, 3000);
  // The dialog to change a key shows the settings of the moment when it was opened.
  const [editing, edit] = useState(null);
  const [asking, setAsking] = useState(null);
  const missing = error?.status === 404;
  const fixed = item?.origin === "config";
  const title = fixed ? "This key is from the configuration: change it there and reload" : undefined;
  const present = () => ask(`/keys/${encodeURIComponent(id)}`).then(edit, (why) => say(why.message, "bad"));
  return html`
    <p class="crumb"><a href="#/keys">Keys</a></p>
    <div class="head"><h1 tabindex="-1">${item?.name ?? id}</h1>${item && html`<div class="actions">
      <button type="button" disabled=${fixed} title=${title} onClick=${() => edit(item)}><${Icon} name="edit" />Change</button>
      <button type="button" class="danger quiet" disabled=${fixed} title=${title} onClick=${() => setAsking(item)}><${Icon} name="trash" />Delete</button></div>`}</div>
    ${missing && html`<${Panel}><${Empty} title="There is no such key">It was deleted, or the name is wrong. <a href="#/keys">To all keys</a></${Empty}></${Panel}>`}
    ${!missing && html`<${Trouble} error=${error} again=${again} />`}
    ${!missing && !item && !error && html`<${Waiting} />`}
    ${item && !missing && html`<p class="facts">${fixed && html`<${Badge}>from the configuration</${Badge}>`}<span>${plural(item.open_connections, "open connection")}</span></p>
      <div class="columns"><${Panel} title="Settings"><${Settings} item=${item} /></${Panel}>
      <div class="stack"><${Panel} title="All sources together"><${Usage} usage=${item.usage} /></${Panel}>
        ${item.source_usage.map((usage) => html`<${Panel} key=${usage.source} title=${`Of the source ${usage.source}`}><${Usage} usage=${usage} /></${Panel}>`)}</div></div>`}
    ${editing && html`<${ChangeKey} key=${editing.version} item=${editing} onClose=${() => edit(null)} onStale=${present} />`}
    ${asking && html`<${Delete} item=${asking} onClose=${() => setAsking(null)} />`}`;
}
