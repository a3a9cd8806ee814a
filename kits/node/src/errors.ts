// The errors of this kit. The classes and the codes are those of the Python kit.

/** What an error is made of. */
export interface Failure {
  /** What happened. */
  reason: string;
  /** Replaces the code of the class. */
  code?: string | undefined;
  /** Replaces the advice of the class. */
  advice?: string | undefined;
  /** Replaces the `retry` of the class. */
  retry?: boolean | undefined;
  /** The HTTP status, if there was one. */
  status?: number | undefined;
  /** Seconds to wait before the next try, as the gateway said. */
  retryAfter?: number | undefined;
  /** The id of the connection or the request in the gateway's log. */
  requestId?: string | undefined;
  /** For programs, for example `field` or `funnel`. */
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
}

interface Defaults {
  code: string;
  advice: string;
  retry?: boolean;
}

/** The base of all errors of this kit. */
export class ExitgateError extends Error {
  protected static defaults: Defaults = { code: "exitgate", advice: "Read the message." };
  /** For programs. A code never changes its meaning. */
  readonly code: string;
  /** What happened: `message` without code and advice. */
  readonly reason: string;
  /** What the reader can do. */
  readonly advice: string;
  /** True if the same request can succeed later or through another exit. */
  readonly retry: boolean;
  readonly status: number | undefined;
  readonly retryAfter: number | undefined;
  readonly requestId: string | undefined;
  readonly details: Record<string, unknown>;

  constructor(failure: Failure) {
    const { defaults } = new.target as unknown as { defaults: Defaults };
    const code = failure.code ?? defaults.code;
    const advice = failure.advice ?? defaults.advice;
    super(`${failure.reason} [${code}] ${advice}`, failure.cause === undefined ? undefined : { cause: failure.cause });
    this.name = new.target.name;
    this.reason = failure.reason;
    this.code = code;
    this.advice = advice;
    this.retry = failure.retry ?? defaults.retry ?? false;
    this.status = failure.status;
    this.retryAfter = failure.retryAfter;
    this.requestId = failure.requestId;
    this.details = failure.details ?? {};
  }
}

/** The kit cannot write a username or read a URL from these arguments. No request was sent. */
export class BadSelector extends ExitgateError {
  protected static override defaults: Defaults = { code: "bad_selector", advice: "Correct the selector or the session." };
}

/** Nothing answers at the gateway's address, or the connection broke. */
export class Unreachable extends ExitgateError {
  protected static override defaults: Defaults = { code: "unreachable", advice: "Start the gateway, or correct EXITGATE_PROXY and EXITGATE_API.", retry: true };
}

/** The gateway did not become ready in time. */
export class NotReady extends ExitgateError {
  protected static override defaults: Defaults = { code: "not_ready", advice: "Read the reasons in the message; the gateway's log says more.", retry: true };
}

/** The gateway itself refused a request. The site did not see the request. */
export class GatewayError extends ExitgateError {
  protected static override defaults: Defaults = { code: "gateway", advice: "Read the message." };
}

/** 400: the username is no selector, or the request is malformed. */
export class BadRequest extends GatewayError {
  protected static override defaults: Defaults = { code: "bad_request", advice: "Correct the username; `why` explains it." };
}

/** 407: the key is missing or wrong. */
export class KeyRefused extends GatewayError {
  protected static override defaults: Defaults = { code: "key_refused", advice: "Set EXITGATE_KEY to a key of this gateway." };
}

/** 403: the gateway's configuration forbids the target, the port, the source or this client. */
export class Denied extends GatewayError {
  protected static override defaults: Defaults = { code: "denied", advice: "Change the gateway's configuration, or do not ask for this." };
}

/** 429: the client has reached one of the gateway's limits. */
export class LimitReached extends GatewayError {
  protected static override defaults: Defaults = { code: "limit_reached", advice: "Wait for `retryAfter` seconds, or open fewer connections.", retry: true };
}

/** 503: no exit can serve the request now. */
export class NoExit extends GatewayError {
  protected static override defaults: Defaults = { code: "no_exit", advice: "`why` shows how many exits are left after each condition.", retry: true };
}

/** 502: the exit or the target failed. */
export class ExitFailed extends GatewayError {
  protected static override defaults: Defaults = { code: "exit_failed", advice: "Try another exit: a new session, or `rotate`.", retry: true };
}

/** 502, and the gateway says that the target failed. Another exit would not help. */
export class TargetFailed extends ExitFailed {
  protected static override defaults: Defaults = { code: "target_failed", advice: "Check the URL." };
}

/** 504: the exit or the target did not answer in time. */
export class TimedOut extends GatewayError {
  protected static override defaults: Defaults = { code: "timed_out", advice: "Try another exit: a new session, or `rotate`.", retry: true };
}

/** The API refused a request. `code` is the API's own code, such as `bad_field`. */
export class ApiError extends ExitgateError {
  protected static override defaults: Defaults = { code: "api", advice: "Read the message; `details` names the wrong field." };
}

/** 401: the API's token is missing or wrong. */
export class TokenRefused extends ApiError {
  protected static override defaults: Defaults = { code: "unauthorized", advice: "Set EXITGATE_TOKEN to the token of the gateway's API." };
}

/** 404: there is no route or exit of this name. */
export class NotFound extends ApiError {
  protected static override defaults: Defaults = { code: "not_found", advice: "List the names, for example with `gateway.routes.list()`." };
}

/** The site refused every exit that was tried. */
export class SiteRefused extends ExitgateError {
  protected static override defaults: Defaults = { code: "site_refused", advice: "Ask for other countries, slow down, or change how the requests look." };
  /** The last answer, if the client has one. */
  readonly response: unknown;
  /** The addresses of the exits that were tried and reported, in this order. */
  readonly exits: readonly string[];

  constructor(failure: Failure & { response?: unknown; exits: readonly string[] }) {
    super(failure);
    // Not enumerable, so that a logged error does not print the whole answer.
    Object.defineProperty(this, "response", { value: failure.response, enumerable: false });
    this.exits = failure.exits;
  }
}

/** What the gateway says in a refusal. */
export interface Refusal {
  status: number;
  /** A field of the answer, by its name in lower case. */
  field: (name: string) => string | null | undefined;
  /** What to show if the answer has no `X-Exitgate-Error`. */
  otherwise?: string | undefined;
}

/** Makes the error for a refusal of the gateway at its proxy port. */
export function proxyError({ status, field, otherwise }: Refusal): GatewayError {
  const reason = field("x-exitgate-error") ?? (otherwise?.trim() || `the gateway answered ${status}`);
  const failure: Failure = { reason, status, retryAfter: seconds(field("retry-after")), requestId: field("x-exitgate-id") ?? undefined };
  switch (status) {
    case 403: return new Denied(failure);
    case 407: return new KeyRefused(failure);
    case 429: return new LimitReached(failure);
    case 502: return /^the (target|name|onion service)\b/.test(reason) ? new TargetFailed(failure) : new ExitFailed(failure);
    case 503: return new NoExit(failure);
    case 408:
    case 504: return new TimedOut(failure);
    case 400:
    case 405:
    case 417:
    case 431:
    case 505: return new BadRequest(failure);
    default: return new GatewayError(failure);
  }
}

/** Makes the error for a SOCKS5 reply code (RFC 1928). SOCKS has no text for the reason. */
export function socksError(reply: number): GatewayError {
  const failure = (reason: string): Failure => ({ reason: `${reason} (SOCKS reply ${reply}; an http:// proxy URL shows more)` });
  switch (reply) {
    case 2: return new Denied(failure("the gateway does not allow the request, or a limit is reached"));
    case 3: return new NoExit(failure("there is no exit to use now"));
    case 4: return new TargetFailed(failure("the target's name does not exist, or the target cannot be reached"));
    case 5: return new TargetFailed(failure("the target refused"));
    case 6: return new TimedOut(failure("the exit or the target does not answer"));
    case 7:
    case 8: return new BadRequest(failure("the gateway does not support this request"));
    default: return new ExitFailed(failure("the request failed"));
  }
}

/** The value of `Retry-After` in seconds. The gateway never sends a date. */
export function seconds(field: string | null | undefined): number | undefined {
  const number = field ? Number(field) : NaN;
  return Number.isFinite(number) ? Math.max(0, number) : undefined;
}
