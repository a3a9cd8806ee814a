// Node's HTTP clients, each through the gateway in every way that it knows. Prints what through.py prints.

import { once } from "node:events";
import { readFileSync } from "node:fs";
import http from "node:http";
import https from "node:https";
import { HttpsProxyAgent } from "https-proxy-agent";
import { SocksProxyAgent } from "socks-proxy-agent";
import { fetch, ProxyAgent, request } from "undici";
import WebSocket from "ws";

const [at, plain, secure, caFile] = process.argv.slice(2);
const ca = readFileSync(caFile);
const gate = "http://exit.gate/";
const way = (scheme, name) => `${scheme}://us-session-${name}:any@${at}`;

function say(name, body, said) {
  const named = said.exit.ip;
  if (body !== named) throw new Error(`${name}: the site saw ${body}, the gateway says ${named}`);
  console.log(JSON.stringify({ case: name, named }));
}

async function withUndici() {
  for (const [kind, site] of [["plain", plain], ["secure", secure]]) {
    const name = `undici.${kind}`;
    const dispatcher = new ProxyAgent({ uri: way("http", name), requestTls: { ca } });
    const url = `${site}/ip?case=${name}`;
    const bodies = await Promise.all([1, 2, 3].map(async () => (await request(url, { dispatcher })).body.text()));
    bodies.push(await (await fetch(url, { dispatcher })).text());
    if (new Set(bodies).size !== 1) throw new Error(`${name}: one session, several addresses: ${bodies}`);
    say(name, bodies[0], await (await fetch(gate, { dispatcher })).json());
    await dispatcher.close();
  }
}

function get(url, options) {
  return new Promise((done, failed) => {
    const module = url.startsWith("https") ? https : http;
    module.get(url, { ca, ...options }, (answer) => {
      let body = "";
      answer.on("data", (piece) => (body += piece)).on("end", () => done(body)).on("error", failed);
    }).on("error", failed);
  });
}

async function withAgents() {
  for (const [kind, Agent, scheme] of [["connect", HttpsProxyAgent, "http"], ["socks5", SocksProxyAgent, "socks5h"], ["socks4", SocksProxyAgent, "socks4a"]]) {
    for (const [safety, site] of [["plain", plain], ["secure", secure]]) {
      const name = `node.${kind}.${safety}`;
      const agent = new Agent(way(scheme, name));
      say(name, await get(`${site}/ip?case=${name}`, { agent }), JSON.parse(await get(gate, { agent })));
      agent.destroy();
    }
  }
}

async function withWs() {
  for (const [kind, Agent, scheme] of [["connect", HttpsProxyAgent, "http"], ["socks5", SocksProxyAgent, "socks5h"]]) {
    for (const [safety, site] of [["ws", plain], ["wss", secure]]) {
      const name = `ws.${kind}.${safety}`;
      const agent = new Agent(way(scheme, name));
      const socket = new WebSocket(`${site.replace("http", "ws")}/ws?case=${name}`, { agent, ca });
      await once(socket, "open");
      for (const message of ["hello", "x".repeat(70_000)]) {
        socket.send(message);
        const [back] = await once(socket, "message");
        if (back.toString() !== message) throw new Error(`${name}: another message came back`);
      }
      socket.close();
      await once(socket, "close");
      say(name, await get(`${plain}/ip?case=${name}`, { agent }), JSON.parse(await get(gate, { agent })));
      agent.destroy();
    }
  }
}

await withUndici();
await withAgents();
await withWs();
