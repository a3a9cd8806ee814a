// Charts as SVG. They need no library, because they have few points. Each chart has a text for screen readers.
import { reach } from "./live.js";
import { html, useId } from "./view.js";
import { age, dated, millis, plain } from "./words.js";

const top = (values) => Math.max(...values.map((value) => value ?? 0), 0);

// Returns the pieces of a line, as lists of [x, y]. A null in the values interrupts the line.
function pieces(values, width, height, high, pad = 1) {
  const step = width / Math.max(1, values.length - 1);
  const found = [];
  values.forEach((value, at) => {
    if (value == null) return;
    if (at === 0 || values[at - 1] == null) found.push([]);
    found.at(-1).push([(at * step).toFixed(1), (height - pad - (value / (high || 1)) * (height - 2 * pad)).toFixed(1)]);
  });
  return found;
}

const joined = (piece) => piece.map(([x, y], at) => `${at ? "L" : "M"}${x} ${y}`).join("");

// Returns the path of a line. A single value between two nulls is drawn as a dot: a line of no length with round ends.
function path(...of) {
  return pieces(...of).map((piece) => joined(piece) + (piece.length === 1 ? "h.01" : "")).join("");
}

// Returns the path of the single values alone. A chart draws them thicker than a line, because a dot as wide as a line
// is hard to see.
function dots(...of) {
  return pieces(...of).filter(({ length }) => length === 1).map((piece) => `${joined(piece)}h.01`).join("");
}

function area(values, width, height, high) {
  return pieces(values, width, height, high).map((piece) => `${joined(piece)}L${piece.at(-1)[0]} ${height}L${piece[0][0]} ${height}Z`).join("");
}

export function Spark({ values, label, kind = "" }) {
  const [width, height] = [120, 28];
  const shown = values.slice(-60);
  const high = top(shown);
  return html`<svg class=${`spark ${high === 0 ? "flat" : kind}`} viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${label}>
    <path class="fill" d=${area(shown, width, height, high)} />
    <path class="line" d=${path(shown, width, height, high)} />
  </svg>`;
}

// Returns the next larger round number for the top of the scale. So the scale does not change with every reading.
function round(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

// A chart with lines. `lines` is [{ name, values, kind, shown }], and all lines have the same number of values. The
// legend has the last value of each line, or `shown`. `from` is the age of the first value as text.
// The top of the scale is not below `least`.
export function Chart({ title, lines, unit, from = reach(lines[0].values), least = 0 }) {
  const id = useId();
  const [width, height] = [600, 150];
  const high = round(Math.max(least, top(lines.flatMap(({ values }) => values))));
  const last = ({ values }) => values.findLast((value) => value != null);
  const legend = lines.map((line) => ({ ...line, shown: line.shown ?? unit(last(line)) }));
  const summary = legend.map(({ name, shown }) => `${name} ${shown}`.trim()).join(", ");
  return html`<figure class="chart">
    <figcaption id=${id}>${title}<span class="legend">${legend.map(({ name, kind, shown }) => html`<span class=${`key ${kind}`}>${name} <b>${shown}</b></span>`)}</span></figcaption>
    <div class="plot">
      <div class="scale" aria-hidden="true"><span>${unit(high)}</span><span>${unit(high / 2)}</span><span>0</span></div>
      <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${`${title}, ${from} until now: ${summary}`}>
        ${[0.02, 0.5, 0.98].map((y) => html`<line class="grid" x1="0" x2=${width} y1=${y * height} y2=${y * height} />`)}
        ${lines.map(({ values, kind }) => html`
          <path class=${`fill ${kind}`} d=${area(values, width, height, high)} />
          <path class=${`line ${kind}`} d=${path(values, width, height, high)} /><path class=${`line dots ${kind}`} d=${dots(values, width, height, high)} />`)}
      </svg>
    </div>
    <div class="times" aria-hidden="true"><span>${from}</span><span>now</span></div>
  </figure>`;
}

// A chart of an exit's checks over time, with duration and outcome. A failed check has the full height, because its
// duration means little and it must be visible among two hundred checks.
export function History({ checks }) {
  const [width, height, pad] = [720, 180, 10];
  const times = checks.map(({ at }) => new Date(at).getTime());
  const [from, to] = [Math.min(...times), Math.max(...times)];
  const total = (check) => check.ms.total ?? check.ms.first_byte ?? null;
  const passed = ({ outcome }) => outcome === "good";
  const high = round(top(checks.filter(passed).map(total)));
  const x = (at) => pad + (to === from ? 0.5 : (at - from) / (to - from)) * (width - 2 * pad);
  const y = (value) => height - pad - ((value ?? 0) / high) * (height - 2 * pad);
  const good = checks.filter(passed).length;
  return html`<figure class="chart">
    <div class="plot">
      <div class="scale" aria-hidden="true"><span>${millis(high)}</span><span>${millis(high / 2)}</span><span>0</span></div>
      <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label=${`${checks.length} checks, ${good} of them good; the slowest of those took ${millis(top(checks.filter(passed).map(total)))}. The table below has each.`}>
        ${[0, 0.5, 1].map((share) => html`<line class="grid" x1="0" x2=${width} y1=${y(share * high)} y2=${y(share * high)} />`)}
        ${checks.map((check, at) => html`<line class=${`check ${passed(check) ? "good" : "bad"}`} x1=${x(times[at])} x2=${x(times[at])} y1=${y(0)} y2=${y(passed(check) ? total(check) : high)}>
          <title>${dated(check.at)} · ${check.target}: ${plain(check.outcome)}${total(check) === null ? "" : `, ${millis(total(check))}`}</title>
        </line>`)}
      </svg>
    </div>
    <div class="times" aria-hidden="true"><span>${age(from)}</span><span>${age(to)}</span></div>
  </figure>`;
}

// A bar that shows a share. The same number is shown beside the bar as text.
export function Bar({ share, kind = "" }) {
  return html`<svg class=${`bar ${kind}`} viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">
    <rect class="track" width="100" height="8" /><rect class="value" width=${Math.max(share > 0 ? 1.5 : 0, 100 * Math.min(1, share || 0))} height="8" />
  </svg>`;
}
