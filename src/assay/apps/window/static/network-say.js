// Addresses, amounts, times and states as words. What comes from outside is checked to be what it should be.
import { el, foreign } from "./dom.js";
import { number, t } from "./texts.js";

const ADDRESS = /^0x[0-9a-f]{40}$/;
const COIN = 10n ** 18n;
const REASONS = [
  "dishonest", "ignored", "unreachable", "file", "region", "stake", "price", "resting", "unclear",
];
const LINKS = ["direct", "relay", "iroh", "here", "none"];
const TOLD = ["given", "here", "registry", "lan", "peers"];

/** A provider's address, short, as a link to its page; anything else as text. */
export function provider(address) {
  if (!ADDRESS.test(address)) return foreign(address, 60);
  return el("a", { href: `/network/${address}`, class: "digest", title: address }, short(address));
}

/** The beginning and the end of an address or a digest. */
export function short(name) {
  const text = String(name);
  return text.length > 16 ? `${text.slice(0, 8)}…${text.slice(-4)}` : text;
}

/** A number from outside, or `none`. */
export function figure(value, options = {}, none = "–") {
  return Number.isFinite(value) ? number(value, options) : none;
}

/** Wei, or coins of 10^18 wei where it is much. `value`: decimal digits, or null. */
export function money(value) {
  if (typeof value !== "string" || !/^\d{1,48}$/.test(value)) return t("network.unknown");
  const wei = BigInt(value);
  if (wei < COIN / 1000n) return t("network.wei", { count: number(wei) });
  return t("network.coins", { count: number(Number(wei / (COIN / 1000n)) / 1000, { maximumFractionDigits: 3 }) });
}

/** Seconds, in milliseconds where they are few. */
export function seconds(value) {
  if (!Number.isFinite(value)) return "–";
  if (value < 1) return t("network.ms", { count: number(value * 1000, { maximumFractionDigits: value < 0.01 ? 2 : 0 }) });
  return t("network.seconds", { count: number(value, { maximumFractionDigits: 2 }) });
}

/** How a provider is reached, and how it was found. */
export function reached(row) {
  const link = LINKS.includes(row.link) ? row.link : "none";
  const via = row.via ? foreign(row.via, 100) : null;
  const found = TOLD.includes(row.source) ? t(`network.source_${row.source}`) : foreign(row.source, 100);
  return el("span", {}, t(`network.link_${link}`), via && " ", via, el("span", { class: "small quiet" }, found));
}

/** Sources as they are called in lists to choose from. */
export function sourceName(source) {
  return TOLD.includes(source) ? t(`network.source_${source}`) : foreign(source, 80).textContent;
}

/** A badge where a provider is passed over or asked after others; else null. */
export function passedOver(row) {
  if (!REASONS.includes(row.reason)) return null;
  const kind = row.reason === "dishonest" ? "bad" : "doubt";
  return el("span", { class: `badge ${kind}` }, t(`network.reason_${row.reason}`));
}

/** Why a provider is passed over, in a sentence. */
export function because(row) {
  if (!REASONS.includes(row.reason)) return t("network.because_none");
  return t(`network.because_${row.reason}`, { seconds: figure(row.rest) });
}

/** A verdict's outcome as a badge. */
export function verdict(outcome) {
  const kinds = { holds: "good", fails: "bad", inconclusive: "doubt" };
  const known = Object.hasOwn(kinds, outcome);
  return el("span", { class: `badge ${known ? kinds[outcome] : "quiet"}` }, t(`network.${known ? outcome : "unchecked"}`));
}
