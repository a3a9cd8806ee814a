// Makes assets/map.js, the outlines of the countries for the console's world map.
//
//   npm pack world-atlas@2.0.2 && tar xf world-atlas-2.0.2.tgz
//   node src/console/make-map.mjs package > src/console/assets/map.js
//
// world-atlas contains the outlines of Natural Earth (public domain) as TopoJSON. The outlines come from its smallest
// scale (1:110 million). That scale lacks countries such as Singapore and Malta, so the points at which the map draws
// the exits of a country come from the scale 1:50 million.
import { readFile } from "node:fs/promises";
import path from "node:path";

// The width of the map in units of its SVG. Coordinates are integers of this unit.
const WIDTH = 1000;
// Below this latitude there is only Antarctica.
const SOUTH = -58;
const NORTH = 84;
// A point that is closer than this to the line between its neighbours is left out (Douglas-Peucker), in units.
const TOLERANCE = 0.55;
// Islands with a smaller area are left out, in square units, except the largest polygon of a country.
const SMALLEST = 2.5;

// The projection Natural Earth II: Patterson, Savric, Jenny, 2012. It keeps the shapes of the countries recognizable,
// and its formula is a polynomial of the latitude.
function project([lon, lat]) {
  const phi = (lat * Math.PI) / 180;
  const p2 = phi * phi;
  const p4 = p2 * p2;
  const p6 = p2 * p4;
  const x = ((lon * Math.PI) / 180) * (0.84719 - 0.13063 * p2 + p6 * p6 * (-0.04515 + 0.05494 * p2 - 0.02326 * p4 + 0.00331 * p6));
  const y = phi * (1.01183 + p4 * p4 * (-0.02625 + 0.01926 * p2 - 0.00396 * p4));
  return [x, y];
}

const SCALE = WIDTH / (2 * project([180, 0])[0]);
const TOP = project([0, NORTH])[1];
const HEIGHT = Math.round((TOP - project([0, SOUTH])[1]) * SCALE);

function place(point) {
  const [x, y] = project(point);
  return [WIDTH / 2 + x * SCALE, (TOP - y) * SCALE];
}

// Returns the arcs as lists of [longitude, latitude].
function decode({ transform: { scale, translate }, arcs }) {
  return arcs.map((arc) => {
    let [x, y] = [0, 0];
    return arc.map(([dx, dy]) => {
      x += dx;
      y += dy;
      return [x * scale[0] + translate[0], y * scale[1] + translate[1]];
    });
  });
}

// The distances are measured on the map, and the points stay [longitude, latitude].
function simplify(points) {
  if (points.length < 3) return points;
  const [a, b] = [place(points[0]), place(points.at(-1))];
  const length = Math.hypot(b[0] - a[0], b[1] - a[1]);
  const away = ([x, y]) => (length === 0 ? Math.hypot(x - a[0], y - a[1])
    : Math.abs((b[0] - a[0]) * (a[1] - y) - (a[0] - x) * (b[1] - a[1])) / length);
  let [far, at] = [0, 0];
  for (let i = 1; i < points.length - 1; i += 1) {
    const distance = away(place(points[i]));
    if (distance > far) [far, at] = [distance, i];
  }
  if (far <= TOLERANCE) return [points[0], points.at(-1)];
  return [...simplify(points.slice(0, at + 1)), ...simplify(points.slice(at)).slice(1)];
}

// Returns the polygons of a country as closed rings of points. Neighbours share the simplified arcs of their border, so
// there are no gaps between them.
function rings(geometry, arcs) {
  const polygons = geometry.type === "MultiPolygon" ? geometry.arcs : geometry.type === "Polygon" ? [geometry.arcs] : [];
  return polygons.flatMap(([outer]) => cut(outer.flatMap((at) => (at >= 0 ? arcs[at] : [...arcs[~at]].reverse())))).map((ring) => ring.map(place));
}

// Cuts a ring that crosses the meridian of 180 degrees into its western and its eastern part.
function cut(ring) {
  let shift = 0;
  const unrolled = ring.map(([lon, lat], at) => {
    const step = at === 0 ? 0 : lon - ring[at - 1][0];
    if (Math.abs(step) > 180) shift -= 360 * Math.sign(step);
    return [lon + shift, lat];
  });
  const parts = [-540, -180, 180].map((west) => keep(keep(unrolled, west, 1), west + 360, -1).map(([lon, lat]) => [lon - west - 180, lat]));
  return parts.filter((part) => part.length > 2);
}

// Returns the part of a ring east (`side` 1) or west (`side` -1) of a meridian (Sutherland-Hodgman).
function keep(ring, meridian, side) {
  const inside = ([lon]) => (lon - meridian) * side >= 0;
  return ring.flatMap((point, at) => {
    const before = ring.at(at - 1);
    const share = (meridian - before[0]) / (point[0] - before[0]);
    const crossing = inside(point) === inside(before) ? [] : [[meridian, before[1] + share * (point[1] - before[1])]];
    return inside(point) ? [...crossing, point] : crossing;
  });
}

function area(ring) {
  return ring.reduce((sum, [x, y], at) => {
    const [nx, ny] = ring[(at + 1) % ring.length];
    return sum + (x * ny - nx * y) / 2;
  }, 0);
}

function centre(ring) {
  const whole = area(ring) * 6;
  const sum = ring.reduce(([sx, sy], [x, y], at) => {
    const [nx, ny] = ring[(at + 1) % ring.length];
    const cross = x * ny - nx * y;
    return [sx + (x + nx) * cross, sy + (y + ny) * cross];
  }, [0, 0]);
  return Math.abs(whole) < 1e-6 ? ring[0] : sum.map((value) => value / whole);
}

// The data has numeric codes (ISO 3166). The browser's locale data knows the two letters of each.
function code({ id, properties: { name } }) {
  if (name === "Kosovo") return "XK";
  const region = id && new Intl.Locale(`und-${id}`).region;
  return region && /^[A-Z]{2}$/.test(region) ? region : null;
}

function draw(ring) {
  const points = ring.map((point) => point.map(Math.round));
  let [x, y] = points[0];
  let text = `M${x} ${y}l`;
  let steps = "";
  for (const [nx, ny] of points.slice(1)) {
    if (nx === x && ny === y) continue;
    const [dx, dy] = [nx - x, ny - y];
    steps += `${steps && dx >= 0 ? " " : ""}${dx}${dy >= 0 ? " " : ""}${dy}`;
    [x, y] = [nx, ny];
  }
  return steps ? `${text}${steps}z` : "";
}

async function load(folder, name) {
  const topology = JSON.parse(await readFile(path.join(folder, name), "utf8"));
  return { arcs: decode(topology), countries: topology.objects.countries.geometries };
}

const folder = process.argv[2];
const [coarse, fine] = await Promise.all([load(folder, "countries-110m.json"), load(folder, "countries-50m.json")]);
const simple = coarse.arcs.map(simplify);
const lands = {};
for (const country of coarse.countries) {
  // Countries without a code (such as Northern Cyprus) are drawn, but no exit is in them.
  const key = code(country) ?? "";
  if (key === "AQ") continue;
  const all = rings(country, simple).sort((a, b) => Math.abs(area(b)) - Math.abs(area(a)));
  const drawn = all.filter((ring, at) => at === 0 || Math.abs(area(ring)) >= SMALLEST).map(draw).join("");
  lands[key] = (lands[key] ?? "") + drawn;
}
const points = {};
for (const country of fine.countries) {
  const key = code(country);
  if (!key || key === "AQ") continue;
  const [largest] = rings(country, fine.arcs).sort((a, b) => Math.abs(area(b)) - Math.abs(area(a)));
  if (largest) points[key] = centre(largest).map(Math.round);
}
// Most people live far from the middle of these countries.
const MOVED = { US: [-95, 39], CA: [-100, 52], RU: [50, 56], FR: [2.5, 46.5], NO: [10, 61], CL: [-71, -33] };
for (const [key, point] of Object.entries(MOVED)) points[key] = place(point).map(Math.round);

const sorted = (from, write) => Object.keys(from).sort().map((key) => write(key, from[key]));
process.stdout.write(`// The outlines of the countries, and a point in each. Made by make-map.mjs from Natural Earth (public domain).
export const WIDTH = ${WIDTH};
export const HEIGHT = ${HEIGHT};
export const LANDS = {
${sorted(lands, (key, d) => `"${key}":"${d}",`).join("\n")}
};
export const POINTS = {
${sorted(points, (key, [x, y]) => `${key}:[${x},${y}],`).join("\n")}
};
`);
