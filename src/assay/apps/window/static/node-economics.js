// What a price would earn, and what makes cheating a loss (`assay economics`), while numbers are typed.
import { el, fill } from "./dom.js";
import { count, facts, one, tell, wei } from "./node-parts.js";
import { number, t } from "./texts.js";

const DAY = 86_400;
const PAUSE_MS = 250;
const NUMBERS = new Set(["bond", "holdback", "audit"]);
const SOLVED = { bond: "bond", holdback: "holdback", "audit-rate": "audit", nothing: null };
const RESULTS = {
  bond_wei: wei,
  holdback_seconds: seconds,
  held_seconds: seconds,
  audit_share: percent,
  caught_share: percent,
  returned_share: percent,
  cheat_profit_wei: wei,
  cheat_seconds: seconds,
  reward_wei: wei,
  dispute_pays: yes,
  audits_pay_above: (value) => (value === null ? t("node.at_none") : percent(value)),
  deposit_covers_defence: yes,
};

function seconds(value) {
  return t("node.seconds", { count: number(count(value)) });
}

function percent(value) {
  return number(count(value), { style: "percent", maximumSignificantDigits: 6 });
}

function yes(value) {
  return t(value === true ? "node.yes" : "node.no");
}

/** Begin to show what a price earns: of `found`, what the program does now. */
export function estimate(found) {
  if (typeof found.pace === "number" && found.pace > 0) one("e-pace").value = found.pace.toFixed(1);
  const price = found.program === "gateway" ? null : found.offers[0]?.output_wei;
  if (typeof price === "string" && /^[1-9][0-9]{0,29}$/.test(price)) one("e-price").value = price;
  one("estimate").addEventListener("submit", (event) => event.preventDefault());
  one("estimate").addEventListener("input", earned);
  earned();
}

function earned() {
  const pace = Number(one("e-pace").value.replace(",", "."));
  const share = Number(one("e-share").value) / 100;
  const price = one("e-price").value.trim();
  one("e-share-now").textContent = number(share, { style: "percent" });
  const paceWrong = !(pace >= 0 && pace <= 1e6) || one("e-pace").value.trim() === "";
  const priceWrong = !/^[0-9]{1,30}$/.test(price);
  one("e-pace").setAttribute("aria-invalid", paceWrong);
  one("e-price").setAttribute("aria-invalid", priceWrong);
  if (paceWrong || priceWrong) return fill(one("e-result"), t("node.e_wrong"));
  const tokens = BigInt(Math.round(pace * share * DAY));
  return fill(
    one("e-result"),
    el("strong", {}, wei(String(tokens * BigInt(price)))),
    " ",
    t("node.e_day", { tokens: number(tokens) }),
  );
}

/** Begin to calculate. `asOwner`: how the owner asks. */
export function economics(asOwner) {
  const form = one("economics");
  let timer = null;
  let asking = null;
  const calculate = async () => {
    asking?.abort();
    const mine = (asking = new AbortController());
    try {
      const body = question(form);
      show(await asOwner("/window/owner/economics", { method: "POST", body, signal: mine.signal }));
    } catch (error) {
      if (!mine.signal.aborted) refuse(error.message);
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    open(form);
    clearTimeout(timer);
    timer = setTimeout(calculate, PAUSE_MS);
  });
  open(form);
  calculate();
}

/** What is solved for is nothing to type. */
function open(form) {
  for (const name of NUMBERS) form.elements[name].disabled = SOLVED[form.elements.solve.value] === name;
}

function question(form) {
  const given = [...new FormData(form)].map(([name, value]) => [name, value.trim()]);
  return Object.fromEntries(given.filter(([, value]) => value !== ""));
}

function refuse(words) {
  fill(one("economics-words"));
  fill(one("economics-result"));
  tell(one("economics-problem"), words);
}

function show(found) {
  tell(one("economics-problem"), null);
  const kind = found.safe === true ? "good" : "bad";
  fill(one("economics-words"), el("span", { class: `badge ${kind}` }, t(`node.safe_${kind}`)));
  const results = Object.entries(RESULTS).map(([name, shown]) => [t(`node.r_${name}`), shown(found[name])]);
  fill(one("economics-result"), ...facts(results));
}
