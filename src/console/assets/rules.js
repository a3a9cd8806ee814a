// Converts the rules of a route between the form of the API and the fields of a form. No part of the page is made here.

export const ACTIONS = [["use", "use the selector"], ["route", "use the route"], ["refuse", "refuse"], ["direct", "connect directly"]];

// Returns true if the action needs a value: a selector, or the name of a route.
export const takesValue = (action) => action === "use" || action === "route";

export const EMPTY = { host: "", port: "", action: "use", value: "" };

// Returns the fields of one rule. Hosts and ports are texts with spaces between the items.
export function fieldsOf(rule) {
  const list = (given) => [given ?? []].flat().join(" ");
  const [action] = ACTIONS.map(([name]) => name).filter((name) => rule[name]);
  return { host: list(rule.host), port: list(rule.port), action, value: takesValue(action) ? rule[action] : "" };
}

// Returns a rule as the API reads it. A field that the user left empty is left out; the API names it if it is missing.
export function ruleOf({ host, port, action, value }) {
  const items = (text) => text.split(/[\s,]+/).filter(Boolean);
  const ports = items(port).map((item) => (/^\d+$/.test(item) && Number(item) < 65_536 ? Number(item) : item));
  return {
    ...(items(host).length > 0 && { host: items(host) }),
    ...(ports.length > 0 && { port: ports }),
    [action]: takesValue(action) ? value.trim() : true,
  };
}

export function moved(list, from, to) {
  if (to < 0 || to >= list.length) return list;
  const next = [...list];
  next.splice(to, 0, ...next.splice(from, 1));
  return next;
}

// Returns the place of the rule and the name of the field in an error such as `rules[2].host`. The place begins with 0.
export function placeOf(field) {
  const [, at, name] = /^rules\[(\d+)\]\.(\w+)$/.exec(field ?? "") ?? [];
  return at === undefined ? null : { at: Number(at), field: ["host", "port"].includes(name) ? name : "value" };
}
