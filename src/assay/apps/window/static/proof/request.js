// Requests and profiles: what they must be, their digests and names. Follows `core/request.py` and `core/profile.py`.
import { Refused, bigEndian, concat, unpackIds, utf8 } from "./bytes.js";
import { canonical } from "./canonical.js";
import { digest } from "./hashing.js";
import { bytes, join, list, members, natural, oneOf, text } from "./reading.js";

/** Assurance levels, weakest first: their places are their numbers in a receipt. */
export const LEVELS = ["signed", "statistical", "pinned", "exact"];
/** The regime of profiles at level `exact`. */
export const EXACT_REGIME = "exact/1";
/** Kinds of requests, roles of messages, samplers of profiles. */
export const KINDS = ["chat", "completion"];
export const ROLES = ["system", "developer", "user", "assistant", "tool"];
export const SAMPLERS = ["gumbel/1", "gumbel/2", "foreign"];
const PROFILE_BYTES = 1800;
const REQUEST_TEXTS = ["model", "prompt", "tools", "tool_choice", "response_format"];
const REQUEST = [
  ...REQUEST_TEXTS, "kind", "messages", "sampler", "max_tokens", "stop", "level", "nonce", "created", "choice",
];
const SETTINGS = ["temperature", "top_k", "top_p", "min_p"];
const MESSAGE_TEXTS = ["content", "tool_calls", "tool_call_id", "name"];
const PROFILE_TEXTS = ["engine", "build", "regime", "isa", "kv_type", "template", "grammar"];
const PROFILE_COUNTS = ["micro_batch", "threads", "context"];

/** A request as it is; refuses what is none. */
export function readRequest(value, field) {
  const continued = Object.hasOwn(value ?? {}, "continues");
  members(value, continued ? [...REQUEST, "continues"] : REQUEST, field);
  for (const name of REQUEST_TEXTS) text(value[name], join(field, name));
  for (const name of ["max_tokens", "created", "choice"]) natural(value[name], join(field, name));
  oneOf(value.kind, KINDS, join(field, "kind"));
  oneOf(value.level, LEVELS, join(field, "level"));
  list(value.messages, join(field, "messages")).forEach((item, index) => {
    readMessage(item, `${join(field, "messages")}[${index}]`);
  });
  list(value.stop, join(field, "stop")).forEach((item, index) => text(item, `${join(field, "stop")}[${index}]`));
  const sampler = join(field, "sampler");
  members(value.sampler, SETTINGS, sampler);
  for (const name of SETTINGS) natural(value.sampler[name], join(sampler, name));
  bytes(value.nonce, 32, join(field, "nonce"));
  if (continued) {
    const before = continuedIds(value, join(field, "continues")).length;
    if (!before) throw new Refused("value", join(field, "continues"), { expected: "ids" });
    natural(value.max_tokens + before, join(field, "max_tokens"));
  }
  return value;
}

function readMessage(value, field) {
  members(value, ["role", ...MESSAGE_TEXTS], field);
  oneOf(value.role, ROLES, join(field, "role"));
  for (const name of MESSAGE_TEXTS) text(value[name], join(field, name));
}

/** Tokens that other providers delivered before. */
export function continuedIds(request, field = "continues") {
  return unpackIds(bytes(request.continues ?? "", null, field), field);
}

/** The digest that a receipt carries. */
export function requestDigest(request) {
  const { body, seed, rules } = requestOpening(request);
  return digest("assay/request/2", body, seed, rules);
}

/** What that digest is made of: of the body, the sampler's seed, and how tokens are drawn. */
export function requestOpening(request) {
  const body = digest("assay/request-body/1", utf8(canonical(request)));
  const seed = digest("assay/seed/2", bytes(request.nonce, 32, "nonce"), body);
  const masked = request.response_format !== "" || !["auto", "none"].includes(request.tool_choice);
  const rules = concat(...SETTINGS.map((name) => bigEndian(request.sampler[name], 8)), Uint8Array.of(masked ? 1 : 0));
  return { body, seed, rules };
}

/** The name under which a node keeps the receipt: only who knows the request can make it. */
export const requestName = (request) => digest("assay/name/1", utf8(canonical(request)));

/** The name of the whole call, also where there are several choices or parts. */
export const callName = (request) => requestName({ ...wholeRequest(request), choice: 0 });

/** The request for the whole answer, of which this one may ask for the rest. */
export function wholeRequest(request) {
  const { continues: _, ...whole } = request;
  return { ...whole, max_tokens: request.max_tokens && request.max_tokens + continuedIds(request).length };
}

/** A profile as it is; refuses what is none. */
export function readProfile(value, field) {
  members(value, [...PROFILE_TEXTS, ...PROFILE_COUNTS, "flash_attention", "sampler"], field);
  for (const name of PROFILE_TEXTS) text(value[name], join(field, name));
  for (const name of PROFILE_COUNTS) natural(value[name], join(field, name));
  oneOf(value.sampler, SAMPLERS, join(field, "sampler"));
  oneOf(value.flash_attention, [true, false], join(field, "flash_attention"));
  if (utf8(canonical(value)).length > PROFILE_BYTES) throw new Refused("value", field, { expected: "short" });
  return value;
}

/** The digest that a receipt carries. */
export const profileDigest = (profile) => digest("assay/profile/1", utf8(canonical(profile)));
