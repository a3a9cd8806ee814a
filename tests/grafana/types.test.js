// The dashboards are what Grafana's own types say a dashboard is.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { it } from "node:test";
import ts from "typescript";
import { dashboards } from "../../grafana/make.mjs";

// Where the options of each kind of panel are described.
const OPTIONS = { timeseries: "TimeSeriesPanelCfg", stat: "StatPanelCfg", bargauge: "BarGaugePanelCfg" };

// As TypeScript and not as JSON, in which every word is a mere string. The types write enums where Grafana's JSON has
// their values, so `Said` says: a value of the enum, as it is written.
function source(board) {
  const { panels, ...rest } = board;
  const rows = panels.filter(({ type }) => type === "row");
  const drawn = panels.filter(({ type }) => type !== "row");
  const lines = [
    'import type { Dashboard, GraphFieldConfig, Panel, RowPanel } from "@grafana/schema";',
    ...Object.entries(OPTIONS).map(([type, file]) => `import type { Options as ${type} } from "@grafana/schema/dist/esm/raw/composable/${type}/panelcfg/x/${file}_types.gen";`),
    "type Said<T> = T extends string ? `${T}` : T extends number ? T : T extends (infer U)[] ? Said<U>[] : T extends object ? { [K in keyof T]: Said<T[K]> } : T;",
    `export const board: Said<Omit<Dashboard, "panels">> = ${JSON.stringify(rest)};`,
    `export const rows: Said<RowPanel>[] = ${JSON.stringify(rows)};`,
    ...drawn.map((panel) => `export const panel${panel.id}: Said<Panel> = ${JSON.stringify(panel)};`),
    ...drawn.map(({ id, type, options }) => `export const options${id}: Partial<Said<${type}>> = ${JSON.stringify(options)};`),
    ...drawn.filter(({ type }) => type === "timeseries").map(({ id, fieldConfig }) => `export const custom${id}: Said<GraphFieldConfig> = ${JSON.stringify(fieldConfig.defaults.custom)};`),
  ];
  return lines.join("\n");
}

async function faults(texts) {
  const folder = await mkdtemp(path.join(import.meta.dirname, "types-"));
  try {
    const files = await Promise.all(texts.map(async (text, at) => {
      const file = path.join(folder, `board${at}.ts`);
      await writeFile(file, text);
      return file;
    }));
    const program = ts.createProgram(files, { noEmit: true, strict: true, skipLibCheck: true, types: [], module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler });
    return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
      const where = file ? file.text.slice(Math.max(0, file.text.lastIndexOf("\n", start)), start + 60).slice(-160) : "";
      return `${ts.flattenDiagnosticMessageText(messageText, "\n")} at …${where}`;
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

it("every dashboard has Grafana's types", async () => {
  assert.deepEqual(await faults(Object.values(dashboards()).map(source)), []);
});

it("and what has not is seen", async () => {
  const [board] = Object.values(dashboards());
  const bad = (change) => {
    const copy = structuredClone(board);
    change(copy);
    return source(copy);
  };
  const changes = [
    (copy) => { copy.schemaVersion = "39"; },
    (copy) => { copy.panels[0].gridPos.x = "left"; },
    (copy) => { copy.panels.find(({ type }) => type === "timeseries").options.legend.placement = "above"; },
    (copy) => { copy.panels.find(({ type }) => type === "timeseries").fieldConfig.defaults.custom.drawStyle = "lines"; },
  ];
  for (const change of changes) assert.equal((await faults([bad(change)])).length > 0, true, String(change));
});
