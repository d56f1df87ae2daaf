// Does a receipt cover what stands beside it? Every check that needs no model; follows `check_offline` of
// `verify/binding.py`, but makes all of them, not only those up to the first that fails.
import { b64 } from "./bytes.js";
import { evidenceRoot, outputDigest, splitOpening, LEAF_SIZE } from "./hashing.js";
import { bytes } from "./reading.js";
import { signerOf } from "./receipt.js";
import { EXACT_REGIME, profileDigest, requestDigest } from "./request.js";

/**
 * All checks of a bundle, in their order: `name`, `stated` and `found` (what was compared, as text), `holds`.
 */
export function checkBundle(bundle) {
  return [...bindings(bundle), ...ofLevel(bundle), ...counts(bundle)];
}

function bindings({ receipt, request, profile, ids }) {
  const nonce = bytes(request.nonce, 32, "nonce");
  return [
    equal("signature", receipt.provider, signerOf(receipt) ?? "—"),
    equal("request", receipt.request, b64(requestDigest(request))),
    equal("profile", receipt.profile, b64(profileDigest(profile))),
    equal("level", receipt.level, request.level),
    equal("count", receipt.output_count, ids.length),
    equal("output", receipt.output, b64(outputDigest(nonce, ids))),
  ];
}

function equal(name, stated, found) {
  return { name, stated: String(stated), found: String(found), holds: stated === found };
}

function ofLevel(bundle) {
  const { receipt, request, opening } = bundle;
  const nonce = bytes(request.nonce, 32, "nonce");
  if (receipt.level === "statistical") return ofOpening(bundle, nonce);
  const found = [equal("opening", 0, opening.length)];
  if (receipt.level === "signed") {
    found.push(equal("evidence", receipt.evidence, b64(evidenceRoot([], nonce))));
  } else found.push(ofRegime(bundle));
  return found;
}

function ofOpening({ receipt, ids, opening }, nonce) {
  const whole = opening.length % LEAF_SIZE === 0;
  const leaves = whole ? splitOpening(opening) : [];
  return [
    equal("opening", ids.length * LEAF_SIZE, opening.length),
    equal("evidence", receipt.evidence, whole ? b64(evidenceRoot(leaves, nonce)) : "—"),
  ];
}

function ofRegime({ receipt, profile }) {
  const exact = receipt.level === "exact";
  const sampler = exact ? "gumbel/2" : "gumbel/1";
  const pinned = profile.regime !== "free" && profile.regime !== EXACT_REGIME;
  return {
    name: "regime",
    stated: exact ? `${EXACT_REGIME}, ${sampler}` : `pinned, ${sampler}`,
    found: `${profile.regime}, ${profile.sampler}`,
    holds: profile.sampler === sampler && (exact ? profile.regime === EXACT_REGIME : pinned),
  };
}

function counts({ receipt, request, profile }) {
  const [count, most] = [receipt.output_count, request.max_tokens];
  const room = profile.context - receipt.prompt_count;
  return [
    { name: "limit", stated: most || "∞", found: count, holds: !most || count <= most },
    { name: "context", stated: room, found: count, holds: count <= room },
    { name: "stop", stated: receipt.stop, found: count, holds: ended(receipt, most, room) },
  ].map((each) => ({ ...each, stated: String(each.stated), found: String(each.found) }));
}

function ended({ stop, output_count: count }, most, room) {
  if (stop === "stop") return count > 0;
  return stop !== "length" || count === most || count === room;
}

/** Whether everything that was checked holds. */
export const allHold = (checks) => checks.every((check) => check.holds);

/** What this page cannot check, by level: it needs the model's file. */
export function needsModel(level) {
  const always = ["file", "prompt", "end", "grammar"];
  return level === "signed" ? always : [...always, level === "statistical" ? "statistics" : "numbers", "draws"];
}
