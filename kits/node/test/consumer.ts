// A TypeScript program that uses all parts of the kit. `types.test.js` compiles it in strict mode.
import { CheerioCrawler, PlaywrightCrawler, PuppeteerCrawler } from "crawlee";
import { type Exit, Gateway, NoExit, type Proxy, SiteRefused } from "exitgate";
import { ProxyConfiguration, crawlerOptions, httpCrawlerOptions } from "exitgate/crawlee";
import { contextOptions, launchOptions } from "exitgate/playwright";
import * as forPuppeteer from "exitgate/puppeteer";
import { createFetch, dispatcher, exit } from "exitgate/undici";
import { chromium } from "playwright-core";
import puppeteer from "puppeteer-core";
import { request } from "undici";

export async function main(): Promise<void> {
  const gateway = new Gateway({ key: "k" });
  const fetch = createFetch(gateway, { selector: "us", refused: async (answer) => answer.status === 403 });
  try {
    const answer = await fetch("https://a.example", { method: "POST", body: "x" });
    const country: string | undefined = exit(answer)?.country;
    console.log(country, await answer.json());
  } catch (error) {
    if (error instanceof SiteRefused) console.log(error.exits.join());
    if (error instanceof NoExit) console.log(error.retryAfter?.toFixed());
  }
  const { headers } = await request("https://a.example", { dispatcher: dispatcher(gateway) });
  console.log(exit({ headers })?.ip);
  new CheerioCrawler({ ...httpCrawlerOptions(gateway), requestHandler: ({ $ }) => console.log($("p").text()) });
  new CheerioCrawler({ proxyConfiguration: new ProxyConfiguration(gateway, { selector: "us" }) });
  new PlaywrightCrawler({ ...crawlerOptions(gateway) });
  new PuppeteerCrawler({ ...crawlerOptions(gateway) });
  const browser = await chromium.launch(await launchOptions(gateway, { selector: "us" }));
  await browser.newContext(await contextOptions(gateway, { session: "a" }));
  const other = await puppeteer.launch(await forPuppeteer.launchOptions(gateway));
  await other.createBrowserContext(await forPuppeteer.contextOptions(gateway));
  await forPuppeteer.matchExit(await other.newPage(), gateway, { session: "a" });
  const exits: Exit[] = await gateway.exits({ usable: true });
  const route: Proxy = await gateway.routes.create({ selector: "us" });
  const many: Proxy[] = (await gateway.routes.create({ selector: "us", count: 2 })).proxies;
  console.log(exits, route.port, many.length);
  // @ts-expect-error: the mode has three words
  await gateway.routes.create({ mode: "strictly" });
  // @ts-expect-error: a selector is a text
  gateway.proxyUrl(1);
}
