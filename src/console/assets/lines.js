// Example commands for a route, to copy and paste. Each is a recipe of docs/recipes.md with the route's own address.
// The recipes are tested, and tests/browser/lines.test.js compares them with these examples.

const PAGE = "https://check.torproject.org/api/ip";

// Returns the addresses of a route. The password in the API's URLs is a placeholder. The username is the route's own
// name, because at the route's port only this name is always valid.
export function addresses({ name, urls, auth }) {
  const server = urls.http.replace(/^http:\/\/(.*@)?/, "");
  const login = auth === "key" ? { username: name, password: "YOUR_KEY" } : null;
  const before = login ? `${login.username}:${login.password}@` : "";
  return { server, login, http: `http://${before}${server}`, socks5: `socks5h://${before}${server}` };
}

// Returns the URL that the gateway's own example commands fetch. In a private network without internet, the operator
// sets a page that exists there.
function page({ examples }) {
  return examples?.url ?? /^curl -x \S+ (https?:\/\/\S+)$/.exec(examples?.curl ?? "")?.[1] ?? PAGE;
}

// Returns the examples as pairs of a name and a text.
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
