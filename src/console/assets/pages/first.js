// What the overview shows while no exit is usable yet: the steps of the start, which of them is in progress, and the
// latest events.
import { useAsk } from "../api.js";
import { Bar } from "../chart.js";
import { checking, events, useLive } from "../live.js";
import { Badge, Panel } from "../parts.js";
import { steps } from "../steps.js";
import { html } from "../view.js";
import { EventLine } from "./events.js";

const SHOWN = 5;
const WORDS = { done: ["good", "done"], now: ["warn", "in progress"], later: ["", "waiting"], trouble: ["bad", "needs attention"] };

export function FirstRun({ ready }) {
  useLive();
  const { data: engines } = useAsk("/engines", 1000);
  const { data: sources } = useAsk("/sources", 2000);
  const { data: countries } = useAsk("/countries", 2000);
  const list = steps({ ready, engines, sources, countries, checks: checking() });
  return html`<${Panel} title="Not ready yet">
    <p>exitgate uses an exit only after a test. This page becomes the overview as soon as the first exit has passed.</p>
    <ol class="steps">${list.map(({ name, state, text, share }) => html`<li key=${name} class=${state}><${Badge} kind=${WORDS[state][0]}>${WORDS[state][1]}</${Badge}><div><b>${name}</b>
      <p class="faint">${text}</p>${share !== undefined && html`<${Bar} share=${share} />`}</div></li>`)}</ol>
    <p class="sr" role="status">${list.filter(({ state }) => state === "now" || state === "trouble").map(({ name, state }) => `${name}: ${WORDS[state][1]}.`).join(" ")}</p>
    ${events.length > 0 && html`<div><h3>Latest events</h3><ol class="events">${events.slice(0, SHOWN).map((event) => html`<${EventLine} key=${event.id} event=${event} />`)}</ol></div>`}
  </${Panel}>`;
}
