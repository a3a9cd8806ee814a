"use strict";
// Reads /openapi.json to people. Everything is put in as text, never as markup.

const make = (name, text, ...inside) => {
  const element = document.createElement(name);
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...inside);
  return element;
};

const named = (reference) => reference.split("/").pop();

// The type of a schema in a few words.
const words = (schema) => {
  if (!schema) return "";
  if (schema.$ref) return named(schema.$ref);
  const several = schema.oneOf || schema.anyOf || schema.allOf;
  if (several) return several.map(words).join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const types = [].concat(schema.type || "any").map((type) => (type === "array" ? `[${words(schema.items)}]` : type));
  return types.join(" | ");
};

const limits = (schema) => {
  const said = [];
  for (const [word, key] of [["from", "minimum"], ["to", "maximum"], ["default", "default"]]) {
    if (schema && schema[key] !== undefined) said.push(`${word} ${schema[key]}`);
  }
  return said.join(", ");
};

const table = (head, rows) => {
  const row = (cells, name) => make("tr", null, ...cells.map((cell) => (cell instanceof Node ? make(name, null, cell) : make(name, cell))));
  return make("table", null, make("thead", null, row(head, "th")), make("tbody", null, ...rows.map((cells) => row(cells, "td"))));
};

// The fields of a schema, one level deep; what they are made of stands under its own name at the end of the page.
const fields = (schema) => {
  const rows = Object.entries(schema.properties || {}).map(([name, field]) => {
    const needed = (schema.required || []).includes(name) ? "" : " (optional)";
    return [make("code", name), words(field) + needed, field.description || ""];
  });
  return rows.length ? table(["field", "type", ""], rows) : make("p", words(schema));
};

const curl = (method, path, operation) => {
  const body = operation.requestBody ? ` \\\n  -d '{ … }'` : "";
  const json = method === "get" || method === "delete" ? "" : ` \\\n  -H 'Content-Type: application/json'`;
  const how = method === "get" ? "" : ` -X ${method.toUpperCase()}`;
  return `curl -s${how} -H "Authorization: Bearer $EXITGATE_TOKEN"${json}${body} \\\n  ${location.origin}${path}`;
};

const operation = (method, path, said) => {
  const title = make("summary", null, make("b", method.toUpperCase()), `${path}  `);
  const says = make("span", said.summary || said.description || "");
  says.className = "says";
  title.append(says);
  const whole = make("details", null, title);
  whole.id = said.operationId || `${method}-${path}`;
  if (said.description && said.description !== said.summary) whole.append(make("p", said.description));
  if (said.parameters && said.parameters.length) {
    const rows = said.parameters.map((parameter) => [
      make("code", parameter.name),
      `${parameter.in}, ${words(parameter.schema)}${parameter.required ? "" : " (optional)"}`,
      [parameter.description || "", limits(parameter.schema)].filter(Boolean).join(" · "),
    ]);
    whole.append(table(["parameter", "type", ""], rows));
  }
  const content = said.requestBody && Object.values(said.requestBody.content || {})[0];
  if (content) whole.append(make("p", `Body: ${words(content.schema)}`));
  const answers = Object.entries(said.responses || {}).map(([status, answer]) => {
    const [kind, body] = Object.entries(answer.content || {})[0] || ["", {}];
    return [make("code", status), body.schema ? words(body.schema) : kind, answer.description || ""];
  });
  whole.append(table(["status", "answer", ""], answers), make("pre", curl(method, path, said)));
  return whole;
};

const show = (api) => {
  const urls = document.getElementById("urls");
  document.getElementById("version").textContent = api.info.version;
  document.getElementById("about").textContent = api.info.description || "";
  const byTag = new Map();
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, said] of Object.entries(item)) {
      const tag = (said.tags || ["other"])[0];
      if (!byTag.has(tag)) byTag.set(tag, []);
      byTag.get(tag).push(operation(method, path, said));
    }
  }
  urls.replaceChildren();
  for (const [tag, all] of byTag) urls.append(make("section", null, make("h2", tag), ...all));
  const schemas = Object.entries((api.components || {}).schemas || {}).map(([name, schema]) =>
    make("details", null, make("summary", name), make("p", schema.description || ""), fields(schema)));
  urls.append(make("section", null, make("h2", "types"), ...schemas));
};

const find = () => {
  const wanted = document.getElementById("find").value.toLowerCase();
  for (const entry of document.querySelectorAll("details")) {
    entry.hidden = wanted !== "" && !entry.textContent.toLowerCase().includes(wanted);
  }
};

document.getElementById("find").addEventListener("input", find);
fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.statusText))))
  .then(show)
  .catch((error) => { document.getElementById("state").textContent = `/openapi.json cannot be read: ${error.message}`; });
