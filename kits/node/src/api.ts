// The client of the gateway's API. It uses the `fetch` of Node and no other package.
import type { BanShown, Batch, Closed, Countries, Exit, Exits, Explanation, Last, NewProxy, PoolOf, Proxies, Proxy, Readiness, Refuses, Report, Rotated } from "./answers.js";
import { ApiError, ExitgateError, NotFound, TokenRefused, Unreachable, seconds } from "./errors.js";
import { pause } from "./pause.js";

/** Options of each call. */
export interface CallOptions {
  signal?: AbortSignal | undefined;
}

export interface ExitFilter {
  source?: string | undefined;
  country?: string | undefined;
  usable?: boolean | undefined;
}

type Query = Record<string, string | number | boolean | undefined>;

/** The paths of the API that this kit calls. `test/openapi.test.js` compares them with `/openapi.json`. */
export const PATHS = [
  ["get", "/ready", []],
  ["get", "/explain", ["username", "port", "host", "key"]],
  ["get", "/exits", ["source", "country", "usable", "limit", "after"]],
  ["get", "/exits/{id}", []],
  ["get", "/countries", []],
  ["get", "/proxies", ["limit", "after"]],
  ["post", "/proxies", []],
  ["get", "/proxies/{route}", []],
  ["patch", "/proxies/{route}", []],
  ["delete", "/proxies/{route}", ["force"]],
  ["get", "/proxies/{route}/exits", []],
  ["get", "/proxies/{route}/last", ["session", "key"]],
  ["post", "/proxies/{route}/rotate", ["session", "key"]],
  ["post", "/proxies/{route}/report", []],
] as const;

type Path = (typeof PATHS)[number][1];
type Method = Uppercase<(typeof PATHS)[number][0]>;

/** How many times a reading request is sent if the gateway is busy or the connection breaks. */
const TRIES = 3;
/** The longest wait between two tries, in milliseconds. */
const WAIT_MAX = 10_000;

export class Api {
  readonly url: string;
  readonly routes: Routes;
  readonly #token: string;
  readonly #timeout: number;

  constructor(url: string, token: string, timeout: number) {
    this.url = url.replace(/\/+$/, "");
    this.#token = token;
    this.#timeout = timeout;
    this.routes = new Routes(this);
  }

  /** Whether traffic can leave now, and what each source waits for. */
  ready(options?: CallOptions): Promise<Readiness> {
    return this.call("GET", "/ready", {}, { ...options, accept: [503] });
  }

  /** Which exits a username can use, and why the others are excluded. */
  explain(username: string, query: { port?: number | undefined; host?: string | undefined; key?: string | undefined } = {}, options?: CallOptions): Promise<Explanation> {
    return this.call("GET", "/explain", { query: { username, ...query } }, options);
  }

  /** All known exits that pass the filter, page by page. */
  async *eachExit(filter: ExitFilter = {}, options?: CallOptions): AsyncGenerator<Exit, void, undefined> {
    let after: string | undefined;
    do {
      const page: Exits = await this.call("GET", "/exits", { query: { ...filter, limit: 500, after } }, options);
      yield* page.exits;
      after = page.next ?? undefined;
    } while (after !== undefined);
  }

  /** One exit by id or address, with the sites that refuse it. */
  exit(id: string, options?: CallOptions): Promise<Exit & { bans: Refuses[] }> {
    return this.call("GET", "/exits/{id}", { name: id }, options);
  }

  countries(options?: CallOptions): Promise<Countries> {
    return this.call("GET", "/countries", {}, options);
  }

  /** Sends one request. @internal */
  async call<T>(method: Method, path: Path, request: { name?: string; query?: Query; body?: unknown }, options: CallOptions & { accept?: number[] } = {}): Promise<T> {
    const url = new URL(this.url + path.replace(/\{\w+\}/, () => encodeURIComponent(request.name ?? "")));
    for (const [name, value] of Object.entries(request.query ?? {})) if (value !== undefined) url.searchParams.set(name, String(value));
    for (let left = method === "GET" ? TRIES : 1; ; left--) {
      try {
        return await this.#once<T>(method, url, request.body, options);
      } catch (error) {
        if (left <= 1 || !(error instanceof ExitgateError) || !error.retry) throw error;
        await pause(Math.min((error.retryAfter ?? 0.2) * 1000, WAIT_MAX), options.signal);
      }
    }
  }

  async #once<T>(method: Method, url: URL, body: unknown, { signal, accept = [] }: CallOptions & { accept?: number[] }): Promise<T> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (this.#token) headers["authorization"] = `Bearer ${this.#token}`;
    if (method !== "GET" && method !== "DELETE") headers["content-type"] = "application/json";
    const timeout = AbortSignal.timeout(this.#timeout);
    let answer: Response;
    let text: string;
    try {
      answer = await fetch(url, {
        method,
        headers,
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        redirect: "error",
      });
      text = await answer.text();
    } catch (cause) {
      if (signal?.aborted) throw signal.reason;
      const why = cause instanceof Error && cause.cause instanceof Error ? cause.cause.message : String(cause);
      throw new Unreachable({ reason: timeout.aborted ? `the API at ${this.url} did not answer in ${this.#timeout} ms` : `the API at ${this.url} cannot be reached: ${why}`, cause });
    }
    const json = parse(text);
    if (answer.ok || accept.includes(answer.status)) {
      if (json !== undefined) return json as T;
      throw new ApiError({ reason: `the answer of ${url.origin} is not JSON`, advice: "Check that EXITGATE_API is the URL of the API.", status: answer.status });
    }
    throw apiError(answer, json, text);
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function apiError(answer: Response, json: unknown, text: string): ApiError {
  const error = (json as { error?: { code?: string; message?: string; details?: Record<string, unknown>; request_id?: string } } | undefined)?.error ?? {};
  const { status } = answer;
  const kind = status === 401 ? TokenRefused : status === 404 ? NotFound : ApiError;
  return new kind({
    reason: error.message ?? (text.trim() || `the API answered ${status}`),
    code: error.code,
    status,
    retry: status === 429 || status === 503,
    retryAfter: seconds(answer.headers.get("retry-after")),
    requestId: error.request_id ?? answer.headers.get("x-request-id") ?? undefined,
    details: error.details,
  });
}

/** The routes of the gateway. The API calls them proxies. A name is a route's name, its port, or a username. */
export class Routes {
  readonly #api: Api;

  constructor(api: Api) {
    this.#api = api;
  }

  /** All routes. */
  async list(options?: CallOptions): Promise<Proxy[]> {
    const routes: Proxy[] = [];
    let after: string | undefined;
    do {
      const page: Proxies = await this.#api.call("GET", "/proxies", { query: { limit: 500, after } }, options);
      routes.push(...page.proxies);
      after = page.next ?? undefined;
    } while (after !== undefined);
    return routes;
  }

  get(name: string | number, options?: CallOptions): Promise<Proxy> {
    return this.#api.call("GET", "/proxies/{route}", { name: String(name) }, options);
  }

  /** Creates a route with a port of its own. The same name and fields again change nothing. */
  create(route: NewProxy & { count?: null | undefined }, options?: CallOptions): Promise<Proxy>;
  /** Creates `count` routes, each with addresses of its own. */
  create(route: NewProxy & { count: number }, options?: CallOptions): Promise<Batch>;
  create(route: NewProxy, options?: CallOptions): Promise<Proxy | Batch> {
    return this.#api.call("POST", "/proxies", { body: route }, options);
  }

  /** Changes fields of a route. `null` removes a field. Open connections stay as they are. */
  change(name: string | number, fields: NewProxy, options?: CallOptions): Promise<Proxy> {
    return this.#api.call("PATCH", "/proxies/{route}", { name: String(name), body: fields }, options);
  }

  /** Closes a route. Open connections may finish, unless `force`. */
  delete(name: string | number, { force, ...options }: CallOptions & { force?: boolean } = {}): Promise<Closed> {
    return this.#api.call("DELETE", "/proxies/{route}", { name: String(name), query: { force } }, options);
  }

  exits(name: string | number, options?: CallOptions): Promise<PoolOf> {
    return this.#api.call("GET", "/proxies/{route}/exits", { name: String(name) }, options);
  }

  /** Which exit served last. */
  last(name: string | number, query: { session?: string; key?: string } = {}, options?: CallOptions): Promise<Last> {
    return this.#api.call("GET", "/proxies/{route}/last", { name: String(name), query }, options);
  }

  /** Moves the route to another exit with another address. */
  rotate(name: string | number, query: { session?: string; key?: string } = {}, options?: CallOptions): Promise<Rotated> {
    return this.#api.call("POST", "/proxies/{route}/rotate", { name: String(name), query, body: {} }, options);
  }

  /** Reports that a site refuses an exit. */
  report(name: string | number, report: Report, options?: CallOptions): Promise<BanShown> {
    return this.#api.call("POST", "/proxies/{route}/report", { name: String(name), body: report }, options);
  }
}
