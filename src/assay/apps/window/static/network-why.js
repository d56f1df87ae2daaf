// Why this provider? What a request's trace says of the choice, step by step.
import { el, fill, foreign } from "./dom.js";
import { figure, provider, seconds } from "./network-say.js";
import { asOwner } from "./owner.js";
import { t } from "./texts.js";

const WISHES = ["after", "model_digest", "only", "ignore", "dishonest", "seeded", "region", "min_stake", "max_price"];
const TIERS = ["explored", "known", "newcomer", "failed", "unclear", "rests"];
const SORTS = ["balance", "price", "latency", "throughput"];
const STAGES = ["last_token", "attest", "check", "keep"];

/** The form that asks for a request's name, where there is one. */
export function askWhy(form) {
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    location.assign(`/network/why/${encodeURIComponent(form.elements.name.value.trim())}`);
  });
}

/** Show the choices of the request with this name. */
export async function showWhy(root, name) {
  const status = root.querySelector("[data-status]");
  try {
    const { traces } = await asOwner(`/traces/${encodeURIComponent(name)}`);
    fill(root.querySelector("[data-found]"), ...traces.map(choice));
    status.textContent = t("network.why_told");
  } catch (error) {
    fill(status, t("network.failed", { reason: error.message }));
  }
}

function choice(marks, index) {
  const items = marks.map((mark) =>
    el("li", {}, el("span", { class: "small quiet" }, seconds(mark.at_us / 1e6)), el("div", {}, ...told(mark))),
  );
  return el("section", {}, el("h2", {}, t("network.choice", { number: figure(index + 1) })), el("ol", { class: "steps" }, ...items));
}

function told(mark) {
  const facts = mark.facts ?? {};
  if (Array.isArray(facts.shortlist)) return matched(facts);
  if (Array.isArray(facts.probed)) return probed(facts.probed);
  if (mark.stage === "send" && facts.provider) return sent(facts);
  if (mark.stage === "first_token" && facts.provider) return [...around("network.step_first_token", provider(facts.provider))];
  if (mark.stage === "failed" && facts.provider) return failed(mark, facts);
  const title = STAGES.includes(mark.stage) ? [strong(t(`network.step_${mark.stage}`)), " "] : [];
  return [...title, foreign(mark.note, 400)];
}

function matched(facts) {
  const counts = { all: figure(facts.all), like: figure(facts.like), level: String(facts.level) };
  const fit = facts.wishes?.length ? facts.wishes.at(-1).left : facts.like;
  const sort = SORTS.includes(facts.sort) ? facts.sort : "balance";
  return [
    el("p", {}, ...around("network.step_like", foreign(facts.model, 100), counts)),
    el("ul", {}, ...(facts.wishes ?? []).map(wish)),
    el("p", {}, strong(t("network.step_fit", { count: figure(fit) }))),
    ...(facts.shortlist.length ? [el("p", {}, t(`network.sort_${sort}`)), shortlist(facts.shortlist)] : []),
  ];
}

function wish({ wish: name, value, left, out }) {
  const key = WISHES.includes(name) ? name : "other";
  const examples = Array.isArray(out) ? out.slice(0, 4).flatMap((each, index) => [index ? ", " : "", provider(each)]) : [];
  return el(
    "li",
    {},
    ...around(`network.wish_${key}`, foreign(value, 200)),
    " ",
    strong(t("network.wish_left", { count: figure(left) })),
    examples.length ? el("span", { class: "small quiet" }, t("network.wish_out"), " ", ...examples) : null,
  );
}

function shortlist(rows) {
  const items = rows.map(({ provider: name, tier }) => {
    const key = TIERS.includes(tier) ? tier : "unclear";
    return el("li", {}, provider(name), " ", el("span", { class: "quiet" }, t(`network.tier_${key}`)));
  });
  return el("details", { open: rows.length < 5 }, el("summary", {}, t("network.shortlist", { count: figure(rows.length) })), el("ol", {}, ...items));
}

function probed(rows) {
  const items = rows.map((each) => {
    const known = ["room", "full", "served", "late", "nothing"].includes(each.said) ? each.said : "nothing";
    const load = { running: figure(each.running), places: figure(each.places) };
    const after = Number.isFinite(each.after_ms) ? ` (${seconds(each.after_ms / 1000)})` : "";
    return el("li", {}, provider(each.provider), " ", t(`network.said_${known}`, load), after);
  });
  return [el("p", {}, t("network.step_probed", { count: figure(rows.length) })), el("ul", {}, ...items)];
}

function sent({ provider: name, beside }) {
  if (!beside?.length) return around("network.step_send", provider(name));
  return [...around("network.step_send", provider(name)), " ", ...around("network.step_beside", provider(beside[0]))];
}

function failed(mark, { provider: name, late }) {
  if (late) return around("network.step_late", provider(name));
  const words = String(mark.note).startsWith(`${name}: `) ? mark.note.slice(name.length + 2) : mark.note;
  return [...around("network.step_failed", provider(name)), " ", foreign(words, 400)];
}

/** A text with an element in place of its {it}. */
function* around(key, element, values = {}) {
  const [before, after] = t(key, { ...values, it: "\u0000" }).split("\u0000");
  yield before;
  yield element;
  yield after ?? "";
}

function strong(text) {
  return el("strong", {}, text);
}
