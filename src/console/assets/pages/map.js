// The world map of usable exits. The browser loads this file and the outlines only when the page of exits is open. The
// map repeats the list of countries beside it, which is the way for the keyboard and for screen readers.
import { HEIGHT, LANDS, POINTS, WIDTH } from "../map.js";
import { html } from "../view.js";
import { count, country, plural } from "../words.js";

// The largest radius of a circle, in units of the map, and the smallest one. Not tuned: the circles of neighbours in
// Europe may overlap, but each must be visible.
const LARGEST = 26;
const SMALLEST = 3;

// Returns the radius of a circle whose area grows with the number of exits. `high` is the number of exits of the country
// with most. If all countries have few exits, all circles are small, so that they do not hide their neighbours.
export function radius(usable, high) {
  const largest = Math.min(LARGEST, 2 * SMALLEST + Math.sqrt(high));
  return usable > 0 ? SMALLEST + (largest - SMALLEST) * Math.sqrt(usable / high) : 0;
}

export function WorldMap({ countries, chosen, onChoose }) {
  const usable = Object.fromEntries(countries.map(({ country: code, usable: number }) => [code.toUpperCase(), number]));
  const high = Math.max(1, ...Object.values(usable));
  const some = countries.filter(({ usable: number }) => number > 0);
  const shown = some.filter(({ country: code }) => POINTS[code.toUpperCase()]).sort((a, b) => b.usable - a.usable);
  const absent = some.filter(({ country: code }) => !POINTS[code.toUpperCase()]).reduce((sum, { usable: number }) => sum + number, 0);
  const flip = (code) => () => onChoose(chosen === code ? null : code);
  const label = (code) => `${country(code)}: ${plural(usable[code] ?? 0, "usable exit")}`;
  const summary = `Usable exits on the world map: ${plural(shown.length, "country", "countries")}${shown.length ? `, most in ${shown.slice(0, 3).map(({ country: code, usable: number }) => `${country(code)} ${count(number)}`).join(", ")}` : ""}. The list of countries has each number.`;
  return html`<figure class="map"><svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${summary}>
    ${Object.entries(LANDS).map(([code, d]) => html`<path key=${code} d=${d} class=${chosen === code && code ? "chosen" : usable[code] > 0 ? "some" : ""} onClick=${usable[code] === undefined ? undefined : flip(code)}>${code && html`<title>${label(code)}</title>`}</path>`)}
    ${shown.map(({ country: code, usable: number }) => {
      const key = code.toUpperCase();
      const [x, y] = POINTS[key];
      return html`<circle key=${key} cx=${x} cy=${y} r=${radius(number, high).toFixed(1)} class=${chosen === key ? "chosen" : ""} onClick=${flip(key)}><title>${label(key)}</title></circle>`;
    })}
  </svg><figcaption class="faint">The area of a circle is the number of usable exits. A click shows only the exits of that country.${absent > 0 ? ` ${plural(absent, "exit is", "exits are")} in countries without a place on this map.` : ""}</figcaption></figure>`;
}
