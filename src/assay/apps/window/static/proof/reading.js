// Members of values from outside: each is there, has its type, and no other is. Follows `from_json` in `core/`.
import { Refused, unb64 } from "./bytes.js";

/** Largest integer that is carried. */
export const MAX_INTEGER = Number.MAX_SAFE_INTEGER;
const MAX_AMOUNT = 2n ** 128n - 1n;

/** `value` if it is an object with exactly these members. */
export function members(value, names, field) {
  const object = value !== null && typeof value === "object" && !Array.isArray(value);
  const found = object ? Object.keys(value) : [];
  const odd = [...names.filter((name) => !found.includes(name)), ...found.filter((name) => !names.includes(name))];
  if (!object || odd.length) {
    const first = odd[0] ?? "";
    throw new Refused("members", object ? join(field, first) : field, { odd: first });
  }
  return value;
}

/** A member's name within another's. */
export const join = (field, name) => (field ? `${field}.${name}` : name);

/** `value` if it is a string (canonical ones have no lone surrogates). */
export function text(value, field) {
  if (typeof value !== "string") throw new Refused("value", field, { expected: "text" });
  return value;
}

/** `value` if it is an integer from 0 to 2^53 - 1. */
export function natural(value, field) {
  if (!Number.isSafeInteger(value) || value < 0) throw new Refused("value", field, { expected: "natural" });
  return value;
}

/** `value` if it is one of `allowed`. */
export function oneOf(value, allowed, field) {
  if (!allowed.includes(value)) throw new Refused("value", field, { expected: "choice", allowed: allowed.join(", ") });
  return value;
}

/** The bytes of base64url text. */
export const bytes = (value, size, field) => unb64(text(value, field), size, field);

/** An amount of wei (BigInt) from its one decimal spelling. */
export function amount(value, field) {
  if (!/^(0|[1-9][0-9]{0,38})$/.test(text(value, field)) || BigInt(value) > MAX_AMOUNT) {
    throw new Refused("value", field, { expected: "amount" });
  }
  return BigInt(value);
}

/** `value` if it is a list. */
export function list(value, field) {
  if (!Array.isArray(value)) throw new Refused("value", field, { expected: "list" });
  return value;
}
