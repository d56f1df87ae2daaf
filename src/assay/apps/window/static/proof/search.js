// One member of a receipt replaced: does the signature then hold? Many values are tried in little time, as everything
// but the digest stays the same while the key is recovered (SEC 1, section 4.1.6).
import { secp256k1 } from "../../vendor/noble.js";
import { hex } from "./bytes.js";
import { bytes } from "./reading.js";
import { FIELDS, addressOf, receiptDigest, recover, signingDigest, word, words } from "./receipt.js";

const { Point, Signature } = secp256k1;
const { Fn, BASE } = Point;
const SLICE_MS = 25;
const B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const DIGITS = "0123456789";
const HEX = "0123456789abcdef";

/** Tries values of single members of a receipt that nobody seems to have signed. */
export class Attempts {
  constructor(receipt) {
    this.receipt = receipt;
    this.words = words(receipt);
    const signature = bytes(receipt.signature, 65, "signature");
    this.fixed = recover(receiptDigest(receipt), signature) === null ? null : this.#fixed(signature);
  }

  // key = (s R - z G) / r: the first part is the same whatever the digest z is
  #fixed(signature) {
    const parts = Signature.fromBytes(signature.subarray(0, 64), "compact").addRecoveryBit(signature[64] - 27);
    this.inverse = Fn.inv(parts.r);
    const signed = receiptDigest(this.receipt);
    return parts.recoverPublicKey(signed).add(this.#times(signed));
  }

  #times(signed) {
    const factor = Fn.mul(Fn.create(BigInt(`0x${hex(signed)}`)), this.inverse);
    return factor === 0n ? Point.ZERO : BASE.multiply(factor);
  }

  /** Whether the receipt with `member` replaced by `value` is what its provider signed. */
  holds(member, value) {
    if (this.receipt[member] === value) return false;
    if (member === "signature") {
      const given = { ...this.receipt, signature: value };
      return recover(receiptDigest(given), bytes(value, 65, "signature")) === given.provider;
    }
    if (this.fixed === null) return false;
    const place = FIELDS.findIndex(([, , name]) => name === member);
    const changed = [...this.words];
    changed[place] = word(FIELDS[place][1], member, value, member);
    const key = this.fixed.subtract(this.#times(signingDigest(changed)));
    const provider = member === "provider" ? value : this.receipt.provider;
    return !key.is0() && addressOf(key) === provider;
  }
}

/**
 * The first of `candidates`, pairs of a member and a value, for which `holds` is true; null if none, or once `until`
 * (ms of `performance.now()`) has passed or `signal` says so. Lets the page breathe; `progress` hears of each slice.
 */
export async function firstThat(candidates, holds, { until = Infinity, signal, progress = () => {} } = {}) {
  let [slice, count] = [performance.now(), 0];
  for (const [member, value] of candidates) {
    count += 1;
    if (tried(holds, member, value)) return [member, value];
    if (performance.now() - slice < SLICE_MS) continue;
    progress(count);
    await new Promise((resolve) => setTimeout(resolve));
    slice = performance.now();
    if (slice > until || signal?.aborted) return null;
  }
  return null;
}

function tried(holds, member, value) {
  try {
    return holds(member, value);
  } catch {
    return false; // a spelling that no receipt has
  }
}

/** Each value that differs from the member's in one character. */
export function* oneCharacterOff(receipt, names) {
  for (const name of names) {
    const spelled = String(receipt[name]);
    const number = typeof receipt[name] === "number";
    const alphabet = number || name === "amount" ? DIGITS : name === "provider" ? HEX : B64;
    for (let at = name === "provider" ? 2 : 0; at < spelled.length; at += 1) {
      for (const character of alphabet) {
        const text = spelled.slice(0, at) + character + spelled.slice(at + 1);
        yield [name, number ? Number(text) : text];
      }
    }
  }
}
