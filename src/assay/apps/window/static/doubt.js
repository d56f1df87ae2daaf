// The playground for doubt: the owner chooses a cheat, and sees it answer and be caught.
import { el, fill, foreign } from "./dom.js";
import { asOwner, ownerToken } from "./owner.js";
import { number, t } from "./texts.js";

const SECONDS = 0.7;
const PATH = "/window/doubt";
const STAGES = ["starting", "asking", "checking", "over"];
const STYLES = { caught: "good", refused: "good", unclear: "doubt", missed: "bad", failed: "bad", stopped: "doubt" };
const form = document.getElementById("form");
const cheats = document.getElementById("cheats");
const question = document.getElementById("question");
const start = document.getElementById("try");
const stop = document.getElementById("stop");
const place = document.getElementById("trial");
const refused = document.getElementById("refused");
let shown = "";
let timer = 0;

function say(words) {
  refused.hidden = words === "";
  fill(refused, words ? foreign(words) : null);
}

/** Ask the server, show what it says, and go on asking while a cheat is tried. */
async function tell(options) {
  clearTimeout(timer);
  let found;
  try {
    found = await asOwner(PATH, options);
    say("");
  } catch (error) {
    say(error.message);
    if (options === undefined) form.hidden = true;
    return;
  }
  form.hidden = false;
  if (!cheats.firstChild) offer(found.cheats);
  const running = found.trial !== null && found.trial.stage !== "over";
  start.disabled = running;
  stop.hidden = !running;
  const text = JSON.stringify(found.trial);
  if (text !== shown) draw(found.trial);
  shown = text;
  if (running) timer = setTimeout(tell, SECONDS * 1000);
}

function offer(known) {
  const rows = known.map((each, n) =>
    el(
      "label",
      { class: "cheat" },
      el("input", { type: "radio", name: "cheat", value: each.name, checked: n === 0 }),
      el("span", { class: "name" }, el("code", {}, each.name), ` · ${t(`doubt.by_${each.caught_by}`)}`),
      el("span", { class: "quiet", lang: "en" }, foreign(each.does)),
    ),
  );
  fill(cheats, ...rows);
}

function draw(trial) {
  if (trial === null) return fill(place);
  const at = STAGES.indexOf(trial.stage);
  return fill(
    place,
    el("h2", {}, el("code", {}, trial.cheat)),
    el("p", {}, `${t("doubt.model")}: `, foreign(trial.model, 80), " · ", el("bdi", { lang: "en" }, trial.does)),
    el(
      "ol",
      { class: "stages" },
      ...STAGES.map((stage, n) =>
        el(
          "li",
          {
            class: n < at || trial.stage === "over" ? "done" : n === at ? "now" : null,
            "aria-current": n === at ? "step" : null,
          },
          t(`doubt.stage_${stage}`),
        ),
      ),
    ),
    ...trial.replies.map((reply, n) => answer(reply, n)),
    trial.ending === "" ? null : ending(trial),
  );
}

function answer(reply, n) {
  const style = { holds: "doubt", fails: "bad", inconclusive: "doubt" }[reply.outcome] ?? "bad";
  return el(
    "article",
    { class: "panel" },
    el("h3", {}, t("doubt.answer", { n: number(n + 1) })),
    reply.text ? el("p", { class: "said" }, foreign(reply.text, 2000)) : null,
    el("p", {}, el("span", { class: `badge ${style}` }, t(`doubt.found_${reply.outcome || "refused"}`))),
    ...reply.reasons.map((reason) => el("p", { class: "reason" }, foreign(reason))),
    reply.seconds
      ? el("p", { class: "quiet" }, t("doubt.took", { seconds: number(reply.seconds, { maximumFractionDigits: 2 }) }))
      : null,
  );
}

function ending(trial) {
  return el(
    "p",
    { class: `panel ending ${STYLES[trial.ending] ?? ""}` },
    el("strong", {}, t(`doubt.end_${trial.ending}`)),
    trial.trouble ? el("span", {}, " ", foreign(trial.trouble)) : null,
  );
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const cheat = form.elements.cheat.value;
  tell({ method: "POST", body: { cheat, question: question.value } });
});
stop.addEventListener("click", () => tell({ method: "DELETE", body: {} }));
if (ownerToken() === null) say(t("doubt.owner"));
else tell();
