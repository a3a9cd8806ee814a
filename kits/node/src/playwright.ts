// Options for Playwright. The traffic goes through a bridge (see `bridge.ts`), because Chromium sends no proxy username in some cases.
import { identity } from "./country.js";
import type { Gateway } from "./gateway.js";
import type { Choice } from "./selector.js";

export interface BrowserOptions extends Choice {
  /** The selector. By default the gateway's. */
  selector?: string | undefined;
}

/** The `proxy` option of Playwright. */
export interface PlaywrightProxy {
  server: string;
  /** Chromium does not send requests for loopback addresses to a proxy, unless this says so. */
  bypass: string;
}

/** Options for `browserType.launch`: all pages of the browser use this selector. */
export async function launchOptions(gateway: Gateway, options: BrowserOptions = {}): Promise<{ proxy: PlaywrightProxy }> {
  return { proxy: await proxy(gateway, options) };
}

/**
 * Options for `browser.newContext`: a context with a session of its own, and, if one exit serves it, with the locale and the time zone of the
 * exit's country.
 */
export async function contextOptions(gateway: Gateway, options: BrowserOptions = {}): Promise<{ proxy: PlaywrightProxy; locale?: string; timezoneId?: string }> {
  const { selector, ...choice } = options;
  const seen = await gateway.seen(selector, choice);
  // A selector of one country gives every exit the same country.
  const [, only] = /^([a-z]{2})(?:-|$)/.exec(seen.selector) ?? [];
  return { proxy: await proxy(gateway, options), ...identity(seen.exit?.country ?? only) };
}

async function proxy(gateway: Gateway, { selector, ...choice }: BrowserOptions): Promise<PlaywrightProxy> {
  const bridge = await gateway.bridge(selector, choice);
  return { server: bridge.url, bypass: "<-loopback>" };
}
