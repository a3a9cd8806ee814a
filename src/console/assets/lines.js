// Lines to paste for a route: what a scraper's author needs, and nothing that has to be thought about.

const PAGE = "https://check.torproject.org/api/ip";

// A proxy URL in pieces, because some clients want the key apart from the address.
function pieces(url) {
  const [scheme, rest] = url.split("://");
  const at = rest.lastIndexOf("@");
  return { scheme, login: at < 0 ? null : rest.slice(0, at), server: rest.slice(at + 1) };
}

function playwright(http) {
  const { login, server } = pieces(http);
  const user = login === null ? "" : `, username: "x", password: "YOUR_KEY"`;
  return `import { chromium } from "playwright";

const browser = await chromium.launch({ proxy: { server: "http://${server}"${user} } });
const page = await browser.newPage();
await page.goto("${PAGE}");
console.log(await page.textContent("body"));
await browser.close();`;
}

// Name, language for whoever reads it aloud, text.
export function lines({ urls }) {
  const { socks5, http } = urls;
  return [
    ["curl", `curl -x ${socks5} ${PAGE}`],
    ["Python", `import requests

proxies = {"http": "${http}", "https": "${http}"}
print(requests.get("${PAGE}", proxies=proxies, timeout=60).text)`],
    ["Playwright", playwright(http)],
    ["Scrapy", `# In a spider: every request that it makes goes out by this route.
def start_requests(self):
    yield scrapy.Request("${PAGE}", meta={"proxy": "${http}"})`],
    ["Node", `import { fetch, ProxyAgent } from "undici";

const dispatcher = new ProxyAgent("${http}");
console.log(await (await fetch("${PAGE}", { dispatcher })).text());`],
    ["Shell", `export http_proxy=${http} https_proxy=${http} ALL_PROXY=${socks5}`],
  ];
}
