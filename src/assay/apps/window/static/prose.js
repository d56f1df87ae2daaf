// Answers in Markdown, made of whatever a model says: text, lists, tables, code and links; nothing runs, nothing loads.
import { DOMPurify, Marked } from "../vendor/markdown.js";
import { el } from "./dom.js";
import { t } from "./texts.js";

// Longer answers are shown as they are: some texts take time in the square of their length to be read as Markdown.
const MOST = 30_000;
const TAGS =
  "a,blockquote,br,code,del,em,h3,h4,h5,h6,hr,li,ol,p,pre,s,span,strong,table,tbody,td,th,thead,tr,ul".split(",");
const ALLOWED = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ["href", "start"],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true, // no markup is parsed once more
};
const SCHEMES = ["http:", "https:", "mailto:"];
// What reorders or hides other text (Unicode TR36, section 3). What letters of some scripts need to join, or to stand
// in order, is left in prose and shown in code.
const HIDING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u2028-\u202e\u2060-\u2069\ufeff\u{e0000}-\u{e007f}]/gu;
const JOINING = /[\u00ad\u061c\u200c-\u200f]/gu;

const markdown = new Marked({
  gfm: true,
  // Markup is text like any other, so that a reader sees what was said.
  tokenizer: { html() {}, tag() {} },
  renderer: {
    heading({ tokens, depth }) {
      const level = Math.min(depth + 2, 6); // below the headings of the page
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
    // A picture would tell its server who reads: it becomes a link.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** An answer that grows: `show(text)` takes all of it so far, and changes only what is new. */
export class Prose {
  #blocks = [];
  #links = 0;

  /** `element`: what is filled. */
  constructor(element) {
    this.element = element;
  }

  /** Show a text. */
  show(text) {
    const tokens = text.length > MOST ? null : read(text);
    if (!tokens) {
      this.#blocks = [];
      this.element.replaceChildren(el("p", { class: "plain", dir: "auto" }, visible(text)));
      return;
    }
    const links = Object.keys(tokens.links).length; // of references, which earlier blocks may name
    let same = 0;
    if (links === this.#links) while (this.#blocks[same]?.raw === tokens[same]?.raw && tokens[same]) same++;
    const fresh = [...tokens].slice(same).map((token) => ({ raw: token.raw, node: block(token, tokens.links) }));
    this.#links = links;
    this.#blocks = [...this.#blocks.slice(0, same), ...fresh];
    while (this.element.children.length > same) this.element.lastElementChild.remove();
    this.element.append(...fresh.map(({ node }) => node));
  }
}

/** Text in which what would reorder or hide other text is spelled out. */
export function visible(text, { code = false } = {}) {
  const shown = text.replace(HIDING, spelled);
  return code ? shown.replace(JOINING, spelled) : shown;
}

function spelled(character) {
  return `\u27e8U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}

function read(text) {
  try {
    return markdown.lexer(text);
  } catch {
    return null; // nested too deeply
  }
}

function block(token, links) {
  try {
    const html = markdown.parser(Object.assign([token], { links }));
    return el("div", { class: "block" }, tame(DOMPurify.sanitize(html, ALLOWED)));
  } catch {
    return el("div", { class: "block plain", dir: "auto" }, visible(token.raw));
  }
}

function tame(fragment) {
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    node.data = visible(node.data, { code: Boolean(node.parentElement?.closest("code,pre")) });
  }
  for (const part of fragment.children) part.dir = "auto";
  for (const link of fragment.querySelectorAll("a")) lead(link);
  for (const pre of fragment.querySelectorAll("pre")) pre.replaceWith(copied(pre.textContent));
  for (const table of fragment.querySelectorAll("table")) {
    const scroll = el("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": t("chat.table") });
    table.replaceWith(scroll);
    scroll.append(table);
  }
  return fragment;
}

// A link shows where it leads; one that leads nowhere good is text.
function lead(link) {
  const href = link.getAttribute("href");
  const target = address(href);
  if (!target) {
    link.replaceWith(...link.childNodes, href ? ` (${visible(href)})` : "");
    return;
  }
  link.href = target.href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow";
  link.after(" ", el("bdi", { class: "host", dir: "ltr" }, `(${target.host || target.pathname})`));
}

function address(href) {
  try {
    const url = new URL(href); // without a base: what leads into this page is not the model's to say
    return SCHEMES.includes(url.protocol) && !url.username && !url.password ? url : null;
  } catch {
    return null;
  }
}

function copied(code) {
  const text = el("code", {}, code);
  const button = el("button", { type: "button", class: "copy" }, t("chat.copy"));
  button.addEventListener("click", async () => {
    const done = await copy(code, text);
    button.textContent = t(done ? "chat.copied" : "chat.selected");
    setTimeout(() => (button.textContent = t("chat.copy")), 2_000);
  });
  const pre = el("pre", { tabindex: 0, dir: "ltr", role: "group", "aria-label": t("chat.code") }, text);
  return el("div", { class: "code" }, button, pre);
}

// Pages that come neither from this machine nor by HTTPS have no clipboard: there the text is selected.
async function copy(code, element) {
  try {
    await navigator.clipboard.writeText(code);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}

function escaped(text) {
  return String(text).replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
