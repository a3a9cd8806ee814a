// Crawlee: its sessions are sessions of the gateway, and what marks a Crawlee session as blocked is reported to the gateway.
//
// Crawlee calls `session.markBad()` by itself after every failed request, also after an error in the user's own code. Such a call says nothing about
// the exit, so it is not reported. Reported are: a blocked status code, a `SessionError`, and `markBad()` or `retire()` called by the request handler.
import { NonRetryableError, ProxyConfiguration as CrawleeProxyConfiguration, RequestState, Session, type Request, type SessionOptions, type SessionPool } from "@crawlee/core";
import { ExitgateError, proxyError } from "./errors.js";
import { type Gateway, hostOf } from "./gateway.js";
import { exitOf, type ExitInfo } from "./tunnel.js";

export interface CrawleeOptions {
  /** The selector. By default the gateway's. */
  selector?: string | undefined;
  strict?: boolean | undefined;
  /** How long a session lives, for example `10m`. */
  ttl?: string | undefined;
  /** Text before the name of each session. Two crawlers with the same prefix and the same session names share exits. Random by default. */
  prefix?: string | undefined;
  /** Called when a report could not be delivered. By default Crawlee's log gets a warning. */
  onReportError?: ((error: Error) => void) | undefined;
}

/** Errors of the connection. They are no refusal by the site. */
const CONNECTION = /ECONNRESET|ECONNREFUSED|ERR_PROXY_|ERR_TUNNEL_|Proxy responded with|\b502\b.*CONNECT/;
/** Refusals of the gateway that another try cannot cure. */
const FINAL = /(?:Proxy responded with|CONNECT.*?)\s*(400|403|407)\b/;

interface Use {
  request: Request;
  /** The number of the try that was reported, so that one refusal is one report. */
  reported: number;
}

/** The gateway as a `proxyConfiguration` of any Crawlee crawler. Each Crawlee session is a session of the gateway and keeps its exit. */
export class ProxyConfiguration extends CrawleeProxyConfiguration {
  readonly gateway: Gateway;
  readonly #options: CrawleeOptions;
  readonly #prefix: string;
  readonly #uses = new Map<string, Use>();
  /** The session of the gateway by username, and by the Crawlee session of a browser that was launched with another session's proxy URL. */
  readonly #byUsername = new Map<string, string>();
  readonly #ofBrowser = new Map<string, string>();
  readonly #reports = new Map<Promise<void>, string>();

  constructor(gateway: Gateway, options: CrawleeOptions = {}) {
    super({ newUrlFunction: (id, { request } = {}) => this.#url(id, request) });
    this.gateway = gateway;
    this.#options = options;
    this.#prefix = options.prefix ?? `${Math.random().toString(36).slice(2, 8)}.`;
    gateway.username(options.selector, this.#choice("x"));
  }

  /** The exit that serves a Crawlee session now; null before its first connection. */
  async exit(session: { id: string } | string): Promise<ExitInfo | null> {
    const id = this.#id(session);
    const { exit, route } = await this.gateway.seen(this.#options.selector, this.#choice(id));
    return exit && { id: exit.id, ip: exit.ip ?? undefined, country: exit.country ?? undefined, checked: exit.checked_seconds_ago ?? undefined, route };
  }

  /** Reports that a site refuses the exit of a Crawlee session. */
  report(session: { id: string } | string, site: string, outcome?: string): Promise<void> {
    const id = this.#id(session);
    const host = hostOf(site);
    const sent = this.gateway.report(host, this.#options.selector, { ...this.#choice(id), outcome }).then(
      () => {},
      (error: Error) => {
        if (this.#options.onReportError) this.#options.onReportError(error);
        else this.log.warning(`The gateway did not take the report about ${host}: ${error.message}`);
      },
    );
    this.#reports.set(sent, host);
    void sent.finally(() => this.#reports.delete(sent));
    return sent;
  }

  /** Waits until the gateway has all reports. */
  async settled(): Promise<void> {
    await Promise.all(this.#reports.keys());
  }

  /** A session that reports. For `sessionPoolOptions.createSessionFunction`. */
  readonly createSession = (sessionPool: SessionPool, { sessionOptions = {} }: { sessionOptions?: SessionOptions } = {}): Session => {
    return new GatewaySession({ ...(sessionPool as unknown as { sessionOptions: SessionOptions }).sessionOptions, ...sessionOptions, sessionPool }, this);
  };

  /** Notes which session's proxy URL a page really uses. Crawlee launches a browser with one session and gives its pages another. @internal */
  opened({ request, session, proxyInfo, browserController }: Context): void {
    if (!session || !browserController) return;
    const { launchContext } = browserController;
    const url = launchContext?.useIncognitoPages ? proxyInfo?.url : launchContext?.proxyUrl;
    const id = url && this.#byUsername.get(decodeURIComponent(new URL(url).username));
    if (!id) return;
    remember(this.#ofBrowser, session.id, id);
    this.#use(session.id, request);
  }

  /** A request whose session was marked. @internal */
  refused(session: Session, outcome: string, explicit: boolean): void {
    const use = this.#uses.get(session.id);
    if (!use || use.reported === use.request.retryCount) return;
    const { request } = use;
    const inHandler = request.state === RequestState.REQUEST_HANDLER || request.state === RequestState.AFTER_NAV;
    if (explicit && !inHandler) {
      // Crawlee's error handler retires the session after a SessionError, which can also be an error of the connection.
      if (request.state !== RequestState.ERROR_HANDLER || outcome !== "retired" || CONNECTION.test(request.errorMessages.at(-1) ?? "")) return;
    }
    use.reported = request.retryCount;
    void this.report(session, request.loadedUrl ?? request.url, outcome);
  }

  async #url(id?: string | number, request?: Request): Promise<string> {
    if (request) {
      // A report that is under way may change which exit the gateway chooses for this site.
      const site = hostOf(request.url);
      await Promise.all([...this.#reports].filter(([, host]) => host === site).map(([sent]) => sent));
      if (id !== undefined) this.#use(String(id), request);
    }
    const choice = this.#choice(id);
    if (id !== undefined) remember(this.#byUsername, this.gateway.username(this.#options.selector, choice), String(id));
    return this.gateway.proxyUrl(this.#options.selector, { ...choice, protocol: "http" });
  }

  #id(session: { id: string } | string): string {
    const id = typeof session === "string" ? session : session.id;
    return this.#ofBrowser.get(id) ?? id;
  }

  #use(id: string, request: Request): void {
    const before = this.#uses.get(id);
    remember(this.#uses, id, { request, reported: before?.request === request ? before.reported : -1 });
  }

  #choice(id?: string | number) {
    const { strict, ttl } = this.#options;
    return id === undefined ? { strict } : { strict, ttl, session: this.#prefix + id };
  }
}

/** How many sessions are remembered. Crawlee's pool has 1000 at most by default. */
const USES = 5000;

/** Sets an entry, and drops the entries that were not set for the longest time. */
function remember<T>(map: Map<string, T>, name: string, value: T): void {
  map.delete(name);
  map.set(name, value);
  for (const oldest of map.keys()) {
    if (map.size <= USES) break;
    map.delete(oldest);
  }
}

class GatewaySession extends Session {
  readonly #configuration: ProxyConfiguration;
  #inside = false;

  constructor(options: SessionOptions, configuration: ProxyConfiguration) {
    super(options);
    this.#configuration = configuration;
  }

  override markBad(): void {
    this.#configuration.refused(this, "marked bad", true);
    this.#quietly(() => super.markBad());
  }

  override retire(): void {
    if (!this.#inside) this.#configuration.refused(this, "retired", true);
    super.retire();
  }

  override retireOnBlockedStatusCodes(status: number, more?: number[]): boolean {
    const blocked = this.#quietly(() => super.retireOnBlockedStatusCodes(status, more ?? []));
    if (blocked) this.#configuration.refused(this, `status ${status}`, false);
    return blocked;
  }

  override markGood(): void {
    this.#quietly(() => super.markGood());
  }

  /** Crawlee's methods call `retire` themselves, for example when a session is old. That says nothing about the exit. */
  #quietly<T>(work: () => T): T {
    this.#inside = true;
    try {
      return work();
    } finally {
      this.#inside = false;
    }
  }
}

/** The parts of a crawling context that the hooks use. */
interface Context {
  request: Request;
  session?: Session | undefined;
  proxyInfo?: { url: string } | undefined;
  browserController?: { launchContext?: { useIncognitoPages?: boolean; proxyUrl?: string | undefined } } | undefined;
  response?: { headers?: Record<string, string | string[] | undefined> | (() => Record<string, string>); statusCode?: number; status?: () => number } | undefined;
}

/** Options of an HttpCrawler, CheerioCrawler, JSDOMCrawler or LinkedomCrawler that uses the gateway. */
export interface HttpCrawlerOptions extends CrawlerOptions {
  additionalMimeTypes: string[];
}

/**
 * `crawlerOptions` for the crawlers without a browser. These crawlers skip an answer of type `text/plain`, and the gateway's refusals over plain
 * HTTP are of this type. So this function allows the type. Pages of type `text/plain` then reach the request handler, too.
 */
export function httpCrawlerOptions(gateway: Gateway, options: CrawleeOptions = {}): HttpCrawlerOptions {
  return { ...crawlerOptions(gateway, options), additionalMimeTypes: ["text/plain"] };
}

/** Options of a crawler that uses the gateway: spread them into the options of any Crawlee crawler. */
export interface CrawlerOptions {
  proxyConfiguration: ProxyConfiguration;
  useSessionPool: true;
  sessionPoolOptions: { createSessionFunction: ProxyConfiguration["createSession"] };
  preNavigationHooks: ((context: Context) => Promise<void>)[];
  postNavigationHooks: ((context: Context) => Promise<void>)[];
  errorHandler: (context: Context, error: Error) => void;
}

/**
 * The options that connect a Crawlee crawler with the gateway: proxy, sessions with reports, and errors. A plain HTTP answer of the gateway itself,
 * for example 429, is an error of this kit and not an answer of the site. A failure that no retry can cure is not retried.
 */
export function crawlerOptions(gateway: Gateway, options: CrawleeOptions = {}): CrawlerOptions {
  const proxyConfiguration = new ProxyConfiguration(gateway, options);
  return {
    proxyConfiguration,
    useSessionPool: true,
    sessionPoolOptions: { createSessionFunction: proxyConfiguration.createSession },
    preNavigationHooks: [async (context) => proxyConfiguration.opened(context)],
    postNavigationHooks: [async ({ request, response }) => {
      const { headers } = response ?? {};
      const fields = typeof headers === "function" ? headers.call(response) : headers ?? {};
      const field = (name: string) => fields[name] as string | undefined;
      if (field("x-exitgate-error")) {
        const error = proxyError({ status: response?.statusCode ?? response?.status?.() ?? 0, field });
        if (!error.retry) request.noRetry = true;
        throw error;
      }
      const exit = exitOf(field);
      if (exit) request.userData["exit"] = exit;
    }],
    errorHandler: ({ request }, error) => {
      if (FINAL.test(error.message) || (error instanceof ExitgateError && !error.retry) || error instanceof NonRetryableError) request.noRetry = true;
    },
  };
}
