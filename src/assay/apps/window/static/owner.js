// The owner's token: from the address that the program printed, kept for this tab, sent in a header and nowhere else.

const KEY = "assay-owner";
const TOKEN = /^[A-Za-z0-9_-]{43}$/;
let held = null;

/** The owner's token, or null. */
export function ownerToken() {
  return held;
}

/**
 * What the program answers the owner at `path`: JSON, or null where the answer is empty. `body` is sent as JSON,
 * `signal` gives up. Throws an Error with the server's words, which say what to do as well, and its `status`.
 */
export async function asOwner(path, { method = "GET", body, signal } = {}) {
  const headers = { Accept: "application/json" };
  if (held !== null) headers.Authorization = `Bearer ${held}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
  const said = await response.text();
  const { status, ok } = response;
  if (!ok) throw Object.assign(new Error(words(said) ?? `HTTP ${status}`), { status });
  return said === "" ? null : JSON.parse(said);
}

function words(said) {
  try {
    const message = JSON.parse(said).error.message;
    return typeof message === "string" ? message : null;
  } catch {
    return null;
  }
}

/** The token of the address, once: out of the address bar, the history and whatever is copied from there. */
function take() {
  const given = new URLSearchParams(location.hash.slice(1)).get("owner");
  if (given !== null) history.replaceState(history.state, "", location.pathname + location.search);
  if (given !== null && TOKEN.test(given)) {
    held = given;
    keep(given);
  } else {
    held = kept();
  }
}

function keep(token) {
  try {
    sessionStorage.setItem(KEY, token);
  } catch {
    // storage is off: for this page only
  }
}

function kept() {
  try {
    const token = sessionStorage.getItem(KEY);
    return token !== null && TOKEN.test(token) ? token : null;
  } catch {
    return null;
  }
}

take();
addEventListener("hashchange", take);
