// Where two receipt files part, member by member.
import { FIELDS } from "./receipt.js";

const RECEIPT = [...FIELDS.map(([, , name]) => name), "signature"];

/**
 * Of several bundles the one that `bundle` was once: signed under the same number by the same provider, or with the
 * same signature; null if there is none. `kept` hold by themselves.
 */
export function originOf(bundle, kept) {
  const { receipt } = bundle;
  const alike = kept.filter(
    (each) =>
      each.receipt.signature === receipt.signature ||
      (each.receipt.provider === receipt.provider && each.receipt.sequence === receipt.sequence),
  );
  return alike.sort((one, other) => parted(one, bundle) - parted(other, bundle))[0] ?? null;
}

const parted = (one, other) => RECEIPT.filter((name) => one.receipt[name] !== other.receipt[name]).length;

/** Names of the members of `bundle` that are not as in `origin`, with what they are and were. */
export function differences(bundle, origin) {
  const found = [
    ...inside(bundle.receipt, origin.receipt, "receipt"),
    ...inside(bundle.request, origin.request, "request"),
    ...inside(bundle.profile, origin.profile, "profile"),
    ...inside(bundle.ids, origin.ids, "tokens"),
  ];
  if (bundle.value.opening !== origin.value.opening) {
    found.push({ field: "opening", is: bundle.value.opening, was: origin.value.opening });
  }
  return found;
}

function inside(is, was, field) {
  if (is === was) return [];
  if (typeof is !== "object" || typeof was !== "object") return [{ field, is, was }];
  const lists = Array.isArray(is);
  const names = [...new Set([...Object.keys(is), ...Object.keys(was)])];
  if (lists && is.length !== was.length) return [{ field, is: is.length, was: was.length }];
  return names.flatMap((name) => inside(is[name], was[name], lists ? `${field}[${name}]` : `${field}.${name}`));
}
