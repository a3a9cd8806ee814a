// Compiles a program that uses the kit with the real frameworks' types.
import assert from "node:assert/strict";
import path from "node:path";
import { it } from "node:test";
import ts from "typescript";

it("the types fit those of the frameworks", () => {
  const program = ts.createProgram([path.join(import.meta.dirname, "consumer.ts")], {
    strict: true, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2023, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, types: ["node"],
  });
  const faults = ts.getPreEmitDiagnostics(program).map((fault) => `${fault.file?.fileName}:${fault.start} ${ts.flattenDiagnosticMessageText(fault.messageText, "\n")}`);
  assert.deepEqual(faults, []);
});
