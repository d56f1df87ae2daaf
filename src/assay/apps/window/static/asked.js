// What is asked for: model, level, longest answer; and about what that costs.
import { el, fill, foreign } from "./dom.js";
import { number, t } from "./texts.js";
import { amount, money } from "./wei.js";

const AGAIN_MS = 5_000;
const MOST_SHOWN = 60;
/** Assurance levels, weakest first. */
export const LEVELS = ["signed", "statistical", "pinned", "exact"];

/** The pickers above the question. `changed()` is called when something else is asked for. */
export class Asked {
  #models = [];
  #wished = {};
  #timer = null;

  constructor(form, changed) {
    this.model = form.querySelector("#model");
    this.level = form.querySelector("#level");
    this.most = form.querySelector("#most");
    this.state = form.querySelector("#models-state");
    this.estimated = form.querySelector("#estimate");
    this.changed = changed;
    this.model.addEventListener("change", () => this.#levels());
    for (const each of [this.model, this.level, this.most]) each.addEventListener("change", changed);
    this.most.addEventListener("input", changed);
  }

  /** Whether a question can be sent. */
  get ready() {
    return this.#models.length > 0 && this.most.checkValidity();
  }

  /** `{ model, level, most }`; level "" leaves the choice to the server. */
  get wish() {
    return { model: this.model.value, level: this.level.value, most: this.most.valueAsNumber };
  }

  /** Ask for the same again as a conversation did, where it is still to be had. */
  set wish({ model, level }) {
    this.#wished = { model, level };
    this.#fillModels();
  }

  /** Ask the server what there is, and again while there is nothing. */
  async load() {
    try {
      const reply = await fetch("/window/chat/models");
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      this.#models = listed(await reply.json());
      this.state.textContent = this.#models.length ? "" : t("chat.no_models");
    } catch {
      this.state.textContent = t("chat.unreachable");
    }
    this.#fillModels();
    clearTimeout(this.#timer);
    if (!this.#models.length) this.#timer = setTimeout(() => this.load(), AGAIN_MS);
  }

  /** Say about what an answer to so many characters costs. */
  estimate(characters) {
    const prompt = Math.ceil(characters / 4);
    const level = this.#level();
    const most = this.most.valueAsNumber;
    if (!level || !this.most.checkValidity()) return fill(this.estimated);
    const costs = level.prices.map(([input, output]) => input * BigInt(prompt) + output * BigInt(most));
    const least = costs.reduce((one, other) => (other < one ? other : one));
    const counts = { prompt: number(prompt), most: number(most) };
    const free = document.documentElement.dataset.kind === "node" ? "chat.estimate_free" : "chat.estimate_free_at_least";
    const said = least === 0n ? t(free) : t("chat.estimate", { ...counts, price: money(least) });
    return fill(this.estimated, said);
  }

  #of() {
    return this.#models.find(({ id }) => id === this.model.value);
  }

  #level() {
    const levels = this.#of()?.levels ?? [];
    return levels.find(({ level }) => level === this.level.value) ?? levels[0];
  }

  #fillModels() {
    if (!this.#models.length) return this.changed();
    const wanted = this.#wished.model ?? this.model.value;
    fill(this.model, ...this.#models.map(({ id }) => el("option", { value: id }, foreign(id, MOST_SHOWN).textContent)));
    if (this.#models.some(({ id }) => id === wanted)) this.model.value = wanted;
    this.#levels();
    return this.changed();
  }

  #levels() {
    const levels = this.#of()?.levels ?? [];
    const wanted = this.#wished.level ?? this.level.value;
    const options = levels.map(({ level }) => el("option", { value: level }, t(`chat.level_${level}`)));
    fill(this.level, el("option", { value: "" }, t("chat.level_automatic")), ...options);
    if (levels.some(({ level }) => level === wanted)) this.level.value = wanted;
    this.#wished = {};
  }
}

// What the server lists, as far as it is what it should be: names and prices are those of strangers.
function listed(said) {
  const models = Array.isArray(said?.models) ? said.models : [];
  return models
    .filter((model) => typeof model?.id === "string" && Array.isArray(model.levels))
    .map(({ id, levels }) => ({ id, levels: levels.map(priced).filter(({ level, prices }) => level && prices.length) }))
    .filter(({ levels }) => levels.length);
}

function priced(said) {
  const prices = Array.isArray(said?.prices) ? said.prices : [];
  const read = prices.map((price) => [amount(price?.[0]), amount(price?.[1])]);
  return {
    level: LEVELS.includes(said?.level) ? said.level : null,
    prices: read.filter(([input, output]) => input !== null && output !== null),
  };
}
