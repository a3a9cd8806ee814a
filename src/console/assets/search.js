// A search field that finds pages, routes, countries, and exits (by address, nickname or fingerprint).
import { ask } from "./api.js";
import { Dialog, Icon } from "./parts.js";
import { html, useEffect, useMemo, useRef, useState } from "./view.js";
import { country, plural, short } from "./words.js";

const SHOWN = 12;

async function everything(pages) {
  const all = pages.map(({ at, name }) => ({ icon: at, name, hint: "page", to: `#/${at}`, words: name }));
  const [proxies, countries, exits] = await Promise.all(
    ["/proxies?limit=1000", "/countries", "/exits?limit=1000"].map((path) => ask(path).catch(() => ({}))),
  );
  for (const { name, selector, port } of proxies.proxies ?? []) {
    all.push({ icon: "routes", name, hint: `${selector}${port ? ` · port ${port}` : ""}`, to: `#/routes/${encodeURIComponent(name)}`, words: `${name} ${selector} ${port}` });
  }
  for (const { country: code, usable } of countries.countries ?? []) {
    all.push({ icon: "exits", name: country(code), hint: plural(usable, "usable exit"), to: `#/exits?country=${code}`, words: `${code} ${country(code)}` });
  }
  for (const { id, ip, nickname, country: code } of exits.exits ?? []) {
    all.push({ icon: "exits", name: ip ?? short(id), hint: [nickname, code && country(code)].filter(Boolean).join(" · "), to: `#/exits/${encodeURIComponent(id)}`, words: `${ip} ${id} ${nickname ?? ""}` });
  }
  return all;
}

export function Search({ pages, onClose }) {
  const [typed, type] = useState("");
  const [all, setAll] = useState([]);
  const [chosen, choose] = useState(0);
  const field = useRef(null);
  useEffect(() => {
    everything(pages).then(setAll);
    field.current.focus();
  }, []);
  const found = useMemo(() => {
    const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = ({ words: text }) => words.every((word) => text.toLowerCase().includes(word));
    const list = all.filter(fits).slice(0, SHOWN);
    // Only the first thousand exits are loaded here, but the gateway may know an exit with this address.
    if (list.length === 0 && /^[0-9a-fA-F.:]{6,}$/.test(typed.trim())) {
      list.push({ icon: "exits", name: typed.trim(), hint: "look up this exit", to: `#/exits/${encodeURIComponent(typed.trim())}` });
    }
    return list;
  }, [typed, all]);
  const at = Math.min(chosen, Math.max(0, found.length - 1));
  const go = ({ to }) => {
    location.hash = to;
    onClose();
  };
  const keys = (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      event.preventDefault();
      choose((at + move + found.length) % (found.length || 1));
    } else if (event.key === "Enter" && found[at]) {
      event.preventDefault();
      go(found[at]);
    } else if (event.key === "Escape") {
      // Without this, the first Escape in a search field would only empty the field and not close the dialog.
      event.preventDefault();
      onClose();
    }
  };
  return html`<${Dialog} title="Search" onClose=${onClose} kind="searcher">
    <div class="body">
      <input ref=${field} type="search" role="combobox" aria-label="A route, a country, an exit's address, nickname or fingerprint" placeholder="Route, country, exit IP, nickname, fingerprint …"
        aria-expanded="true" aria-controls="found" aria-autocomplete="list" aria-activedescendant=${found[at] ? `found-${at}` : undefined} value=${typed} onKeyDown=${keys}
        onInput=${(event) => { type(event.target.value); choose(0); }} />
      <ul id="found" role="listbox" aria-label="Found">
        ${found.map((one, index) => html`<li id=${`found-${index}`} role="option" key=${one.to + one.name} aria-selected=${index === at ? "true" : "false"}
          onClick=${() => go(one)} onMouseMove=${() => choose(index)}><${Icon} name=${one.icon} /><b>${one.name}</b><span>${one.hint}</span></li>`)}
      </ul>
      ${found.length === 0 && html`<p class="faint">${all.length ? "Nothing has this name." : "Loading …"}</p>`}
    </div>
  </${Dialog}>`;
}
