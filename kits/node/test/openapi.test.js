// Compares the kit's types and paths with the gateway's own /openapi.json.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import path from "node:path";
import { before, describe, it } from "node:test";
import ts from "typescript";

const DIST = path.dirname(createRequire(import.meta.url).resolve("exitgate"));
const { PATHS } = await import(path.join(DIST, "api.js"));
const source = ts.createSourceFile("answers.d.ts", readFileSync(path.join(DIST, "answers.d.ts"), "utf8"), ts.ScriptTarget.Latest, true);
const interfaces = source.statements.filter(ts.isInterfaceDeclaration);

let api;
before(async () => { api = await (await fetch(`${process.env.EXITGATE_API}/openapi.json`)).json(); });

const named = (schema) => {
  const name = schema.$ref?.split("/").pop();
  return name && { name, schema: api.components.schemas[name] };
};

// A schema as the text of a TypeScript type, in the form that `written` gives the kit's types.
function wanted(schema) {
  const reference = named(schema);
  if (reference) return interfaces.some(({ name }) => name.text === reference.name) ? reference.name : wanted(reference.schema);
  if (schema.enum) return union(schema.enum.map((value) => JSON.stringify(value)));
  const kinds = schema.oneOf ?? schema.anyOf;
  if (kinds) return union(kinds.map(wanted));
  if (Array.isArray(schema.type)) return union(schema.type.map((type) => wanted({ ...schema, type })));
  switch (schema.type) {
    case "array": {
      const item = wanted(schema.items);
      return item.includes(" | ") ? `(${item})[]` : `${item}[]`;
    }
    case "integer":
    case "number": return "number";
    case "object": return schema.additionalProperties ? `Record<string, ${wanted(schema.additionalProperties)}>` : assert.fail(JSON.stringify(schema));
    default: return schema.type;
  }
}

const OUTSIDE_PARENTHESES = / \| (?![^(]*\))/;
const union = (types) => [...new Set(types.flatMap((type) => type.split(OUTSIDE_PARENTHESES)))].sort().join(" | ");
const written = (node) => (ts.isUnionTypeNode(node) ? union(node.types.map((type) => type.getText())) : node.getText());

describe("the kit and /openapi.json", () => {
  it("have the same fields", () => {
    assert.ok(interfaces.length > 20);
    for (const { name, members } of interfaces) {
      const schema = api.components.schemas[name.text];
      assert.ok(schema, `the API has no ${name.text}`);
      const theirs = Object.fromEntries(Object.entries(schema.properties).map(([field, type]) => [
        field, { type: wanted(type), optional: !(schema.required ?? []).includes(field) },
      ]));
      const ours = Object.fromEntries(members.map((member) => [member.name.text, { type: written(member.type), optional: member.questionToken !== undefined }]));
      assert.deepEqual(Object.fromEntries(Object.entries(ours).sort()), Object.fromEntries(Object.entries(theirs).sort()), name.text);
    }
  });

  it("have the same paths and query parameters", () => {
    for (const [method, where, query] of PATHS) {
      const operation = api.paths[where]?.[method];
      assert.ok(operation, `the API has no ${method} ${where}`);
      const known = (operation.parameters ?? []).filter((one) => one.in === "query").map((one) => one.name);
      for (const name of query) assert.ok(known.includes(name), `${method} ${where} has no ${name}`);
    }
  });
});
