// One receipt file as people read it: the verdict, what was changed if anything was, the conversation, the journey, and
// every check with what it compared.
import { el, fill, foreign } from "./dom.js";
import { number, t } from "./texts.js";
import { hex } from "./proof/bytes.js";
import { allHold, checkBundle, needsModel } from "./proof/checks.js";
import { diagnose } from "./proof/diagnosis.js";
import { goesOn } from "./proof/parts.js";
import { receiptDigest, signerOf } from "./proof/receipt.js";
import { auditOf } from "./receipt-audit.js";
import { journey } from "./receipt-journey.js";
import { share, command } from "./receipt-share.js";
import { fieldName, folded } from "./receipt-words.js";

const MOST_SHOWN = 120;

/**
 * Show bundles in `place`: a list where there are several, and one of them whole. `found`: what the program knows (see
 * `/window/receipt/{name}`), each receipt with the `name` under which it is kept; `say` tells how things stand.
 */
export async function showReceipts(place, { bundles, found, signal, say }) {
  const started = performance.now();
  const judged = bundles.map((bundle) => judge(bundle, bundles));
  const took = performance.now() - started;
  const detail = el("div", { id: "detail" });
  const open = (index) => detailOf(detail, judged[index], { found, signal, say, took });
  fill(place, judged.length > 1 ? index(judged, open) : null, detail);
  await open(Math.max(0, judged.findIndex((each) => !each.good)));
}

/** Show a receipt alone: who signed it, and nothing else can be said. */
export function showBare(place, receipt, say) {
  const good = signerOf(receipt) === receipt.provider;
  const member = (name) => [el("dt", {}, fieldName(name)), el("dd", {}, folded(receipt[name]))];
  const members = Object.keys(receipt).flatMap(member);
  fill(
    place,
    el(
      "section", { class: `panel verdict ${good ? "doubt" : "bad"}`, "aria-labelledby": "verdict" },
      el("h2", { id: "verdict" }, t("receipt.bare")),
      el("p", {}, t(good ? "receipt.bare_why" : "receipt.bare_bad")),
      el("dl", { class: "facts" }, ...members),
    ),
  );
  say(t(good ? "receipt.bare" : "receipt.bare_bad"));
}

function judge(bundle, bundles) {
  const checks = checkBundle(bundle);
  const continued = goesOn(bundle, bundles);
  return { bundle, checks, continued, good: allHold(checks) && continued !== false };
}

function index(judged, open) {
  const buttons = judged.map((each, place) => {
    const { choice, continues } = each.bundle.request;
    const label = t(continues ? "receipt.part_of" : "receipt.choice", { choice: number(choice + 1) });
    const mark = badge(each.good, t(each.good ? "receipt.holds" : "receipt.fails"));
    const show = () => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button === buttons[place]));
      open(place);
    };
    return el("button", { type: "button", "aria-pressed": "false", on: { click: show } }, label, " ", mark);
  });
  buttons[Math.max(0, judged.findIndex((each) => !each.good))].setAttribute("aria-pressed", "true");
  const shown = buttons.slice(0, MOST_SHOWN);
  const good = judged.filter((each) => each.good).length;
  const sum = t("receipt.several", { good: number(good), count: number(judged.length) });
  return el("section", { class: "panel index" }, el("p", {}, sum), el("div", { class: "row" }, ...shown));
}

const badge = (good, text) => el("span", { class: `badge ${good ? "good" : "bad"}` }, good ? "✓ " : "✗ ", text);

async function detailOf(detail, judged, { found, signal, say, took }) {
  const { bundle, checks } = judged;
  const digest = hex(receiptDigest(bundle.receipt));
  const kept = found.receipts.find((each) => each.digest === digest) ?? null;
  const verdict = el("section", { class: "panel verdict", "aria-labelledby": "verdict" });
  fill(
    detail,
    verdict,
    conversation(bundle, kept),
    journey({ bundle, digest, checks, kept, traces: found.traces, took }),
    checksTable(judged),
    needs(bundle, kept && { name: kept.name, digest, traces: found.traces, signal }),
    kept && share(kept.name),
  );
  await tell(verdict, judged, { found, signal, say });
}

async function tell(verdict, { bundle, checks, continued, good }, { found, signal, say }) {
  const headline = (text) => el("h2", { id: "verdict" }, text);
  const level = t(`receipt.level_${bundle.receipt.level}`);
  if (good) {
    verdict.classList.add("good");
    fill(verdict, headline(`✓ ${t("receipt.good")}`), el("p", {}, t("receipt.good_why")), el("p", {}, level));
    say(t("receipt.good"));
    return;
  }
  verdict.classList.add("bad");
  const fields = el("div", { class: "fields" }, el("p", {}, t("receipt.looking")));
  fill(verdict, headline(`✗ ${t("receipt.bad")}`), fields);
  say(t("receipt.bad"));
  if (allHold(checks)) {
    fill(fields, el("p", {}, t(continued === false ? "receipt.not_linked" : "receipt.bad")));
    return;
  }
  const kept = async () => found.receipts.map((each) => each.bundle);
  const progress = (count) => fill(fields, el("p", {}, t("receipt.searching", { count: number(count) })));
  const diagnosis = await diagnose(bundle, { kept, signal, progress });
  if (signal.aborted) return;
  fill(fields, ...broken(diagnosis));
  const names = diagnosis.fields.map((each) => each.field).join(", ");
  say(`${t("receipt.bad")} ${t(`receipt.how_${diagnosis.how}`)} ${names}`);
}

function broken({ how, fields, confirmed }) {
  const items = fields.map(({ field, is, was }) =>
    el("li", { dataset: { field } }, fieldName(field), ...(was === undefined ? [] : [isAndWas(is, was)])),
  );
  const list = items.slice(0, MOST_SHOWN);
  const fitting = confirmed.map((each) => el("li", {}, fieldName(`receipt.${each}`)));
  return [
    el("p", { dataset: { how } }, t(`receipt.how_${how}`)),
    list.length ? el("ul", { class: "broken" }, ...list) : null,
    how === "unknown" && fitting.length ? el("p", {}, t("receipt.confirmed")) : null,
    how === "unknown" && fitting.length ? el("ul", { class: "inline" }, ...fitting) : null,
  ].filter((child) => child !== null);
}

function isAndWas(is, was) {
  const value = (given) => foreign(given === undefined ? "—" : String(given), 300);
  return el(
    "dl",
    { class: "pair" },
    el("dt", {}, t("receipt.is")), el("dd", {}, value(is)),
    el("dt", {}, t("receipt.was")), el("dd", {}, value(was)),
  );
}

const MOST_CHARACTERS = 100_000;
const SHORT = 1200;

function conversation({ request, ids }, kept) {
  const message = ({ role, content, tool_calls: calls }) => saying(t(`receipt.role_${role}`), content || calls);
  const said = request.kind === "chat"
    ? request.messages.map(message)
    : [saying(t("receipt.prompt"), request.prompt)];
  const answer = kept?.text ?? null;
  const answered = answer === null
    ? [
        el("h3", {}, t("receipt.answer")),
        el("p", { class: "quiet" }, t("receipt.only_ids", { count: number(ids.length) })),
        el("details", { class: "fold" }, el("summary", {}, t("receipt.show_ids")), idList(ids)),
      ]
    : [saying(t("receipt.answer"), answer)];
  return el(
    "section", { class: "panel said", "aria-labelledby": "said" },
    el("h2", { id: "said" }, t("receipt.said")), ...said, ...answered,
  );
}

const idList = (ids) => el("p", { class: "digest" }, ids.slice(0, 4096).join(" ") + (ids.length > 4096 ? " …" : ""));

function saying(who, text) {
  const whole = foreign(text, MOST_CHARACTERS);
  if (text.length <= SHORT) return el("div", { class: "saying" }, el("h3", {}, who), whole);
  const start = foreign(`${text.slice(0, 200)}…`);
  const fold = el("details", { class: "fold" }, el("summary", {}, start), whole);
  return el("div", { class: "saying" }, el("h3", {}, who), fold);
}

function checksTable({ checks, continued }) {
  const rows = checks.map((check) => ({ ...check, title: t(`receipt.check_${check.name}`) }));
  if (continued !== null) {
    rows.push({ name: "continues", title: t("receipt.check_continues"), holds: continued, stated: "", found: "" });
  }
  return el(
    "section", { class: "panel", "aria-labelledby": "checks" },
    el("h2", { id: "checks" }, t("receipt.checks")),
    el("p", { class: "quiet" }, t("receipt.checks_why")),
    el("ul", { class: "checks" }, ...rows.map(checkRow)),
  );
}

const LABELS = {
  opening: ["bytes_due", "bytes"], limit: ["most", "count"], context: ["most", "count"], stop: ["stated", "count"],
};

function checkRow({ name, title, holds, stated, found }) {
  const [first, second] = LABELS[name] ?? ["stated", "found"];
  const outcome = badge(holds, t(holds ? "receipt.holds" : "receipt.fails"));
  const values = stated === "" ? null : el(
    "dl", { class: "pair" },
    el("dt", {}, t(`receipt.${first}`)), el("dd", {}, folded(stated)),
    el("dt", {}, t(`receipt.${second}`)), el("dd", {}, folded(found)),
  );
  return el("li", { dataset: { check: name, holds } }, el("p", { class: "check" }, outcome, " ", title), values);
}

function needs({ receipt }, here) {
  const items = needsModel(receipt.level).map((name) => el("li", {}, t(`receipt.needs_${name}`)));
  return el(
    "section", { class: "panel", "aria-labelledby": "needs" },
    el("h2", { id: "needs" }, t("receipt.needs")),
    el("p", {}, t("receipt.needs_why")),
    el("ul", {}, ...items),
    command("assay verify receipt.json"),
    here ? auditOf({ ...here, provider: receipt.provider }) : null,
  );
}
