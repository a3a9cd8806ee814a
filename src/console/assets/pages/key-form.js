// The dialogs that create and change a key, and the one that shows the secret of a new key.
import { ask, refresh, useAsk } from "../api.js";
import { formOf, patchOf } from "../budgets.js";
import { CopyButton, Dialog, Field, Trouble, say } from "../parts.js";
import { html, useState } from "../view.js";
import { useForm } from "./change.js";

// Returns the names of all sources: those of the gateway, and others that the key names.
function useSources(item) {
  const { data } = useAsk("/ready", 0);
  const used = (item?.source_usage ?? []).map(({ source }) => source);
  return [...new Set([...Object.keys(data?.sources ?? {}), ...used, ...(item?.sources ?? [])])].sort();
}

function SourceChoice({ names, chosen, onChange }) {
  const flip = (name) => onChange(chosen.includes(name) ? chosen.filter((one) => one !== name) : [...chosen, name]);
  return html`<fieldset class="choice"><legend>Sources that it may use</legend><p class="hint">None chosen: all sources.</p>
    <div class="chips">${names.map((name) => html`<label key=${name} class="chip"><input type="checkbox" checked=${chosen.includes(name)} onChange=${() => flip(name)} /><span>${name}</span></label>`)}</div></fieldset>`;
}

function BudgetFields({ prefix, input }) {
  const field = (name, label, hint, more) => html`<${Field} label=${label} hint=${hint}>${input(`${prefix}.${name}`, more)}</${Field}>`;
  const whole = { inputmode: "numeric", placeholder: "no limit" };
  const amount = { placeholder: "no limit" };
  return html`<div class="pair">
    ${field("requests_per_day", "Requests per day", undefined, whole)}${field("requests_per_month", "Requests per month", undefined, whole)}
    ${field("bytes_per_day", "Bytes per day", "500MB, 2GiB", amount)}${field("bytes_per_month", "Bytes per month", "100GB", amount)}
  </div>`;
}

function Fields({ form, sources, chosen, choose, timeHint }) {
  const { input, wrong, fields } = form;
  const used = (source) => Object.entries(fields).some(([name, text]) => name.startsWith(`source_budgets.${source}.`) && text);
  return html`<div class="pair">
      <${Field} label="Expires after" hint=${timeHint} error=${wrong("ttl")}>${input("ttl", { placeholder: "30d" })}</${Field}>
      <${Field} label="Routes that it may use" hint="Names, with spaces between. Empty: all, and usernames without a route." error=${wrong("routes")}>${input("routes", { placeholder: "shop news" })}</${Field}>
    </div>
    <${SourceChoice} names=${sources} chosen=${chosen} onChange=${choose} />
    <h3>Budget of all sources together, in days and months of UTC</h3><${BudgetFields} prefix="budget" input=${input} />
    ${sources.map((source) => html`<details key=${source} open=${used(source)}><summary>Budget of the source ${source}</summary><${BudgetFields} prefix=${`source_budgets.${source}`} input=${input} /></details>`)}
    <details><summary>Limits at the same time</summary><div class="pair">
      <${Field} label="Open connections">${input("limits.connections", { inputmode: "numeric", placeholder: "no limit" })}</${Field}>
      <${Field} label="New connections per second">${input("limits.per_second", { inputmode: "numeric", placeholder: "no limit" })}</${Field}>
      <${Field} label="Bytes per second" hint="5MB">${input("limits.bytes_per_second", { placeholder: "no limit" })}</${Field}>
    </div></details>`;
}

// `first` is true if the gateway has no key yet: then the new key closes the gateway for clients without a key.
export function CreateKey({ onClose, onMade, first }) {
  const sources = useSources(null);
  const [chosen, choose] = useState([]);
  const empty = { name: "", ...formOf(null) };
  const form = useForm(empty);
  const go = (event) => form.send(event, async (fields) => {
    const body = { ...patchOf(empty, fields), ...(chosen.length > 0 && { sources: chosen }) };
    // A name of digits alone is a text too.
    if (fields.name.trim()) body.name = fields.name.trim();
    const made = await ask("/keys", { method: "POST", body });
    refresh("/keys");
    onClose();
    if (made.secret === null) say(`The key ${made.name} existed already. Its secret is not shown again.`, "bad");
    else onMade(made);
  });
  return html`<${Dialog} title="New key" onClose=${onClose}><form onSubmit=${go}>
    <div class="body">
      ${first && html`<p class="warn">This is the first key: from now on, every client needs a key.</p>`}
      <${Field} label="Name" hint="Letters, digits, - _ and . Sessions and pins belong to it." error=${form.wrong("name")}>${form.input("name", { required: true, maxlength: 64, placeholder: "team-a" })}</${Field}>
      <${Fields} form=${form} sources=${sources} chosen=${chosen} choose=${choose} timeHint="12h, 30d. Empty: never." />
      <${Trouble} error=${form.rest} />
    </div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button><button class="primary" disabled=${form.busy}>${form.busy ? "Creating …" : "Create key"}</button></footer>
  </form></${Dialog}>`;
}

// Shows the secret of a new key. The secret is nowhere else, so only the button closes this dialog.
export function Secret({ made, onClose }) {
  return html`<${Dialog} title=${`The secret of ${made.name}`} onClose=${onClose} kind="small" firm>
    <div class="body"><p>Clients send it as their password. It is shown only now: the gateway stores a digest and cannot show it again.</p>
      <div class="code"><pre tabindex="0" aria-label="The secret"><code data-secret>${made.secret}</code></pre><${CopyButton} text=${made.secret} label="Copy the secret" /></div></div>
    <footer><button type="button" class="primary" onClick=${onClose}>I have stored it</button></footer>
  </${Dialog}>`;
}

// The dialog that changes a key. It sends only changed fields, and the version of the key that it shows: if somebody
// else has changed the key meanwhile, nothing is overwritten. `onStale` opens the dialog again with the present settings.
export function ChangeKey({ item, onClose, onStale }) {
  const sources = useSources(item);
  const [chosen, choose] = useState(item.sources ?? []);
  const [stale, setStale] = useState(false);
  const [forever, setForever] = useState(false);
  const first = formOf(item);
  const form = useForm(first);
  const go = (event) => form.send(event, async (fields) => {
    const body = patchOf(first, fields);
    if (forever) body.ttl = null;
    if (chosen.join() !== (item.sources ?? []).join()) body.sources = chosen.length > 0 ? chosen : null;
    try {
      await ask(`/keys/${encodeURIComponent(item.name)}`, { method: "PATCH", body, version: item.version });
    } catch (why) {
      setStale(why.status === 412);
      throw why;
    }
    say(`The key ${item.name} was changed; the next request of its clients obeys.`);
    refresh("/keys");
    onClose();
  });
  return html`<${Dialog} title=${`Change the key ${item.name}`} onClose=${onClose}><form onSubmit=${go}>
    <div class="body">
      <${Fields} form=${form} sources=${sources} chosen=${chosen} choose=${choose} timeHint="From now on. Empty: no change." />
      ${item.expires && html`<label class="check"><input type="checkbox" checked=${forever} onChange=${() => setForever(!forever)} /><span>It never expires</span></label>`}
      ${stale ? html`<div class="trouble" role="alert"><p>Somebody else has changed this key since you opened this dialog, so nothing was changed.</p><button type="button" class="quiet" onClick=${onStale}>Load its present settings</button></div>` : html`<${Trouble} error=${form.rest} />`}
    </div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button><button class="primary" disabled=${form.busy || stale}>${form.busy ? "Changing …" : "Change key"}</button></footer>
  </form></${Dialog}>`;
}
