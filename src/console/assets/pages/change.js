// Dialogs for an existing route: one changes the route, the other reports that a site refuses one of its exits.
import { ask, refresh } from "../api.js";
import { Dialog, Field, Trouble, say } from "../parts.js";
import { html, useState } from "../view.js";

// The state that all form dialogs need: the fields, their errors, and a function that sends them.
export function useForm(first) {
  const [fields, setFields] = useState(first);
  const [fault, setFault] = useState(null);
  const [busy, setBusy] = useState(false);
  const input = (name, more) => (id, about) => html`<input id=${id} aria-describedby=${about} autocomplete="off" value=${fields[name]} ...${more}
    onInput=${(event) => { setFields({ ...fields, [name]: event.target.value }); setFault(null); }} />`;
  // Returns the error of one field. `rest` is an error that belongs to none of the fields.
  const wrong = (name) => (fault?.details.field === name ? fault.message : null);
  const rest = fault && !(fault.details.field in first) ? fault : null;
  const send = async (event, work) => {
    event.preventDefault();
    setBusy(true);
    try {
      await work(fields);
    } catch (why) {
      setFault(why);
      setBusy(false);
    }
  };
  return { fields, input, wrong, rest, busy, send };
}

const whole = (text) => (/^\d+$/.test(text) ? Number(text) : text);

// The dialog that changes a route. It sends only changed fields. An emptied field is reset to its default.
export function Edit({ route: present, onClose }) {
  // The route as it was when the dialog was opened: what somebody else changes meanwhile is not sent back.
  const [route] = useState(present);
  const first = { pool: String(route.pool.wanted), check: route.check ?? "", rotate_every: route.policy.rotate_every ? `${route.policy.rotate_every}s` : "", ttl: "", source: route.policy.source.join(" ") };
  const [fallback, setFallback] = useState(route.policy.fallback);
  const { input, wrong, rest, busy, send } = useForm(first);
  const go = (event) => send(event, async (fields) => {
    const changed = Object.entries(fields).filter(([name, value]) => value.trim() !== first[name]);
    const body = Object.fromEntries(changed.map(([name, value]) => [name, value.trim() ? (name === "pool" ? whole(value.trim()) : value.trim()) : null]));
    if (body.source) body.source = body.source.split(/[\s,]+/);
    if (fallback !== route.policy.fallback) body.fallback = fallback || null;
    await ask(`/proxies/${encodeURIComponent(route.name)}`, { method: "PATCH", body });
    say(`The route ${route.name} was changed; open tunnels are not affected.`);
    refresh("/proxies");
    onClose();
  });
  return html`<${Dialog} title=${`Change ${route.name}`} onClose=${onClose}><form onSubmit=${go}>
    <div class="body"><div class="pair">
      <${Field} label="Exits in the pool" hint="Empty: the default of the configuration." error=${wrong("pool")}>${input("pool", { inputmode: "numeric" })}</${Field}>
      <${Field} label="Exits must pass the check" hint="A name in check.targets, such as steam." error=${wrong("check")}>${input("check")}</${Field}>
      <${Field} label="Replace exits every" hint="10m, 1h. Empty: never." error=${wrong("rotate_every")}>${input("rotate_every", { placeholder: "never" })}</${Field}>
      <${Field} label="Delete after" hint="From now on. Empty: no change." error=${wrong("ttl")}>${input("ttl", { placeholder: "2h" })}</${Field}>
      <${Field} label="Sources, preferred first" hint="tor public acme. Empty: the selector decides." error=${wrong("source")}>${input("source")}</${Field}>
    </div>
    <label class="check"><input type="checkbox" checked=${fallback} onChange=${() => setFallback(!fallback)} /><span>Use a later source only where the earlier ones have no exit or are refused</span></label><${Trouble} error=${rest} /></div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button><button class="primary" disabled=${busy}>${busy ? "Changing …" : "Change route"}</button></footer>
  </form></${Dialog}>`;
}

export function Report({ route, exit, onClose }) {
  const { fields, input, wrong, rest, busy, send } = useForm({ site: "", outcome: "" });
  const go = (event) => send(event, async ({ site, outcome }) => {
    const body = { site: site.trim(), exit: exit.id, ...(outcome.trim() && { outcome: outcome.trim() }) };
    const banned = await ask(`/proxies/${encodeURIComponent(route.name)}/report`, { method: "POST", body });
    say(`${exit.ip ?? exit.id} is not used for ${banned.site} for a while.`);
    refresh("/proxies", "/exits");
    onClose();
  });
  return html`<${Dialog} title=${`A site refuses ${exit.ip ?? exit.id}`} onClose=${onClose} kind="small"><form onSubmit=${go}>
    <div class="body"><p class="faint">For a while no route uses it for that site. Other sites are not affected.</p>
      <${Field} label="Site" error=${wrong("site")}>${input("site", { placeholder: "shop.example", required: true })}</${Field}>
      <${Field} label="What happened" hint="For your own records." error=${wrong("outcome")}>${input("outcome", { placeholder: "captcha", maxlength: 64 })}</${Field}>
      <${Trouble} error=${rest} /></div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button><button class="primary" disabled=${busy || !fields.site.trim()}>${busy ? "Reporting …" : "Report"}</button></footer>
  </form></${Dialog}>`;
}
