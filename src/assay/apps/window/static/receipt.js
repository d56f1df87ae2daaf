// The page of receipts: takes a file that is dropped or chosen, or what the program has under a name, and has it checked.
import { fill, el } from "./dom.js";
import { t } from "./texts.js";
import { hex } from "./proof/bytes.js";
import { decodeBundle, decodeFile, MAX_BYTES } from "./proof/bundle.js";
import { Refused, b64, utf8 } from "./proof/bytes.js";
import { receiptDigest } from "./proof/receipt.js";
import { callName } from "./proof/request.js";
import { refusal } from "./receipt-words.js";
import { showReceipts } from "./receipt-view.js";

const page = document.getElementById("page");
const status = document.getElementById("status");
const place = document.getElementById("receipts");
let turn = new AbortController();

/** Say how things stand, to readers of the screen as well. */
const say = (text) => fill(status, text);

/** What the program has under a name; nothing where it cannot be asked. */
async function known(name, signal) {
  try {
    const reply = await fetch(`/window/receipt/${encodeURIComponent(name)}`, { signal, cache: "no-store" });
    const found = await reply.json();
    return { receipts: found.receipts.map(keptOf), traces: found.traces };
  } catch (error) {
    if (signal.aborted) throw error;
    return { receipts: [], traces: [] };
  }
}

const keptOf = (item) => ({ ...item, bundle: decodeBundle(utf8(item.file)) });

/** Begin anew; what was under way for the file before is over. */
function begin() {
  turn.abort();
  turn = new AbortController();
  place.replaceChildren();
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
    const bundles = decodeFile(new Uint8Array(await file.arrayBuffer()));
    const name = b64(callName(bundles[0].request));
    const found = await known(name, signal);
    await show(bundles, found, signal, name);
  } catch (error) {
    if (!signal.aborted) refused(error);
  }
}

async function openName(name) {
  const signal = begin();
  const found = await known(name, signal);
  const bundles = found.receipts.filter((each) => each.shown).map((each) => each.bundle);
  if (bundles.length) return show(bundles, found, signal, name);
  say("");
  return fill(
    place,
    el("div", { class: "panel verdict doubt", role: "alert" }, el("h2", {}, t("receipt.not_here")), t("receipt.not_here_why")),
  );
}

async function show(bundles, found, signal, name) {
  const digests = found.receipts.map((each) => each.digest);
  const kept = bundles.some((bundle) => digests.includes(hex(receiptDigest(bundle.receipt))));
  await showReceipts(place, { bundles, found, signal, name: kept ? name : null, say });
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
