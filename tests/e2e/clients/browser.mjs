// Chromium, driven by Playwright: a page with fifty scripts, through routes' own ports (Chromium cannot send SOCKS
// credentials) and with a username where the gateway asks for one. Prints a line of JSON a case.

import { chromium } from "playwright-core";

const [binary, host, plain, secure] = process.argv.slice(2);
const gate = "http://exit.gate/";

async function visit(name, proxy, site) {
  const browser = await chromium.launch({ executablePath: binary, proxy, args: ["--no-sandbox", "--disable-gpu"] });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true });
    const page = await context.newPage();
    const failures = [];
    page.on("requestfailed", (request) => failures.push(`${request.url()}: ${request.failure().errorText}`));
    await page.goto(`${site}/page?case=${name}`, { waitUntil: "load", timeout: 60_000 });
    const seen = JSON.parse(await page.textContent("#shown"));
    const socket = await page.evaluate((url) => new Promise((done, failed) => {
      const socket = new WebSocket(url);
      socket.onopen = () => socket.send("hello");
      socket.onmessage = ({ data }) => { done(data); socket.close(); };
      socket.onerror = () => failed(new Error("no WebSocket"));
    }), `${site.replace("http", "ws")}/ws`);
    const answer = await page.goto(gate);
    console.log(JSON.stringify({ case: name, seen, socket, failures, named: (await answer.json()).exit?.ip ?? null }));
  } finally {
    await browser.close();
  }
}

for (const [kind, site] of [["plain", plain], ["secure", secure]]) {
  await visit(`strict.socks5.${kind}`, { server: `socks5://${host}:20001` }, site);
  await visit(`strict.http.${kind}`, { server: `http://${host}:20001` }, site);
}
await visit("flexible.socks5.plain", { server: `socks5://${host}:20002` }, plain);
await visit("username.http.secure", { server: `http://${host}:1080`, username: "us-session-b", password: "k" }, secure);
