// Receipts: what they must be, the EIP-712 digest that is signed, and who signed. Follows `core/receipt.py`,
// `eip712.py` and `keys.py`.
import { keccak_256, secp256k1 } from "../../vendor/noble.js";
import { Refused, bigEndian, concat, hex, unhex, utf8 } from "./bytes.js";
import { amount, bytes, join, members, natural, oneOf, text } from "./reading.js";
import { LEVELS } from "./request.js";

/** How an answer ended: places are numbers in a receipt. */
export const STOPS = ["stop", "length", "cancelled", "failed"];
/** Members that are digests. */
export const DIGESTS = [
  "request", "model", "profile", "prompt_text", "prompt_tokens", "output", "evidence", "channel",
];
/** Members that are numbers. */
export const COUNTS = ["prompt_count", "output_count", "sequence", "issued"];
const VERSION = 1;
const HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0n;

/** Members of the struct that is signed, in its order, with those of the JSON that they come from. */
export const FIELDS = [
  ["version", "uint16", "v"], ["level", "uint8", "level"], ["stop", "uint8", "stop"],
  ["request", "bytes32", "request"], ["model", "bytes32", "model"], ["profile", "bytes32", "profile"],
  ["promptText", "bytes32", "prompt_text"], ["promptTokens", "bytes32", "prompt_tokens"],
  ["output", "bytes32", "output"], ["evidence", "bytes32", "evidence"],
  ["promptCount", "uint32", "prompt_count"], ["outputCount", "uint32", "output_count"],
  ["channel", "bytes32", "channel"], ["amount", "uint128", "amount"], ["provider", "address", "provider"],
  ["sequence", "uint64", "sequence"], ["issued", "uint64", "issued"],
];

/** `encodeType` of EIP-712. */
export const TYPE = `Receipt(${FIELDS.map(([name, kind]) => `${kind} ${name}`).join(",")})`;
export const TYPE_HASH = keccak_256(utf8(TYPE));
export const DOMAIN = keccak_256(
  concat(...["EIP712Domain(string name,string version)", "Assay", "1"].map((part) => keccak_256(utf8(part)))),
);

/** A receipt as it is; refuses what is none. Says nothing of the signature. */
export function readReceipt(value, field) {
  members(value, [...FIELDS.map(([, , name]) => name), "signature"], field);
  if (natural(value.v, join(field, "v")) !== VERSION) throw new Refused("version", join(field, "v"));
  bytes(value.signature, 65, join(field, "signature"));
  words(value, field); // refuses members that do not fit their type
  return value;
}

/** The struct's members, 32 bytes each. */
export function words(receipt, field = "") {
  return FIELDS.map(([, kind, name]) => word(kind, name, receipt[name], join(field, name)));
}

/** One member as 32 bytes; refuses what does not fit. */
export function word(kind, name, value, field) {
  if (kind === "bytes32") return bytes(value, 32, field);
  if (kind === "address") {
    if (!/^0x[0-9a-f]{40}$/.test(text(value, field))) throw new Refused("value", field, { expected: "address" });
    return concat(new Uint8Array(12), unhex(value.slice(2)));
  }
  const number = BigInt(integer(name, value, field));
  if (number >> BigInt(kind.slice(4))) throw new Refused("value", field, { expected: "natural" });
  return bigEndian(number, 32);
}

function integer(name, value, field) {
  if (name === "level") return LEVELS.indexOf(oneOf(value, LEVELS, field));
  if (name === "stop") return STOPS.indexOf(oneOf(value, STOPS, field));
  return name === "amount" ? amount(value, field) : natural(value, field);
}

/** The 32 bytes that are signed; also the receipt's name. */
export const receiptDigest = (receipt) => signingDigest(words(receipt));

/** The same from the struct's members. */
export function signingDigest(given) {
  const struct = keccak_256(concat(TYPE_HASH, ...given));
  return keccak_256(concat(Uint8Array.of(0x19, 0x01), DOMAIN, struct));
}

/** The address whose key made a signature over a digest, or null. s in the upper half (EIP-2) is no signature. */
export function recover(signed, signature) {
  if (signature.length !== 65 || (signature[64] !== 27 && signature[64] !== 28)) return null;
  if (BigInt(`0x${hex(signature.subarray(32, 64))}`) > HALF_ORDER) return null;
  try {
    const ours = concat(Uint8Array.of(signature[64] - 27), signature.subarray(0, 64));
    const key = secp256k1.recoverPublicKey(ours, signed, { prehash: false });
    return addressOf(secp256k1.Point.fromBytes(key));
  } catch {
    return null; // it fits no key
  }
}

/** The Ethereum address of a public key. */
export const addressOf = (point) => `0x${hex(keccak_256(point.toBytes(false).subarray(1)).subarray(12))}`;

/** Who signed a receipt, or null. */
export const signerOf = (receipt) => recover(receiptDigest(receipt), bytes(receipt.signature, 65, "signature"));
