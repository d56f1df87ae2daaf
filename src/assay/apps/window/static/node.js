// The node: what its owner sees and does. Everything here is asked for with the owner's token.
import { el, fill, foreign } from "./dom.js";
import { doctor } from "./node-doctor.js";
import { economics, estimate } from "./node-economics.js";
import { log } from "./node-log.js";
import { models } from "./node-models.js";
import { count, duration, every, facts, one, tell, wei } from "./node-parts.js";
import { sale, show as selling } from "./node-sale.js";
import { asOwner, ownerToken } from "./owner.js";
import { moment, number, t } from "./texts.js";

const OFFER = ["model", "level", "context", "prompt", "output"];
const SUMS = ["deposited", "withdrawn", "earned", "signed", "accepted"];
const EARNED = ["owed", "paid", "claimed", "held", "ripe", "purse", "bond", "leaving"];
const PROGRAMS = new Set(["gateway", "node", "provider"]);
const CHANNEL = ["provider", "state", "deposited", "earned", "signed", "left"];
let opened = false;
const shown = new Map();

/** Whether a part has other values than those that are shown: what has the focus stays where nothing changes. */
function fresh(part, value) {
  const now = JSON.stringify(value);
  const changed = shown.get(part) !== now;
  shown.set(part, now);
  return changed;
}

/** Ask for something of the owner's; where that fails, the page says why. null: it did. */
async function asked(path, options) {
  try {
    const found = await asOwner(path, options);
    tell(one("state"), null);
    return found;
  } catch (error) {
    if (error.status === 403) shut(error.message);
    else tell(one("state"), error.status ? error.message : t("node.away"));
    return null;
  }
}

function shut(words) {
  one("owner").hidden = true;
  one("stranger").hidden = false;
  one("command").textContent = `assay window --url ${location.origin}`;
  tell(one("state"), words);
}

async function look() {
  if (ownerToken() === null) return;
  const found = await asked("/window/owner/node");
  if (found === null) return;
  one("stranger").hidden = true;
  one("owner").hidden = false;
  runs(found);
  if (fresh("offers", [found.offers, found.offers_in_all, found.offers_problem])) offers(found);
  if (fresh("money", [found.money, found.earnings])) money(found);
  if (fresh("settings", found.settings)) settings(found.settings);
  if (found.program === "provider") selling(found.sale, [...new Set(found.offers.map((each) => each.level))]);
  if (opened) return;
  opened = true;
  if (found.program === "provider") sale(asOwner);
  estimate(found);
  economics(asOwner);
  models(asOwner);
  doctor(asOwner);
  log(asOwner);
}

function settings(found) {
  const said = (value) => foreign(typeof value === "string" ? value : JSON.stringify(value));
  fill(one("settings"), ...facts(Object.entries(found).map(([name, value]) => [name, said(value)])));
}

function runs(found) {
  const load = found.load ?? { running: 0, places: 0 };
  fill(
    one("figures"),
    figure(share(count(load.running), count(load.places)), t("node.under_way")),
    figure(typeof found.pace === "number" ? number(found.pace, { maximumFractionDigits: 1 }) : "–", t("node.pace")),
    figure(duration(Date.now() / 1000 - count(found.since)), t("node.uptime")),
  );
  fill(
    one("facts"),
    ...facts([
      [t("node.program"), t(`node.is_${PROGRAMS.has(found.program) ? found.program : "node"}`)],
      [t("node.version"), foreign(found.version)],
      [t("node.url"), el("span", { class: "digest" }, location.origin)],
      [t("node.key"), el("span", { class: "digest" }, foreign(found.address))],
      [t("node.since"), moment(count(found.since))],
    ]),
  );
  places(found);
}

const share = (part, all) => t("node.places_of", { open: number(part), all: number(all) });

const figure = (value, words) =>
  el("div", { class: "figure" }, el("strong", {}, value), el("span", { class: "quiet" }, words));

function places(found) {
  const slider = one("open-places");
  one("places").hidden = found.places === null;
  if (found.places === null || document.activeElement === slider) return;
  slider.max = count(found.places);
  slider.value = count(found.load.places);
  shownPlaces();
}

function shownPlaces() {
  const slider = one("open-places");
  const [open, all] = [Number(slider.value), Number(slider.max)];
  const words = open ? share(open, all) : t("node.places_none", { all: number(all) });
  one("places-now").textContent = words;
  slider.setAttribute("aria-valuetext", words);
}

one("places").addEventListener("submit", (event) => event.preventDefault());
one("open-places").addEventListener("input", shownPlaces);
one("open-places").addEventListener("change", async (event) => {
  try {
    await asOwner("/window/owner/sale", { method: "POST", body: { places: Number(event.target.value) } });
    tell(one("places-problem"), null);
  } catch (error) {
    tell(one("places-problem"), error.message);
  }
});

function offers(found) {
  if (!found.offers.length) {
    const why = found.offers_problem ? el("p", { class: "problem" }, foreign(found.offers_problem, 1000)) : null;
    return fill(one("offers"), el("p", { class: "quiet" }, t("node.no_offers")), why);
  }
  const rows = found.offers.map((each) => [
    foreign(each.model, 80),
    foreign(each.level),
    number(count(each.context)),
    wei(each.prompt_wei),
    wei(each.output_wei),
  ]);
  const more = count(found.offers_in_all) - found.offers.length;
  return fill(
    one("offers"),
    table(OFFER.map((name) => t(`node.offer_${name}`)), rows),
    more > 0 ? el("p", { class: "quiet" }, t("node.more", { count: number(more) })) : null,
  );
}

const table = (heads, rows) =>
  el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell) => el("td", {}, cell))))),
  );

function money(found) {
  const there = found.money;
  if (found.earnings !== null) return earnings(found.earnings);
  const program = PROGRAMS.has(found.program) ? found.program : "node";
  if (there === null) return fill(one("money"), el("p", {}, t(`node.no_money_${program}`)));
  const sums = SUMS.map((kind) => [t(`node.sum_${kind}`), wei(there[`${kind}_wei`])]);
  const rows = there.channels.map((each) => [
    el("span", { class: "digest", title: each.provider }, foreign(`${each.provider.slice(0, 12)}…`)),
    foreign(each.reason === "" ? each.state : `${each.state}: ${each.reason}`),
    ...CHANNEL.slice(2).map((name) => wei(each[name])),
  ]);
  const label = { class: "scroll", role: "region", tabindex: "0", "aria-label": t("node.channels") };
  return fill(
    one("money"),
    el("dl", { class: "facts" }, ...facts([
      [t("node.budget"), wei(there.budget_wei)],
      [t("node.bound"), wei(there.bound_wei)],
      ...sums,
    ])),
    el("h3", {}, t("node.channels_of", { count: number(count(there.channels_in_all)) })),
    rows.length ? el("div", label, table(CHANNEL.map((name) => t(`node.channel_${name}`)), rows)) : null,
  );
}

function earnings(found) {
  const known = EARNED.filter((kind) => Object.hasOwn(found, `${kind}_wei`));
  return fill(
    one("money"),
    el("dl", { class: "facts" }, ...facts(known.map((kind) => [t(`node.earned_${kind}`), wei(found[`${kind}_wei`])]))),
    found.problem === "" ? null : el("p", { class: "problem" }, t("node.chain_away"), " ", foreign(found.problem, 500)),
  );
}

function begin() {
  if (ownerToken() === null) shut(null);
}

addEventListener("hashchange", () => {
  begin();
  look();
});
begin();
every(() => 2, look);
