// Models on the disk: listed, added with progress, removed. What is being fetched is the program's to know, so that a
// page which is loaded again goes on showing it.
import { el, fill, foreign } from "./dom.js";
import { bytes, count, every, one, tell } from "./node-parts.js";
import { t } from "./texts.js";

const PATH = "/window/owner/models";
let asOwner = null;
let listed = "";
let fetching = null;
let later = null;

/** Begin to show them. `ask`: how the owner asks. */
export function models(ask) {
  asOwner = ask;
  one("fetch-end").addEventListener("click", () => act("/window/owner/fetching", { method: "DELETE", body: {} }));
  one("confirm-no").addEventListener("click", () => one("confirm").close());
  later = every(() => (busy() ? 0.5 : 5), () => act(PATH));
}

async function act(path, options) {
  try {
    show(await asOwner(path, options));
  } catch (error) {
    if (options) tell(one("models-problem"), error.message); // else the page says it at its top
    return;
  }
  if (!options) return;
  tell(one("models-problem"), null);
  later();
}

function show(found) {
  progress(found.fetching);
  const now = JSON.stringify([found.installed, found.available, busy()]);
  if (now === listed) return;
  listed = now;
  const here = found.installed.map(installed);
  const there = found.available.map(available);
  fill(one("installed"), ...(here.length ? here : [el("li", { class: "quiet" }, t("node.none_installed"))]));
  fill(one("available"), ...(there.length ? there : [el("li", { class: "quiet" }, t("node.none_available"))]));
}

function progress(now) {
  const said = JSON.stringify([fetching?.name, fetching?.state, fetching?.stage, fetching?.problem]);
  fetching = now;
  one("fetching").hidden = now === null;
  if (now === null) return;
  if (said !== JSON.stringify([now.name, now.state, now.stage, now.problem])) outcome(now);
  const known = !now.over && count(now.total) > 0;
  const bar = one("fetch-bar");
  bar.hidden = now.over;
  one("fetch-bytes").hidden = !known;
  bar.removeAttribute("value"); // not known how far: the browser shows that it goes on
  if (!known) return;
  bar.max = now.total;
  bar.value = count(now.done);
  one("fetch-bytes").textContent = t("node.of", { done: bytes(now.done), total: bytes(now.total) });
}

function outcome(now) {
  const step = now.state === "running" ? now.stage : now.state;
  one("fetching").className = `fetching ${{ done: "good", failed: "bad", cancelled: "doubt" }[now.state] ?? ""}`;
  fill(
    one("fetch-words"),
    foreign(now.name, 80),
    ": ",
    t(`node.fetch_${step}`),
    now.problem ? el("span", { class: "reason" }, foreign(now.problem, 1000)) : null,
  );
  one("fetch-end").textContent = t(now.over ? "node.put_away" : "node.cancel");
  one("fetch-end").disabled = now.state === "stopping";
}

const busy = () => fetching !== null && !fetching.over;

function button(words, name, disabled, click, kind) {
  const attributes = { type: "button", class: kind, disabled, "aria-label": `${words}: ${name}`, on: { click } };
  return el("button", attributes, words);
}

function installed(model) {
  const remove = button(t("node.remove"), model.name, model.running || busy(), () => confirm(model));
  return el(
    "li",
    { class: "row" },
    el(
      "div",
      {},
      el("strong", {}, foreign(model.name, 80)),
      " ",
      el("span", { class: "quiet" }, bytes(model.size)),
      " ",
      model.running ? el("span", { class: "badge good" }, t("node.answers_now")) : null,
      model.damaged ? el("span", { class: "badge bad" }, t("node.damaged")) : null,
      el("details", {}, el("summary", {}, t("node.file")), el("p", { class: "digest" }, foreign(model.path)),
        el("p", { class: "digest" }, "SHA-256 ", foreign(model.sha256))),
    ),
    el("div", { class: "bar" }, model.damaged ? adder(model.name, "node.again") : null, remove),
  );
}

const adder = (name, words) =>
  button(t(words), name, busy(), () => act(PATH, { method: "POST", body: { name } }), "main");

const available = (model) =>
  el(
    "li",
    { class: "row" },
    el("div", {}, el("strong", {}, foreign(model.name, 80)), " ", el("span", { class: "quiet" }, bytes(model.size)),
      el("div", { class: "quiet" }, foreign(model.title), " · ", foreign(model.licence))),
    adder(model.name, "node.add"),
  );

function confirm(model) {
  const dialog = one("confirm");
  fill(one("confirm-name"), el("strong", {}, foreign(model.name, 80)), ` · ${bytes(model.size)}`);
  one("confirm-words").textContent = t(model.fetched ? "node.remove_fetched" : "node.remove_added");
  one("confirm-yes").onclick = async () => {
    dialog.close();
    await act(`${PATH}/${encodeURIComponent(model.name)}`, { method: "DELETE", body: {} });
    one("models-title").focus();
  };
  dialog.showModal();
  one("confirm-no").focus();
}
