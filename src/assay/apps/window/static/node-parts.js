// What the parts of the owner's page share: numbers as people read them, lists of facts, and looking again.
import { el, fill, foreign } from "./dom.js";
import { number, t } from "./texts.js";

const WEI = 10n ** 18n;
const SHOWN_AS_TOKENS = 10n ** 15n;

/** The element with an id. */
export const one = (id) => document.getElementById(id);

/** A number that came from outside, or 0 where it is none. */
export const count = (value) => (typeof value === "number" && Number.isFinite(value) ? value : 0);

/** An amount: wei as a decimal string; large ones as tokens too. */
export function wei(text) {
  if (typeof text !== "string" || !/^-?[0-9]{1,80}$/.test(text)) return foreign(String(text), 40);
  const value = BigInt(text);
  const exact = t("node.wei", { count: number(value) });
  if ((value < 0n ? -value : value) < SHOWN_AS_TOKENS) return el("span", { class: "amount" }, exact);
  const tokens = Number((value * 1_000_000n) / WEI) / 1e6;
  const shown = t("node.tokens", { count: number(tokens, { maximumFractionDigits: 6 }) });
  return el("span", { class: "amount" }, shown, " ", el("small", { class: "quiet" }, `(${exact})`));
}

/** Bytes in megabytes. */
export const bytes = (size) =>
  number(count(size) / 1e6, { style: "unit", unit: "megabyte", maximumFractionDigits: size < 1e7 ? 1 : 0 });

/** Seconds as hours and minutes. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86_400);
  const hours = Math.floor(whole / 3600) % 24;
  const minutes = Math.floor(whole / 60) % 60;
  const unit = (value, name) => number(value, { style: "unit", unit: name, unitDisplay: "short" });
  if (days) return `${unit(days, "day")} ${unit(hours, "hour")}`;
  if (hours) return `${unit(hours, "hour")} ${unit(minutes, "minute")}`;
  return minutes ? unit(minutes, "minute") : unit(whole, "second");
}

/** Terms and what they are, for a `dl`: pairs of a text and a text or element. */
export const facts = (pairs) =>
  pairs.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value)));

/** Say what is wrong where it is; null takes it back. */
export function tell(element, words) {
  element.hidden = words === null;
  if (words === null) fill(element);
  else if (element.textContent !== words) fill(element, foreign(words, 2000));
}

/**
 * Do something now, and again so many seconds after it was done, while the page is looked at. `seconds` is a function,
 * asked each time. Gives what to call when it would answer something else now.
 */
export function every(seconds, work) {
  let timer = null;
  const round = async () => {
    if (!document.hidden) await work();
    later();
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(round, 1000 * seconds());
  };
  round();
  return later;
}
