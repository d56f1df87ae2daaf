// The table of receipts, for the owner.
import { el, foreign } from "./dom.js";
import { listing } from "./network-list.js";
import { cell } from "./network-providers.js";
import { figure, money, provider, short, verdict } from "./network-say.js";
import { moment, number, t } from "./texts.js";

const NAME = /^[A-Za-z0-9_-]{43}$/;

/** Run the table. */
export function listReceipts(root) {
  listing(root, {
    path: "/window/receipts",
    sort: "kept",
    descending: true,
    row: (each, page) => row(each, page.names),
    told: (page) => (page.found ? t("network.receipts_found", { count: number(page.found) }) : t("network.no_receipts")),
  });
}

function row(each, names) {
  const time = Number.isSafeInteger(each.kept) ? moment(each.kept) : "–";
  const linked = NAME.test(each.name) ? el("a", { href: `/receipt/${each.name}` }, time) : time;
  const model = Object.hasOwn(names, each.model) ? foreign(names[each.model], 60) : null;
  const tokens = { prompt: figure(each.prompt), output: figure(each.output) };
  return el(
    "tr",
    { role: "row" },
    cell("time", linked),
    cell("provider", provider(each.provider)),
    cell("model", model, el("span", { class: "small quiet digest", title: each.model }, short(each.model))),
    cell("level", String(each.level)),
    cell("tokens", t("network.tokens_of", tokens)),
    cell("amount", money(each.amount)),
    cell("verdict", verdict(each.outcome)),
  );
}
