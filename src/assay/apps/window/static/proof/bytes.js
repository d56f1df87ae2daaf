// Bytes and their spellings: base64url, hexadecimal, token ids. Follows `core/encoding.py`.

/** Most token ids in one list. */
export const MAX_IDS = 2 ** 20;

/** What is read is not what belongs there. `code` names the reason, `field` the member, `values` what to say of it. */
export class Refused extends Error {
  constructor(code, field = "", values = {}) {
    super(field ? `${code}: ${field}` : code);
    this.code = code;
    this.field = field;
    this.values = values;
  }
}

/** UTF-8 of a text. */
export const utf8 = (text) => new TextEncoder().encode(text);

/** Lower-case hexadecimal. */
export const hex = (data) => Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Inverse of `hex`, of digits that were checked. */
export const unhex = (digits) => Uint8Array.from(digits.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));

/** Whether two arrays hold the same bytes. */
export function same(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}

/** Several arrays in one. */
export function concat(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** An unsigned integer (number or BigInt) as `size` bytes, big-endian. The caller knows that it fits. */
export function bigEndian(number, size) {
  const data = new Uint8Array(size);
  const base = typeof number === "bigint" ? 256n : 256;
  let left = number;
  for (let at = size - 1; left; at -= 1) {
    const low = left % base;
    data[at] = Number(low);
    left = (left - low) / base;
  }
  return data;
}

const STEP = 0x6000; // a multiple of three that fits into a call's arguments

/** base64url without padding (RFC 4648, section 5). */
export function b64(data) {
  let text = "";
  for (let at = 0; at < data.length; at += STEP) text += btoa(String.fromCharCode(...data.subarray(at, at + STEP)));
  return text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Inverse of `b64`: refuses padding, stray bits, other characters, and another length than `size` (null: any). */
export function unb64(text, size, field) {
  const wrong = () => new Refused("value", field, { expected: size === null ? "base64" : "bytes", size });
  if (!/^[A-Za-z0-9_-]*$/.test(text) || text.length % 4 === 1) throw wrong();
  const data = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (each) => each.charCodeAt(0));
  if ((size !== null && data.length !== size) || b64(data) !== text) throw wrong();
  return data;
}

/** Token ids, unsigned 32-bit big-endian integers. Refuses what is no whole number of them, or more than MAX_IDS. */
export function unpackIds(data, field) {
  if (data.length % 4 || data.length > 4 * MAX_IDS) throw new Refused("value", field, { expected: "ids" });
  const view = new DataView(data.buffer, data.byteOffset, data.length);
  return Array.from({ length: data.length / 4 }, (_, index) => view.getUint32(4 * index));
}
