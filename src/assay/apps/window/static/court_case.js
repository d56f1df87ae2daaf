// One case of the court: what it came down to, how the money was split, and every transaction.
import { drawPoint } from "./court_point.js";
import { badge, count, digits, facts, left, title, tokens, trouble, when } from "./court_words.js";
import { el, foreign } from "./dom.js";
import { t } from "./texts.js";

/** Draw it. `found`: what the server said. */
export function drawCase(found) {
  const own = found.case;
  return [
    el("p", { class: "back" }, el("a", { href: "/court", id: "back" }, t("court.back"))),
    el("div", { class: "head" }, el("h1", {}, title(own)), badge(own)),
    el("p", { class: "lead" }, outcome(own, found.steps)),
    trouble(found.trouble),
    el(
      "section",
      { class: "panel" },
      facts(
        [t("court.accused"), digits(own.provider, true)],
        [t("court.accuser"), digits(own.challenger, true)],
        own.receipt === null ? null : [t("court.receipt"), digits(own.receipt, true)],
        own.deposit_wei === null ? null : [t("court.deposit"), tokens(own.deposit_wei), deposit(own)],
        own.state === "open"
          ? [t("court.turn"), t(`court.turn_${own.turn}`), `, ${t("court.until", { at: when(own.deadline) })}`]
          : null,
      ),
      ...said(found.said),
    ),
    found.point === null ? null : drawPoint(found),
    found.split === null ? null : split(found.split),
    found.steps.length ? timeline(found) : null,
  ];
}

function outcome(own, steps) {
  if (own.kind === "equivocation") return t("court.says_equivocation");
  if (own.state === "open") return t(`court.says_open_${own.turn}`);
  const last = steps.at(-1);
  if (last?.what === "provider-silent" && last.stage === "step") return t("court.says_step");
  return last ? t(`court.says_${last.what.replaceAll("-", "_")}`) : t(`court.state_${own.state}`);
}

function deposit(own) {
  return own.state === "open"
    ? ""
    : ` · ${t(own.state === "provider" ? "court.deposit_provider" : "court.deposit_back")}`;
}

function said(sentences) {
  if (!sentences.length) return [];
  return [
    el("p", { class: "quiet said" }, t("court.said")),
    el("ul", {}, ...sentences.map((each) => el("li", {}, foreign(each)))),
  ];
}

const SHARES = ["compensation", "insured", "reward", "burned"];

function split(amounts) {
  const all = BigInt(amounts.bond) + BigInt(amounts.held);
  const part = (wei) => (all ? Number((BigInt(wei) * 10000n) / all) / 100 : 0);
  const bar = el("div", { class: "bar", "aria-hidden": "true" });
  for (const name of SHARES) {
    const piece = el("span", { class: `share ${name}` });
    piece.style.flexGrow = String(part(amounts[name]));
    if (part(amounts[name]) > 0) bar.append(piece);
  }
  return el(
    "section",
    { class: "panel" },
    el("h2", {}, t("court.split")),
    el("p", {}, t("court.split_from", { bond: tokens(amounts.bond), held: tokens(amounts.held) })),
    bar,
    el(
      "ul",
      { class: "shares" },
      ...SHARES.map((name) =>
        el(
          "li",
          {},
          el("span", { class: `dot ${name}`, "aria-hidden": "true" }),
          el("span", {}, t(`court.share_${name}`)),
          el("strong", {}, tokens(amounts[name])),
        ),
      ),
    ),
  );
}

function timeline(found) {
  return el(
    "section",
    {},
    el("h2", {}, t("court.timeline")),
    el("p", { class: "quiet" }, t("court.from_0")),
    el(
      "ol",
      { class: "timeline" },
      ...found.steps.map((step, n) =>
        el("li", { class: `step ${step.by ?? "court"}`, id: `step-${n}` }, ...told(step, n, found)),
      ),
    ),
    found.case.state === "open"
      ? el(
          "p",
          { class: "quiet" },
          t("court.goes_on", { left: left(found.case.deadline, found.steps.at(-1).at) || t("court.late") }),
        )
      : null,
  );
}

function told(step, n, found) {
  return [
    el("p", { class: "what" }, ...who(step), sentence(step, found)),
    ...(step.named ?? []).map((each) => node(each)),
    ...(step.under ?? []).map((each) => node(each, "under")),
    ...(step.roots ?? []).map((each) => node(each, "root")),
    ...(step.pieces ?? []).map((each) => piece(each, found.point)),
    step.receipts
      ? facts(...step.receipts.map((each, i) => [t("court.receipt_n", { n: count(i + 1) }), digits(each, true)]))
      : null,
    step.shown && step.count ? digests(step, n) : null,
    el(
      "p",
      { class: "chain" },
      el("span", {}, when(step.at)),
      el("span", {}, t("court.in_block", { block: count(step.block) })),
      step.gas === null ? null : el("span", {}, t("court.gas", { gas: count(step.gas) })),
      el("span", {}, t("court.transaction"), " ", digits(`0x${step.transaction}`, true)),
    ),
  ];
}

function who(step) {
  return step.by === null ? [] : [el("strong", {}, t(`court.by_${step.by}`)), " "];
}

function sentence(step, found) {
  const passes = (step.prompt_count ?? 0) + (step.output_count ?? 0) - 1;
  switch (step.what) {
    case "opened":
      if (typeof step.position !== "number") return t("court.did_opened");
      return t(step.token ? "court.did_opened_token" : "court.did_opened_pass", {
        pass: count(step.position),
        passes: count(passes),
      });
    case "moved":
      return moved(step);
    case "equivocation":
      if (!step.differ) return t("court.did_equivocation");
      return t("court.did_equivocation_of", { sequence: step.sequence, differ: step.differ.join(", ") });
    case "proven":
      return step.judged
        ? t("court.did_proven_of", { what: t(`court.op_${step.judged.kind}`) })
        : t("court.did_proven");
    case "provider-silent":
      return t(step.stage === "step" ? "court.did_step_silent" : "court.did_provider_silent", {
        left: found.case.moves,
      });
    default:
      return t(`court.did_${step.what.replaceAll("-", "_")}`);
  }
}

function moved(step) {
  if (step.stage === "entry" && typeof step.committed === "number") {
    return t("court.did_entry", { entry: count(step.entry), committed: count(step.committed) });
  }
  if (step.stage === "entry") return t("court.did_entry_unread");
  return t(`court.did_${step.stage.replaceAll(" ", "_")}`, {
    count: count(step.count ?? 0),
    cells: count(step.cells ?? 0),
  });
}

function node(each, role = "named") {
  const leaf = each.level === 0 && role !== "root";
  const where = t(leaf ? `court.leaf_${each.tree}` : `court.node_${each.tree}`, {
    n: count(each.index),
    of: count(each.count),
    level: count(each.level),
  });
  return el(
    "p",
    { class: `node ${role}` },
    el("span", {}, role === "root" ? t(`court.root_${each.tree}`) : where),
    each.digest ? digits(each.digest, true) : null,
  );
}

function digests(step, n) {
  const lists = Object.entries(step.shown).filter(([, all]) => all.length);
  const shown = lists.reduce((sum, [, all]) => sum + all.length, 0);
  return el(
    "details",
    { id: `digests-${n}` },
    el("summary", { id: `summary-${n}` }, t("court.digests", { count: count(step.count) })),
    ...lists.map(([tree, all]) =>
      el(
        "div",
        {},
        el("p", { class: "quiet" }, t(`court.root_${tree}`)),
        el("ol", { class: "digests" }, ...all.map((each) => el("li", {}, digits(each, true)))),
      ),
    ),
    shown < step.count
      ? el("p", { class: "quiet" }, t("court.digests_more", { count: count(step.count - shown) }))
      : null,
  );
}

const AROUND = 5;
const CHUNK = 256;

/** Numbers of a chunk: those around the one that came to be disputed, if it is in this one. */
function piece(each, point) {
  const first = each.tree === "kept" ? 0 : (point?.chunks?.[0] ?? 0);
  const at = typeof point?.entry === "number" ? point.entry - (first + each.index) * CHUNK : -1;
  const disputed = at >= 0 && at < CHUNK;
  const start = disputed ? Math.max(0, Math.min(at - AROUND, CHUNK - 2 * AROUND - 1)) : 0;
  const shown = each.numbers.slice(start, start + 2 * AROUND + 1);
  const list = shown.map((value, i) => {
    const is = disputed && start + i === at;
    return el("li", { class: is ? "is" : null }, el(is ? "mark" : "span", {}, count(value)));
  });
  return el(
    "div",
    { class: "piece" },
    el(
      "p",
      { class: "quiet" },
      t(`court.chunk_${each.tree}`, { n: count(each.index) }),
      " ",
      t("court.numbers", { first: count(start), last: count(start + shown.length - 1) }),
    ),
    el("ol", { class: "numbers", dir: "ltr" }, ...list),
  );
}
