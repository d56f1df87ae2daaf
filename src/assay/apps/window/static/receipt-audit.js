// The full audit, for the owner of the program: begun here, computed there, watched until it is over.
import { el, fill, foreign } from "./dom.js";
import { asOwner, ownerToken } from "./owner.js";
import { number, t } from "./texts.js";
import { generation, marksOf, ownMarks } from "./receipt-trace.js";
import { findings, verdictLine } from "./receipt-words.js";

const PATH = "/window/owner/audits";
const EVERY_MS = 500;

/** What begins an audit of a receipt that is kept here; for others than the owner, how it can be made. */
export function auditOf({ name, digest, provider, traces, signal }) {
  if (ownerToken() === null) return el("p", { class: "quiet" }, t("receipt.audit_owner"));
  const outcome = el("div", { class: "audit", role: "status" });
  const stop = el("button", { type: "button", hidden: true }, t("receipt.audit_stop"));
  const begin = el("button", { type: "button", class: "main" }, t("receipt.audit"));
  stop.addEventListener("click", giveUp);
  begin.addEventListener("click", () => run({ name, digest, provider, traces, signal, outcome, stop, begin }));
  return el("div", {}, el("p", {}, t("receipt.audit_why")), el("div", { class: "row" }, begin, stop), outcome);
}

/** Stop it; where that is not heard, it ends soon because nobody looks at it any more. */
const giveUp = () => asOwner(PATH, { method: "DELETE", body: {} }).catch(() => {});

async function run({ name, digest, provider, traces, signal, outcome, stop, begin }) {
  begin.disabled = true;
  stop.hidden = false;
  addEventListener("pagehide", giveUp);
  signal.addEventListener("abort", giveUp);
  try {
    let state = await asOwner(PATH, { method: "POST", body: { name, receipt: digest } });
    while (["loading", "computing"].includes(state.stage) && state.receipt === digest && !signal.aborted) {
      underWay(outcome, state);
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
      state = await asOwner(PATH);
    }
    if (state.receipt !== digest) state = { stage: "stopped" }; // another one was begun, or the program again
    fill(outcome, ...over(state, ownMarks(marksOf(traces, digest), digest, provider)));
  } catch (error) {
    fill(outcome, el("p", { class: "badge bad" }, foreign(error.message)));
  } finally {
    removeEventListener("pagehide", giveUp);
    signal.removeEventListener("abort", giveUp);
    begin.disabled = false;
    stop.hidden = true;
  }
}

function underWay(outcome, { stage, seconds }) {
  if (outcome.dataset.stage !== stage || !outcome.querySelector("progress")) {
    const said = t(`receipt.audit_${stage}`);
    fill(outcome, el("progress", { "aria-label": said }), el("p", {}, said), el("p", { "aria-live": "off" }));
    outcome.dataset.stage = stage;
  }
  fill(outcome.lastElementChild, t("receipt.seconds", { count: number(seconds) }));
}

function over({ stage, verdict, error }, marks) {
  if (stage === "stopped") return [el("p", {}, t("receipt.audit_stopped"))];
  if (!verdict) return [el("p", { class: "badge bad" }, foreign(error))];
  const seconds = { count: number(verdict.seconds, { maximumSignificantDigits: 3 }) };
  const facts = [
    t("receipt.audit_tokens", { count: number(verdict.tokens_checked) }),
    t("receipt.audit_took", { time: t("receipt.seconds", seconds) }),
  ];
  const generated = generation(marks);
  if (generated > 0) {
    const ratio = number(verdict.seconds / generated, { maximumSignificantDigits: 2 });
    facts.push(t("receipt.audit_ratio", { ratio }));
  }
  return [verdictLine(verdict.outcome), el("p", {}, facts.join(" · ")), findings(verdict)];
}
