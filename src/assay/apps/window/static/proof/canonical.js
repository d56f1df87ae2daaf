// The one spelling of a value: JSON by RFC 8785, narrowed as in `core/encoding.py`.
import { Refused, utf8 } from "./bytes.js";
import { faultIn, memberBefore } from "./faults.js";

/** Deepest nesting of arrays and objects. */
export const MAX_DEPTH = 64;
/** Most values of one document. */
export const MAX_VALUES = 2 ** 18;

/** The canonical text of a value. Refuses fractions, integers over 2^53 - 1, lone surrogates and deep nesting. */
export function canonical(value, depth = 0) {
  if (depth > MAX_DEPTH) throw new Refused("deep");
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) throw new Refused("number");
    return String(value);
  }
  if (typeof value === "string") {
    if (!value.isWellFormed()) throw new Refused("surrogate");
    return JSON.stringify(value);
  }
  if (Array.isArray(value)) return `[${value.map((item, index) => part(item, `[${index}]`, depth)).join(",")}]`;
  const members = Object.keys(value).sort(); // by UTF-16 code units
  return `{${members.map((name) => `${canonical(name)}:${part(value[name], name, depth)}`).join(",")}}`;
}

/** A part of a value; what is refused in it is named by its way from the whole. */
function part(value, name, depth) {
  try {
    return canonical(value, depth + 1);
  } catch (error) {
    error.field = name + (error.field && !error.field.startsWith("[") ? `.${error.field}` : error.field);
    throw error;
  }
}

/** Read bytes; refuses every spelling but the canonical one, and says where they part. */
export function parseCanonical(data) {
  checkBounds(data);
  const value = parse(data);
  const spelled = utf8(canonical(value));
  const place = spelled.findIndex((byte, index) => byte !== data[index]);
  if (place < 0 && spelled.length === data.length) return value;
  const other = place < 0 ? spelled.length : place;
  throw new Refused("canonical", "", { place: other, near: memberBefore(lenient(data.subarray(0, other))) });
}

function parse(data) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new Refused("utf8", "", { near: memberBefore(lenient(data).split("\ufffd")[0]) });
  }
  try {
    return JSON.parse(text);
  } catch {
    throw new Refused("json", "", { near: memberBefore(text.slice(0, faultIn(text))) });
  }
}

const lenient = (data) => new TextDecoder().decode(data);

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c];
const [OPENING, CLOSING] = [new Set([0x5b, 0x7b]), new Set([0x5d, 0x7d])];

/** Refuse text that would take far more memory or stack than its bytes, before it is parsed. */
export function checkBounds(data) {
  let [values, depth, inText] = [0, 0, false];
  for (let at = 0; at < data.length; at += 1) {
    const byte = data[at];
    if (inText) {
      if (byte === BACKSLASH) at += 1;
      else if (byte === QUOTE) inText = false;
    } else if (byte === QUOTE) inText = true;
    else if (byte === COMMA) values += 1;
    else if (OPENING.has(byte)) {
      values += 1;
      depth += 1;
      if (depth > MAX_DEPTH + 1) throw new Refused("deep");
    } else if (CLOSING.has(byte)) depth -= 1;
  }
  if (values > MAX_VALUES) throw new Refused("many", "", { most: MAX_VALUES });
}
