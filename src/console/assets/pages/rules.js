// The rules of a route by destination: a list, and the dialog that changes them.
import { ask, refresh } from "../api.js";
import { Badge, Dialog, Empty, Field, Icon, Panel, Trouble, say } from "../parts.js";
import { ACTIONS, EMPTY, fieldsOf, moved, placeOf, ruleOf, takesValue } from "../rules.js";
import { html, useRef, useState } from "../view.js";
import { count, plural } from "../words.js";

// The number of rules that the page shows at first. A route may have a thousand.
const SHOWN = 50;

const KIND = { refuse: "bad", direct: "warn" };

function Action({ action, value }) {
  const [, words] = ACTIONS.find(([name]) => name === action);
  if (action === "route") return html`${words} <a href=${`#/routes/${encodeURIComponent(value)}`}>${value}</a>`;
  return takesValue(action) ? html`${words} <code>${value}</code>` : html`<${Badge} kind=${KIND[action]}>${words}</${Badge}>`;
}

export function Rules({ route }) {
  const [editing, edit] = useState(null);
  const [shown, show] = useState(SHOWN);
  const fixed = route.origin === "config";
  const rules = (route.rules ?? []).map(fieldsOf);
  const button = html`<button type="button" disabled=${fixed} title=${fixed ? "This route is from the configuration: change it there and reload" : undefined} onClick=${() => edit(route.rules)}><${Icon} name="edit" />Change rules</button>`;
  return html`<${Panel} title="Rules by destination" kind="flush" more=${button}>
    ${rules.length === 0 && html`<${Empty} title="No rule">All targets use <code>${route.selector}</code>. A rule gives some hosts or ports another selector or route, or refuses them.</${Empty}>`}
    ${rules.length > 0 && html`<div class="scroll" tabindex="0"><table><thead><tr><th scope="col" class="number">No.</th><th scope="col">Host</th><th scope="col" class="middle">Port</th><th scope="col">Action</th></tr></thead>
      <tbody>${rules.slice(0, shown).map((rule, at) => html`<tr key=${at}><th scope="row" class="number">${at + 1}</th><td class="mono hosts">${rule.host || html`<span class="faint">every host</span>`}</td><td class="mono middle">${rule.port || html`<span class="faint">every port</span>`}</td><td><${Action} ...${rule} /></td></tr>`)}
        <tr><th scope="row" class="number">–</th><td class="faint">all others</td><td class="faint middle">every port</td><td>use the selector <code>${route.selector}</code></td></tr></tbody></table></div>`}
    ${rules.length > shown && html`<p class="inset"><button type="button" class="quiet" onClick=${() => show(shown * 4)}>Show more (${shown} of ${count(rules.length)})</button></p>`}
    ${editing && html`<${Editor} route=${route} first=${editing} onClose=${() => edit(null)} />`}
  </${Panel}>`;
}

function Line({ rule, at, last, error, set, move, remove }) {
  const wrong = (name) => (error?.field === name ? error.message : null);
  const text = (name, label, more) => html`<${Field} label=${label} error=${wrong(name)}>${(id, about) => html`<input id=${id} class="mono" aria-describedby=${about} autocomplete="off" spellcheck=${false} value=${rule[name]} onInput=${(event) => set({ ...rule, [name]: event.target.value })} ...${more} />`}</${Field}>`;
  const button = (name, label, off, act) => html`<button type="button" class="quiet square" aria-label=${`${label} rule ${at + 1}`} disabled=${off} onClick=${act}><${Icon} name=${name} /></button>`;
  return html`<li><fieldset><legend>Rule ${at + 1}</legend>
    <div class="rule">${text("host", "Hosts", { placeholder: "*.shop.example" })}${text("port", "Ports", { placeholder: "all" })}
      <${Field} label="Action">${(id) => html`<select id=${id} value=${rule.action} onChange=${(event) => set({ ...rule, action: event.target.value })}>${ACTIONS.map(([name, words]) => html`<option key=${name} value=${name}>${words}</option>`)}</select>`}</${Field}>
      ${takesValue(rule.action) ? text("value", rule.action === "use" ? "Selector" : "Route", { placeholder: rule.action === "use" ? "us-strict" : "dear" }) : html`<span>${wrong("value") && html`<p class="bad" role="alert">${wrong("value")}</p>`}</span>`}
      <div class="order">${button("up", "Move up", at === 0, () => move(at - 1))}${button("down", "Move down", last, () => move(at + 1))}${button("trash", "Remove", false, remove)}</div></div>
  </fieldset></li>`;
}

// The dialog that changes the rules. The API replaces the whole list, so the dialog first compares the present list with
// `first`, the list that it was opened with: somebody else may have changed it meanwhile.
function Editor({ route, first, onClose }) {
  const path = `/proxies/${encodeURIComponent(route.name)}`;
  const [lines, setLines] = useState(() => (first.length > 0 ? first.map(fieldsOf) : [EMPTY]).map((rule, key) => ({ key, ...rule })));
  const [opened, setOpened] = useState(first);
  const [fault, setFault] = useState(null);
  const [busy, setBusy] = useState(false);
  const list = useRef(null);
  const next = useRef(lines.length);
  const change = (now) => {
    setLines(now);
    setFault(null);
  };
  const focus = (at, part) => requestAnimationFrame(() => list.current?.children[at]?.querySelector(part)?.focus());
  const add = () => {
    change([...lines, { key: next.current++, ...EMPTY }]);
    focus(lines.length, "input");
  };
  const remove = (at) => {
    change(lines.filter((_, other) => other !== at));
    if (lines.length > 1) focus(Math.min(at, lines.length - 2), "input");
    else document.getElementById("add-rule")?.focus();
  };
  const move = (from, to) => {
    change(moved(lines, from, to));
    focus(to, to < from ? ".order button:not(:disabled)" : ".order button:nth-child(2):not(:disabled), .order button:not(:disabled)");
  };
  const load = async () => {
    try {
      const { rules } = await ask(path);
      setOpened(rules);
      change(rules.map((rule) => ({ key: next.current++, ...fieldsOf(rule) })));
    } catch (why) {
      setFault(why);
    }
  };
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const { rules } = await ask(path);
      if (JSON.stringify(rules) !== JSON.stringify(opened)) throw Object.assign(new Error("Somebody else has changed these rules since you opened this dialog, so nothing was changed."), { stale: true, details: {} });
      await ask(path, { method: "PATCH", body: { rules: lines.length > 0 ? lines.map(ruleOf) : null } });
      say(`The route ${route.name} has ${plural(lines.length, "rule")}; open tunnels are not affected.`);
      refresh("/proxies");
      onClose();
    } catch (why) {
      setFault(why);
      setBusy(false);
    }
  };
  const place = placeOf(fault?.details?.field);
  return html`<${Dialog} title=${`Rules of ${route.name}`} onClose=${onClose}><form onSubmit=${send}>
    <div class="body"><p class="faint">The first rule that matches a target counts. <code>example.org</code> is this name alone, <code>*.example.org</code> all names below it, <code>.example.org</code> both; an address, a network or <code>*</code> works too.</p>
      <ol class="rules" ref=${list}>${lines.map(({ key, ...rule }, at) => html`<${Line} key=${key} rule=${rule} at=${at} last=${at === lines.length - 1} error=${place?.at === at ? { field: place.field, message: fault.message } : null}
        set=${(now) => change(lines.map((one, other) => (other === at ? { key, ...now } : one)))} move=${(to) => move(at, to)} remove=${() => remove(at)} />`)}</ol>
      <p><button type="button" id="add-rule" onClick=${add}><${Icon} name="plus" />Add a rule</button></p>
      ${fault && !place && (fault.stale ? html`<div class="trouble" role="alert"><p>${fault.message}</p><button type="button" class="quiet" onClick=${load}>Load the present rules</button></div>` : html`<${Trouble} error=${fault} />`)}
    </div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button><button class="primary" disabled=${busy}>${busy ? "Saving …" : "Save rules"}</button></footer>
  </form></${Dialog}>`;
}
