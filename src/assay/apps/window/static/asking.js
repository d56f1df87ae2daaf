// One question to the OpenAI surface beside this page: sent, streamed, and bounded, since who answers is a stranger.
const MOST_TEXT = 4_000_000; // characters of an answer
const MOST_LINE = 4_000_000; // of an event: the last one has the receipts
const DATA = "data: ";

/** Why there is no answer, or no more of it: words from outside, and a code that says what can be done. */
export class Refused extends Error {
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/**
 * Stream an answer. Yields `{ id }` once, then `{ text }` for each piece and, at the end, `{ finish }` and
 * `{ proof, tokens }` (the reply's `assay` and what the receipts count). Throws `Refused`, and an `AbortError` where
 * `signal` says so.
 */
export async function* stream(body, signal) {
  const reply = await sent(body, signal);
  let id = null;
  let length = 0;
  for await (const event of events(reply.body)) {
    if (!id && typeof event.id === "string") yield { id: (id = event.id.slice(0, 200)) };
    if (event.error) {
      if (event.assay) yield { proof: event.assay };
      throw refusal(event.error, "provider_failed");
    }
    const choice = Array.isArray(event.choices) ? event.choices[0] : null;
    const text = choice?.delta?.content;
    if (typeof text === "string" && text) {
      length += text.length;
      if (length > MOST_TEXT) throw new Refused("", "too_long");
      yield { text };
    }
    if (typeof choice?.finish_reason === "string") yield { finish: choice.finish_reason };
    if (event.assay) yield { proof: event.assay, tokens: event.usage?.completion_tokens };
  }
}

/** The receipt files of an answer, one a line as `assay verify` reads them; waits a little for those being signed. */
export async function receiptFiles(id, { tries = 1 } = {}) {
  for (let left = tries; left > 0; left--) {
    const reply = await fetch(`/receipts/${encodeURIComponent(id)}`).catch(() => null);
    if (reply?.ok) return (await reply.text()).split("\n").filter(Boolean).map((line) => `${line}\n`);
    if (left > 1) await new Promise((over) => setTimeout(over, 300));
  }
  return [];
}

async function sent(body, signal) {
  let reply;
  try {
    reply = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("", "unreachable");
  }
  if (reply.ok) return reply;
  const said = await reply.json().catch(() => ({}));
  throw refusal(said.error, `status_${reply.status}`);
}

function refusal(error, otherwise) {
  const message = typeof error?.message === "string" ? error.message.slice(0, 4_000) : "";
  const code = [error?.code, error?.type].find((each) => typeof each === "string");
  return new Refused(message, code ?? otherwise);
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch((error) => {
        if (error.name === "AbortError") throw error;
        throw new Refused("", "cut_off");
      });
      if (done) throw new Refused("", "cut_off");
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      if (rest.length > MOST_LINE) throw new Refused("", "too_long");
      for (const line of lines) {
        if (!line.startsWith(DATA)) continue;
        const data = line.slice(DATA.length);
        if (data === "[DONE]") return;
        yield parsed(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parsed(data) {
  try {
    const event = JSON.parse(data);
    if (event && typeof event === "object") return event;
  } catch {
    // told below
  }
  throw new Refused("", "cut_off");
}
