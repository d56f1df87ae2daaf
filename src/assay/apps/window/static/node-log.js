// The program's log: the lines that it keeps in memory, and those that come.
import { el, foreign } from "./dom.js";
import { count, every, one } from "./node-parts.js";
import { language, number, t } from "./texts.js";

const MOST = 500;
const RANKS = { debug: 0, info: 1, warning: 2, error: 3, critical: 3 };
const BADGES = { 0: "", 1: "", 2: "doubt", 3: "bad" };
const clock = new Intl.DateTimeFormat(language, { timeStyle: "medium" });
let last = 0;

/** Begin to show it. `asOwner`: how the owner asks. */
export function log(asOwner) {
  one("log-level").addEventListener("change", sift);
  one("log-follow").addEventListener("change", follow);
  sift();
  every(() => 2, async () => {
    try {
      const { lines } = await asOwner(`/window/owner/log?after=${last}`);
      if (lines.length) add(lines);
    } catch {
      // the page says it at its top
    }
  });
}

function add(lines) {
  const box = one("log");
  last = count(lines.at(-1).number);
  box.append(...lines.map(line));
  while (box.childElementCount > MOST) box.firstElementChild.remove();
  sift();
  follow();
}

function line(each) {
  const rank = RANKS[each.level] ?? 1;
  const when = new Date(count(each.time) * 1000);
  return el(
    "p",
    { dataset: { rank }, dir: "ltr" },
    el("time", { datetime: when.toISOString(), class: "quiet" }, clock.format(when)),
    " ",
    el("span", { class: `badge ${BADGES[rank]}` }, foreign(each.level, 10)),
    " ",
    each.program ? el("span", { class: "quiet" }, foreign(each.program, 40), " ") : null,
    foreign(each.text, 2000),
  );
}

function sift() {
  const least = RANKS[one("log-level").value];
  const lines = [...one("log").children];
  for (const each of lines) each.hidden = Number(each.dataset.rank) < least;
  const shown = lines.filter((each) => !each.hidden).length;
  one("log-count").textContent = shown ? t("node.lines", { count: number(shown) }) : t("node.no_lines");
}

function follow() {
  if (one("log-follow").checked) one("log").scrollTop = one("log").scrollHeight;
}
