// A gateway that works hard, and a Prometheus that watches it.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { curl } from "../browser/gateway.js";

export const run = promisify(execFile);
const FAST = "1s";

// Scrapes `gateway` every second, on an address of its own.
export async function prometheus(gateway, ip) {
  const folder = await mkdtemp(path.join(tmpdir(), "exitgate-prometheus-"));
  const config = path.join(folder, "prometheus.yml");
  await writeFile(config, JSON.stringify({
    global: { scrape_interval: FAST, scrape_timeout: FAST, evaluation_interval: FAST },
    scrape_configs: [{ job_name: "exitgate", static_configs: [{ targets: [new URL(gateway.url).host] }] }],
  }));
  const url = `http://${ip}:9090`;
  const child = spawn("prometheus", [`--config.file=${config}`, `--storage.tsdb.path=${folder}/data`, `--web.listen-address=${ip}:9090`, "--log.level=warn"], { stdio: ["ignore", "ignore", "inherit"] });
  for (;;) {
    if (child.exitCode !== null) throw new Error("Prometheus ended by itself");
    if (await fetch(`${url}/-/ready`).then(({ ok }) => ok, () => false)) break;
    await new Promise((resume) => setTimeout(resume, 100));
  }
  const ask = async (query) => {
    const end = Date.now() / 1000;
    const asked = new URLSearchParams({ query, start: end - 60, end, step: 1 });
    const answer = await (await fetch(`${url}/api/v1/query_range?${asked}`)).json();
    if (answer.status !== "success") throw new Error(`${query}: ${answer.error}`);
    return answer.data.result;
  };
  const stop = async () => {
    child.kill("SIGTERM");
    if (child.exitCode === null) await once(child, "exit");
    await rm(folder, { recursive: true, force: true });
  };
  return { url, ask, stop };
}

// Requests of every kind until the answer is called: good ones by routes and usernames, and those that must fail.
export async function load(gateway) {
  const headers = { "Content-Type": "application/json" };
  const make = (body) => fetch(`${gateway.url}/proxies`, { method: "POST", headers, body: JSON.stringify(body) }).then((answer) => answer.json());
  const [shop, fixed] = await Promise.all([make({ name: "shop", selector: "us" }), make({ name: "fixed", selector: "de-strict" })]);
  const shared = (username) => `http://${username}@${gateway.ip}:1080`;
  const ways = [shop.urls.socks5, shop.urls.http, fixed.urls.http, shared("nonus-session-cart42"), shared("any-rotate"), shared("jp"), shared("us-strcit")];
  let over = false;
  const worker = async (offset) => {
    for (let at = offset; !over; at += 1) {
      const way = ways[at % ways.length];
      // A port where nothing listens, now and then: a target that refuses.
      const page = at % 11 === 0 ? gateway.page.replace(/echo\.test(:\d+)?/, "echo.test:9") : gateway.page;
      await curl(way, page);
    }
  };
  // And an operator: exits checked, routes opened and closed.
  const { exits } = await (await fetch(`${gateway.url}/exits`)).json();
  const operator = async () => {
    for (let at = 0; !over; at += 1) {
      await fetch(`${gateway.url}/exits/${exits[at % exits.length].id}/check`, { method: "POST", headers });
      await make({ name: "passing", selector: "any" });
      await fetch(`${gateway.url}/proxies/passing`, { method: "DELETE" });
      await new Promise((resume) => setTimeout(resume, 500));
    }
  };
  const workers = [...[0, 2, 4].map(worker), operator()];
  return async () => {
    over = true;
    await Promise.all(workers);
  };
}
