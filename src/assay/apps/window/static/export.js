// A conversation as a file: JSON with the receipt files of its answers, or Markdown to read.
import { receiptFiles } from "./asking.js";
import { titleOf } from "./conversation.js";
import { el } from "./dom.js";
import { t } from "./texts.js";

/** Save it as JSON. Gives how many answers have no receipt that could be fetched. */
export async function saveJson(conversation) {
  const turns = [];
  for (const { question, model, level, id, state, text, error, receipts } of conversation.turns) {
    const files = id && receipts.length ? await receiptFiles(id) : [];
    turns.push({ question, model, level: level || null, id, state, answer: text, error, receipts: files });
  }
  const made = { format: "assay-conversation/1", created: new Date(conversation.created).toISOString(), turns };
  save("json", "application/json", `${JSON.stringify(made, null, 2)}\n`);
  return turns.filter(({ receipts, answer }) => answer && !receipts.length).length;
}

/** Save it as Markdown. */
export function saveMarkdown(conversation) {
  const parts = conversation.turns.flatMap(({ question, text, model, id, error, receipts }) => [
    `**${t("chat.you")}**`,
    question.replace(/^/gm, "> "),
    `**${model}**`,
    text || `*${t("chat.failed")} ${error?.message ?? ""}*`,
    receipts.length ? `${t("chat.receipt")} ${location.origin}/receipt/${encodeURIComponent(id)}` : "",
  ]);
  save("md", "text/markdown", `# ${titleOf(conversation)}\n\n${parts.filter(Boolean).join("\n\n")}\n`);
}

function save(ending, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const day = new Date().toISOString().slice(0, 10);
  el("a", { href: url, download: `assay-chat-${day}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
