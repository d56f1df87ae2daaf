// The map of links: this program in the middle, the providers of the table around it, and how each is reached.
import { el, fill } from "./dom.js";
import { draw } from "./network-bars.js";
import { short } from "./network-say.js";
import { number, t } from "./texts.js";

const WIDTH = 800;
const HEIGHT = 440;
const MIDDLE = { x: WIDTH / 2, y: HEIGHT / 2 };
const LABELLED = 14;
const DRAWN = ["direct", "relay", "iroh", "none"];

/** Draw the rows of a page of providers. */
export function drawLinks(figure, rows) {
  const linked = rows.filter((row) => DRAWN.includes(row.link));
  const counts = Object.fromEntries(DRAWN.map((link) => [link, linked.filter((row) => row.link === link).length]));
  const words = Object.fromEntries(Object.entries(counts).map(([link, count]) => [link, number(count)]));
  const described = t("network.map", words);
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": described });
  const groups = grouped(linked);
  const lines = draw("g", {});
  const dots = draw("g", {});
  let turn = 0;
  for (const { via, rows: members } of groups) {
    const places = members.map(() => place(turn++, linked.length, 0.92));
    let from = MIDDLE;
    if (via !== "") {
      from = place(turn - (members.length + 1) / 2, linked.length, 0.5);
      lines.append(line(MIDDLE, from, "relay"));
      dots.append(draw("rect", { class: "hub", x: from.x - 8, y: from.y - 8, width: 16, height: 16, rx: 3 }, name(via)));
    }
    members.forEach((row, index) => {
      const to = places[index];
      if (row.link !== "none") lines.append(line(from, to, row.link));
      dots.append(draw("circle", { class: `dot ${row.reason ? "over" : ""}`, cx: to.x, cy: to.y, r: 7 }, name(row.address)));
      if (linked.length <= LABELLED) dots.append(label(to, short(row.address)));
    });
  }
  dots.append(draw("circle", { class: "middle", cx: MIDDLE.x, cy: MIDDLE.y, r: 13 }));
  dots.append(label({ x: MIDDLE.x, y: MIDDLE.y + 12 }, t("network.map_here"), true));
  picture.append(lines, dots);
  fill(figure, picture, el("figcaption", {}, legend(words)));
}

/** Those behind the same relay stand together. */
function grouped(rows) {
  const groups = new Map();
  const key = (row) => `${DRAWN.indexOf(row.link)} ${row.link === "relay" ? row.via : ""}`;
  for (const row of [...rows].sort((a, b) => (key(a) < key(b) ? -1 : 1))) {
    const group = groups.get(key(row)) ?? { via: row.link === "relay" ? String(row.via) : "", rows: [] };
    group.rows.push(row);
    groups.set(key(row), group);
  }
  return [...groups.values()];
}

function place(index, count, far) {
  const angle = (2 * Math.PI * index) / Math.max(count, 1) - Math.PI / 2;
  return {
    x: MIDDLE.x + far * (WIDTH / 2 - 70) * Math.cos(angle),
    y: MIDDLE.y + far * (HEIGHT / 2 - 30) * Math.sin(angle),
  };
}

function line(from, to, link) {
  return draw("line", { class: `link-${link}`, x1: from.x, y1: from.y, x2: to.x, y2: to.y });
}

function name(text) {
  return draw("title", {}, String(text));
}

function label(at, text, strong = false) {
  return draw("text", { class: strong ? "strong" : "", x: at.x, y: at.y + (at.y < MIDDLE.y ? -12 : 22), "text-anchor": "middle" }, text);
}

function legend(counts) {
  const items = DRAWN.filter((link) => link !== "none").map((link) => {
    const sample = draw("svg", { viewBox: "0 0 36 10", width: 36, height: 10, "aria-hidden": "true" });
    sample.append(line({ x: 0, y: 5 }, { x: 36, y: 5 }, link));
    return el("li", {}, sample, `${t(`network.link_${link}`)}: ${counts[link]}`);
  });
  const over = draw("svg", { viewBox: "0 0 20 20", width: 14, height: 14, "aria-hidden": "true" });
  over.append(draw("circle", { class: "dot over", cx: 10, cy: 10, r: 7 }));
  return el("ul", { class: "legend" }, ...items, el("li", {}, over, t("network.map_over")));
}
