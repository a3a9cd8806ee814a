// Lines to paste for a route: what a scraper's author needs, and nothing that has to be thought about.

// A proxy URL in pieces, because some clients want the key apart from the address.
function pieces(url) {
  const [scheme, rest] = url.split("://");
  const at = rest.lastIndexOf("@");
  return { scheme, login: at < 0 ? null : rest.slice(0, at), server: rest.slice(at + 1) };
}

function playwright(http, page) {
  const { login, server } = pieces(http);
  const [username, password] = login?.split(":") ?? [];
  const user = login === null ? "" : `, username: "${username}", password: "${password}"`;
  return `import { chromium } from "playwright";

const browser = await chromium.launch({ proxy: { server: "http://${server}"${user} } });
const page = await browser.newPage();
await page.goto("${page}");
console.log(await page.textContent("body"));
await browser.close();`;
}

// Name, language for whoever reads it aloud, text.
export function lines({ urls, examples }) {
  const { socks5, http } = urls;
  const page = examples.url;
  return [
    ["curl", `curl -x ${socks5} ${page}`],
    ["Python", `import requests

proxies = {"http": "${http}", "https": "${http}"}
print(requests.get("${page}", proxies=proxies, timeout=60).text)`],
    ["Playwright", playwright(http, page)],
    ["Scrapy", `# In a spider: every request that it makes goes out by this route.
def start_requests(self):
    yield scrapy.Request("${page}", meta={"proxy": "${http}"})`],
    ["Node", `import { fetch, ProxyAgent } from "undici";

const dispatcher = new ProxyAgent("${http}");
console.log(await (await fetch("${page}", { dispatcher })).text());`],
    ["Shell", `export http_proxy=${http} https_proxy=${http} ALL_PROXY=${socks5}`],
  ];
}
