// Receipts of the parts of one answer, whose providers failed one after the other. Follows `core/chain.py`.
import { canonical } from "./canonical.js";
import { continuedIds, wholeRequest } from "./request.js";

/**
 * Whether the last of `parts` goes on where the one before broke off, as receipts say; null where it begins an answer,
 * or where what it continues is not among `parts`.
 */
export function goesOn(bundle, others) {
  const before = continuedIds(bundle.request);
  if (!before.length) return null;
  const whole = canonical(wholeRequest(bundle.request));
  const parts = others
    .filter((each) => continuedIds(each.request).length < before.length)
    .filter((each) => canonical(wholeRequest(each.request)) === whole)
    .sort((one, other) => continuedIds(one.request).length - continuedIds(other.request).length);
  if (!parts.length) return null;
  const chain = [...parts, bundle];
  return !continuedIds(chain[0].request).length && chain.slice(1).every((each, index) => follows(chain[index], each));
}

function follows(one, other) {
  const [start, after] = [continuedIds(one.request), continuedIds(other.request)];
  const known = [...start, ...one.ids];
  const whole = ["stop", "length"].includes(one.receipt.stop);
  return (
    (!whole || after.length < known.length) &&
    start.length < after.length &&
    after.length <= known.length &&
    after.every((id, index) => id === known[index])
  );
}
