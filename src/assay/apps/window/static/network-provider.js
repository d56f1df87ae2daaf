// One provider: its offers, how it is reached, and what became of its answers.
import { el, fill, foreign } from "./dom.js";
import { bars, daysOf } from "./network-bars.js";
import { cell, checks, price } from "./network-providers.js";
import { because, figure, money, passedOver, reached, seconds } from "./network-say.js";
import { asOwner } from "./owner.js";
import { language, moment, number, t } from "./texts.js";

const DAYS = 90;

/** Show the provider with this address. */
export async function showProvider(root, address) {
  const status = root.querySelector("[data-status]");
  try {
    const found = await asOwner(`/window/providers/${encodeURIComponent(address)}`);
    fill(root.querySelector("[data-found]"), ...parts(found));
    status.textContent = "";
  } catch (error) {
    fill(status, t("network.failed", { reason: error.message }));
  }
}

function parts(found) {
  const days = daysOf(found.days);
  return [
    el("p", { class: "name digest" }, found.address, " ", passedOver(found)),
    el("p", {}, because(found)),
    el("dl", { class: "panel facts" }, ...facts(found)),
    el("h2", {}, t("network.offers")),
    offers(found.offers),
    el("h2", {}, t("network.history")),
    el("p", { class: "quiet" }, t("network.history_lead")),
    el("div", { class: "panel" }, bars(days, found.today, DAYS)),
    days.length ? numbers(days) : el("p", { class: "quiet" }, t("network.no_history")),
  ];
}

function facts(found) {
  const record = found.record;
  const items = [
    ["reached", reached(found)],
    ["region", found.region ? foreign(found.region, 16) : t("network.unknown")],
    ["stake", found.stake === null ? t("network.unknown") : money(found.stake)],
    ["checks", checks(found)],
    ["trust", figure(found.trust, { style: "percent", maximumFractionDigits: 1 })],
  ];
  if (record) {
    items.push(["parallel", figure(record.parallel)]);
    items.push(["endpoints", el("ul", { class: "plain" }, ...record.endpoints.map((url) => el("li", {}, foreign(url, 300))))]);
    items.push(["issued", moment(record.issued)], ["expires", moment(record.expires)]);
  }
  return items.map(([key, value]) => el("div", {}, el("dt", {}, t(`network.${key}`)), el("dd", {}, value)));
}

function table(name, keys, rows) {
  const heads = keys.map((key) => el("th", { role: "columnheader", scope: "col" }, t(`network.${key}`)));
  return el(
    "table",
    { role: "table", class: "cards" },
    el("caption", { class: "visually-hidden" }, t(`network.${name}`)),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...heads)),
    el("tbody", { role: "rowgroup" }, ...rows.map((cells) => el("tr", { role: "row" }, ...cells))),
  );
}

function offers(list) {
  const rows = list.map((offer) => [
    cell("model", foreign(offer.model, 256), el("span", { class: "small quiet digest" }, offer.digest)),
    cell("level", String(offer.level)),
    cell("price", price(offer)),
    cell("context_size", figure(offer.context)),
    cell("first", offer.seen ? seconds(offer.seen.first) : "–"),
    cell("pace", offer.seen ? figure(offer.seen.pace, { maximumFractionDigits: 1 }) : "–"),
    cell("rests_on", offer.seen ? figure(offer.seen.answers) : figure(0)),
  ]);
  return table("offers", ["model", "level", "price", "context_size", "first", "pace", "rests_on"], rows);
}

function numbers(days) {
  const written = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeZone: "UTC" });
  const rows = [...days].reverse().map(([day, answers, held, failed, inconclusive]) => [
    cell("day", written.format(new Date(day * 86_400_000))),
    ...Object.entries({ receipts: answers, holds: held, fails: failed, inconclusive }).map(([key, value]) => cell(key, number(value))),
  ]);
  const keys = ["day", "receipts", "holds", "fails", "inconclusive"];
  return el("details", {}, el("summary", {}, t("network.as_numbers")), table("history", keys, rows));
}
