// One question and its answer, as it is shown: text, what went wrong, and the badge that leads to the receipt.
import { el, fill, foreign } from "./dom.js";
import { LEVELS } from "./asked.js";
import { Prose } from "./prose.js";
import { number, t } from "./texts.js";
import { amount, money, wei } from "./wei.js";

const HELP = new Set([
  "unreachable", "cut_off", "too_long", "context_length_exceeded", "body_too_large", "model_not_found", "no_provider",
  "provider_failed", "rate_limit_exceeded", "payment_required", "forbidden", "invalid_request_error",
]);
const WORKING = "running";

/** Shows a turn; `again()` asks its question once more. Call `show()` whenever the turn has changed. */
export class TurnView {
  constructor(turn, again) {
    this.turn = turn;
    this.text = el("div", { class: "text" });
    this.prose = new Prose(this.text);
    this.notes = el("div", { class: "notes" });
    this.again = el("button", { type: "button", class: "again" }, t("chat.again"));
    this.again.addEventListener("click", again);
    this.element = el(
      "div",
      { class: "turn" },
      el(
        "article",
        { class: "question", "aria-label": t("chat.you") },
        el("p", { class: "plain", dir: "auto" }, foreign(turn.question, Infinity).textContent),
      ),
      el(
        "article",
        { class: "answer panel", "aria-label": t("chat.answer") },
        el("p", { class: "who quiet" }, foreign(turn.model, 60)),
        this.text,
        this.notes,
      ),
    );
    this.show();
  }

  /** The turn as it is now. */
  show() {
    const { turn } = this;
    this.prose.show(turn.text);
    this.element.classList.toggle("running", turn.state === WORKING);
    if (turn.state === WORKING) {
      fill(this.notes, turn.text ? null : el("p", { class: "quiet waiting" }, t("chat.waiting")));
      return;
    }
    fill(this.notes, ended(turn), ...(turn.receipts.length ? [badge(turn), details(turn)] : []), this.#more());
  }

  #more() {
    return this.turn.state === "failed" ? this.again : null;
  }
}

/** The facts of receipts from outside that a badge tells; what is not as it should be is left out. */
export function facts(receipts) {
  if (!Array.isArray(receipts)) return [];
  return receipts
    .slice(0, 64)
    .filter((each) => LEVELS.includes(each?.level) && amount(each.amount) !== null)
    .map(({ level, stop, provider, channel, amount: owed, prompt_count: prompt, output_count: output }) => ({
      level,
      stop: String(stop).slice(0, 20),
      provider: String(provider).slice(0, 60),
      paid: typeof channel === "string" && /[^A]/.test(channel), // 32 zero bytes are 43 times an A
      amount: owed,
      prompt: Number.isSafeInteger(prompt) ? prompt : 0,
      output: Number.isSafeInteger(output) ? output : 0,
    }));
}

/** Wei that an answer cost by its receipts alone, as text; null if it was paid through a channel. */
export function priceOf(receipts) {
  if (receipts.some(({ paid }) => paid)) return null;
  return String(receipts.reduce((sum, { amount: owed }) => sum + BigInt(owed), 0n));
}

function ended({ state, error, finish, text }) {
  if (state === "failed") return failure(error);
  if (state === "stopped") return el("p", { class: "quiet" }, t(text ? "chat.stopped" : "chat.stopped_early"));
  if (state === "left") return el("p", { class: "quiet" }, t("chat.left"));
  return finish === "length" ? el("p", { class: "quiet" }, t("chat.length")) : null;
}

function failure({ message, code }) {
  const help = t(`chat.help_${HELP.has(code) ? code : "other"}`);
  return el(
    "div",
    { class: "failure bad" },
    el("p", {}, el("strong", {}, t("chat.failed"))),
    message ? el("p", {}, foreign(message, 2_000)) : null,
    el("p", {}, help),
  );
}

function badge({ id, receipts, checked, cost, tokens, seconds, first }) {
  const speed = tokens > 1 && seconds > first ? (tokens - 1) / (seconds - first) : null;
  const parts = [
    t(`chat.level_${weakest(receipts)}`),
    t(`chat.verdict_${checked}`),
    cost === null ? null : wei(BigInt(cost)),
    speed ? t("chat.speed", { rate: number(speed, { maximumSignificantDigits: 2 }) }) : null,
    receipts.length > 1 ? t("chat.parts", { count: number(receipts.length) }) : null,
  ];
  const told = parts.filter(Boolean).map((part) => el("span", {}, part));
  return el(
    "a",
    { class: `badge proof ${checked === "gateway" ? "good" : "doubt"}`, href: `/receipt/${encodeURIComponent(id)}` },
    el("span", { class: "visually-hidden" }, t("chat.receipt")),
    ...told,
  );
}

// Parts of one answer have one level; if a stranger says otherwise, no more is claimed than the weakest.
function weakest(receipts) {
  return LEVELS.find((level) => receipts.some((each) => each.level === level));
}

function details({ receipts, checked, cost, tokens, seconds, first }) {
  const providers = [...new Set(receipts.map(({ provider }) => provider))];
  const prompt = Math.min(...receipts.map((each) => each.prompt));
  const output = tokens || receipts.reduce((sum, each) => sum + each.output, 0);
  const rows = [
    [t("chat.checked"), t(`chat.checked_${checked}`)],
    [t("chat.by"), ...providers.map((name) => el("div", {}, el("span", { class: "digest" }, foreign(name, 60))))],
    [t("chat.cost"), cost === null ? t("chat.cost_unknown") : money(BigInt(cost))],
    [t("chat.counted"), t("chat.counts", { prompt: number(prompt), output: number(output) })],
    seconds ? [t("chat.took"), t("chat.times", { first: short(first), all: short(seconds) })] : null,
    receipts.length > 1 ? [t("chat.several"), t("chat.several_why")] : null,
  ];
  const shown = rows.filter(Boolean).flatMap(([name, ...told]) => [el("dt", {}, name), el("dd", {}, ...told)]);
  return el("details", { class: "facts" }, el("summary", {}, t("chat.details")), el("dl", {}, ...shown));
}

function short(seconds) {
  return number(seconds, { maximumFractionDigits: 1, minimumFractionDigits: 1 });
}
