// What a dispute came down to: from all passes to one number, from all operations to one; and that number, twice.
import { count } from "./court_words.js";
import { el, fill, foreign } from "./dom.js";
import { asOwner, ownerToken } from "./owner.js";
import { t } from "./texts.js";

const CHUNK = 256;
const computed = new Map();

/** Draw it. `found`: what the server said of the case. */
export function drawPoint({ case: own, point, steps }) {
  const opening = steps.find((step) => step.what === "opened");
  return el(
    "section",
    { class: "panel point" },
    el("h2", {}, t("court.point")),
    funnel(point, opening),
    numbers(own, point),
  );
}

function funnel(point, opening) {
  const passes = opening ? opening.prompt_count + opening.output_count - 1 : 0;
  const all = point.chunks ? (point.chunks[0] + point.chunks[1]) * CHUNK : 0;
  const rows = [
    [t("court.funnel_passes", { count: count(passes) }), passes, pass(point, opening)],
    point.entry === null ? null : [t("court.funnel_numbers", { count: count(all) }), all, what(point)],
    point.cells === null
      ? null
      : [t("court.funnel_cells", { count: count(point.cells) }), point.cells, operation(point)],
  ].filter((row) => row !== null);
  const most = Math.max(...rows.map(([, size]) => Math.log2(size + 1)), 1);
  return el(
    "ol",
    { class: "funnel" },
    ...rows.map(([from, size, to]) =>
      el(
        "li",
        {},
        el("span", { class: "from" }, from),
        bar(Math.log2(size + 1) / most),
        el("span", { class: "to" }, to),
      ),
    ),
  );
}

function bar(share) {
  const inner = el("span");
  inner.style.inlineSize = `${Math.round(100 * share)}%`;
  return el("span", { class: "size", "aria-hidden": "true" }, inner);
}

function pass(point, opening) {
  const words = t("court.pass", { pass: count(point.position) });
  if (!opening) return words;
  const output = point.position - opening.prompt_count + 1;
  const where = output < 0 ? t("court.pass_prompt") : t("court.pass_token", { token: count(output) });
  return `${words}, ${where}${point.token ? `: ${t("court.pass_drawn")}` : ""}`;
}

function what(point) {
  const found = point.number;
  if (found === null) return t("court.entry", { entry: count(point.entry) });
  const place = { n: count(found.at), of: count(found.size), layer: count(found.layer) };
  return el("span", {}, t(`court.vector_${found.vector.replaceAll(" ", "_")}`, place));
}

function operation(point) {
  if (point.cell === null) return t("court.cell_open");
  const place = t("court.cell", { n: count(point.cell) });
  const found = point.operation;
  if (found === null) return `${place} (${t("court.cell_unknown")})`;
  const layer = found.layer < 0 ? "" : `, ${t("court.layer", { layer: count(found.layer) })}`;
  const use = found.use ? el("code", {}, ` ${found.use}`) : null;
  return el("span", {}, `${place}: `, el("strong", {}, t(`court.op_${found.kind}`)), use, layer);
}

function numbers(own, point) {
  const known = computed.get(own.name);
  if (point.committed === null && !point.token) return el("p", { class: "quiet" }, t("court.no_number"));
  const committed = point.committed ?? known?.committed;
  return el(
    "div",
    { class: "pair" },
    figure("court.committed", committed === undefined ? null : count(committed), wrong(own, known) ? "bad" : ""),
    figure("court.follows", known ? count(known.follows) : null, "good"),
    known ? receipt(known) : ask(own, point),
  );
}

/** Whether the receipt's number is known to be wrong: by what was computed here, else by how the case ended. */
function wrong(own, known) {
  return known ? known.follows !== known.committed : own.state === "challenger";
}

function figure(key, value, style) {
  return el(
    "p",
    { class: `figure ${value === null ? "" : style}` },
    el("span", {}, t(key)),
    el("strong", { dir: "ltr" }, value ?? "?"),
  );
}

function receipt(known) {
  const words = el("p", { class: "quiet" }, t(known.follows === known.committed ? "court.same" : "court.differs"));
  if (document.querySelector('nav a[href="/receipt"]')) {
    words.append(" ", el("a", { href: `/receipt/${known.name}` }, t("court.see_receipt")));
  }
  return words;
}

/** The owner may have it computed here. */
function ask(own, point) {
  if (ownerToken() === null) return el("p", { class: "quiet" }, t("court.compute_owner"));
  const told = el("p", { role: "status" });
  const button = el("button", { type: "button", id: "compute", class: "main" }, t("court.compute"));
  button.addEventListener("click", async () => {
    button.disabled = true;
    told.textContent = t("court.computing");
    try {
      const found = await asOwner(`/window/court/${own.name}/number`, { method: "POST", body: {} });
      computed.set(own.name, found);
      button.closest(".pair").replaceWith(numbers(own, point));
    } catch (error) {
      fill(told, foreign(error.message));
      button.disabled = false;
    }
  });
  return el("div", { class: "compute" }, el("p", { class: "quiet" }, t("court.compute_why")), button, told);
}
