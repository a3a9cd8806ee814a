// Options for Puppeteer. The traffic goes through a bridge (see `bridge.ts`), because Chromium sends no proxy username in some cases.
import { identity } from "./country.js";
import type { Gateway } from "./gateway.js";
import type { BrowserOptions } from "./playwright.js";

export type { BrowserOptions } from "./playwright.js";

/** Options for `puppeteer.launch`: all pages of the browser use this selector. */
export async function launchOptions(gateway: Gateway, { selector, args = [], ...choice }: BrowserOptions & { args?: string[] } = {}): Promise<{ args: string[] }> {
  const bridge = await gateway.bridge(selector, choice);
  return { args: [...args, `--proxy-server=${bridge.url}`, "--proxy-bypass-list=<-loopback>"] };
}

/** Options for `browser.createBrowserContext`: a context with a session of its own. */
export async function contextOptions(gateway: Gateway, { selector, ...choice }: BrowserOptions = {}): Promise<{ proxyServer: string; proxyBypassList: string[] }> {
  const bridge = await gateway.bridge(selector, choice);
  return { proxyServer: bridge.url, proxyBypassList: ["<-loopback>"] };
}

/** Gives a page the time zone and the language of the exit that serves a session. */
export async function matchExit(page: Page, gateway: Gateway, { selector, ...choice }: BrowserOptions = {}): Promise<void> {
  const seen = await gateway.seen(selector, choice);
  const { locale, timezoneId } = identity(seen.exit?.country);
  if (timezoneId) await page.emulateTimezone(timezoneId);
  if (locale) await page.setExtraHTTPHeaders({ "accept-language": `${locale},${locale.slice(0, 2)};q=0.9` });
}

/** The part of Puppeteer's `Page` that `matchExit` uses. */
export interface Page {
  emulateTimezone(zone?: string): Promise<void>;
  setExtraHTTPHeaders(headers: Record<string, string>): Promise<void>;
}
