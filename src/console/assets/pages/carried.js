// A table of what each source of exits has carried since the gateway started.
import { Bar } from "../chart.js";
import { html } from "../view.js";
import { bytes, count, percent } from "../words.js";

// `carried` is a map from the name of a source to its counts.
export function Carried({ carried }) {
  const all = Object.entries(carried).map(([name, { requests, bytes_up: up, bytes_down: down }]) => ({ name, requests, bytes: up + down }));
  const total = all.reduce((sum, one) => sum + one.bytes, 0);
  const share = (one) => (total === 0 ? 0 : one.bytes / total);
  return html`<div class="scroll" tabindex="0"><table><thead><tr><th scope="col">Source</th><th scope="col" class="number">Requests</th><th scope="col" class="number">Bytes</th><th scope="col">Share of bytes</th></tr></thead>
    <tbody>${all.sort((a, b) => b.bytes - a.bytes).map((one) => html`<tr key=${one.name}><th scope="row">${one.name}</th><td class="number">${count(one.requests)}</td><td class="number nowrap">${bytes(one.bytes)}</td><td class="meter"><${Bar} share=${share(one)} /><span class="faint">${percent(share(one))}</span></td></tr>`)}</tbody></table></div>`;
}
