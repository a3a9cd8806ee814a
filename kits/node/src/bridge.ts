// A small HTTP proxy on a loopback port that forwards to the gateway and adds the username and the key.
//
// Browsers send a proxy username only after an answer with status 407. A gateway without keys sends no 407, so it would use the selector `any`.
// Over SOCKS, Chromium sends no username at all. A bridge sends the username with every request. It also remembers the exit of each site and the
// last refusal of the gateway, which a browser shows only as ERR_TUNNEL_CONNECTION_FAILED.
import http from "node:http";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream";
import { ExitgateError, proxyError } from "./errors.js";
import { type ExitInfo, type TunnelOptions, basic, dial, exitOf, open } from "./tunnel.js";

/** How many hosts a bridge remembers. */
const HOSTS = 1000;
const HOP_BY_HOP = new Set(["connection", "proxy-connection", "proxy-authorization", "keep-alive", "te", "trailer", "upgrade"]);

export type BridgeTarget = Pick<TunnelOptions, "proxy" | "username" | "key" | "timeout" | "tls">;

export class Bridge {
  /** The URL of the bridge, without username: `http://127.0.0.1:PORT`. Every program on this machine can use it until `close`. */
  readonly url: string;
  readonly #target: BridgeTarget;
  readonly #server: http.Server;
  readonly #closed: () => void;
  readonly #exits = new Map<string, ExitInfo>();
  readonly #failures = new Map<string, ExitgateError>();
  readonly #sockets = new Set<Duplex>();
  readonly #agent: http.Agent;

  private constructor(server: http.Server, target: BridgeTarget, closed: () => void) {
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    this.#server = server;
    this.#target = target;
    this.#closed = closed;
    this.#agent = new GatewayAgent(target);
  }

  /** @internal */
  static async start(target: BridgeTarget, closed: () => void): Promise<Bridge> {
    const server = http.createServer();
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(0, "127.0.0.1", () => resolve());
    });
    // A forgotten bridge must not keep the process alive.
    server.unref();
    const bridge = new Bridge(server, target, closed);
    server.on("connect", (request: http.IncomingMessage, socket: Duplex, head: Buffer) => void bridge.#connect(request, socket, head));
    server.on("request", (request: http.IncomingMessage, answer: http.ServerResponse) => bridge.#forward(request, answer));
    server.on("upgrade", (_request: http.IncomingMessage, socket: Duplex) => socket.end("HTTP/1.1 501 Not Implemented\r\nConnection: close\r\n\r\n"));
    return bridge;
  }

  /** The exit of the last connection to a host or URL. */
  exit(site: string): ExitInfo | undefined {
    return this.#exits.get(host(site));
  }

  /** Why the gateway refused the last connection to a host or URL; undefined if the last connection was opened. */
  failure(site: string): ExitgateError | undefined {
    return this.#failures.get(host(site));
  }

  /** Ends the bridge and its connections. */
  async close(): Promise<void> {
    this.#closed();
    this.#agent.destroy();
    for (const socket of this.#sockets) socket.destroy();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  #remember(site: string, exit: ExitInfo | undefined, failure?: ExitgateError): void {
    const name = host(site);
    for (const [map, value] of [[this.#exits, exit], [this.#failures, failure]] as [Map<string, unknown>, unknown][]) {
      map.delete(name);
      if (value !== undefined) map.set(name, value);
      for (const oldest of map.keys()) {
        if (map.size <= HOSTS) break;
        map.delete(oldest);
      }
    }
  }

  async #connect(request: http.IncomingMessage, client: Duplex, head: Buffer): Promise<void> {
    const target = /^(.+):(\d+)$/.exec(request.url ?? "");
    client.on("error", () => client.destroy());
    this.#track(client);
    if (!target?.[1]) return void client.end("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    const gone = new AbortController();
    const leave = () => gone.abort(new Error("the browser closed the connection"));
    client.once("close", leave);
    try {
      const tunnel = await open({ ...this.#target, host: target[1], port: Number(target[2]), signal: gone.signal });
      this.#remember(target[1], tunnel.exit);
      this.#track(tunnel.socket);
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      if (head.length) tunnel.socket.write(head);
      pipeline(client, tunnel.socket, () => {});
      pipeline(tunnel.socket, client, () => {});
    } catch (error) {
      if (client.destroyed) return;
      const failure = error instanceof ExitgateError ? error : undefined;
      this.#remember(target[1], undefined, failure);
      const status = failure?.status || 502;
      // 407 would make the browser ask its user for a password, which would not help.
      client.end(`HTTP/1.1 ${status === 407 ? 502 : status} ${ascii(failure?.reason ?? "Bad Gateway")}\r\nConnection: close\r\n\r\n`);
    } finally {
      client.off("close", leave);
    }
  }

  #track(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #forward(request: http.IncomingMessage, answer: http.ServerResponse): void {
    if (!/^http:\/\//i.test(request.url ?? "")) return void answer.writeHead(400).end("this is a proxy\n");
    const url = request.url as string;
    const headers = fields(request.rawHeaders);
    headers.push("Proxy-Authorization", basic(this.#target.username, this.#target.key));
    const outgoing = http.request({ agent: this.#agent, method: request.method ?? "GET", path: url, headers, timeout: this.#target.timeout });
    outgoing.on("timeout", () => outgoing.destroy(new Error("time limit reached")));
    outgoing.on("response", (incoming) => {
      const field = (name: string) => incoming.headers[name] as string | undefined;
      const refused = field("x-exitgate-error") !== undefined;
      const status = incoming.statusCode ?? 502;
      const failure = refused ? proxyError({ status, field }) : undefined;
      this.#remember(url, exitOf(field), failure);
      answer.writeHead(status === 407 ? 502 : status, ascii(incoming.statusMessage ?? ""), fields(incoming.rawHeaders, status === 407 ? "proxy-authenticate" : ""));
      pipeline(incoming, answer, () => {});
    });
    outgoing.on("error", (error) => {
      if (answer.headersSent) answer.destroy(error);
      else answer.writeHead(502).end(`${error.message}\n`);
    });
    answer.on("close", () => { if (!answer.writableFinished) outgoing.destroy(); });
    pipeline(request, outgoing, () => {});
  }
}

/** Connections to the gateway, kept open between requests. */
class GatewayAgent extends http.Agent {
  readonly #target: BridgeTarget;

  constructor(target: BridgeTarget) {
    super({ keepAlive: true });
    this.#target = target;
  }

  override createConnection(_options: unknown, callback?: (error: Error | null, socket: Duplex) => void): undefined {
    dial(this.#target.proxy, this.#target.tls, AbortSignal.timeout(this.#target.timeout)).then(
      (socket: Socket) => callback?.(null, socket),
      (error: Error) => callback?.(error, undefined as unknown as Duplex),
    );
    return undefined;
  }

  override getName(): string {
    return "gateway";
  }
}

/** The raw header fields without those of one connection. */
function fields(raw: string[], without = ""): string[] {
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = raw[at] as string;
    if (!HOP_BY_HOP.has(name.toLowerCase()) && name.toLowerCase() !== without) kept.push(name, raw[at + 1] as string);
  }
  return kept;
}

function host(site: string): string {
  const name = site.includes("://") ? new URL(site).hostname : site;
  return name.replace(/^\[|\]$/g, "").toLowerCase();
}

/** Text for a status line. */
function ascii(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, "?").slice(0, 200);
}
