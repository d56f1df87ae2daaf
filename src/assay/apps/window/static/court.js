// The court: the list of its cases, or one case, kept up to date while somebody looks.
import { drawCase } from "./court_case.js";
import { drawList } from "./court_list.js";
import { el, fill, foreign } from "./dom.js";
import { t } from "./texts.js";

const SECONDS = 5;
const AGAIN_MS = 30_000; // deadlines come nearer, though nothing happens
const place = document.getElementById("court");
const hall = document.getElementById("hall");
const news = document.getElementById("news");
const name = place.dataset.case;
const wish = { state: "", with: "", before: "" };
let shown = "";
let drawn = 0;
let asked = 0;
let opened = new Set();

/** What the page asks for: the list as the reader wishes it, or the case. */
function address() {
  if (name) return `/window/court/${name}`;
  const given = Object.entries(wish).filter(([, value]) => value);
  return `/window/court?${new URLSearchParams(given)}`;
}

async function look() {
  const turn = ++asked;
  let text;
  try {
    const reply = await fetch(address(), { cache: "no-store" });
    text = await reply.text();
    if (turn !== asked) return;
    if (!reply.ok) return failed(JSON.parse(text).error.message);
  } catch {
    return turn === asked ? failed(t("court.unreachable")) : undefined;
  }
  const { block, now, ...rest } = JSON.parse(text);
  const told = JSON.stringify(rest);
  const same = told === shown;
  if (same && Date.now() - drawn < AGAIN_MS) return; // only the chain goes on
  const first = shown === "";
  [shown, drawn] = [told, Date.now()];
  draw({ ...rest, block, now });
  if (!first && !same) news.textContent = t("court.changed");
}

function failed(words) {
  if (shown === words) return;
  shown = words;
  const back = name ? el("p", {}, el("a", { href: "/court" }, t("court.back"))) : null;
  fill(hall, el("h1", {}, t("court.title")), back, el("p", { class: "panel bad", role: "alert" }, foreign(words)));
}

/** Draw anew; what was unfolded stays so, and the focus where it was. */
function draw(found) {
  for (const each of hall.querySelectorAll("details[id]")) each.open ? opened.add(each.id) : opened.delete(each.id);
  const focus = hall.contains(document.activeElement) ? document.activeElement.id : "";
  const caret = focus && document.activeElement.selectionStart;
  const typed = focus === "with" ? document.activeElement.value : null;
  fill(hall, ...(name ? drawCase(found) : drawList(found, wish, again)));
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  const element = focus ? document.getElementById(focus) : null;
  element?.focus({ preventScroll: true });
  if (element && typed !== null) element.value = typed;
  if (element && typeof caret === "number") element.setSelectionRange(caret, caret);
}

/** The reader wishes another part of the list. */
function again(changes) {
  Object.assign(wish, changes);
  return look();
}

look();
setInterval(() => {
  if (!document.hidden) look();
}, SECONDS * 1000);
