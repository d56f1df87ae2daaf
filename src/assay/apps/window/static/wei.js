// Money in words. Amounts are whole numbers of wei; a token of the chain's money is 10^18 of them.
import { number, t } from "./texts.js";

/** An amount from outside as a BigInt, or null if it is none. */
export function amount(value) {
  return typeof value === "string" && /^\d{1,40}$/.test(value) ? BigInt(value) : null;
}

/** "free", or so many wei. */
export function wei(value) {
  return value === 0n ? t("chat.free") : t("chat.wei", { wei: number(value) });
}

/** "free", or so many wei and what that is in tokens of the chain's money. */
export function money(value) {
  if (value === 0n) return t("chat.free");
  const tokens = Number(value) / 1e18;
  const coins = number(tokens, { maximumSignificantDigits: 3, notation: tokens < 1e-6 ? "scientific" : "standard" });
  return t("chat.money", { wei: number(value), coins });
}
