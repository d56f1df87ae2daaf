// The chat: a conversation with the models that are served here, each answer with the badge of its receipt.
import { Asked } from "./asked.js";
import { answer, fresh, messagesOf, restored, settle, titleOf, turnOf } from "./conversation.js";
import { followed, paced, toEnd } from "./drawing.js";
import { saveJson, saveMarkdown } from "./export.js";
import { History } from "./history.js";
import { Shelf } from "./shelf.js";
import { t } from "./texts.js";
import { TurnView } from "./turn.js";

const KEEP_MS = 2_000; // between copies of one that is under way
const MOST_SAID = 600; // characters of an answer that are read out

const kind = document.documentElement.dataset.kind;
const form = document.getElementById("ask");
const question = document.getElementById("question");
const log = document.getElementById("log");
const status = document.getElementById("status");
const send = document.getElementById("send");
const stop = document.getElementById("stop");

const history = await History.open();
const asked = new Asked(form, refresh);
const shelf = new Shelf(history, { opened: open, gone: closed });
let conversation = fresh();
let running = null; // { controller, over } of the answer under way
const live = new Map(); // conversations of this page by id: their last receipts may still be on the way

function refresh() {
  const before = messagesOf(conversation.turns, question.value).reduce((sum, { content }) => sum + content.length, 0);
  asked.estimate(before);
  question.dir = question.value ? "auto" : "";
  send.disabled = !asked.ready || !question.value.trim();
  send.hidden = Boolean(running);
  stop.hidden = !running;
  const begun = conversation.turns.length > 0;
  document.getElementById("welcome").hidden = begun;
  document.getElementById("tools").hidden = !begun || Boolean(running);
}

async function keep(which) {
  if (live.get(which.id) !== which) return; // deleted meanwhile
  try {
    await history.keep(which);
  } catch {
    document.getElementById("kept").textContent = t("chat.cannot_keep");
  }
}

async function ask(text, wish) {
  if (running || !asked.ready || !text.trim()) return;
  const mine = conversation;
  const turn = turnOf(text, wish, kind);
  const messages = messagesOf(mine.turns, text);
  mine.turns.push(turn);
  live.set(mine.id, mine);
  remember();
  const controller = new AbortController();
  const over = run(mine, turn, messages, controller.signal);
  running = { controller, over };
  refresh();
  try {
    await over;
  } finally {
    running = null;
    refresh();
  }
}

async function run(mine, turn, messages, signal) {
  const view = shown(turn);
  toEnd();
  status.textContent = t("chat.waiting");
  const draw = paced(() => followed(() => view.show()));
  let kept = 0;
  await answer(turn, messages, signal, () => {
    draw.soon();
    if (turn.id && performance.now() - kept > KEEP_MS) {
      kept = performance.now();
      keep(mine);
    }
  });
  draw.now();
  status.textContent = spoken(turn);
  if (turn.state === "failed") asked.load(); // what is served may have changed
  settled(mine, turn, view);
}

async function settled(mine, turn, view) {
  await keep(mine);
  await settle(turn);
  followed(() => view.show());
  await keep(mine);
  await shelf.show(conversation.id);
}

function spoken({ state, text, error }) {
  if (state === "failed") return `${t("chat.failed")} ${error.message}`.slice(0, MOST_SAID);
  return `${t(state === "stopped" ? "chat.stopped" : "chat.done")} ${text.slice(0, MOST_SAID)}`;
}

function shown(turn) {
  const view = new TurnView(turn, () => repeat(turn, view));
  log.append(view.element);
  return view;
}

function repeat(turn, view) {
  if (running) return;
  conversation.turns.splice(conversation.turns.indexOf(turn), 1);
  view.element.remove();
  question.focus();
  ask(turn.question, asked.wish);
}

// Which conversation this tab shows, for when it is loaded again.
function remember() {
  try {
    sessionStorage.setItem("assay-conversation", conversation.id);
  } catch {
    // storage is off: a page that is loaded again begins anew
  }
}

function remembered() {
  try {
    return sessionStorage.getItem("assay-conversation");
  } catch {
    return null;
  }
}

async function halt() {
  running?.controller.abort();
  await running?.over;
}

async function open(chosen) {
  await halt();
  conversation = live.get(chosen.id) ?? restored(chosen);
  live.set(conversation.id, conversation);
  remember();
  log.replaceChildren();
  for (const turn of conversation.turns) shown(turn);
  const last = conversation.turns.at(-1);
  if (last) asked.wish = last;
  await shelf.show(conversation.id);
  refresh();
  toEnd();
  question.focus();
}

async function begin() {
  await halt();
  conversation = fresh();
  log.replaceChildren();
  status.textContent = "";
  await shelf.show(null);
  refresh();
  question.focus();
}

async function closed(id) {
  if (id === null) live.clear();
  else live.delete(id);
  if (id === null || id === conversation.id) await begin();
}

function submit() {
  const text = question.value;
  if (running || !asked.ready || !text.trim()) return;
  question.value = "";
  question.focus();
  ask(text, asked.wish);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
question.addEventListener("input", refresh);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.controller.abort();
});
stop.addEventListener("click", () => {
  running?.controller.abort();
  question.focus();
});
document.getElementById("new").addEventListener("click", begin);
for (const example of document.querySelectorAll("#welcome button")) {
  example.addEventListener("click", () => {
    question.value = example.textContent;
    refresh();
    question.focus();
  });
}
document.getElementById("save-json").addEventListener("click", async () => {
  const missing = await saveJson(conversation);
  status.textContent = missing ? t("chat.saved_without", { count: missing }) : t("chat.saved");
});
document.getElementById("save-markdown").addEventListener("click", () => {
  saveMarkdown(conversation);
  status.textContent = t("chat.saved");
});

const left = (await history.all()).find(({ id }) => id === remembered());
if (left) await open(left);
else await shelf.show(null);
await asked.load();
document.documentElement.dataset.ready = "";
