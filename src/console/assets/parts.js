// Components that several pages use.
import { html, useEffect, useId, useRef, useState } from "./view.js";
import { age, dated } from "./words.js";

const ICONS = {
  routes: "M4 6h9a3 3 0 0 1 0 6H7a3 3 0 0 0 0 6h13M17 15l3 3-3 3",
  exits: "M13 4H6a1 1 0 0 0-1 1v14a1 1 0 0 0 1 1h7M10 12h10M16.500 8.500 20 12l-3.500 3.500",
  why: "M4 5h16l-6 7.500V19l-4-2v-4.500z",
  engines: "M12 8.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7zM12 3v3M12 18v3M3 12h3M18 12h3M5.600 5.600l2.200 2.200M16.200 16.200l2.200 2.200M5.600 18.400l2.200-2.200M16.200 7.800l2.200-2.200",
  sources: "M12 4v11M7.500 10.500 12 15l4.500-4.500M5 19h14",
  keys: "M8.500 10.500a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM11.500 11.500 19 4M16 7l3 3M13.500 9.500l2 2",
  public: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM4 12h16M12 4c5 5 5 11 0 16M12 4c-5 5-5 11 0 16",
  connections: "M8 4v16M5 7l3-3 3 3M16 20V4M13 17l3 3 3-3",
  events: "M4 12h4l2.500-7 4 14 2.500-7h3",
  search: "M11 5a6 6 0 1 0 0 12 6 6 0 0 0 0-12zM15.500 15.500 20 20",
  plus: "M12 5v14M5 12h14",
  copy: "M9 9h10v10H9zM5 15V5h10",
  done: "M5 12.500 10 17l9-10",
  rotate: "M19 8a8 8 0 1 0 1 6M19 3v5h-5",
  trash: "M5 7h14M10 7V4.500h4V7M7 7l1 12.500h8L17 7",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  flag: "M6 20V4M6 5h11l-2 4 2 4H6",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  close: "M6 6l12 12M18 6 6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  moon: "M19 14.500A7.500 7.500 0 0 1 9.500 5 7.500 7.500 0 1 0 19 14.500z",
  sun: "M12 8.500a3.500 3.500 0 1 0 0 7 3.500 3.500 0 0 0 0-7zM12 3v2M12 19v2M3 12h2M19 12h2M6 6l1.200 1.200M16.800 16.800 18 18M6 18l1.200-1.200M16.800 7.200 18 6",
  link: "M10 14a4 4 0 0 0 6 .5l3-3a4 4 0 0 0-5.700-5.700L12 7M14 10a4 4 0 0 0-6-.5l-3 3a4 4 0 0 0 5.700 5.700L12 17",
  run: "M5 7l5 5-5 5M12 18h7",
  leave: "M14 4H6v16h8M11 12h9M17 9l3 3-3 3",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
}

export function Badge({ kind = "", children }) {
  return html`<span class=${`badge ${kind}`}>${children}</span>`;
}

export function When({ at }) {
  return at ? html`<time datetime=${at} title=${dated(at)}>${age(at)}</time>` : html`<span class="faint">never</span>`;
}

export function Panel({ title, more, children, kind = "" }) {
  const id = useId();
  return html`<section class=${`panel ${kind}`} aria-labelledby=${title ? id : undefined}>
    ${title && html`<header><h2 id=${id}>${title}</h2><div class="more">${more}</div></header>`}
    ${children}
  </section>`;
}

export function Empty({ title, children }) {
  return html`<div class="empty"><p class="title">${title}</p><p>${children}</p></div>`;
}

// Shows an error with a button that tries again. The data on the page stays visible.
export function Trouble({ error, again }) {
  if (!error) return null;
  return html`<div class="trouble" role="alert"><p>${error.message}</p>
    ${again && html`<button type="button" class="quiet" onClick=${again}>Try again</button>`}</div>`;
}

// A placeholder that is as tall as the content that is loading. So nothing on the page moves when the content arrives.
export function Waiting({ rows = 5 }) {
  return html`<div class="waiting" role="status"><span class="sr">Loading</span>${Array.from({ length: rows }, () => html`<div class="row" />`)}</div>`;
}

export function CopyButton({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    if (await copied(text)) {
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } else {
      say("This browser does not allow copying here: select the text and press Ctrl+C.", "bad");
    }
  };
  return html`<button type="button" class="copy" onClick=${copy} aria-label=${done ? "Copied" : label} title=${label}>
    <${Icon} name=${done ? "done" : "copy"} /></button>`;
}

// The clipboard API exists only on secure origins, but a gateway in a LAN usually has no TLS. Without the clipboard
// API, an older API is used.
export async function copied(text) {
  if (navigator.clipboard) {
    const written = await navigator.clipboard.writeText(text).then(() => true, () => false);
    if (written) return true;
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "sr";
  // The rest of the page is inert while a dialog is open.
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

export function Mono({ text, shown = text, label }) {
  return html`<span class="mono copyable"><span title=${text}>${shown}</span><${CopyButton} text=${text} label=${label ?? `Copy ${text}`} /></span>`;
}

// Tabs that follow the pattern of WAI-ARIA: the arrow keys change the tab, and the Tab key stops only at the chosen
// tab.
export function Tabs({ label, names, children }) {
  const [chosen, choose] = useState(0);
  const id = useId();
  const list = useRef(null);
  const keys = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    const next = (chosen + move + names.length) % names.length;
    choose(next);
    list.current.children[next].focus();
  };
  return html`<div class="tabs">
    <div role="tablist" aria-label=${label} ref=${list} onKeyDown=${keys}>
      ${names.map((name, at) => html`<button type="button" role="tab" id=${`${id}-${at}`} key=${name} aria-selected=${at === chosen ? "true" : "false"}
        aria-controls=${`${id}-panel`} tabindex=${at === chosen ? 0 : -1} onClick=${() => choose(at)}>${name}</button>`)}
    </div>
    <div role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${chosen}`}>${children(chosen)}</div>
  </div>`;
}

// The dialog element of the browser: it keeps the focus inside, closes on Escape, and then restores the focus. At first
// the focus is in the first field of the dialog, or on the first button at the bottom. If `firm` is true, only the buttons
// of its content close the dialog, and the focus is on the first `pre`: a key that is still held down presses no button.
export function Dialog({ title, onClose, children, kind = "", firm = false }) {
  const dialog = useRef(null);
  const gone = useRef(false);
  const id = useId();
  useEffect(() => {
    const shown = dialog.current;
    shown.showModal();
    const fields = shown.querySelectorAll(firm ? ".body pre" : ".body input, .body select, .body textarea, footer button");
    // In a group of radio buttons, the Tab key stops at the chosen button, so the focus is set there.
    ([...fields].find((field) => field.type !== "radio" || field.checked) ?? shown).focus();
    return () => {
      gone.current = true;
      shown.close();
    };
  }, []);
  // The browser reports a close later. If the dialog is gone by then, the report would close a dialog that was opened
  // meanwhile.
  const closed = () => gone.current || onClose();
  const outside = (event) => !firm && event.target === dialog.current && onClose();
  // Not in onCancel: the browser closes a dialog at the second Escape without it.
  const keys = (event) => firm && event.key === "Escape" && event.preventDefault();
  return html`<dialog ref=${dialog} class=${kind} aria-labelledby=${id} onClose=${closed} onMouseDown=${outside} onKeyDown=${keys}>
    <div class="sheet">
      <header><h2 id=${id}>${title}</h2>${!firm && html`<button type="button" class="quiet square" aria-label="Close" onClick=${onClose}><${Icon} name="close" /></button>`}</header>
      ${children}
    </div>
  </dialog>`;
}

// Asks the user to confirm an action that cannot be undone.
export function Confirm({ title, action, onYes, onClose, children }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const go = async () => {
    setBusy(true);
    try {
      await onYes();
      onClose();
    } catch (why) {
      setError(why);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${title} onClose=${onClose} kind="small">
    <div class="body">${children}<${Trouble} error=${error} /></div>
    <footer><button type="button" class="quiet" onClick=${onClose}>Cancel</button>
      <button type="button" class="danger" disabled=${busy} onClick=${go}>${action}</button></footer>
  </${Dialog}>`;
}

export function Field({ label, hint, error, children }) {
  const id = useId();
  return html`<div class=${`field ${error ? "wrong" : ""}`}>
    <label for=${id}>${label}</label>
    ${children(id, error ? `${id}-error` : hint ? `${id}-hint` : undefined)}
    ${error ? html`<p class="error" id=${`${id}-error`}>${error}</p>` : hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}
  </div>`;
}

// Shows a short message about what the user just did, also for screen readers. The message disappears when the user
// goes to another page, because there it could be mistaken for news of that page.
let show = () => {};
export function say(text, kind = "good") {
  show({ text, kind, page: location.hash, id: Math.random() });
}

export function Toasts() {
  const [list, setList] = useState([]);
  useEffect(() => {
    show = (toast) => {
      setList((now) => [...now.slice(-2), toast]);
      setTimeout(() => setList((now) => now.filter(({ id }) => id !== toast.id)), 5000);
    };
    const moved = () => setList((now) => now.filter(({ page }) => page === location.hash));
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  return html`<div class="toasts" role="status" aria-live="polite">${list.map(({ id, text, kind }) => html`<p key=${id} class=${kind}>${text}</p>`)}</div>`;
}
