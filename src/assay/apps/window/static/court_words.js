// Words and small pieces that the list and a case of the court share.
import { el } from "./dom.js";
import { language, moment, number, t } from "./texts.js";

const STYLES = { open: "doubt", provider: "good", challenger: "bad", void: "" };

/** How a case stands, as a badge. */
export function badge(found) {
  const key = found.state === "provider" && found.kind === "demand" ? "produced" : found.state;
  return el("span", { class: `badge ${STYLES[found.state] ?? ""}` }, t(`court.state_${key}`));
}

/** What a case is called. */
export function title(found) {
  if (found.kind === "equivocation") return t("court.kind_equivocation");
  return t(`court.kind_${found.kind}`, { number: found.name });
}

/** Hexadecimal digits: an address, a digest, a transaction. `whole`: all of them. */
export function digits(text, whole = false) {
  const all = /^(0x)?[0-9a-f]*$/.test(text) ? text : "?";
  const short = all.length > 20 ? `${all.slice(0, all.startsWith("0x") ? 10 : 12)}…` : all;
  return el("code", { class: "digest", title: whole ? null : all }, whole ? all : short);
}

/** Wei as whole tokens of 10^18, as the language writes them. */
export function tokens(wei) {
  const amount = /^\d{1,78}$/.test(wei) ? wei : "0";
  const padded = amount.padStart(19, "0");
  const value = `${padded.slice(0, -18)}.${padded.slice(-18)}`;
  return t("court.tokens", { amount: new Intl.NumberFormat(language, { maximumFractionDigits: 6 }).format(value) });
}

/** A moment by the chain's clock, or a dash. */
export function when(seconds) {
  return Number.isSafeInteger(seconds) && seconds > 0 && seconds < 1e11 ? moment(seconds) : "–";
}

/** How much time is left until a moment, by the chain's clock; empty: none, or that is not known. */
export function left(deadline, now) {
  const seconds = deadline - now;
  if (!(seconds > 0)) return "";
  const [value, unit] =
    seconds >= 172800
      ? [seconds / 86400, "day"]
      : seconds >= 7200
        ? [seconds / 3600, "hour"]
        : [seconds / 60, "minute"];
  return new Intl.RelativeTimeFormat(language, { numeric: "always" }).format(Math.ceil(value), unit);
}

/** A whole number, as the language writes it; whatever else it is, a question mark. */
export function count(value) {
  return Number.isSafeInteger(value) ? number(value) : "?";
}

/** Why the chain tells nothing new; null: it does. */
export function trouble(kind) {
  return kind ? el("p", { class: "panel doubt", role: "alert" }, t(`court.trouble_${kind}`)) : null;
}

/** Names and values. */
export function facts(...pairs) {
  const rows = pairs.filter((pair) => pair !== null);
  return el(
    "dl",
    { class: "facts" },
    ...rows.map(([term, ...of]) => el("div", {}, el("dt", {}, term), el("dd", {}, ...of))),
  );
}
