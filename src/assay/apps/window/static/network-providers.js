// The table of providers.
import { el, fill, foreign } from "./dom.js";
import { bars, daysOf } from "./network-bars.js";
import { listing } from "./network-list.js";
import { drawLinks } from "./network-map.js";
import { figure, money, passedOver, provider, reached, seconds, short, sourceName } from "./network-say.js";
import { number, t } from "./texts.js";

const DAYS = 14;
// When there is nothing else to do: the table is what was asked for.
const later = (work) => (window.requestIdleCallback ?? setTimeout)(work, window.requestIdleCallback && { timeout: 500 });

/** Run the table; `map`: the figure for its links, if there is one. */
export function listProviders(root, map) {
  listing(root, {
    path: "/window/providers",
    sort: "price",
    descending: false,
    rising: ["address", "price", "first"],
    kept: true,
    row: (each, page) => row(each, page.today),
    told,
    came: (page) => {
      choices(root.querySelector("[name=model]"), page.models, (name) => foreign(name, 80).textContent);
      choices(root.querySelector("[name=source]"), Object.keys(page.sources), sourceName);
      if (map) later(() => drawLinks(map, page.rows));
    },
  });
}

function told(page) {
  if (page.all === 0) return page.trouble ? t("network.trouble", { reason: page.trouble }) : t("network.nobody");
  if (page.found === 0) return t("network.no_match", { all: number(page.all) });
  return t("network.shown", {
    from: number(page.before + 1),
    to: number(page.before + page.rows.length),
    found: number(page.found),
    all: number(page.all),
  });
}

/** Keep what is chosen, whatever else there is now. */
function choices(select, values, spelled) {
  const now = values.join("\n");
  if (!select || select.dataset.values === now) return;
  select.dataset.values = now;
  const chosen = select.value;
  const all = chosen === "" || values.includes(chosen) ? values : [chosen, ...values];
  fill(select, select.options[0], ...all.map((value) => el("option", { value }, spelled(value))));
  select.value = chosen;
}

function row(each, today) {
  const seen = each.seen;
  const rests = seen ? t("network.answers", { count: figure(seen.answers) }) : t("network.unseen");
  return el(
    "tr",
    { role: "row" },
    cell("provider", provider(each.address), each.region ? small(foreign(each.region, 16)) : null, passedOver(each)),
    cell("offers", offers(each)),
    cell("price", price(each.offers[0])),
    cell("stake", each.stake === null ? quiet(t("network.unknown")) : money(each.stake)),
    cell("reached", reached(each)),
    cell("first", seen ? seconds(seen.first) : quiet("–")),
    cell("pace", seen ? figure(seen.pace, { maximumFractionDigits: 1 }) : quiet("–"), small(rests)),
    cell("checks", checks(each), bars(daysOf(each.days), today, DAYS)),
  );
}

/** A cell that says on narrow screens what it is. */
export function cell(key, ...children) {
  return el("td", { role: "cell", dataset: { label: t(`network.${key}`) } }, el("div", {}, ...children));
}

/** Checks that passed and failed. */
export function checks(each) {
  if (!each.checked) return quiet(t("network.unchecked"));
  const failed = el("span", { class: each.failed ? "wrong" : "quiet" }, t("network.failed_checks", { count: figure(each.failed) }));
  return el("span", {}, t("network.passed_checks", { count: figure(each.passed) }), " · ", failed);
}

/** What an offer asks for. */
export function price(offer) {
  if (!offer) return quiet("–");
  if (offer.prompt === "0" && offer.output === "0") return t("network.free");
  return t("network.price_of", { prompt: wei(offer.prompt), output: wei(offer.output) });
}

function wei(value) {
  if (typeof value !== "string" || !/^\d{1,40}$/.test(value)) return "–";
  // Nobody's price makes the table wide for all.
  if (value.length > 15) return number(Number(value), { notation: "scientific", maximumSignificantDigits: 4 });
  return number(BigInt(value));
}

function offers(each) {
  const items = each.offers.map((offer) =>
    el(
      "li",
      {},
      foreign(offer.model, 60),
      " ",
      el("span", { class: "level" }, String(offer.level)),
      small(
        el("span", { class: "digest", title: offer.digest }, short(offer.digest)),
        ` · ${t("network.context", { count: figure(offer.context) })}`,
      ),
    ),
  );
  if (each.more > 0) items.push(el("li", { class: "quiet" }, t("network.more", { count: figure(each.more) })));
  return el("ul", { class: "plain" }, ...items);
}

function small(...children) {
  return el("span", { class: "small quiet" }, ...children);
}

function quiet(text) {
  return el("span", { class: "quiet" }, text);
}
