// The gateway as a program sees it: one object that knows the proxy port, the API and the secrets.
import http from "node:http";
import https from "node:https";
import net from "node:net";
import type { ConnectionOptions } from "node:tls";
import { inspect } from "node:util";
import type { Exit, Explanation, Readiness } from "./answers.js";
import { Api, type CallOptions, type ExitFilter, type Routes } from "./api.js";
import { Bridge } from "./bridge.js";
import { BadSelector, ExitgateError, NotReady, Unreachable, proxyError } from "./errors.js";
import { pause } from "./pause.js";
import { type Choice, inUrl, username } from "./selector.js";
import { type ProxyAddress, type Tunnel, authority, basic, open } from "./tunnel.js";

export interface GatewayOptions {
  /**
   * The URL of the proxy port, `http://127.0.0.1:1080` by default. Also `https://` and `socks5://`. A username and a password in it are the
   * default selector and the key. Environment: EXITGATE_PROXY.
   */
  proxy?: string | undefined;
  /** The URL of the API, `http://127.0.0.1:8080` by default. Environment: EXITGATE_API. */
  api?: string | undefined;
  /** The key, if the gateway has keys. Environment: EXITGATE_KEY. */
  key?: string | undefined;
  /** The token of the API, if it has one. Environment: EXITGATE_TOKEN. */
  token?: string | undefined;
  /** The selector of calls that name none. `any` by default. */
  selector?: string | undefined;
  /** Milliseconds for one answer of the gateway or for one tunnel. 60000 by default; the gateway itself gives up after 30 seconds. */
  timeout?: number | undefined;
  /** TLS options for an `https://` proxy, for example `{ ca }`. */
  tls?: ConnectionOptions | undefined;
}

/** How a proxy is selected. */
export interface SelectOptions extends Choice, CallOptions {}

export interface ProxyUrlOptions extends Choice {
  /** The scheme of the URL. By default the scheme of the gateway's proxy URL. The port takes all of them. */
  protocol?: "http" | "https" | "socks5" | "socks5h" | undefined;
}

/** An exit as `http://exit.gate/` describes it. */
export interface CurrentExit {
  id: string;
  ip: string | null;
  country: string | null;
  checked_seconds_ago: number | null;
}

/** Which exit serves a username now. */
export interface Seen {
  route: string;
  selector: string;
  session: string | null;
  key: string;
  /** How many exits serve this username. */
  pool: number;
  /** The exit, if there is exactly one: that of the session, of the pin, or of a pool of one. */
  exit: CurrentExit | null;
  /** Why a request would be refused now. */
  refused: string | null;
}

export interface Moved {
  before: CurrentExit | null;
  after: CurrentExit;
}

export interface Reported {
  site: string;
  exit: string;
}

const PASSWORDLESS = "x";

/** A gateway. */
export class Gateway {
  readonly api: Api;
  /** The routes of the gateway: `create`, `change`, `delete` and more. */
  readonly routes: Routes;
  /** The selector of calls that name none. */
  readonly selector: string;
  readonly timeout: number;
  readonly #proxy: ProxyAddress;
  readonly #key: string;
  readonly #tls: ConnectionOptions | undefined;
  readonly #bridges = new Map<string, Promise<Bridge>>();

  constructor(options: GatewayOptions = {}) {
    const { env } = process;
    const url = parse(options.proxy ?? env["EXITGATE_PROXY"] ?? "http://127.0.0.1:1080");
    const protocol = PROTOCOLS[url.protocol];
    if (!protocol) throw badUrl(`\`${url.protocol}//\` is no proxy scheme`);
    this.#proxy = { protocol, host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) || (protocol === "http:" ? 80 : protocol === "https:" ? 443 : 1080) };
    this.selector = options.selector ?? (decodeURIComponent(url.username) || "any");
    this.#key = options.key ?? (decodeURIComponent(url.password) || env["EXITGATE_KEY"] || "");
    this.#tls = options.tls;
    this.timeout = options.timeout ?? 60_000;
    this.api = new Api(options.api ?? env["EXITGATE_API"] ?? "http://127.0.0.1:8080", options.token ?? env["EXITGATE_TOKEN"] ?? "", this.timeout);
    this.routes = this.api.routes;
  }

  /** The address of the proxy port: `host:port`. */
  get address(): string {
    return authority(this.#proxy.host, this.#proxy.port);
  }

  /** The username for a selector. */
  username(selector: string = this.selector, choice: Choice = {}): string {
    return username(selector, choice);
  }

  /** The username and the password for a client that takes them separately. */
  credentials(selector: string = this.selector, choice: Choice = {}): { username: string; password: string } {
    // Many clients send no username without a password. A gateway without keys accepts any password.
    return { username: username(selector, choice), password: this.#key || PASSWORDLESS };
  }

  /** The proxy URL for a selector, with username and key. It contains the key: do not log it. */
  proxyUrl(selector: string = this.selector, { protocol, ...choice }: ProxyUrlOptions = {}): string {
    const { username, password } = this.credentials(selector, choice);
    // `socks5h` lets the gateway resolve names. With `socks5` some clients resolve them, and their resolver sees every target.
    const scheme = protocol ?? (this.#proxy.protocol === "socks5:" ? "socks5h" : this.#proxy.protocol.slice(0, -1));
    return `${scheme}://${inUrl(username)}:${inUrl(password)}@${this.address}`;
  }

  /** Opens a tunnel to a host and port. */
  tunnel(host: string, port: number, selector: string = this.selector, { signal, ...choice }: SelectOptions = {}): Promise<Tunnel> {
    return open({ proxy: this.#proxy, username: username(selector, choice), key: this.#key, host, port, timeout: this.timeout, signal, tls: this.#tls });
  }

  /**
   * A proxy on a loopback port that adds the username and the key, for browsers: they cannot send both in all cases. The same selector and
   * choice share one bridge. `close` ends it.
   */
  async bridge(selector: string = this.selector, choice: Choice = {}): Promise<Bridge> {
    const name = username(selector, choice);
    const running = this.#bridges.get(name);
    if (running) return running;
    const proxy: ProxyAddress = this.#proxy.protocol === "socks5:" ? { ...this.#proxy, protocol: "http:" } : this.#proxy;
    const started = Bridge.start({ proxy, username: name, key: this.#key, timeout: this.timeout, tls: this.#tls }, () => this.#bridges.delete(name));
    this.#bridges.set(name, started);
    started.catch(() => this.#bridges.delete(name));
    return started;
  }

  /** The exit that a selector and session use now. Null if they name no single exit, or have not used one yet. */
  async exit(selector: string = this.selector, options: SelectOptions = {}): Promise<CurrentExit | null> {
    return (await this.seen(selector, options)).exit;
  }

  /** All that the gateway says about a selector and session. */
  async seen(selector: string = this.selector, options: SelectOptions = {}): Promise<Seen> {
    return this.#builtin("GET", "/", undefined, selector, options);
  }

  /** Moves the session, or the strict selector, to another exit with another address. The new exit is tested before the answer. */
  async rotate(selector: string = this.selector, options: SelectOptions = {}): Promise<Moved> {
    return this.#builtin("POST", "/rotate", undefined, selector, options);
  }

  /**
   * Reports that a site refuses an exit: the gateway does not use this exit for this site for a while. Without `exit`, the report is about the
   * exit of the session or the strict selector.
   */
  async report(site: string, selector: string = this.selector, options: SelectOptions & { exit?: string | undefined; outcome?: string | undefined } = {}): Promise<Reported> {
    const { exit, outcome, ...rest } = options;
    return this.#builtin("POST", "/report", { site: hostOf(site), exit, outcome }, selector, rest);
  }

  /** Which exits a selector can use, and why the others are excluded. */
  async why(selector: string = this.selector, options: SelectOptions & { site?: string; port?: number; key?: string } = {}): Promise<Explanation> {
    const { site, port, key, signal, ...choice } = options;
    return this.api.explain(username(selector, choice), { port, host: site === undefined ? undefined : hostOf(site), key }, { signal });
  }

  /** All known exits that pass the filter. */
  async exits(filter: ExitFilter = {}, options?: CallOptions): Promise<Exit[]> {
    const exits: Exit[] = [];
    for await (const exit of this.api.eachExit(filter, options)) exits.push(exit);
    return exits;
  }

  /**
   * Waits until at least `exits` tested exits can be used, and, if there is a `selector`, until the gateway can serve it. A wrong selector or key
   * fails immediately. `timeout` is in milliseconds, 120000 by default: the first start of a gateway takes a minute or two.
   */
  async waitReady(options: SelectOptions & { selector?: string; timeout?: number; exits?: number } = {}): Promise<Readiness> {
    const { selector, timeout = 120_000, exits = 1, ...rest } = options;
    const deadline = Date.now() + timeout;
    let [reason, wait] = ["no answer", 50];
    for (;;) {
      try {
        const said = await this.ready({ signal: rest.signal });
        const sources = Object.entries(said.sources);
        if (said.ready && sources.reduce((sum, [, source]) => sum + source.usable, 0) >= exits) {
          const refused = selector === undefined ? null : (await this.seen(selector, rest)).refused;
          if (refused === null) return said;
          reason = refused;
        } else {
          reason = sources.map(([name, source]) => `${name}: ${source.reason}`).join("; ") || "no source";
        }
      } catch (error) {
        // A gateway that starts is unreachable for a moment. A failure that a wait cannot cure is final.
        if (!(error instanceof ExitgateError) || !error.retry) throw error;
        reason = error.reason;
      }
      if (Date.now() >= deadline) throw new NotReady({ reason: `the gateway was not ready within ${timeout} ms: ${reason}` });
      await pause(Math.min(wait, Math.max(0, deadline - Date.now())), rest.signal);
      wait = Math.min(wait * 1.5, 1000);
    }
  }

  /** Fails with `KeyRefused` if the key is missing or wrong. */
  async checkKey(): Promise<void> {
    await this.exit("any");
  }

  /** What each source of exits waits for. */
  ready(options?: CallOptions): Promise<Readiness> {
    return this.api.ready(options);
  }

  /** Closes the bridges of this gateway. */
  async close(): Promise<void> {
    const bridges = [...this.#bridges.values()];
    this.#bridges.clear();
    await Promise.all(bridges.map(async (bridge) => (await bridge).close()));
  }

  /** Sends a request to exit.gate, which the gateway answers itself, with this username. */
  #builtin<T>(method: string, path: string, body: unknown, selector: string, { signal, ...choice }: SelectOptions): Promise<T> {
    const proxy = this.#proxy;
    const secure = proxy.protocol === "https:";
    const text = body === undefined ? "" : JSON.stringify(body);
    const limit = AbortSignal.timeout(this.timeout);
    const headers: Record<string, string> = {
      host: "exit.gate",
      "content-length": String(Buffer.byteLength(text)),
      "proxy-authorization": basic(username(selector, choice), this.#key),
    };
    if (method !== "GET") headers["x-exitgate"] = "1";
    return new Promise<T>((resolve, reject) => {
      const failed = (cause: Error) => {
        if (signal?.aborted) return reject(signal.reason);
        reject(new Unreachable({ reason: `the gateway at ${this.address} ${limit.aborted ? `did not answer in ${this.timeout} ms` : `cannot be reached: ${cause.message}`}`, cause }));
      };
      const request = (secure ? https : http).request({
        // Node would take the name for TLS from the field Host, which is exit.gate.
        ...(secure ? { servername: net.isIP(proxy.host) ? "" : proxy.host, ...this.#tls } : {}),
        host: proxy.host,
        port: proxy.port,
        method,
        path: `http://exit.gate${path}`,
        headers,
        agent: false,
        signal: signal ? AbortSignal.any([signal, limit]) : limit,
      }, (answer) => {
        let said = "";
        answer.setEncoding("utf8").on("error", failed).on("data", (part: string) => { said += part; }).on("end", () => {
          const field = (name: string) => answer.headers[name] as string | undefined;
          const status = answer.statusCode ?? 0;
          if (status === 200) {
            try {
              return resolve(JSON.parse(said) as T);
            } catch (cause) {
              return reject(new Unreachable({ reason: `${this.address} is not an exitgate gateway`, retry: false, status, cause }));
            }
          }
          reject(proxyError({ status, field, otherwise: said }));
        });
      });
      request.on("error", failed).end(text);
    });
  }

  /** What logs and `console.log` show: no secrets. */
  toJSON(): Record<string, string> {
    return { proxy: `${this.#proxy.protocol}//${this.address}`, api: this.api.url, selector: this.selector };
  }

  [inspect.custom](): string {
    return `Gateway ${inspect(this.toJSON())}`;
  }
}

const PROTOCOLS: Record<string, ProxyAddress["protocol"]> = { "http:": "http:", "https:": "https:", "socks5:": "socks5:", "socks5h:": "socks5:", "socks:": "socks5:" };

function badUrl(reason: string): BadSelector {
  return new BadSelector({ reason, advice: "Set `proxy` or EXITGATE_PROXY to a URL such as http://127.0.0.1:1080." });
}

function parse(text: string): URL {
  try {
    return new URL(text);
  } catch {
    // The text may contain a key, so the message does not repeat it.
    throw badUrl("the proxy's URL cannot be read");
  }
}

/** The host of a URL, or the text itself if it is no URL. */
export function hostOf(site: string): string {
  return site.includes("://") ? new URL(site).hostname : site;
}
