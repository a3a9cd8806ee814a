// Finds out what a gateway that is not ready waits for. It draws nothing, so a test runs it without a browser
// (tests/browser/figures.test.js).
import { plain, plural } from "./words.js";

// Returns the steps from the start of the gateway to its first usable exit: [{ name, state, text, share }]. The state is
// "done", "now" (in progress), "later" (waits for the step before), or "trouble" (needs somebody). `share` is the
// progress from 0 to 1, if it is known.
export function steps({ ready, engines, sources, countries, checks }) {
  const enabled = Object.keys(ready?.sources ?? {});
  if (enabled.length === 0) {
    return [{ name: "A source of exits", state: "trouble", text: "No source of exits is switched on. Set tor.enabled = true in the configuration, or switch on a list of public proxies (for example sources.proxifly.enabled = true), and restart." }];
  }
  const list = [...(enabled.includes("tor") ? tor(engines?.engines ?? []) : []), directory(sources?.sources ?? [], countries?.countries ?? []), firstChecks(ready, checks)];
  // A step waits while a step before it is not done. Lists of public proxies do not need Tor.
  const waits = !enabled.includes("public");
  const first = list.findIndex(({ state }) => state !== "done");
  return list.map((step, at) => (waits && at > first && first >= 0 && step.state === "now" ? { ...step, state: "later", share: undefined } : step));
}

function tor(engines) {
  const best = Math.max(0, ...engines.map(({ bootstrap_percent: percent, usable }) => (usable ? 100 : (percent ?? 0))));
  const broken = engines.filter(({ state }) => state === "restarting" || state === "stopped");
  const up = engines.filter(({ usable }) => usable).length;
  const phase = engines.find(({ bootstrap_percent: percent, why }) => why && percent === best)?.why;
  const process = engines.length > 0 && broken.length === engines.length
    ? { state: "trouble", text: `No tor process runs: ${broken[0].why ?? plain(broken[0].state)}` }
    : engines.some(({ pid, attached, usable }) => usable || attached || pid) ? { state: "done", text: `${plural(engines.length - broken.length, "tor process runs", "tor processes run")}.` }
    : { state: "now", text: "tor starts." };
  const connection = up > 0 ? { state: "done", text: `${up} of ${plural(engines.length, "tor process", "tor processes")} connected.` }
    : { state: "now", text: `${best}%${phase ? `: ${phase}` : ""}. The first start downloads the directory of the Tor network.`, share: best / 100 };
  const guard = engines.some(({ guard_answers: answers }) => answers) ? { state: "done", text: "A guard (the first relay of all circuits) answers." }
    : up > 0 ? { state: "trouble", text: "No guard (the first relay of all circuits) answers yet. If this stays so, check this machine's network and firewall." }
    : { state: "now", text: "A guard is the first relay of all circuits." };
  return [{ name: "Start tor", ...process }, { name: "Connect to the Tor network", ...connection }, { name: "Reach a guard", ...guard }];
}

function directory(sources, countries) {
  const known = countries.reduce((sum, { known: number }) => sum + number, 0);
  const failed = sources.find(({ failures }) => failures > 0);
  const name = "Read the lists of exits";
  if (known > 0) return { name, state: "done", text: `${plural(known, "exit is known", "exits are known")}.` };
  if (failed) return { name, state: "trouble", text: `${failed.name}: ${failed.why ?? plain(failed.outcome)}` };
  return { name, state: "now", text: "No exit is known yet." };
}

function firstChecks(ready, checks) {
  const usable = Object.values(ready.sources).reduce((sum, source) => sum + source.usable, 0);
  const name = "Test the first exits";
  if (usable > 0) return { name, state: "done", text: `${plural(usable, "exit is usable", "exits are usable")}.` };
  const counted = checks ? `${plural(checks.done, "check")} ended, ${checks.running} running, ${checks.waiting} waiting. ` : "";
  return { name, state: "now", text: `${counted}No exit has passed its check yet.` };
}
