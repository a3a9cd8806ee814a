"use strict";
// Shows /openapi.json to people. All content is inserted as text, never as markup.

const make = (name, text, ...inside) => {
  const element = document.createElement(name);
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...inside);
  return element;
};

// Returns an element with a text in which `code` is shown as code. The descriptions are doc comments, which are
// Markdown.
const prose = (name, text) => {
  const pieces = (text || "").split("`");
  return make(name, null, ...pieces.map((piece, at) => (at % 2 ? make("code", piece) : piece)));
};

const nameOf = (reference) => reference.split("/").pop();

// Returns the type of a schema in a few words.
const typeOf = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return nameOf(schema.$ref);
  const several = schema.oneOf || schema.anyOf || schema.allOf;
  if (several) return several.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [].concat(schema.type || "any").map((type) => (type === "array" ? `[${typeOf(schema.items)}]` : type));
  return types.join(" | ");
};

const limits = (schema) => {
  const found = [];
  for (const [word, key] of [["from", "minimum"], ["to", "maximum"], ["default", "default"]]) {
    if (schema && schema[key] !== undefined) found.push(`${word} ${schema[key]}`);
  }
  return found.join(", ");
};

const table = (head, rows) => {
  const row = (cells, name) => make("tr", null, ...cells.map((cell) => (cell instanceof Node ? make(name, null, cell) : make(name, cell))));
  return make("table", null, make("thead", null, row(head, "th")), make("tbody", null, ...rows.map((cells) => row(cells, "td"))));
};

// Returns the fields of a schema, one level deep. The types of the fields are explained at the end of the page.
const fields = (schema) => {
  const rows = Object.entries(schema.properties || {}).map(([name, field]) => {
    const needed = (schema.required || []).includes(name) ? "" : " (optional)";
    return [make("code", name), typeOf(field) + needed, prose("span", field.description)];
  });
  return rows.length ? table(["field", "type", ""], rows) : make("p", typeOf(schema));
};

const curl = (method, path, operation) => {
  const body = operation.requestBody ? ` \\\n  -d '{ … }'` : "";
  const json = method === "get" || method === "delete" ? "" : ` \\\n  -H 'Content-Type: application/json'`;
  const verb = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  return `curl -s${verb} -H "Authorization: Bearer $EXITGATE_TOKEN"${json}${body} \\\n  ${location.origin}${path}`;
};

const endpoint = (method, path, operation) => {
  const says = prose("span", operation.summary || operation.description);
  says.className = "says";
  const title = make("summary", null, make("b", method.toUpperCase()), ` ${path}  `, says);
  const whole = make("details", null, title);
  whole.id = operation.operationId || `${method}-${path}`;
  if (operation.description && operation.description !== operation.summary) whole.append(prose("p", operation.description));
  if (operation.parameters && operation.parameters.length) {
    const rows = operation.parameters.map((parameter) => [
      make("code", parameter.name),
      `${parameter.in}, ${typeOf(parameter.schema)}${parameter.required ? "" : " (optional)"}`,
      prose("span", [parameter.description || "", limits(parameter.schema)].filter(Boolean).join(" · ")),
    ]);
    whole.append(table(["parameter", "type", ""], rows));
  }
  const content = operation.requestBody && Object.values(operation.requestBody.content || {})[0];
  if (content) whole.append(make("p", `Body: ${typeOf(content.schema)}`));
  const answers = Object.entries(operation.responses || {}).map(([status, answer]) => {
    const [kind, body] = Object.entries(answer.content || {})[0] || ["", {}];
    return [make("code", status), body.schema ? typeOf(body.schema) : kind, prose("span", answer.description)];
  });
  whole.append(table(["status", "answer", ""], answers), make("pre", curl(method, path, operation)));
  return whole;
};

const show = (api) => {
  const urls = document.getElementById("urls");
  document.getElementById("version").textContent = api.info.version;
  document.getElementById("about").replaceChildren(...prose("p", api.info.description).childNodes);
  const byTag = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      const tag = (operation.tags || ["other"])[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(endpoint(method, path, operation));
    }
  }
  urls.replaceChildren();
  for (const [tag, all] of byTag) urls.append(make("section", null, make("h2", tag), ...all));
  const schemas = Object.entries((api.components || {}).schemas || {}).map(([name, schema]) =>
    make("details", null, make("summary", name), prose("p", schema.description), fields(schema)));
  urls.append(make("section", null, make("h2", "types"), ...schemas));
};

// Shows the entries that contain the whole search text, such as `POST /proxies`. If none does, shows the entries that
// contain all its words. A heading without entries is hidden.
const find = () => {
  const plain = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();
  const wanted = plain(document.getElementById("find").value);
  const entries = [...document.querySelectorAll("details")].map((entry) => [entry, plain(entry.textContent)]);
  const whole = entries.some(([, text]) => text.includes(wanted));
  const passes = (text) => (whole ? text.includes(wanted) : wanted.split(" ").every((word) => text.includes(word)));
  for (const [entry, text] of entries) entry.hidden = !passes(text);
  for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("details:not([hidden])");
  document.getElementById("nothing").hidden = entries.some(([entry]) => !entry.hidden);
};

document.getElementById("find").addEventListener("input", find);
fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText))))
  .then(show)
  .then(find)
  .catch((error) => { document.getElementById("state").textContent = `/openapi.json cannot be read: ${error.message}`; });
