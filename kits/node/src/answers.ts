// What the gateway's API answers and takes. `test/openapi.test.js` compares every interface with `/openapi.json`: the names of the fields, their
// types, and which of them may be missing.

/** An exit, with what its source and its checks say of it. */
export interface Exit {
  id: string;
  source: string;
  nickname?: string;
  /** The address that sites see. */
  ip?: string | null;
  announced: string[];
  country?: string | null;
  asn?: number | null;
  as_name?: string | null;
  usable: boolean;
  verdict: string;
  /** Why the last check failed. */
  why?: string | null;
  /** Why the exit is not usable although its checks may pass. */
  marks?: string[];
  /** The time of the last check (ISO 8601). */
  checked?: string | null;
  /** The time of the last good check (ISO 8601). */
  good?: string | null;
  latency_ms?: number | null;
  passed: string[];
  streams: number;
  /** A username that uses this exit alone. */
  username?: string | null;
}

/** A site that refuses an exit, and until when the exit is not used for it. */
export interface Refuses {
  site: string;
  until: string;
}

export interface Exits {
  total: number;
  exits: Exit[];
  next?: string | null;
}

/** A route: a selector with a name and, usually, a port of its own. */
export interface Proxy {
  name: string;
  port?: number | null;
  selector: string;
  /** `flexible`, `strict` or `rotate`. */
  mode: string;
  pool: PoolShown;
  summary: string;
  check?: string | null;
  exit?: Pinned | null;
  /** `key` or `open`. */
  auth: string;
  /** `api`, or `config`: the API cannot change it. */
  origin: string;
  created: string;
  expires?: string | null;
  used?: string | null;
  state: string;
  policy: PolicyShown;
  live: Live;
  examples?: Examples | null;
  urls?: Urls | null;
  /** While `state` is `warming`: why no exit can serve the route yet. */
  missing?: string | null;
  /** The number of rules by destination. */
  rule_count: number;
  /** The rules by destination; null in lists of several routes. */
  rules?: Rule[] | null;
}

export interface PoolShown {
  wanted: number;
  have: number;
  unique_ips: number;
  latency_ms?: number | null;
}

export interface Pinned {
  id: string;
  ip: string;
}

export interface PolicyShown {
  exclusive: boolean;
  hops: number;
  ipv6: boolean;
  engine: string;
  rotate_every?: number | null;
  repin_after: string | number;
  allow: string[];
  /** Which streams of a client may share circuits: those of the same `key`, `session` or `target`. */
  isolation: string;
  /** The sources of exits, the preferred one first. */
  source: string[];
  fallback: boolean;
  /** How long requests to a site begin with a later source after the site refused an earlier one: seconds, or "never". */
  escalate_for: string | number;
}

export interface Live {
  connections: number;
  exits: number;
  requests: number;
  errors: number;
  bytes_up: number;
  bytes_down: number;
  rate_up: number;
  rate_down: number;
  /** The requests and bytes of each source that the route has used. */
  by_source: Record<string, Carried>;
}

/** What the exits of a source have carried. */
export interface Carried {
  requests: number;
  bytes_up: number;
  bytes_down: number;
}

export interface Examples {
  url: string;
  curl: string;
  python: string;
  playwright: string;
}

export interface Urls {
  socks5: string;
  http: string;
}

export interface Proxies {
  total: number;
  proxies: Proxy[];
  next?: string | null;
}

/** A route to create, or the fields of a route to change. */
export interface NewProxy {
  /** Which exits the route may use, written as in a username. */
  selector?: string | null;
  geo_category?: "US" | "NON_US" | "ANY" | null;
  mode?: "flexible" | "strict" | "rotate" | null;
  name?: string | null;
  port?: number | null;
  pool?: number | null;
  check?: string | null;
  allow?: string[] | null;
  auth?: "key" | "open" | null;
  engine?: "shared" | "own" | null;
  exclusive?: boolean | null;
  hops?: number | null;
  ipv6?: boolean | null;
  repin_after?: string | number | null;
  rotate_every?: string | number | null;
  ttl?: string | number | null;
  count?: number | null;
  /** Which streams of a client may share circuits. */
  isolation?: "key" | "session" | "target" | null;
  /** Sources of exits, the preferred one first. */
  source?: string[] | null;
  /** Use a later source only while the earlier ones have no exit. */
  fallback?: boolean | null;
  /** How long requests to a site begin with a later source after the site refused an earlier one. */
  escalate_for?: string | number | null;
  /** Rules by destination; the first one that matches a target counts. */
  rules?: Rule[] | null;
}

/** Which targets a rule matches, and one of `use`, `route`, `refuse` and `direct`. */
export interface Rule {
  host?: string[] | null;
  /** Ports such as 443, and ranges such as "8000-8099". */
  port?: (number | string)[] | null;
  use?: string | null;
  route?: string | null;
  refuse?: boolean | null;
  direct?: boolean | null;
}

/** Several routes that were created by one request. */
export interface Batch {
  total: number;
  wanted: number;
  have: number;
  proxies: Proxy[];
}

export interface Closed {
  name: string;
  state: string;
}

export interface PoolOf {
  route: string;
  exits: Exit[];
}

export interface Last {
  by: string;
  id: string;
  ip?: string | null;
  exit?: Exit | null;
}

export interface Rotated {
  /** The address before, or null. */
  before?: string | null;
  after?: string | null;
  before_exit?: string | null;
  exit: Exit;
}

export interface Report {
  site: string;
  exit?: string | null;
  key?: string | null;
  outcome?: string | null;
  session?: string | null;
}

export interface BanShown {
  site: string;
  exit: string;
  until: string;
}

/** Which exits a username can use, and why the others are excluded. */
export interface Explanation {
  username: string;
  selector: string;
  route: string;
  /** How many exits are left after each condition. */
  funnel: StepShown[];
  text: string;
  /** Why a request would be refused now; null if it would be served. */
  refused?: string | null;
  pool: Exit[];
  session?: string | null;
  pin?: PinShown | null;
  /** The rules that match the host and port, in the order in which they lead to each other. */
  rules: MatchedRule[];
  /** The later source with which requests to the host begin now; null if they begin with the first one. */
  escalation?: Escalation | null;
}

export interface Escalation {
  source: string;
  /** `banned` or `failed`: what happened at the earlier source. */
  because: string;
  /** When requests begin with the first source again. */
  until: string;
}

export interface MatchedRule {
  route: string;
  /** The place of the rule in the list of rules, from 1. */
  number: number;
  rule: string;
}

export interface StepShown {
  step: string;
  left: number;
}

export interface PinShown {
  exit: string;
  ip: string;
}

export interface Readiness {
  ready: boolean;
  /** True if the gateway is shutting down. */
  draining: boolean;
  sources: Record<string, SourceReadiness>;
}

export interface SourceReadiness {
  ready: boolean;
  usable: number;
  reason: string;
}

export interface Countries {
  countries: CountryShown[];
}

export interface CountryShown {
  country: string;
  known: number;
  usable: number;
}
