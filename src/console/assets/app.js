// The entry point: shows the login, or the page that belongs to the address, with a frame around the page.
import { login, logout, session, useAsk, useSession } from "./api.js";
import { start, state, useLive } from "./live.js";
import { Field, Icon, Toasts, Trouble } from "./parts.js";
import { Connections } from "./pages/connections.js";
import { Engines } from "./pages/engines.js";
import { Events } from "./pages/events.js";
import { Exit } from "./pages/exit.js";
import { Exits } from "./pages/exits.js";
import { PublicList } from "./pages/public.js";
import { RoutePage } from "./pages/route.js";
import { Routes } from "./pages/routes.js";
import { Sources } from "./pages/sources.js";
import { Why } from "./pages/why.js";
import { Search } from "./search.js";
import { html, render, useEffect, useRef, useState } from "./view.js";

// All pages: the address (also the name of the icon), the title, and the component. `one` is the component for an
// address with an id.
const PAGES = [
  { at: "routes", name: "Routes", page: Routes, one: RoutePage },
  { at: "exits", name: "Exits", page: Exits, one: Exit },
  { at: "why", name: "Why", page: Why },
  { at: "engines", name: "Engines", page: Engines },
  { at: "sources", name: "Sources", page: Sources },
  { at: "public", name: "Public list", page: PublicList },
  { at: "connections", name: "Connections", page: Connections },
  { at: "events", name: "Events", page: Events },
];

function address() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [at, ...rest] = path.split("/");
  return { at: at || "routes", id: rest.length ? decodeURIComponent(rest.join("/")) : null, query: new URLSearchParams(query) };
}

function useAddress() {
  const [now, go] = useState(address);
  useEffect(() => {
    const moved = () => go(address());
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return now;
}

// The colours are those of the system until the user chooses others. The choice is stored, because it is not secret.
function useTheme() {
  const stored = () => {
    try {
      return localStorage.getItem("theme");
    } catch {
      return null;
    }
  };
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const [theme, setTheme] = useState(stored);
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
  }, [theme]);
  const flip = () => {
    const next = (theme ?? system) === "dark" ? "light" : "dark";
    setTheme(next);
    try {
      localStorage.setItem("theme", next);
    } catch {
      // If the browser has no storage, the choice is lost when the tab closes.
    }
  };
  return [theme ?? system, flip];
}

function Brand() {
  return html`<a class="brand" href="#/routes"><svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="7" />
    <path d="M8 7h9v3h-6v12h6v3H8zM16 14.500h6.200l-2.600-2.600 2-2L27 16l-5.400 6.100-2-2 2.600-2.600H16z" /></svg>exitgate</a>`;
}

function Readiness() {
  useLive();
  const { data } = useAsk("/ready", 5000);
  const lost = state.metrics === "lost" || state.events === "lost";
  const usable = Object.values(data?.sources ?? {}).reduce((sum, source) => sum + source.usable, 0);
  const [kind, words] = lost ? ["bad", "Connection lost, trying again"]
    : !data ? ["", "Connecting"]
    : data.ready ? ["good", `Ready · ${usable} usable exits`]
    : ["warn", "Not ready: no tested exit yet"];
  return html`<a class=${`readiness ${kind}`} href="#/sources"><span class="dot" aria-hidden="true" /><span>${words}</span></a>`;
}

// A banner above every page while the gateway does not answer, because the page then shows old data.
function Outage() {
  useLive();
  if (state.metrics !== "lost") return null;
  return html`<p class="outage" role="alert">The gateway does not answer. The page shows its last data; the console tries again by itself.</p>`;
}

// A banner above every page while no guard of the Tor network answers.
function NetworkOutage() {
  useLive();
  const { data } = useAsk("/engines", 3000);
  const engines = (data?.engines ?? []).filter((engine) => engine.usable);
  if (state.metrics === "lost" || engines.length === 0 || engines.some((engine) => engine.guard_answers)) return null;
  return html`<p class="outage" role="alert">No guard of the Tor network answers, so no Tor exit can be used. Check this machine's network and firewall. Sessions and pins keep their exits meanwhile.</p>`;
}

function Login() {
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [token, setToken] = useState("");
  const go = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await login(token.trim());
    } catch (why) {
      setError(why.status === 401 ? "This is not the token in api.token." : why.message);
    }
    setBusy(false);
  };
  return html`<main class="login"><form class="panel" onSubmit=${go}>
    <${Brand} />
    <h1>This gateway asks for its API token</h1>
    <${Field} label="API token" error=${error} hint="It is api.token of the configuration, or the content of the file api.token in the data folder. It stays in the memory of this tab.">
      ${(id, about) => html`<input id=${id} aria-describedby=${about} type="password" autocomplete="off" required value=${token} onInput=${(event) => setToken(event.target.value)} />`}
    </${Field}>
    <button class="primary" disabled=${busy || !token.trim()}>Open the console</button>
  </form></main>`;
}

function Frame({ children, now, theme, flip }) {
  const [open, setOpen] = useState(false);
  const [searching, search] = useState(false);
  const opener = useRef(null);
  useEffect(() => setOpen(false), [now]);
  useEffect(() => {
    if (!open) return undefined;
    const close = (event) => {
      if (event.key !== "Escape") return;
      setOpen(false);
      opener.current.focus();
    };
    addEventListener("keydown", close);
    return () => removeEventListener("keydown", close);
  }, [open]);
  useEffect(() => {
    const keys = (event) => {
      const typing = event.target.closest?.("input, textarea, select, dialog");
      if ((event.key === "k" && (event.ctrlKey || event.metaKey)) || (event.key === "/" && !typing)) {
        event.preventDefault();
        search(true);
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
  return html`<div class="frame">
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("h1")?.focus(); }}>Skip to the page</a>
    <header class="top">
      <${Brand} />
      <button type="button" class="find" onClick=${() => search(true)}><${Icon} name="search" /><span>Search or command</span><kbd>Ctrl K</kbd></button>
      <button type="button" ref=${opener} class="quiet square opener" aria-label="Menu" aria-expanded=${open ? "true" : "false"} aria-controls="menu" onClick=${() => setOpen(!open)}><${Icon} name=${open ? "close" : "menu"} /></button>
    </header>
    <nav id="menu" class=${open ? "open" : ""} aria-label="Pages">
      <ul>${PAGES.map(({ at, name }) => html`<li key=${at}><a href=${`#/${at}`} aria-current=${now.at === at ? "page" : undefined}><${Icon} name=${at} />${name}</a></li>`)}</ul>
      <div class="foot">
        <${Readiness} />
        <div class="buttons">
          <a href="/docs">API</a>
          <button type="button" class="quiet square" aria-label=${`Use ${theme === "dark" ? "light" : "dark"} colours`} onClick=${flip}><${Icon} name=${theme === "dark" ? "sun" : "moon"} /></button>
          ${session.tokenGiven && html`<button type="button" class="quiet square" aria-label="Forget the token" onClick=${logout}><${Icon} name="leave" /></button>`}
        </div>
      </div>
    </nav>
    <main id="main"><${Outage} /><${NetworkOutage} />${children}</main>
    ${searching && html`<${Search} pages=${PAGES} flip=${flip} onClose=${() => search(false)} />`}
    <${Toasts} />
  </div>`;
}

function App() {
  const { state: access } = useSession();
  const now = useAddress();
  const [theme, flip] = useTheme();
  const first = useRef(true);
  // If the API refuses this request, the gateway requires a token.
  const { error } = useAsk(access === "unknown" ? "/proxies?limit=1" : null, 3000);
  useEffect(() => (access === "open" ? start() : undefined), [access]);
  const page = PAGES.find(({ at }) => at === now.at);
  const title = now.id ? `${now.id} · ${page?.name ?? ""}` : (page?.name ?? "Not found");
  useEffect(() => {
    document.title = access === "locked" ? "exitgate" : `${title} · exitgate`;
    // A new page is shown from its top. The focus is set to its heading, because a screen reader begins to read there.
    if (!first.current && access === "open") {
      scrollTo(0, 0);
      document.querySelector("h1")?.focus({ preventScroll: true });
    }
    if (access === "open") first.current = false;
  }, [title, access]);
  if (access === "locked") return html`<${Login} />`;
  if (access === "unknown") {
    return html`<main class="login">${error ? html`<${Trouble} error=${error} />` : html`<p class="boot">Connecting to the gateway …</p>`}</main>`;
  }
  const Page = now.id === null ? page?.page : page?.one;
  return html`<${Frame} now=${now} theme=${theme} flip=${flip}>
    ${Page ? html`<${Page} key=${`${now.at}/${now.id}`} id=${now.id} query=${now.query} />`
      : html`<h1 tabindex="-1">There is no such page</h1><p><a href="#/routes">To the routes</a></p>`}
  </${Frame}>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
