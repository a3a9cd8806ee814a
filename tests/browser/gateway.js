// Starts gateways for the tests: the demo with its private Tor network, or the binary alone with Tor switched off.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
export const ROOT = path.resolve(import.meta.dirname, "../..");
const BUILT = process.env.EXITGATE_BUILT ?? path.join(ROOT, "target/debug");
// The first start makes the keys of fifteen relays; two cores need a while for that.
const PATIENCE = 180_000;

// Each gateway has addresses of its own, because another may run on this machine.
function start(program, args, ip, env) {
  const child = spawn(program, args, {
    env: {
      ...process.env,
      EXITGATE__GATEWAY__LISTEN: `${ip}:1080`,
      EXITGATE__GATEWAY__ROUTE_BIND: ip,
      EXITGATE__API__LISTEN: `${ip}:8080`,
      ...env,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  child.said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => { child.said += text; });
  child.url = `http://${ip}:8080`;
  child.ip = ip;
  return child;
}

async function until(what, holds, child) {
  const deadline = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (child.exitCode !== null) throw new Error(`${what}: the gateway ended\n${child.said}`);
    if (Date.now() > deadline) throw new Error(`${what}: not within ${PATIENCE} ms\n${child.said}`);
    await new Promise((resume) => setTimeout(resume, 100));
  }
}

// The demo, with all exits tested, and the address of a page that shows the client's address.
export async function demo(ip, env = {}) {
  const child = start(path.join(BUILT, "examples/demo"), [], ip, env);
  await until("the demo", () => /Ready\./.test(child.said), child);
  const usable = async () => (await (await fetch(`${child.url}/ready`)).json()).sources.tor?.usable >= 8;
  await until("eight tested exits", usable, child);
  [, child.config] = /`exitgate store check -c FILE`: (\S+)/.exec(child.said);
  child.page = /http:\/\/echo\.test(:\d+)?\/ip/.exec(child.said)[0];
  return child;
}

// A gateway without Tor that requires a token.
export async function locked(ip, token, env = {}) {
  const folder = await mkdtemp(path.join(tmpdir(), "exitgate-browser-"));
  const child = start(path.join(BUILT, "exitgate"), ["serve"], ip, {
    EXITGATE__DATA_DIR: folder, EXITGATE__API__TOKEN: token, EXITGATE__TOR__ENABLED: "false", EXITGATE__SOURCES__ONIONOO__ENABLED: "false", EXITGATE__LIFECYCLE__DRAIN: "1s", ...env,
  });
  child.folder = folder;
  await until("the locked gateway", () => fetch(`${child.url}/health`).then(() => true, () => false), child);
  return child;
}

export async function stop(child) {
  if (!child) return;
  if (child.exitCode === null) {
    child.kill("SIGINT");
    await once(child, "exit");
  }
  if (child.folder) await rm(child.folder, { recursive: true, force: true });
}

// Runs curl through a proxy. Returns what it printed, or null if it failed.
export async function curl(proxy, url) {
  const args = ["--silent", "--show-error", "--fail", "--max-time", "30", "-x", proxy, url];
  return run("curl", args, { env: { PATH: process.env.PATH } }).then(({ stdout }) => stdout.trim(), () => null);
}
