// A dispatcher for undici and `fetch`, and a `fetch` that reports refusals and tries again by another exit.
import type { ConnectionOptions } from "node:tls";
import { Client, Dispatcher, Pool, type RequestInfo, type RequestInit, type Response, buildConnector, fetch as undiciFetch } from "undici";
import { ExitgateError, SiteRefused } from "./errors.js";
import { type Gateway, type SelectOptions, hostOf } from "./gateway.js";
import { pause } from "./pause.js";
import type { Choice } from "./selector.js";
import { type ExitInfo, exitFields, exitOf } from "./tunnel.js";

export interface DispatcherOptions extends Choice {
  /** The selector. By default the gateway's. */
  selector?: string | undefined;
  /** Open connections to one site at most. 32 by default. */
  connections?: number | undefined;
  /** TLS options for the sites, for example `{ ca }`. */
  tls?: ConnectionOptions | undefined;
  /** Milliseconds until the head of an answer must arrive, and between two parts of its body. 60000 by default. */
  timeout?: number | undefined;
}

/** How many sites keep connections at once. A site that was not used for the longest time loses its idle connections. */
const SITES = 500;

/**
 * Sends requests through the gateway. Connections are kept and used again. Every answer has the fields `X-Exitgate-Exit`, `X-Exitgate-Exit-Ip`
 * and so on, for `https://` too. A refusal of the gateway is an error of this kit (`error.cause` with `fetch`).
 */
export class GatewayDispatcher extends Dispatcher {
  readonly #gateway: Gateway;
  readonly #options: DispatcherOptions;
  readonly #choice: Choice;
  readonly #pools = new Map<string, Pool>();
  readonly #retired = new Set<Pool>();
  readonly #secure: buildConnector.connector;
  #closed = false;

  constructor(gateway: Gateway, options: DispatcherOptions = {}) {
    super();
    const { session, strict, ttl } = options;
    this.#gateway = gateway;
    this.#options = options;
    this.#choice = { session, strict, ttl };
    // A wrong selector fails here and not at the first request.
    gateway.username(options.selector, this.#choice);
    this.#secure = buildConnector({ ...options.tls, timeout: gateway.timeout } as buildConnector.BuildOptions);
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const origin = new URL(String(options.origin)).origin;
    let pool = this.#pools.get(origin);
    if (pool) this.#pools.delete(origin);
    else pool = this.#pool(origin);
    // The map is in the order of use, so its first entry is the one to drop.
    if (!this.#closed) this.#pools.set(origin, pool);
    for (const oldest of this.#pools.keys()) {
      if (this.#pools.size <= SITES) break;
      this.retire(oldest);
    }
    return pool.dispatch(options, handler);
  }

  /** Lets the open connections to a site finish, and uses new ones from now on: they get the exit that the gateway now chooses. */
  retire(site: string | URL): void {
    const { origin } = new URL(String(site));
    const pool = this.#pools.get(origin);
    if (!pool) return;
    this.#pools.delete(origin);
    this.#retired.add(pool);
    void pool.close().catch(() => {}).finally(() => this.#retired.delete(pool));
  }

  override async close(): Promise<void>;
  override close(callback: () => void): void;
  override close(callback?: () => void): Promise<void> | void {
    return this.#end((pool) => pool.close(), callback);
  }

  override async destroy(error?: Error | null): Promise<void>;
  override destroy(callback: () => void): void;
  override destroy(error: Error | null, callback: () => void): void;
  override destroy(error?: Error | null | (() => void), callback?: () => void): Promise<void> | void {
    const [why, then] = typeof error === "function" ? [null, error] : [error ?? null, callback];
    return this.#end((pool) => pool.destroy(why), then);
  }

  #end(how: (pool: Pool) => Promise<void>, callback?: () => void): Promise<void> | void {
    this.#closed = true;
    const pools = [...this.#pools.values(), ...this.#retired];
    const ended = Promise.all(pools.map((pool) => (pool.destroyed ? undefined : how(pool)))).then(() => {});
    if (!callback) return ended;
    void ended.then(callback, callback);
  }

  #pool(origin: string): Pool {
    const timeout = this.#options.timeout ?? 60_000;
    const pool = new Pool(origin, {
      connections: this.#options.connections ?? 32,
      headersTimeout: timeout,
      bodyTimeout: timeout,
      factory: (to: URL, options: object) => new ExitClient(to, options as Client.Options, (from, done) => this.#connect(from, done)),
    });
    // undici shares a closed pool's error with everybody who still sends to it. A closed dispatcher must refuse too.
    if (this.#closed) void pool.close();
    return pool;
  }

  async #connect(to: buildConnector.Options, done: (error: Error | null, socket: unknown, exit?: ExitInfo) => void): Promise<void> {
    try {
      const port = Number(to.port) || (to.protocol === "https:" ? 443 : 80);
      const { socket, exit } = await this.#gateway.tunnel(to.hostname, port, this.#options.selector, this.#choice);
      if (to.protocol !== "https:") return done(null, socket, exit);
      this.#secure({ ...to, httpSocket: socket }, (...[error, secure]) => {
        if (error) socket.destroy();
        done(error, secure, exit);
      });
    } catch (error) {
      done(error as Error, null);
    }
  }
}

/** A connection to a site that knows its exit. */
class ExitClient extends Client {
  #exit: ExitInfo | undefined;

  constructor(origin: URL, options: Client.Options, connect: (to: buildConnector.Options, done: (error: Error | null, socket: unknown, exit?: ExitInfo) => void) => void) {
    super(origin, {
      ...options,
      connect: ((to: buildConnector.Options, done: (...result: unknown[]) => void) => {
        connect(to, (error, socket, exit) => {
          this.#exit = exit;
          done(error, socket);
        });
      }) as buildConnector.connector,
    });
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    return super.dispatch(options, new ExitHandler(handler, () => this.#exit) as unknown as Dispatcher.DispatchHandler);
  }
}

type Raw = (Buffer | string)[];

/** Passes everything on to another handler, and adds the fields of the exit to the head of the answer. */
class ExitHandler {
  constructor(to: Dispatcher.DispatchHandler, exit: () => ExitInfo | undefined) {
    const handler = to as unknown as Record<string, ((...values: unknown[]) => unknown) | undefined>;
    // undici decides by the names of the methods which of its two interfaces a handler has. Both are passed on as they are.
    for (const name of METHODS) {
      if (typeof handler[name] !== "function") continue;
      (this as Record<string, unknown>)[name] = (...values: unknown[]) => handler[name]?.(...values);
    }
    const added = () => (exit() ? exitFields(exit() as ExitInfo) : []);
    const { onHeaders, onResponseStart } = handler;
    if (onHeaders) {
      Object.assign(this, {
        onHeaders: (status: number, raw: Raw, ...rest: unknown[]) => {
          const more = status >= 200 && raw ? added().flatMap(([name, value]) => [Buffer.from(name), Buffer.from(value)]) : [];
          return handler["onHeaders"]?.(status, [...(raw ?? []), ...more], ...rest);
        },
      });
    }
    if (onResponseStart) {
      Object.assign(this, {
        onResponseStart: (controller: unknown, status: number, fields: Record<string, unknown>, ...rest: unknown[]) =>
          handler["onResponseStart"]?.(controller, status, status >= 200 ? { ...fields, ...Object.fromEntries(added()) } : fields, ...rest),
      });
    }
  }
}

const METHODS = [
  "onRequestStart", "onRequestUpgrade", "onResponseStart", "onResponseData", "onResponseEnd", "onResponseError",
  "onConnect", "onError", "onUpgrade", "onResponseStarted", "onHeaders", "onData", "onComplete", "onBodySent",
];

/** A dispatcher for undici's `request`, `fetch` and `setGlobalDispatcher`. */
export function dispatcher(gateway: Gateway, options: DispatcherOptions = {}): GatewayDispatcher {
  return new GatewayDispatcher(gateway, options);
}

/** The exit that an answer came through. */
export function exit(answer: { headers: { get(name: string): string | null } | Record<string, string | string[] | undefined> }): ExitInfo | undefined {
  const { headers } = answer;
  if (typeof headers.get === "function") return exitOf((name) => (headers.get as (name: string) => string | null)(name));
  return exitOf((name) => (headers as Record<string, string | undefined>)[name]);
}

export interface FetchOptions extends DispatcherOptions {
  /** How many exits one request may try. 3 by default. */
  tries?: number | undefined;
  /**
   * Whether the site refused the exit. By default the statuses 403 and 429. A function gets the answer and may read a `clone()` of it, for example
   * to find a captcha.
   */
  refused?: number[] | ((answer: Response) => boolean | Promise<boolean>) | undefined;
  /** The longest wait for the gateway between two tries, in milliseconds. 10000 by default. */
  waitMax?: number | undefined;
}

export type Fetch = ((input: RequestInfo, init?: RequestInit) => Promise<Response>) & {
  dispatcher: GatewayDispatcher;
  close(): Promise<void>;
};

/**
 * A `fetch` that goes through the gateway. When a site refuses an exit, it reports this to the gateway, and sends a GET again by another exit. It
 * repeats a request that the gateway could not carry out, and a GET whose connection broke. A POST that reached the site is not sent again.
 */
export function createFetch(gateway: Gateway, options: FetchOptions = {}): Fetch {
  const { tries = 3, refused = [403, 429], waitMax = 10_000 } = options;
  const { selector, session, strict, ttl } = options;
  const through = dispatcher(gateway, options);
  const isRefused = typeof refused === "function" ? refused : (answer: Response) => refused.includes(answer.status);

  const send = async (input: RequestInfo, init: RequestInit = {}): Promise<Response> => {
    const signal = init.signal ?? (typeof input === "object" && "signal" in input ? input.signal : undefined);
    const once = isStream(init.body) || (typeof input === "object" && "body" in input && input.body !== null);
    // A request that reached the site may be sent again only if it changes nothing there.
    const safe = /^(GET|HEAD|OPTIONS)$/i.test(init.method ?? (typeof input === "object" && "method" in input ? input.method : "GET"));
    const exits: string[] = [];
    for (let attempt = 1; ; attempt++) {
      const last = once || attempt >= tries;
      let answer: Response;
      try {
        answer = await undiciFetch(input, { ...init, dispatcher: through });
      } catch (error) {
        const failure = ofGateway(error);
        const again = failure ? failure.retry : safe && isBroken(error);
        if (last || !again || signal?.aborted) throw failure ?? error;
        if (!failure) through.retire(addressOf(input));
        await pause(Math.min((failure?.retryAfter ?? 0.25 * 2 ** (attempt - 1)) * 1000, waitMax), signal as AbortSignal);
        continue;
      }
      if (!(await isRefused(answer))) return answer;
      const used = exit(answer);
      exits.push(used?.ip ?? used?.id ?? "unknown");
      const at = answer.url || addressOf(input);
      await report(gateway, at, selector, { session, strict, ttl, exit: used?.id, outcome: `status ${answer.status}`, signal: signal as AbortSignal });
      // An open connection would go on through the refused exit.
      through.retire(at);
      if (last || !safe) {
        const site = hostOf(at);
        throw new SiteRefused({ reason: `${site} refused ${exits.length} ${exits.length === 1 ? "exit" : "exits"} with status ${answer.status}: ${exits.join(", ")}`, status: answer.status, response: answer, exits });
      }
      await answer.body?.cancel();
    }
  };
  return Object.assign(send, { dispatcher: through, close: () => through.close() });
}

async function report(gateway: Gateway, site: string, selector: string | undefined, options: SelectOptions & { exit: string | undefined; outcome: string }): Promise<void> {
  try {
    await gateway.report(site, selector, options);
  } catch (error) {
    // Without a session or an exit the gateway does not know which exit is meant. The next try may still get another exit.
    if (!(error instanceof ExitgateError) || error.status !== 400) throw error;
  }
}

/** The gateway's refusal behind undici's `fetch failed`. */
function ofGateway(error: unknown): ExitgateError | undefined {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (cause instanceof ExitgateError) return cause;
  return undefined;
}

/** Whether the connection broke after it was open. */
function isBroken(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) if (BROKEN.has(String((cause as NodeJS.ErrnoException).code))) return true;
  return false;
}

const BROKEN = new Set(["UND_ERR_SOCKET", "ECONNRESET", "EPIPE", "UND_ERR_HEADERS_TIMEOUT"]);

function addressOf(input: RequestInfo): string {
  return String(typeof input === "object" && "url" in input ? input.url : input);
}

function isStream(body: unknown): boolean {
  return typeof body === "object" && body !== null && (Symbol.asyncIterator in body || body instanceof ReadableStream);
}
