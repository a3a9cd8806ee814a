// The page of one exit: its properties, the results of its checks, and the sites that refuse the exit.
import { ask, refresh, useAsk } from "../api.js";
import { History } from "../chart.js";
import { Badge, Empty, Icon, Mono, Panel, Trouble, Waiting, When, say } from "../parts.js";
import { html, useState } from "../view.js";
import { count, country, millis, percent, plain, short } from "../words.js";
import { Verdict } from "./exits.js";

const SHOWN = 200;
const ROWS = 20;

function Checks({ exit: { id, checked } }) {
  const { data, error, again } = useAsk(`/exits/${encodeURIComponent(id)}/checks?limit=${SHOWN}`, 10_000);
  const [all, setAll] = useState(false);
  const list = data?.checks ?? [];
  const good = list.filter(({ outcome }) => outcome === "good").length;
  return html`<${Panel} title="Checks" more=${list.length > 0 && html`<span class="faint">${percent(good / list.length)} good of ${count(list.length)}</span>`}>
    <${Trouble} error=${error} again=${again} />
    ${!data && !error && html`<${Waiting} />`}
    ${data && list.length === 0 && html`<${Empty} title=${checked ? "No stored results" : "Not checked yet"}>${checked ? html`It was checked <${When} at=${checked} />, but the history has no results of it.` : "Exits that routes want are checked first. “Check now” checks this one at once."}</${Empty}>`}
    ${list.length > 0 && html`<${History} checks=${[...list].reverse()} />
      <div class="scroll"><table><thead><tr><th scope="col">When</th><th scope="col">Target</th><th scope="col">Outcome</th><th scope="col" class="number wide">Circuit</th><th scope="col" class="number wide">Connect</th><th scope="col" class="number wide">TLS</th><th scope="col" class="number wide">First byte</th><th scope="col" class="number">Total</th></tr></thead>
      <tbody>${list.slice(0, all ? SHOWN : ROWS).map((check, at) => html`<tr key=${`${check.at}-${at}`}><td class="nowrap"><${When} at=${check.at} /></td><td>${check.target}</td>
        <td><${Badge} kind=${check.outcome === "good" ? "good" : "bad"}>${plain(check.outcome)}</${Badge}> <span class="faint">${check.detail ?? ""}</span></td>
        ${["circuit", "connect", "tls", "first_byte"].map((stage) => html`<td class="number wide nowrap">${millis(check.ms[stage])}</td>`)}<td class="number nowrap">${millis(check.ms.total)}</td></tr>`)}</tbody></table></div>
      ${list.length > ROWS && html`<button type="button" class="quiet" onClick=${() => setAll(!all)}>${all ? "Only the newest" : `All ${list.length}`}</button>`}`}
  </${Panel}>`;
}

function CheckNow({ id }) {
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    try {
      const { verdict, why } = await ask(`/exits/${encodeURIComponent(id)}/check`, { method: "POST", deadline: 70_000 });
      say(verdict === "good" ? "It passed." : `It failed: ${why ?? verdict}`, verdict === "good" ? "good" : "bad");
      refresh("/exits");
    } catch (why) {
      say(why.message, "bad");
    }
    setBusy(false);
  };
  return html`<button type="button" disabled=${busy} onClick=${go}><${Icon} name="rotate" />${busy ? "Checking …" : "Check now"}</button>`;
}

function Pardon({ id }) {
  const [busy, setBusy] = useState(false);
  const go = async () => {
    setBusy(true);
    try {
      await ask(`/exits/${encodeURIComponent(id)}/condemnation`, { method: "DELETE" });
      say("It is no longer condemned. A check comes before its next use.", "good");
      refresh("/exits");
    } catch (why) {
      say(why.message, "bad");
    }
    setBusy(false);
  };
  return html`<button type="button" disabled=${busy} onClick=${go}>${busy ? "Pardoning …" : "Pardon"}</button>`;
}

function Facts({ exit }) {
  const facts = [
    ["State", html`<${Verdict} exit=${exit} />${exit.marks?.map((mark) => html` <${Badge} kind="bad">${plain(mark)}</${Badge}>`)}`],
    ["Sites see", exit.ip ? html`<${Mono} text=${exit.ip} />` : html`<span class="faint">not seen yet</span>`],
    ["Listed address", exit.announced.length ? html`<span class="mono">${exit.announced.join(", ")}</span>` : "–"],
    ["Country", exit.country ? html`<a href=${`#/exits?country=${exit.country}`}>${country(exit.country)}</a>` : "Unknown"],
    ["Network", exit.asn ? `AS${exit.asn}${exit.as_name ? ` · ${exit.as_name}` : ""}` : "–"],
    ["Source", exit.source],
    ["Latency", millis(exit.latency_ms)],
    ["Open streams", count(exit.streams)],
    ["Last check", html`<${When} at=${exit.checked} />`],
    ["Last good", html`<${When} at=${exit.good} />`],
    ["Passes", exit.passed.length ? exit.passed.map((name) => html`<${Badge} kind="good">${name}</${Badge}> `) : "–"],
    ["Id", html`<${Mono} text=${exit.id} shown=${short(exit.id)} label="Copy the id" />`],
  ];
  return html`<${Panel} title="What is known"><dl class="known">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <p class="hint">${username(exit) ? html`To use only this exit: username <code>${username(exit)}</code>` : "No username selects only this exit until a site has seen its address."}</p></${Panel}>`;
}

// Returns a username that uses only this exit. A public proxy is identified by the address that sites see, and its
// username must contain the source too.
function username({ id, ip, source, username: given }) {
  if (given !== undefined) return given;
  if (source !== "public") return `any-exit-${id}`;
  return ip ? `any-source-public-exit-${ip.replaceAll(":", "_")}` : null;
}

export function Exit({ id }) {
  const { data: exit, error, again } = useAsk(`/exits/${encodeURIComponent(id)}`, 5000);
  return html`<p class="crumb"><a href="#/exits">Exits</a></p>
    <div class="head"><h1 tabindex="-1" class="mono">${exit?.ip ?? short(id)} ${exit?.nickname && html`<span class="faint">${exit.nickname}</span>`}</h1>${exit && html`<span>${exit.marks?.includes("condemned") && html`<${Pardon} id=${exit.id} /> `}<${CheckNow} id=${exit.id} /></span>`}</div>
    ${error?.status === 404 ? html`<${Panel}><${Empty} title="This exit is not known">Its source no longer lists it, or never did. <a href="#/exits">To all exits</a></${Empty}></${Panel}>` : html`<${Trouble} error=${error} again=${again} />`}
    ${!exit && !error && html`<${Waiting} />`}
    ${exit && html`<div class="columns narrow"><${Facts} exit=${exit} /><div class="stack"><${Checks} exit=${exit} />
      <${Panel} title="Sites that refuse it">${exit.bans.length === 0 ? html`<${Empty} title="None known">A site is listed here for a while if it answers 403 or 429 again and again, if a check target fails, or after your report.</${Empty}>`
        : html`<ul class="plain">${exit.bans.map(({ site, until }) => html`<li key=${site}><b>${site}</b> <span class="faint">until <${When} at=${until} /></span></li>`)}</ul>`}</${Panel}></div></div>`}`;
}
