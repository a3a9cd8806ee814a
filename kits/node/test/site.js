// A site on this machine that refuses some addresses. The exits of the simulated network connect from their own addresses.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";

export const ADDRESS = /^127\.\d+\.\d+\.\d+$/;
export const { PAGE, SECURE_PAGE, KEYED_PROXY, KEYED_API, KEYED_KEY, KEYED_CA, KEYED_TOKEN, SLOW_KEY } = process.env;

// The site's own address: the gateway keeps bans for each site.
export async function site(ip) {
  const refused = new Set();
  const visits = [];
  const server = createServer((request, answer) => {
    const from = request.socket.remoteAddress;
    visits.push({ from, url: request.url, connection: `${from}:${request.socket.remotePort}`, headers: request.headers });
    const bytes = [];
    request.on("data", (part) => bytes.push(part)).on("end", () => {
      if (request.url === "/hang") return;
      // The connection breaks at the first request.
      if (request.url === "/break" && visits.filter((visit) => visit.url === "/break").length === 1) return request.socket.destroy();
      if (refused.has(from) || refused.has("all")) return answer.writeHead(403, { "content-type": "text/html" }).end("<p>blocked</p>");
      answer.setHeader("content-type", "text/html; charset=utf-8");
      answer.end(request.method === "GET" ? `<p>${from}</p>` : Buffer.concat(bytes));
    });
  });
  server.listen(8000, ip);
  await once(server, "listening");
  return {
    url: `http://${ip}:8000`,
    refused,
    visits,
    close: () => new Promise((resolve) => {
      server.close(resolve);
      server.closeAllConnections();
    }),
  };
}

// The text of a page of `site` or of the fake web, without tags.
export const text = (html) => html.replace(/<[^>]*>/g, "").trim();

export async function rejects(promise, kind, check = {}) {
  let error;
  await assert.rejects(promise, (why) => {
    error = why;
    assert.ok(why instanceof kind, `${why?.stack ?? why} is not ${kind.name}`);
    for (const [name, value] of Object.entries(check)) {
      if (value instanceof RegExp) assert.match(String(why[name]), value);
      else assert.equal(why[name], value, name);
    }
    return true;
  });
  return error;
}
