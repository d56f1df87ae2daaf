// Receipt files: a receipt, and all that a check without the model needs, a line each. Follows `core/bundle.py`.
import { Refused, unpackIds } from "./bytes.js";
import { parseCanonical } from "./canonical.js";
import { readReceipt } from "./receipt.js";
import { bytes, members } from "./reading.js";
import { readProfile, readRequest } from "./request.js";

/** Larger files are refused unread. */
export const MAX_BYTES = 32 * 2 ** 20;
const MAX_LINES = 512;
const MOST_BARE = 65_536;
const NEWLINE = 0x0a;

/** One line of a file, its newline included. `ids` are the output's tokens; nothing is believed yet. */
export function decodeBundle(data) {
  if (data.length > MAX_BYTES) throw new Refused("large", "", { most: MAX_BYTES / 2 ** 20 });
  if (data.at(-1) !== NEWLINE) throw new Refused("newline");
  const value = parseCanonical(data.subarray(0, -1));
  members(value, ["receipt", "request", "profile", "tokens", "opening"], "");
  return bundleOf(value);
}

/** A bundle from the value that its file spells. */
export function bundleOf(value) {
  return {
    value,
    receipt: readReceipt(value.receipt, "receipt"),
    request: readRequest(value.request, "request"),
    profile: readProfile(value.profile, "profile"),
    ids: unpackIds(bytes(value.tokens, null, "tokens"), "tokens"),
    opening: bytes(value.opening, null, "opening"),
  };
}

/** All lines of a file. */
export function decodeFile(data) {
  if (data.length > MAX_BYTES) throw new Refused("large", "", { most: MAX_BYTES / 2 ** 20 });
  const lines = [];
  let from = 0;
  while (from < data.length || !lines.length) {
    const end = data.indexOf(NEWLINE, from);
    const line = data.subarray(from, end < 0 ? data.length : end + 1);
    if (lines.length === MAX_LINES) throw new Refused("lines", "", { most: MAX_LINES });
    lines.push(line);
    from += line.length || 1;
  }
  return lines.map(decodeBundle);
}

/** The receipt that a file holds alone, in whatever spelling of JSON, as replies carry them; null if it holds none. */
export function bareReceipt(data) {
  if (data.length > MOST_BARE) return null;
  try {
    return readReceipt(JSON.parse(new TextDecoder().decode(data)), "receipt");
  } catch {
    return null;
  }
}
