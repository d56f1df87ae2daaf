// An answer's journey: request, match, generate, attest, pay, verify, settle. Each stage with its value, digest, time
// and cost; what did not happen, or is not known here, is said to be so.
import { el, foreign } from "./dom.js";
import { number, t } from "./texts.js";
import { b64 } from "./proof/bytes.js";
import { allHold } from "./proof/checks.js";
import { requestDigest } from "./proof/request.js";
import { marksOf, ownMarks } from "./receipt-trace.js";
import { findings, folded, long, money, span, verdictLine, when } from "./receipt-words.js";

const NOBODY = b64(new Uint8Array(32));

/** The journey of a bundle. `kept`: what the program keeps of it, or null; `took`: ms that the checks here took. */
export function journey({ bundle, digest, checks, kept, traces, took }) {
  const all = marksOf(traces, digest);
  const marks = ownMarks(all, digest, bundle.receipt.provider);
  const failing = checks.filter((check) => !check.holds).map((check) => check.name);
  const state = (...names) => (names.some((name) => failing.includes(name)) ? "bad" : "done");
  const stages = [
    request(bundle, state("request")), match(bundle, marks, kept), generate(bundle, marks, state("count", "output")),
    attest(bundle, digest, marks, state("signature")), pay(bundle, kept), verify(checks, kept, marks, took),
    settle(bundle),
  ];
  return el(
    "section", { class: "panel", "aria-labelledby": "journey" },
    el("h2", { id: "journey" }, t("receipt.journey")),
    el("ol", { class: "journey" }, ...stages),
    all.length ? log(all) : null,
  );
}

const short = (value) => number(value, { maximumSignificantDigits: 3 });

const at = (marks, stage) => marks.find((mark) => mark.stage === stage) ?? null;

/** One stage. `facts`: pairs of a label and a value; a null one is left out. */
function stage(name, { state = "done", value, time, facts = [], note = null, more = null }) {
  const known = facts.filter((fact) => fact !== null);
  const rows = known.flatMap(([label, given]) => [el("dt", {}, label), el("dd", {}, given)]);
  const moment = time ? el("span", { class: "quiet" }, time) : null;
  return el(
    "li", { class: `stage is-${state}`, dataset: { stage: name } },
    el("div", { class: "stage-head" }, el("h3", {}, t(`receipt.stage_${name}`)), moment),
    el("p", {}, value),
    rows.length ? el("dl", { class: "facts" }, ...rows) : null,
    note ? el("p", { class: "quiet" }, note) : null,
    more,
  );
}

function request({ request }, state) {
  const { model, sampler, nonce, created, max_tokens: most } = request;
  return stage("request", {
    state,
    value: el("span", {}, t("receipt.asked"), " ", foreign(model, 100)),
    time: created ? when(created) : null,
    facts: [
      [t("receipt.digest"), folded(b64(requestDigest(request)))],
      [t("receipt.level"), request.level],
      [t("receipt.most_tokens"), most ? number(most) : t("receipt.no_limit")],
      [t("receipt.temperature"), number(sampler.temperature / 1e6)],
      [t("receipt.nonce"), folded(nonce)],
    ],
    note: created ? null : t("receipt.seeded"),
  });
}

function match({ receipt }, marks, kept) {
  const [chosen, gone] = [at(marks, "match"), marks.filter((mark) => mark.stage === "failed")];
  return stage("match", {
    state: chosen ? "done" : "not",
    value: chosen ? foreign(chosen.note, 300) : t("receipt.no_match"),
    time: chosen ? `+${span(chosen.at)}` : null,
    facts: [[t("receipt.provider"), folded(receipt.provider)]],
    note: gone.length ? t("receipt.given_up", { count: number(gone.length) }) : null,
    more: chosen && kept ? el("a", { href: `/network/why/${encodeURIComponent(kept.name)}` }, t("receipt.why")) : null,
  });
}

function generate({ receipt, profile }, marks, state) {
  const newest = (name) => marks.findLast((mark) => mark.stage === name);
  const [sent, first, last] = ["send", "first_token", "last_token"].map(newest);
  const took = first && last ? last.at - first.at : 0;
  const pace = took > 0 ? ((receipt.output_count - 1) * 1e6) / took : 0;
  return stage("generate", {
    state,
    value: t("receipt.tokens", { prompt: number(receipt.prompt_count), output: number(receipt.output_count) }),
    time: first && last ? `+${span(first.at)} → +${span(last.at)}` : null,
    facts: [
      [t("receipt.digest"), folded(receipt.output)],
      [t("receipt.ended"), t(`receipt.stop_${receipt.stop}`)],
      sent && first ? [t("receipt.first_token"), span(first.at - sent.at)] : null,
      pace > 0 ? [t("receipt.pace"), t("receipt.per_second", { count: short(pace) })] : null,
      [t("receipt.engine"), foreign(`${profile.engine} · ${profile.regime}`, 120)],
      [t("receipt.model_digest"), folded(receipt.model)],
    ],
    note: marks.length ? null : t("receipt.no_times"),
  });
}

function attest({ receipt }, digest, marks, state) {
  const mark = at(marks, "attest");
  const words = state === "bad" ? "receipt.not_signed_by" : "receipt.signed_by";
  return stage("attest", {
    state,
    value: el("span", {}, t(words), " ", long(receipt.provider)),
    time: mark ? `+${span(mark.at)}` : when(receipt.issued),
    facts: [
      [t("receipt.digest"), folded(digest)],
      [t("receipt.sequence"), long(receipt.sequence)],
      [t("receipt.issued"), when(receipt.issued)],
      [t("receipt.signature"), folded(receipt.signature)],
    ],
  });
}

function pay({ receipt }, kept) {
  const through = receipt.channel !== NOBODY;
  const free = receipt.amount === "0";
  const voucher = /^[0-9]+$/.test(kept?.voucher ?? "") ? money(kept.voucher) : t("receipt.no_voucher");
  return stage("pay", {
    state: through ? "done" : "not",
    value: through ? t("receipt.owed", { amount: money(receipt.amount) })
      : free ? t("receipt.free") : t("receipt.price", { amount: money(receipt.amount) }),
    facts: through ? [[t("receipt.channel"), folded(receipt.channel)], [t("receipt.voucher"), voucher]] : [],
    note: through ? t("receipt.owed_why") : t("receipt.no_channel"),
  });
}

function verify(checks, kept, marks, took) {
  const here = allHold(checks);
  const gateway = at(marks, "check");
  const verdicts = kept?.verdicts ?? [];
  const told = verdicts.flatMap((each) => [verdictLine(each.outcome), findings(each)]);
  return stage("verify", {
    state: here ? "done" : "bad",
    value: t(here ? "receipt.verified_here" : "receipt.not_verified_here"),
    time: t("receipt.seconds", { count: number(took / 1000, { maximumSignificantDigits: 2 }) }),
    facts: [gateway ? [t("receipt.gateway_checked"), `+${span(gateway.at)}`] : null],
    note: verdicts.length ? t("receipt.audited", { count: number(verdicts.length) }) : t("receipt.not_audited"),
    more: told.length ? el("div", {}, ...told) : null,
  });
}

function settle({ receipt }) {
  const through = receipt.channel !== NOBODY;
  return stage("settle", {
    state: "not",
    value: t(through ? "receipt.settle_later" : "receipt.nothing_to_settle"),
    facts: through ? [[t("receipt.channel"), folded(receipt.channel)]] : [],
  });
}

/** Every mark of the trace, folded away. */
function log(marks) {
  const cells = (mark) => [`+${span(mark.at)}`, el("code", {}, mark.stage), foreign(mark.note, 300)];
  const rows = marks.map((mark) => el("tr", {}, ...cells(mark).map((cell) => el("td", {}, cell))));
  const head = ["time", "stage", "note"].map((name) => el("th", { scope: "col" }, t(`receipt.log_${name}`)));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  return el("details", {}, el("summary", {}, t("receipt.log")), el("div", { class: "scroll", tabindex: "0" }, table));
}
