// Builds usernames. The gateway checks them; this file only refuses what no username can carry.
import { BadSelector } from "./errors.js";

/** Parts of a username beside the selector's text. */
export interface Choice {
  /** Connections with the same session name use the same exit while that exit is alive. Any text without `:`. */
  session?: string | number | undefined;
  /** Always the same address, or an error. */
  strict?: boolean | undefined;
  /** How long the session lives, for example `10m`. */
  ttl?: string | undefined;
}

/** The longest username that SOCKS5 can carry, in bytes. */
const LONGEST = 255;
/** The longest session name, in bytes. */
const SESSION_LONGEST = 128;
const PLAIN = /^[A-Za-z0-9_.]{1,64}$/;
// eslint-disable-next-line no-control-regex
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f:]/;

function wrong(reason: string, advice: string): BadSelector {
  return new BadSelector({ reason, advice });
}

/** The username for a selector (`us`, `nonus-strict`, or the name of a route) and a choice. */
export function username(selector: string, choice: Choice = {}): string {
  const tokens = selector === "" ? [] : [selector];
  const named = /(^|-)session[-=]/i.test(selector);
  if (named && (choice.session !== undefined || (choice.strict && /(^|-)session=/i.test(selector)))) {
    throw wrong(`the selector \`${selector}\` already names a session`, "Give the session either in the selector or as `session`.");
  }
  if (choice.strict && !/(^|-)strict(-|$)/i.test(selector)) tokens.push("strict");
  if (choice.ttl !== undefined) tokens.push("ttl", choice.ttl);
  if (choice.session !== undefined) {
    const session = String(choice.session);
    const bytes = Buffer.byteLength(session);
    if (bytes < 1 || bytes > SESSION_LONGEST || FORBIDDEN.test(session)) {
      throw wrong("the session name is not usable", `A session has 1 to ${SESSION_LONGEST} bytes, no \`:\` and no control characters.`);
    }
    // A name with other characters must come last: everything after `session=` is the name.
    tokens.push(PLAIN.test(session) ? `session-${session}` : `session=${session}`);
  }
  const text = tokens.join("-");
  if (Buffer.byteLength(text) > LONGEST) throw wrong(`the username has more than ${LONGEST} bytes`, "Use a shorter session name.");
  if (FORBIDDEN.test(text)) throw wrong("the username contains `:` or a control character", "Remove it from the selector.");
  return text;
}

/** A username as part of a URL. `+` stays as it is: no URL parser changes it, and `de+fr` is easier to read. */
export function inUrl(text: string): string {
  return encodeURIComponent(text).replaceAll("%2B", "+");
}
