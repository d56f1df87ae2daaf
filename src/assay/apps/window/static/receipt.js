// The page of receipts: takes a file that is dropped or chosen, or what the program has under a name.
import { fill, el } from "./dom.js";
import { t } from "./texts.js";
import { bareReceipt, decodeBundle, decodeFile, MAX_BYTES } from "./proof/bundle.js";
import { Refused, b64, utf8 } from "./proof/bytes.js";
import { callName } from "./proof/request.js";
import { refusal } from "./receipt-words.js";
import { showBare, showReceipts } from "./receipt-view.js";

const page = document.getElementById("page");
const status = document.getElementById("status");
const place = document.getElementById("receipts");
const MOST_CALLS = 16;
let turn = new AbortController();

/** Say how things stand, to readers of the screen as well. */
const say = (text) => fill(status, text);

/** What the program has under a name; null where it cannot be asked. */
async function known(name, signal) {
  let found;
  try {
    const reply = await fetch(`/window/receipt/${encodeURIComponent(name)}`, { signal, cache: "no-store" });
    found = reply.ok ? await reply.json() : null;
  } catch (error) {
    if (signal.aborted) throw error;
    return null; // it is not running, or the network is away
  }
  if (found === null) return null;
  const receipts = found.receipts.map((item) => ({ ...item, name, bundle: decodeBundle(utf8(item.file)) }));
  return { receipts, traces: found.traces };
}

/** What it has of the calls that bundles are of. */
async function knownOf(bundles, signal) {
  const names = [...new Set(bundles.map((bundle) => b64(callName(bundle.request))))].slice(0, MOST_CALLS);
  const all = (await Promise.all(names.map((name) => known(name, signal)))).filter((each) => each !== null);
  return { receipts: all.flatMap((each) => each.receipts), traces: all.flatMap((each) => each.traces) };
}

/** Begin anew; what was under way for the file before is over. */
function begin() {
  turn.abort();
  turn = new AbortController();
  fill(place, el("p", { class: "quiet" }, t("receipt.checking")));
  say(t("receipt.checking"));
  return turn.signal;
}

function refused(error) {
  if (!(error instanceof Refused)) throw error;
  say("");
  fill(place, el("div", { class: "panel verdict bad", role: "alert", tabindex: "-1" }, ...refusal(error)));
}

async function openFile(file) {
  const signal = begin();
  try {
    if (file.size > MAX_BYTES) throw new Refused("large", "", { most: MAX_BYTES / 2 ** 20 });
    const data = new Uint8Array(await file.arrayBuffer());
    const bare = bareReceipt(data);
    if (bare) return showBare(place, bare, say);
    const bundles = decodeFile(data);
    const found = await knownOf(bundles, signal);
    return await showReceipts(place, { bundles, found, signal, say });
  } catch (error) {
    return signal.aborted ? null : refused(error);
  }
}

async function openName(name) {
  const signal = begin();
  const found = await known(name, signal);
  const bundles = found?.receipts.filter((each) => each.shown).map((each) => each.bundle) ?? [];
  if (bundles.length) return showReceipts(place, { bundles, found, signal, say });
  say("");
  const words = found === null ? "away" : "not_here";
  const [what, why] = [el("h2", {}, t(`receipt.${words}`)), el("p", {}, t(`receipt.${words}_why`))];
  return fill(place, el("div", { class: "panel verdict doubt", role: "alert" }, what, why));
}

function listen() {
  const drop = document.getElementById("drop");
  const input = document.getElementById("file");
  input.addEventListener("change", () => {
    if (input.files.length) openFile(input.files[0]);
    input.value = ""; // the same file again is a change, too
  });
  for (const event of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(event, (given) => {
      given.preventDefault();
      drop.classList.toggle("over", event === "dragenter" || event === "dragover");
      const [file] = event === "drop" ? given.dataTransfer.files : [];
      if (file) openFile(file);
    });
  }
  document.getElementById("find").addEventListener("submit", (event) => {
    event.preventDefault();
    const id = document.getElementById("id").value.trim();
    if (id) location.assign(`/receipt/${encodeURIComponent(id)}`);
  });
}

listen();
if (page.dataset.name) await openName(page.dataset.name);
