// What became of a provider's answers, day by day, as bars: found right, found wrong, not checked.
import { t } from "./texts.js";
import { figure } from "./network-say.js";

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element; see `el`. */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Days from outside, [day, answers, held, failed, inconclusive] each, as far as they are numbers. */
export function daysOf(value) {
  if (!Array.isArray(value)) return [];
  return value.filter((day) => Array.isArray(day) && day.length === 5 && day.every(Number.isSafeInteger));
}

/** The bars of `count` days up to `today` (days since 1970). */
export function bars(days, today, count) {
  const width = 8;
  const height = 32;
  const sums = { answers: 0, held: 0, failed: 0 };
  const most = Math.max(1, ...days.map((day) => day[1]));
  const picture = draw("svg", {
    class: "bars",
    viewBox: `0 0 ${count * width} ${height}`,
    width: count * width,
    height,
    preserveAspectRatio: "none",
    role: "img",
  });
  for (const [day, answers, held, failed] of days) {
    const x = (count - 1 - (today - day)) * width;
    if (x < 0 || day > today) continue;
    sums.answers += answers;
    sums.held += held;
    sums.failed += failed;
    let top = height;
    // What was found wrong is seen however little it is.
    for (const [kind, number, least] of [["failed", failed, 4], ["held", held, 2], ["open", answers - held - failed, 1]]) {
      if (number <= 0) continue;
      const tall = Math.min(Math.max((number / most) * height, least), top);
      top -= tall;
      picture.append(draw("rect", { class: `bar-${kind}`, x: x + 1, y: top, width: width - 2, height: tall }));
    }
  }
  picture.append(draw("line", { class: "bar-ground", x1: 0, x2: count * width, y1: height - 0.5, y2: height - 0.5 }));
  const words = Object.fromEntries(Object.entries(sums).map(([name, value]) => [name, figure(value)]));
  picture.setAttribute("aria-label", t("network.bars", { count: figure(count), ...words }));
  return picture;
}
