// The search field (Ctrl K): finds pages, routes, countries and exits (by address, nickname or fingerprint), and runs
// commands on them.
import { ask, refresh } from "./api.js";
import { lines } from "./lines.js";
import { Dialog, Icon, copied, say } from "./parts.js";
import { html, useEffect, useMemo, useRef, useState } from "./view.js";
import { country, plural, short } from "./words.js";

const SHOWN = 12;
// The longest time for a check or a rotation, in milliseconds. Both wait for a circuit.
const SLOW = 70_000;

async function rotate(name) {
  const path = `/proxies/${encodeURIComponent(name)}/rotate`;
  const { before, after } = await ask(path, { method: "POST", deadline: SLOW }).catch((why) => { throw new Error(`${name}: ${why.message}`); });
  refresh("/proxies");
  return before && after ? `${name}: ${before} → ${after}` : `${name}: the next connection uses another exit.`;
}

async function check(id, name) {
  say(`Checking ${name} …`);
  const { verdict, why } = await ask(`/exits/${encodeURIComponent(id)}/check`, { method: "POST", deadline: SLOW });
  refresh("/exits");
  if (verdict !== "good") throw new Error(`${name} failed its check: ${why ?? verdict}`);
  return `${name} passed its check.`;
}

async function copy(route) {
  const [[, line]] = lines(route);
  if (!(await copied(line))) throw new Error("This browser does not allow copying here: open the route and select the text.");
  return `Copied: ${line}`;
}

async function fetchNow(name) {
  await ask(`/sources/${encodeURIComponent(name)}/refresh`, { method: "POST" });
  setTimeout(() => refresh("/sources"), 800);
  return `Fetching ${name}.`;
}

// An entry either goes to an address (`to`) or runs a command (`run`), which returns the text of the message.
const command = (name, words, action) => ({ icon: "run", name, hint: "command", words: `${name} ${words}`, ...(typeof action === "string" ? { to: action } : { run: action }) });
const explain = (username) => `#/why?${new URLSearchParams({ username })}`;

function ofPages(pages, flip) {
  return [
    ...pages.map(({ at, name }) => ({ icon: at, name, hint: "page", to: `#/${at}`, words: `${name} go to page` })),
    command("New route", "create proxy add", "#/routes?new"),
    command("Switch light and dark colours", "theme", flip),
    command("Open the API's documentation", "docs openapi", () => location.assign("/docs")),
  ];
}

function ofRoute(route) {
  const { name, selector, port, urls } = route;
  const found = [
    { icon: "routes", name, hint: `${selector}${port ? ` · port ${port}` : ""}`, to: `#/routes/${encodeURIComponent(name)}`, words: `${name} ${selector} ${port}` },
    command(`Rotate ${name}`, "another exit address", () => rotate(name)),
    command(`Why ${name}`, "explain exits username", explain(name)),
  ];
  if (urls) found.push(command(`Copy the curl line of ${name}`, "example", () => copy(route)));
  return found;
}

function ofExit({ id, ip, nickname, country: code }) {
  const name = ip ?? short(id);
  const words = `${ip} ${id} ${nickname ?? ""}`;
  return [
    { icon: "exits", name, hint: [nickname, code && country(code)].filter(Boolean).join(" · "), to: `#/exits/${encodeURIComponent(id)}`, words },
    command(`Check ${name}`, `test ${words}`, () => check(id, name)),
  ];
}

async function everything(pages, flip) {
  const [proxies, countries, exits, sources] = await Promise.all(
    ["/proxies?limit=1000", "/countries", "/exits?limit=1000", "/sources"].map((path) => ask(path).catch(() => ({}))),
  );
  const places = (countries.countries ?? []).map(({ country: code, usable }) => ({ icon: "exits", name: country(code), hint: plural(usable, "usable exit"), to: `#/exits?country=${code}`, words: `${code} ${country(code)}` }));
  const fetches = (sources.sources ?? []).map(({ name }) => command(`Fetch ${name} now`, "source list refresh", () => fetchNow(name)));
  const each = [...(proxies.proxies ?? []).map(ofRoute), ...(exits.exits ?? []).map(ofExit)].flat();
  const [commands, things] = [each.filter(({ icon }) => icon === "run"), each.filter(({ icon }) => icon !== "run")];
  return [...ofPages(pages, flip), ...things, ...places, ...commands, ...fetches];
}

// Returns the entries whose words contain everything that was typed. "why WORD" explains WORD as a username.
export function find(all, typed) {
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = ({ words: text }) => words.every((word) => text.toLowerCase().includes(word));
  const list = all.filter(fits).slice(0, SHOWN);
  const [, username] = /^\s*(?:why|explain)\s+(\S+)\s*$/i.exec(typed) ?? [];
  if (username && !list.some(({ to }) => to === explain(username))) list.unshift(command(`Why ${username}`, "", explain(username)));
  if (list.length > 0) return list;
  // Only the first thousand exits are loaded here, but the gateway may know an exit with this address.
  const text = typed.trim();
  if (/^[0-9a-fA-F.:]{6,}$/.test(text)) return [{ icon: "exits", name: text, hint: "look up this exit", to: `#/exits/${encodeURIComponent(text)}` }];
  return /^\S+$/.test(text) ? [{ ...command(`Why ${text}`, "", explain(text)), hint: "explain this username" }] : [];
}

export function Search({ pages, flip, onClose }) {
  const [typed, type] = useState("");
  const [all, setAll] = useState(null);
  const [chosen, choose] = useState(0);
  const field = useRef(null);
  useEffect(() => {
    everything(pages, flip).then(setAll);
    field.current.focus();
  }, []);
  const found = useMemo(() => (all ? find(all, typed) : []), [typed, all]);
  const at = Math.min(chosen, Math.max(0, found.length - 1));
  const go = ({ to, run }) => {
    onClose();
    if (to) location.hash = to;
    else Promise.resolve().then(run).then((text) => text && say(text), (why) => say(why.message, "bad"));
  };
  const keys = (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (move) {
      event.preventDefault();
      const next = (at + move + found.length) % (found.length || 1);
      choose(next);
      document.getElementById(`found-${next}`)?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" && found[at]) {
      event.preventDefault();
      go(found[at]);
    } else if (event.key === "Escape") {
      // Without this, the first Escape in a search field would only empty the field and not close the dialog.
      event.preventDefault();
      onClose();
    }
  };
  return html`<${Dialog} title="Search and commands" onClose=${onClose} kind="searcher">
    <div class="body">
      <input ref=${field} type="search" role="combobox" aria-label="A page, a route, a country, an exit's address, nickname or fingerprint, or a command" placeholder="Page, route, country, exit, or: rotate, check, copy, why …"
        aria-expanded="true" aria-controls="found" aria-autocomplete="list" aria-activedescendant=${found[at] ? `found-${at}` : undefined} value=${typed} onKeyDown=${keys}
        onInput=${(event) => { type(event.target.value); choose(0); }} />
      <ul id="found" role="listbox" aria-label="Found">
        ${found.map((one, index) => html`<li id=${`found-${index}`} role="option" key=${(one.to ?? "") + one.name} aria-selected=${index === at ? "true" : "false"}
          onClick=${() => go(one)} onMouseMove=${() => choose(index)}><${Icon} name=${one.icon} /><b>${one.name}</b><span>${one.hint}</span></li>`)}
      </ul>
      ${found.length === 0 && html`<p class="faint">${all ? "Nothing has this name." : "Loading …"}</p>`}
    </div>
  </${Dialog}>`;
}
