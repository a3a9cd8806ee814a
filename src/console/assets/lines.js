// Examples to paste for a route. Each is the recipe of docs/recipes.md with the route's own address, and those recipes are
// tested; tests/browser/lines.test.js compares the two.

const PAGE = "https://check.torproject.org/api/ip";

// The addresses of a route. Its API has a placeholder for the key, and only the route's own name is always a valid username
// at its port.
export function addresses({ name, urls, auth }) {
  const server = urls.http.replace(/^http:\/\/(.*@)?/, "");
  const login = auth === "key" ? { username: name, password: "YOUR_KEY" } : null;
  const before = login ? `${login.username}:${login.password}@` : "";
  return { server, login, http: `http://${before}${server}`, socks5: `socks5h://${before}${server}` };
}

// The page of the gateway's own examples: a gateway on a private network names one that exists there.
function page({ examples }) {
  return examples?.url ?? /^curl -x \S+ (https?:\/\/\S+)$/.exec(examples?.curl ?? "")?.[1] ?? PAGE;
}

// Pairs of a name and a text.
export function lines(route) {
  const { server, login, http, socks5 } = addresses(route);
  const url = page(route);
  const credentials = login ? `, username: "${login.username}", password: "${login.password}"` : "";
  return [
    ["curl", `curl -x ${socks5} ${url}`],
    ["Python", `import requests

session = requests.Session()
session.proxies = {"http": "${http}", "https": "${http}"}
print(session.get("${url}", timeout=60).text)`],
    ["Playwright", `import { chromium } from "playwright";

const browser = await chromium.launch({ proxy: { server: "http://${server}"${credentials} } });
const page = await browser.newPage();
await page.goto("${url}");
console.log(await page.textContent("body"));
await browser.close();`],
    ["Scrapy", `import scrapy


class Spider(scrapy.Spider):
    name = "ip"
    custom_settings = {"RETRY_TIMES": 3, "DOWNLOAD_TIMEOUT": 60}

    async def start(self):
        yield scrapy.Request("${url}", meta={"proxy": "${http}"})

    def parse(self, response):
        print(response.text)`],
    ["Node", `import { fetch, ProxyAgent } from "undici";

const dispatcher = new ProxyAgent("${http}");
const answer = await fetch("${url}", { dispatcher });
console.log(await answer.text());`],
    ["Shell", `export http_proxy=${http} https_proxy=${http}
curl ${url}`],
  ];
}
