// A conversation as a value that can be kept, and the making of its next answer.
import { Refused, receiptFiles, stream } from "./asking.js";
import { facts, priceOf } from "./turn.js";

const RECEIPT_TRIES = 20; // of an answer that was cut: its receipt is signed a moment later

/** A new one. */
export function fresh() {
  const now = Date.now();
  return { id: crypto.randomUUID?.() ?? `${now}-${Math.random()}`, created: now, changed: now, turns: [] };
}

/** The beginning of its first question. */
export function titleOf({ turns }, most = 60) {
  const first = (turns[0]?.question ?? "").trim().replace(/\s+/g, " ");
  const letters = [...first];
  return letters.length > most ? `${letters.slice(0, most).join("")}…` : first;
}

/** The next turn: a question that is not answered yet. `kind`: what serves this page, and so what it checks. */
export function turnOf(question, wish, kind) {
  return {
    question, model: wish.model, level: wish.level, most: wish.most, checked: kind,
    id: null, state: "running", text: "", finish: null, error: null,
    receipts: [], tokens: 0, cost: null, first: 0, seconds: 0,
  };
}

/** What the model reads: turns that were answered, and the question. */
export function messagesOf(turns, question) {
  const said = turns.filter(({ text }) => text).flatMap((turn) => [
    { role: "user", content: turn.question },
    { role: "assistant", content: turn.text },
  ]);
  return [...said, { role: "user", content: question }];
}

/** Turns that a page left when they were under way end there. */
export function restored(conversation) {
  for (const turn of conversation.turns) if (turn.state === "running") turn.state = "left";
  return conversation;
}

/** Make the answer of a turn; `changed()` is called with each piece. */
export async function answer(turn, messages, signal, changed) {
  const begun = performance.now();
  const since = () => (performance.now() - begun) / 1_000;
  const body = {
    model: turn.model, messages, stream: true, stream_options: { include_usage: true }, max_tokens: turn.most,
    ...(turn.level ? { assay: { level: turn.level } } : {}),
  };
  try {
    for await (const part of stream(body, signal)) {
      take(turn, part, since());
      changed();
    }
    turn.state = "whole";
  } catch (error) {
    if (signal.aborted) turn.state = "stopped";
    else if (error instanceof Refused) fail(turn, error);
    else throw error;
  }
  turn.seconds ||= since();
}

function fail(turn, { message, code }) {
  Object.assign(turn, { state: "failed", error: { message, code } });
}

function take(turn, { id, text, finish, proof, tokens }, now) {
  if (id) turn.id = id;
  if (text) {
    turn.first ||= now;
    turn.text += text;
  }
  if (finish) Object.assign(turn, { finish, seconds: now });
  if (proof) turn.receipts = facts(proof.receipts);
  if (Number.isSafeInteger(tokens)) turn.tokens = tokens;
}

/** Find what is known of an answer's receipts only after its end: those of one that was cut, and what it cost. */
export async function settle(turn) {
  if (!turn.id) return;
  if (!turn.receipts.length) {
    const files = await receiptFiles(turn.id, { tries: turn.state === "stopped" ? RECEIPT_TRIES : 1 });
    turn.receipts = facts(files.map(receiptIn));
    turn.tokens ||= turn.receipts.reduce((sum, { output }) => sum + output, 0);
  }
  if (turn.receipts.length) turn.cost = priceOf(turn.receipts) ?? (await cost(turn.id));
}

function receiptIn(file) {
  try {
    return JSON.parse(file).receipt;
  } catch {
    return null;
  }
}

async function cost(id) {
  try {
    const { wei } = await (await fetch(`/window/chat/cost/${encodeURIComponent(id)}`)).json();
    return typeof wei === "string" && /^\d{1,40}$/.test(wei) ? wei : null;
  } catch {
    return null;
  }
}
