// The list of conversations: open, delete one, delete all.
import { el, fill, foreign } from "./dom.js";
import { titleOf } from "./conversation.js";
import { moment, t } from "./texts.js";

const WIDE = matchMedia("(min-width: 64rem)");

/** Shows what `history` keeps. `opened(conversation)` and `gone(id)` (null: all) are told what a reader did. */
export class Shelf {
  constructor(history, { opened, gone }) {
    this.history = history;
    this.opened = opened;
    this.gone = gone;
    this.element = document.getElementById("shelf");
    this.list = document.getElementById("conversations");
    this.all = document.getElementById("delete-all");
    this.sure = document.getElementById("sure");
    document.getElementById("kept").textContent = t(history.lasts ? "chat.kept" : "chat.not_kept");
    this.all.addEventListener("click", () => this.#drop(null, t("chat.delete_all_sure")));
    this.element.open = WIDE.matches;
    WIDE.addEventListener("change", () => (this.element.open = WIDE.matches));
  }

  /** List what is kept; `current`: id of the one that is open. Who is in the list stays where he is. */
  async show(current = this.current) {
    this.current = current;
    const kept = await this.history.all();
    const place = [...this.list.querySelectorAll("button")].indexOf(document.activeElement);
    this.all.hidden = !kept.length;
    fill(this.list, ...kept.map((each) => this.#entry(each, each.id === current)));
    if (place >= 0) this.list.querySelectorAll("button")[place]?.focus();
  }

  #entry(conversation, current) {
    const title = foreign(titleOf(conversation), 80);
    const open = el("button", { type: "button", class: "open", "aria-current": current ? "true" : null });
    open.append(title, el("small", { class: "quiet" }, moment(Math.floor(conversation.changed / 1_000))));
    open.addEventListener("click", () => this.opened(conversation));
    const named = { title: title.textContent };
    const drop = el("button", { type: "button", class: "drop", "aria-label": t("chat.delete_one", named) }, "×");
    drop.addEventListener("click", () => this.#drop(conversation.id, t("chat.delete_sure", named)));
    return el("li", {}, open, drop);
  }

  async #drop(id, question) {
    if (!(await this.#confirmed(question))) return;
    await this.gone(id);
    if (id === null) await this.history.clear();
    else await this.history.drop(id);
    await this.show();
    document.getElementById("question").focus();
  }

  #confirmed(question) {
    document.getElementById("sure-what").textContent = question;
    this.sure.returnValue = "";
    this.sure.showModal();
    return new Promise((answered) =>
      this.sure.addEventListener("close", () => answered(this.sure.returnValue === "yes"), { once: true }),
    );
  }
}
