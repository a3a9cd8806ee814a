// The dialog that creates a route. While the user chooses, it shows how many exits the route would have.
import { ask, refresh, useAsk } from "../api.js";
import { Dialog, Field, Trouble, say } from "../parts.js";
import { html, useEffect, useState } from "../view.js";
import { country, plural } from "../words.js";
import { useForm } from "./change.js";

const WHERE = [
  { word: "any", name: "Anywhere", hint: "all countries" },
  { word: "us", name: "United States", hint: "only US exits" },
  { word: "nonus", name: "Not the US", hint: "any other known country" },
  { word: "", name: "Countries", hint: "you choose which" },
];
const KEPT = [
  { word: "", name: "Pool", hint: "Several exits, balanced by load and speed. Best for volume." },
  { word: "strict", name: "One address", hint: "The same IP for weeks, or an error while its exit is down. For logins and carts." },
  { word: "rotate", name: "Rotate", hint: "Another exit for each connection." },
];

function Choice({ legend, name, list, chosen, onChoose }) {
  return html`<fieldset class="choice"><legend>${legend}</legend><div class="cards">
    ${list.map(({ word, name: shown, hint }) => html`<label key=${word} class="card"><input type="radio" name=${name} checked=${chosen === word} onChange=${() => onChoose(word)} />
      <span><b>${shown}</b><small>${hint}</small></span></label>`)}
  </div></fieldset>`;
}

function Countries({ chosen, onChange }) {
  const { data } = useAsk("/countries", 0);
  const list = (data?.countries ?? []).filter(({ country: code }) => code !== "??").sort((a, b) => b.usable - a.usable);
  const flip = (code) => onChange(chosen.includes(code) ? chosen.filter((one) => one !== code) : [...chosen, code]);
  return html`<fieldset class="chips"><legend class="sr">Countries</legend>
    ${list.map(({ country: code, usable }) => html`<label key=${code} class="chip"><input type="checkbox" checked=${chosen.includes(code)} onChange=${() => flip(code)} /><span>${country(code)} <small>${usable}</small></span></label>`)}
    ${data && list.length === 0 && html`<p class="hint">No country is known yet: exits are still being tested.</p>`}
  </fieldset>`;
}

// Requests how many exits the selector leaves after each filter step. It waits 250 ms after the user's last change.
function useFunnel(selector) {
  const [settled, settle] = useState(selector);
  useEffect(() => {
    const timer = setTimeout(() => settle(selector), 250);
    return () => clearTimeout(timer);
  }, [selector]);
  return useAsk(settled ? `/explain?username=${encodeURIComponent(settled)}` : null, 0);
}

function Outlook({ selector }) {
  const { data, error } = useFunnel(selector);
  if (!selector) return html`<p class="outlook">Choose one country or more.</p>`;
  if (error) return html`<p class="outlook bad">${error.message}</p>`;
  if (!data) return html`<p class="outlook">Counting …</p>`;
  const left = data.funnel.at(-1)?.left ?? 0;
  return html`<p class=${`outlook ${data.refused ? "bad" : "good"}`}><code>${selector}</code>
    ${data.refused ? ` ${data.refused}: ${data.text}` : ` ${plural(left, "tested exit")} would do now.`}</p>`;
}

export function Create({ onClose }) {
  const [where, setWhere] = useState("us");
  const [countries, setCountries] = useState([]);
  const [kept, keep] = useState("");
  const { input, wrong, rest, busy, send } = useForm({ name: "", port: "", pool: "", ttl: "", check: "" });
  const geo = where || countries.map((code) => code.toLowerCase()).join("+");
  const selector = geo && (kept ? `${geo}-${kept}` : geo);
  const go = (event) => send(event, async (fields) => {
    const body = { selector };
    for (const [name, value] of Object.entries(fields)) {
      if (value.trim()) body[name] = name === "port" || name === "pool" ? Number(value) : value.trim();
    }
    const made = await ask("/proxies", { method: "POST", body });
    refresh("/proxies");
    onClose();
    location.hash = `#/routes/${encodeURIComponent(made.name)}`;
    say(`The route ${made.name} listens on port ${made.port}.`);
  });
  return html`<${Dialog} title="New route" onClose=${onClose}>
    <form onSubmit=${go}>
      <div class="body">
        <${Choice} legend="Exits in" name="where" list=${WHERE} chosen=${where} onChoose=${setWhere} />
        ${where === "" && html`<${Countries} chosen=${countries} onChange=${setCountries} />`}
        <${Choice} legend="Addresses" name="kept" list=${KEPT} chosen=${kept} onChoose=${keep} />
        <${Outlook} selector=${selector} />
        <div class="pair">
          <${Field} label="Name" hint="Also a username at the shared port. Default: p and the port." error=${wrong("name")}>${input("name", { maxlength: 63, placeholder: "shop" })}</${Field}>
          <${Field} label="Port" hint="Default: the next free one." error=${wrong("port")}>${input("port", { inputmode: "numeric", pattern: "[0-9]*", placeholder: "20000" })}</${Field}>
        </div>
        <details><summary>More</summary><div class="pair">
          <${Field} label="Exits in the pool" hint="Default: that of the configuration." error=${wrong("pool")}>${input("pool", { inputmode: "numeric", pattern: "[0-9]*", placeholder: "8" })}</${Field}>
          <${Field} label="Delete after" hint="30m, 12h, 7d. Default: never." error=${wrong("ttl")}>${input("ttl", { placeholder: "2h" })}</${Field}>
          <${Field} label="Exits must pass the check" hint="A name in check.targets, such as steam." error=${wrong("check")}>${input("check")}</${Field}>
        </div></details>
        <${Trouble} error=${rest} />
      </div>
      <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button>
        <button class="primary" disabled=${busy || !selector}>${busy ? "Opening …" : "Create route"}</button></footer>
    </form>
  </${Dialog}>`;
}
