// Words of the page of receipts: sums, times, and why a file was refused.
import { el, foreign } from "./dom.js";
import { moment, number, t } from "./texts.js";

const LATEST_S = 8_640_000_000_000; // the last moment that a Date can be

/** A moment (Unix seconds), whatever number a stranger wrote. */
export const when = (seconds) => (seconds <= LATEST_S ? moment(seconds) : number(seconds));

/** A span of microseconds, as seconds. */
export const span = (micros) => t("receipt.seconds", { count: number(micros / 1e6, { maximumSignificantDigits: 3 }) });

/** An amount of wei, also in tokens of 10^18 where it is many. */
export function money(wei) {
  const amount = BigInt(wei);
  if (amount < 10n ** 12n) return t("receipt.wei", { count: number(amount) });
  const tokens = number(Number(amount) / 1e18, { maximumSignificantDigits: 6 });
  return t("receipt.wei_tokens", { count: number(amount), tokens });
}

const MOST_LONG = 10_000;

/** A digest or another long value of a file's: it may break anywhere. */
export const long = (value) => el("span", { class: "digest" }, foreign(value, MOST_LONG));

/** The first part of a long value, the whole of it folded away. */
export function folded(value) {
  const text = String(value);
  if (text.length <= 24) return long(text);
  return el("details", { class: "fold" }, el("summary", {}, long(`${text.slice(0, 10)}…`)), long(text));
}

/** The name of a field, as files have it. */
export const fieldName = (field) => el("code", { class: "field", dir: "ltr" }, foreign(field, 120));

const OUTCOMES = { holds: "good", fails: "bad", inconclusive: "doubt", unchecked: "doubt" };

/** How a verdict went, as a badge. */
export function verdictLine(outcome) {
  const known = Object.hasOwn(OUTCOMES, outcome) ? outcome : "inconclusive";
  return el("p", {}, el("span", { class: `badge ${OUTCOMES[known]}` }, t(`receipt.outcome_${known}`)));
}

/** What a verdict rests on, finding by finding. */
export function findings(verdict) {
  const items = verdict.findings.map((each) => {
    const kind = OUTCOMES[each.outcome] ?? "doubt";
    const mark = el("span", { class: `badge ${kind}` }, foreign(each.check, 40));
    return el("li", {}, mark, " ", foreign(each.reason, 1000));
  });
  return el("ul", { class: "findings" }, ...items);
}

/** Why a file is no receipt file: a headline, what is wrong where, and what to do. */
export function refusal(error) {
  const { code, field, values } = error;
  const why = t(code === "value" ? `receipt.expected_${values.expected}` : `receipt.refused_${code}`, values);
  return [
    el("h2", {}, t("receipt.refused")),
    field ? el("p", {}, t("receipt.refused_field"), " ", fieldName(field)) : null,
    values.odd ? el("p", {}, t("receipt.refused_odd"), " ", fieldName(values.odd)) : null,
    el("p", {}, why),
    values.near ? el("p", {}, t("receipt.refused_near"), " ", fieldName(values.near)) : null,
    el("p", { class: "quiet" }, t("receipt.refused_remedy")),
  ].filter((child) => child !== null);
}
