// Sends requests to the API. The token is only in the memory of this module, so it is gone when the tab is closed.
import { useEffect, useState } from "./view.js";

let token = null;
const watchers = new Set();
// The state is "unknown" until the first answer shows whether the gateway requires a token. Then it is "open" or
// "locked".
export const session = { state: "unknown", tokenGiven: false };

function settle(state) {
  if (session.state === state && session.tokenGiven === (token !== null)) return;
  session.state = state;
  session.tokenGiven = token !== null;
  watchers.forEach((tell) => tell());
}

export function useSession() {
  const [, draw] = useState(0);
  useEffect(() => {
    const tell = () => draw((n) => n + 1);
    watchers.add(tell);
    return () => watchers.delete(tell);
  }, []);
  return session;
}

export class Fault extends Error {
  constructor(status, code, message, details) {
    super(message);
    Object.assign(this, { status, code, details: details ?? {} });
  }
}

function headers(extra) {
  return token === null ? { ...extra } : { ...extra, Authorization: `Bearer ${token}` };
}

// The time limit for an answer, in milliseconds. Checks and rotations wait for a circuit and have longer limits.
const DEADLINE = 20_000;

async function fetched(path, { method = "GET", body, deadline = DEADLINE } = {}) {
  const write = method !== "GET" && method !== "DELETE";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      cache: "no-store",
      credentials: "omit",
      headers: headers(write ? { "Content-Type": "application/json" } : {}),
      body: write ? JSON.stringify(body ?? {}) : undefined,
      signal: AbortSignal.timeout(deadline),
    });
  } catch (why) {
    const slow = why.name === "TimeoutError";
    throw new Fault(0, slow ? "slow" : "unreachable", slow
      ? "The gateway took too long to answer."
      : "The gateway cannot be reached. Is it running? The console tries again by itself.");
  }
  if (answer.status === 401) {
    if (session.state !== "locked") settle("locked");
    throw await fault(answer);
  }
  return answer;
}

async function fault(answer) {
  const said = await answer.json().catch(() => ({}));
  const { code, message, details } = said.error ?? {};
  return new Fault(answer.status, code ?? "unknown", message ?? `The gateway answered ${answer.status}.`, details);
}

export async function ask(path, options) {
  const answer = await fetched(path, options);
  // The status 503 of /ready is not an error: its body contains the reasons.
  if (!answer.ok && !(path === "/ready" && answer.status === 503)) throw await fault(answer);
  if (path !== "/ready" && path !== "/stats") settle("open");
  return answer.status === 204 ? null : answer.json();
}

export async function text(path) {
  const answer = await fetched(path);
  if (!answer.ok) throw await fault(answer);
  return answer.text();
}

export async function login(given) {
  token = given;
  try {
    await ask("/proxies?limit=1");
  } catch (why) {
    token = null;
    throw why;
  }
  settle("open");
}

export function logout() {
  token = null;
  kept.clear();
  settle("locked");
}

// The last answer for each path. A page that was open before first shows its old data, and then the new data.
const kept = new Map();
const KEPT_MAX = 200;

function keep(path, entry) {
  kept.delete(path);
  kept.set(path, entry);
  if (kept.size > KEPT_MAX) kept.delete(kept.keys().next().value);
}

const askers = new Map();

// Repeats all requests of the visible page whose paths begin with one of these prefixes, so that a change is shown
// immediately.
export function refresh(...prefixes) {
  for (const [path, set] of askers) {
    if (prefixes.some((prefix) => path.startsWith(prefix))) set.forEach((again) => again());
  }
}

// Returns { data, error, again } for a path. The path is requested immediately, and then every `every` milliseconds
// while the tab is visible. If the path is null, nothing is requested.
export function useAsk(path, every = 5000) {
  const [, draw] = useState(0);
  const known = path === null ? null : kept.get(path);
  useEffect(() => {
    if (path === null) return undefined;
    let over = false;
    let timer = 0;
    const run = async () => {
      clearTimeout(timer);
      if (!document.hidden || !kept.has(path)) {
        try {
          keep(path, { data: await ask(path), error: null });
        } catch (error) {
          keep(path, { data: error.status === 404 ? undefined : kept.get(path)?.data, error });
        }
        if (over) return;
        draw((n) => n + 1);
      }
      clearTimeout(timer);
      if (every) timer = setTimeout(run, every);
    };
    const set = askers.get(path) ?? new Set();
    askers.set(path, set.add(run));
    const seen = () => !document.hidden && run();
    document.addEventListener("visibilitychange", seen);
    run();
    return () => {
      over = true;
      clearTimeout(timer);
      set.delete(run);
      if (set.size === 0) askers.delete(path);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [path, every]);
  return { data: known?.data, error: known?.error ?? null, again: () => path !== null && refresh(path) };
}

// Reads server-sent events with fetch, because EventSource cannot send a token. It begins with the oldest event that the
// gateway keeps. After a lost connection, it connects again and continues after the last event.
export function follow(onEvent, onState) {
  const stop = new AbortController();
  let last = null;
  (async () => {
    while (!stop.signal.aborted) {
      try {
        const extra = last === null ? {} : { "Last-Event-ID": last };
        const answer = await fetch(last === null ? "/events?since=0" : "/events", {
          headers: headers(extra), cache: "no-store", credentials: "omit", signal: stop.signal,
        });
        if (answer.status === 401) settle("locked");
        if (!answer.ok) throw await fault(answer);
        onState("live");
        await lines(answer.body.pipeThrough(new TextDecoderStream()), (event) => {
          last = event.id ?? last;
          onEvent(event);
        });
      } catch (why) {
        if (stop.signal.aborted) return;
        onState(why.status === 401 ? "locked" : "lost");
        if (why.status === 401) return;
      }
      await new Promise((resume) => setTimeout(resume, 2000));
    }
  })();
  return () => stop.abort();
}

async function lines(stream, tell) {
  const reader = stream.getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const event = parse(rest.slice(0, end));
      rest = rest.slice(end + 2);
      if (event) tell(event);
    }
  }
}

function parse(block) {
  const event = { id: null, kind: "message", data: null };
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) event.id = line.slice(4);
    else if (line.startsWith("event: ")) event.kind = line.slice(7);
    else if (line.startsWith("data: ")) {
      try {
        event.data = JSON.parse(line.slice(6));
      } catch {
        return null;
      }
    }
  }
  return event.data === null ? null : event;
}
