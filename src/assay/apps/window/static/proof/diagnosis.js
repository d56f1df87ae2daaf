// Which field of a receipt file broke. A signature says only that something did; what stands beside a receipt, what the
// node has kept, and a search for one changed character say what.
import { b64 } from "./bytes.js";
import { canonical } from "./canonical.js";
import { allHold, checkBundle } from "./checks.js";
import { differences, originOf } from "./differences.js";
import { evidenceRoot, outputDigest, splitOpening, LEAF_SIZE } from "./hashing.js";
import { bytes } from "./reading.js";
import { COUNTS, DIGESTS, STOPS } from "./receipt.js";
import { KINDS, LEVELS, ROLES, SAMPLERS, profileDigest, requestDigest } from "./request.js";
import { Attempts, firstThat, oneCharacterOff } from "./search.js";

const MOST_MS = 60_000;
const MOST_TEXT = 4096;
const COVERED = { request: "request", profile: "profile", level: "level", count: "output_count", output: "output" };

/**
 * What broke. `how`: `whole` (nothing), `beside` (the receipt is as it was signed, but does not cover what stands
 * beside it), `contradiction` (the provider signed what contradicts itself), `follows` (with one member as it follows
 * from what stands beside, the signature holds), `kept` (the node has the file as it was), `character` (with one
 * character replaced, it holds), `unknown`. `fields`: names, with what they are and were where that is known.
 * `confirmed`: members of the receipt that fit what stands beside it. `kept`: gives the bundles that the node has for
 * this request.
 */
export async function diagnose(bundle, { kept = async () => [], signal, progress } = {}) {
  const checks = checkBundle(bundle);
  const confirmed = fits(bundle, checks);
  if (allHold(checks)) return { how: "whole", fields: [], confirmed };
  const signed = checks[0].holds;
  if (!signed) {
    const found = await follows(bundle, signal);
    if (found) return { how: "follows", fields: found, confirmed };
  }
  const known = (await kept()).filter((each) => allHold(checkBundle(each)));
  const origin = originOf(bundle, known);
  if (origin) return { how: "kept", fields: differences(bundle, origin), confirmed };
  const patience = { until: performance.now() + MOST_MS, signal, progress };
  if (signed) return { ...(await ofWhatStandsBeside(bundle, checks, patience)), confirmed };
  const found = await searched(bundle, confirmed, patience);
  return found ? { how: "character", fields: found, confirmed } : { how: "unknown", fields: [], confirmed };
}

function fits(bundle, checks) {
  const names = checks.filter((check) => check.holds).map((check) => check.name);
  const covered = names.filter((name) => name in COVERED).map((name) => COVERED[name]);
  return names.includes("evidence") ? [...covered, "evidence"] : covered;
}

async function follows(bundle, signal) {
  const attempts = new Attempts(bundle.receipt);
  const found = await firstThat(derived(bundle), (name, value) => attempts.holds(name, value), { signal });
  return found && afterwards(bundle, found);
}

/** With one member of the receipt mended: that one, and what still does not fit. */
function afterwards(bundle, [name, value]) {
  const mended = { ...bundle, receipt: { ...bundle.receipt, [name]: value } };
  const others = broken(checkBundle(mended)).map((field) => ({ field }));
  return [{ field: `receipt.${name}`, is: bundle.receipt[name], was: value }, ...others];
}

/** Values of single members that follow from what stands beside the receipt, or of which there are few. */
function* derived({ receipt, request, profile, ids, opening }) {
  const nonce = bytes(request.nonce, 32, "nonce");
  yield ["request", b64(requestDigest(request))];
  yield ["profile", b64(profileDigest(profile))];
  yield ["output", b64(outputDigest(nonce, ids))];
  yield ["output_count", ids.length];
  const leaves = opening.length % LEAF_SIZE ? [] : splitOpening(opening);
  yield ["evidence", b64(evidenceRoot(leaves, nonce))];
  yield ["channel", b64(new Uint8Array(32))];
  yield ["amount", "0"];
  for (const level of LEVELS) yield ["level", level];
  for (const stop of STOPS) yield ["stop", stop];
  yield ["prompt_count", profile.context - receipt.output_count];
  const signature = bytes(receipt.signature, 65, "signature");
  for (const v of [27, 28]) yield ["signature", b64(Uint8Array.of(...signature.subarray(0, 64), v))];
}

/** What is not what a receipt covers, by the checks of one that is as it was signed. */
function broken(checks) {
  const failing = new Set(checks.filter((check) => !check.holds).map((check) => check.name));
  const found = [];
  if (failing.has("request")) {
    // The nonce salts the other digests: where they differ as well, one change explains it all.
    const salted = !failing.has("count") && failing.has("output");
    found.push(salted ? "request.nonce" : "request");
  }
  if (failing.has("profile")) found.push("profile");
  if (failing.has("count") || (failing.has("output") && !failing.has("request"))) found.push("tokens");
  if (failing.has("opening") || (failing.has("evidence") && !failing.has("request"))) found.push("opening");
  return found;
}

async function ofWhatStandsBeside(bundle, checks, patience) {
  const failing = checks.filter((check) => !check.holds).map((check) => check.name);
  const beside = failing.some((name) => ["request", "profile", "count", "output", "opening"].includes(name));
  const [only, ...more] = broken(checks);
  if (!beside && !(failing.includes("evidence") && bundle.opening.length)) {
    return { how: "contradiction", fields: failing.map((field) => ({ field })) };
  }
  const place = more.length ? null : await placeIn(bundle, only, patience);
  return { how: "beside", fields: place ? [place] : [only, ...more].map((field) => ({ field })) };
}

/** The member of a request or profile that one character was changed of. */
async function placeIn({ receipt, request, profile }, member, patience) {
  const root = member.split(".")[0];
  const [value, stated, digest] =
    root === "request" ? [request, receipt.request, requestDigest] : [profile, receipt.profile, profileDigest];
  if (!["request", "profile"].includes(root) || canonical(value).length > MOST_TEXT) return null;
  const holds = (_, { changed }) => b64(digest(changed)) === stated;
  const found = await firstThat(near(value, value, root, (changed) => changed), holds, patience);
  return found && { field: found[0], is: found[1].is, was: found[1].was };
}

const PRINTABLE = Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index));
const CHOICES = { level: LEVELS, kind: KINDS, role: ROLES, sampler: SAMPLERS, flash_attention: [true, false] };

/** Values that differ from `value` in one character of one member; `put` makes the whole of a changed part. */
function* near(value, whole, field, put) {
  if (value !== null && typeof value === "object") {
    for (const [name, item] of Object.entries(value)) {
      const list = Array.isArray(value);
      const within = (changed) => put(list ? value.with(Number(name), changed) : { ...value, [name]: changed });
      yield* near(item, whole, list ? `${field}[${name}]` : `${field}.${name}`, within);
    }
    return;
  }
  for (const was of spellings(value, field.split(".").at(-1))) yield [field, { changed: put(was), is: value, was }];
}

function* spellings(value, name) {
  yield* CHOICES[name] ?? [];
  const number = typeof value === "number";
  if (number) yield* [value - 1, value + 1];
  if (!number && typeof value !== "string") return;
  const spelled = String(value);
  for (let at = 0; at < spelled.length; at += 1) {
    for (const character of number ? "0123456789" : PRINTABLE) {
      const text = spelled.slice(0, at) + character + spelled.slice(at + 1);
      yield number ? Number(text) : text;
    }
  }
}

async function searched(bundle, confirmed, patience) {
  const attempts = new Attempts(bundle.receipt);
  const names = [...COUNTS, "amount", "provider", ...DIGESTS, "signature"].filter((name) => !confirmed.includes(name));
  const candidates = oneCharacterOff(bundle.receipt, names);
  const found = await firstThat(candidates, (name, value) => attempts.holds(name, value), patience);
  return found && afterwards(bundle, found);
}
