// Tagged SHA-256 and the trees over it. Follows `hashing.py`, `merkle.py`, `tree16.py`, `completion.py` and
// `evidence.py` of `core/`.
import { sha256 } from "../../vendor/noble.js";
import { Refused, bigEndian, utf8 } from "./bytes.js";

/** Bytes of a leaf at level `statistical`: a log-probability, then eight pairs of a token and one. */
export const LEAF_SIZE = 68;
const ZERO = new Uint8Array(32);
const FAN = 16;
const begun = new Map();

function start(tag) {
  if (!begun.has(tag)) {
    const prefix = sha256(utf8(tag));
    begun.set(tag, sha256.create().update(prefix).update(prefix));
  }
  return begun.get(tag).clone();
}

/** SHA-256(SHA-256(tag) ‖ SHA-256(tag) ‖ parts), the tagged hash of BIP-340. */
export function digest(tag, ...parts) {
  const state = start(tag);
  for (const part of parts) state.update(part);
  return state.digest();
}

/** Root of the binary tree over leaf digests (RFC 6962's shape); it covers their number. */
export function merkleRoot(leaves) {
  return digest("assay/merkle-root/1", bigEndian(leaves.length, 8), leaves.length ? subtree(leaves) : ZERO);
}

function subtree(leaves) {
  if (leaves.length === 1) return leaves[0];
  let split = 1;
  while (2 * split < leaves.length) split *= 2;
  return digest("assay/merkle-node/1", subtree(leaves.slice(0, split)), subtree(leaves.slice(split)));
}

/** Root of the tree of sixteen children a node over leaf digests; it covers their number. */
export function fanRoot(leaves) {
  let level = leaves;
  while (level.length > 1) {
    level = Array.from({ length: Math.ceil(level.length / FAN) }, (_, index) =>
      digest("assay/exact-node/1", ...level.slice(FAN * index, FAN * (index + 1))),
    );
  }
  return digest("assay/exact-root/1", bigEndian(leaves.length, 8), level[0] ?? ZERO);
}

/** Salted root over token ids; `tag` says whether they are a prompt's or an output's. */
export function tokensRoot(tag, nonce, ids) {
  const salts = start(tag).update(nonce);
  const leaves = ids.map((id, index) => {
    const salt = salts.clone().update(bigEndian(index, 4)).digest();
    return digest("assay/token/1", salt, bigEndian(id, 4));
  });
  return fanRoot(leaves);
}

/** What a receipt says of its output tokens. */
export const outputDigest = (nonce, ids) => tokensRoot("assay/output/2", nonce, ids);

/** What a receipt says of its evidence: the salted root over leaves. */
export function evidenceRoot(leaves, nonce) {
  const root = merkleRoot(leaves.map((leaf) => digest("assay/merkle-leaf/1", leaf)));
  return digest("assay/evidence/2", evidenceSalt(nonce), root);
}

/** What that root is salted with. */
export const evidenceSalt = (nonce) => digest("assay/evidence-salt/1", nonce);

/** The leaves of an opening. Refuses what is no whole number of them. */
export function splitOpening(opening) {
  if (opening.length % LEAF_SIZE) throw new Refused("value", "opening", { expected: "leaves" });
  return Array.from({ length: opening.length / LEAF_SIZE }, (_, index) =>
    opening.subarray(LEAF_SIZE * index, LEAF_SIZE * (index + 1)),
  );
}
