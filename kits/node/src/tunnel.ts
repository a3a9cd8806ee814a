// Opens tunnels through the gateway, by HTTP CONNECT or by SOCKS5. Common proxy agents hide the answer to CONNECT: which exit was used, and
// why the gateway refused. This file reads both.
import net from "node:net";
import tls from "node:tls";
import { BadRequest, ExitgateError, KeyRefused, Unreachable, proxyError, socksError } from "./errors.js";

/** The exit of a connection. */
export interface ExitInfo {
  id: string;
  /** The address that the site sees. */
  ip?: string | undefined;
  country?: string | undefined;
  /** Seconds since the last check of the exit. */
  checked?: number | undefined;
  /** The route that served the connection. */
  route?: string | undefined;
  /** Set if the session has moved to another exit: `OLD->NEW`. */
  moved?: string | undefined;
}

export interface Tunnel {
  socket: net.Socket;
  /** Unknown over SOCKS5, which has no field for it. */
  exit: ExitInfo | undefined;
}

/** The address of the gateway's proxy port. */
export interface ProxyAddress {
  protocol: "http:" | "https:" | "socks5:";
  host: string;
  port: number;
}

export interface TunnelOptions {
  proxy: ProxyAddress;
  username: string;
  key: string;
  host: string;
  port: number;
  /** Milliseconds until the tunnel must be open. */
  timeout: number;
  signal?: AbortSignal | undefined;
  /** TLS options for a gateway with TLS. */
  tls?: tls.ConnectionOptions | undefined;
}

/** The longest head of an answer to CONNECT, in bytes. The gateway's heads have less than 4 KiB. */
const HEAD_MAX = 64 * 1024;
const NO_PROXY = "Check that the proxy URL names the gateway's proxy port.";

/** The value of `Proxy-Authorization`. */
export function basic(username: string, key: string): string {
  return `Basic ${Buffer.from(`${username}:${key}`, "utf8").toString("base64")}`;
}

/** `host:port`, with brackets around an IPv6 address. */
export function authority(host: string, port: number): string {
  return `${host.includes(":") && !host.startsWith("[") ? `[${host}]` : host}:${port}`;
}

/** The exit in the `X-Exitgate-…` fields of an answer. The names of `fields` are in lower case. */
export function exitOf(fields: (name: string) => string | null | undefined): ExitInfo | undefined {
  const id = fields("x-exitgate-exit");
  if (!id) return undefined;
  const checked = fields("x-exitgate-exit-checked");
  return {
    id,
    ip: fields("x-exitgate-exit-ip") ?? undefined,
    country: fields("x-exitgate-exit-country") ?? undefined,
    checked: checked ? Number(checked) : undefined,
    route: fields("x-exitgate-route") ?? undefined,
    moved: fields("x-exitgate-moved") ?? undefined,
  };
}

/** The fields that name an exit, for an answer that does not have them. */
export function exitFields(exit: ExitInfo): [string, string][] {
  const fields: [string, string | undefined][] = [
    ["x-exitgate-exit", exit.id],
    ["x-exitgate-exit-ip", exit.ip],
    ["x-exitgate-exit-country", exit.country],
    ["x-exitgate-exit-checked", exit.checked?.toString()],
    ["x-exitgate-route", exit.route],
    ["x-exitgate-moved", exit.moved],
  ];
  return fields.filter((field): field is [string, string] => field[1] !== undefined);
}

/** Opens a connection to the gateway. */
export async function dial(proxy: ProxyAddress, options: tls.ConnectionOptions | undefined, signal: AbortSignal): Promise<net.Socket> {
  signal.throwIfAborted();
  const secure = proxy.protocol === "https:";
  const servername = net.isIP(proxy.host) ? {} : { servername: proxy.host };
  const socket = secure
    ? tls.connect({ host: proxy.host, port: proxy.port, ...servername, ...options, ALPNProtocols: ["http/1.1"] })
    : net.connect({ host: proxy.host, port: proxy.port });
  const abort = () => socket.destroy(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  socket.setNoDelay(true);
  try {
    await once(socket, secure ? "secureConnect" : "connect");
    return socket;
  } catch (cause) {
    throw unreachable(proxy, cause, signal);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

function unreachable(proxy: ProxyAddress, cause: unknown, signal: AbortSignal): Error {
  if (cause instanceof ExitgateError) return cause;
  // The caller's own abort keeps its reason.
  if (signal.aborted && !(signal.reason instanceof DOMException && signal.reason.name === "TimeoutError")) return signal.reason;
  const what = signal.aborted ? "did not answer in time" : `cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}`;
  return new Unreachable({ reason: `the gateway at ${authority(proxy.host, proxy.port)} ${what}`, cause });
}

/** Opens a tunnel to a target. The socket of the result carries the target's bytes. */
export async function open(options: TunnelOptions): Promise<Tunnel> {
  const timeout = AbortSignal.timeout(options.timeout);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  const socket = await dial(options.proxy, options.tls, signal);
  const abort = () => socket.destroy(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  // A socket without a listener would end the process when it fails between two reads.
  socket.on("error", ignore);
  try {
    const exit = options.proxy.protocol === "socks5:" ? await socks5(socket, options) : await connect(socket, options);
    socket.off("error", ignore);
    return { socket, exit };
  } catch (cause) {
    socket.destroy();
    throw unreachable(options.proxy, cause, signal);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

const ignore = () => {};

/** Reads from a socket until `enough` finds a complete message, and returns that many bytes. The rest stays in the socket. */
async function take(socket: net.Socket, enough: (bytes: Buffer) => number | undefined): Promise<Buffer> {
  let bytes: Buffer = Buffer.alloc(0);
  for (;;) {
    const more = socket.read() as Buffer | null;
    if (more) {
      bytes = bytes.length ? Buffer.concat([bytes, more]) : more;
      const length = enough(bytes);
      if (length !== undefined) {
        if (length < bytes.length) socket.unshift(bytes.subarray(length));
        return bytes.subarray(0, length);
      }
      if (bytes.length > HEAD_MAX) throw new Error("the answer's head is too long");
      continue;
    }
    if (socket.destroyed || socket.readableEnded) throw socket.errored ?? new Error("the connection was closed");
    await once(socket, "readable");
  }
}

/** Waits until the socket emits `event`. Fails if the socket ends first. */
function once(socket: net.Socket, event: "connect" | "secureConnect" | "readable"): Promise<void> {
  return new Promise((resolve, reject) => {
    const ended = (why?: unknown) => settle(() => reject(why instanceof Error ? why : socket.errored ?? new Error("the connection was closed")));
    const happened = () => settle(resolve);
    const settle = (then: () => void) => {
      socket.off(event, happened);
      for (const name of ["error", "close", "end"]) socket.off(name, ended);
      then();
    };
    socket.on(event, happened);
    for (const name of ["error", "close", "end"]) socket.on(name, ended);
  });
}

async function connect(socket: net.Socket, { username, key, host, port }: TunnelOptions): Promise<ExitInfo | undefined> {
  const target = authority(host, port);
  const authorization = username || key ? `Proxy-Authorization: ${basic(username, key)}\r\n` : "";
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${authorization}\r\n`);
  const head = await take(socket, (bytes) => {
    const end = bytes.indexOf("\r\n\r\n");
    return end < 0 ? undefined : end + 4;
  });
  const { status, reason, field } = parse(head);
  if (status >= 200 && status < 300) return exitOf(field);
  throw proxyError({ status, field, otherwise: reason });
}

function parse(head: Buffer): { status: number; reason: string; field: (name: string) => string | undefined } {
  const [line = "", ...rest] = head.toString("latin1").split("\r\n");
  const found = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(line);
  if (!found) {
    throw new BadRequest({ reason: "the answer is not HTTP", advice: NO_PROXY });
  }
  const fields = new Map<string, string>();
  for (const text of rest) {
    const colon = text.indexOf(":");
    if (colon > 0) fields.set(text.slice(0, colon).toLowerCase(), text.slice(colon + 1).trim());
  }
  return { status: Number(found[1]), reason: found[2] ?? "", field: (name) => fields.get(name) };
}

async function socks5(socket: net.Socket, { username, key, host, port }: TunnelOptions): Promise<undefined> {
  const login = username !== "" || key !== "";
  socket.write(Buffer.from(login ? [5, 1, 2] : [5, 1, 0]));
  const [version, method] = await take(socket, (bytes) => (bytes.length >= 2 ? 2 : undefined));
  if (version !== 5) {
    throw new BadRequest({ reason: "the answer is not SOCKS5", advice: NO_PROXY });
  }
  const refused = () => new KeyRefused({ reason: "the gateway refused the username or the key", advice: "Check the selector and EXITGATE_KEY; an http:// proxy URL shows the reason." });
  if (method === 0xff) throw refused();
  if (method === 2) {
    const name = Buffer.from(username, "utf8");
    const password = Buffer.from(key, "utf8");
    socket.write(Buffer.concat([Buffer.from([1, name.length]), name, Buffer.from([password.length]), password]));
    const answer = await take(socket, (bytes) => (bytes.length >= 2 ? 2 : undefined));
    if (answer[1] !== 0) throw refused();
  }
  // The gateway resolves names: the type is always `domain name`, which it also reads as an address.
  const name = Buffer.from(host.replace(/^\[|\]$/g, ""), "utf8");
  if (name.length > 255) throw new BadRequest({ reason: "the host name is too long", advice: "Check the URL." });
  socket.write(Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])]));
  const reply = await take(socket, (bytes) => {
    if (bytes.length < 5) return undefined;
    const address = bytes[3] === 1 ? 4 : bytes[3] === 4 ? 16 : 1 + (bytes[4] ?? 0);
    return bytes.length >= 6 + address ? 6 + address : undefined;
  });
  if (reply[1] !== 0) throw socksError(reply[1] ?? 1);
  return undefined;
}
