// Elements without markup: whatever comes from outside goes in as text.

/**
 * An element. `attributes`: names and values; null and false are left out; `on` holds listeners, `dataset` data.
 * `children`: elements and strings; strings become text, never markup.
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Text from outside in a box of its own direction, with what would reorder or hide other text made visible. */
export function foreign(text, most = 500) {
  const shown = [...String(text)].slice(0, most).map(visible).join("");
  return el("bdi", { class: "foreign", dir: "auto" }, shown);
}

// Controls, zero-width characters, tags and what overrides direction (Unicode TR36, section 3).
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b-\\u200f\\u2028-\\u202e" +
    "\\u2060-\\u2069\\ufeff\\u{e0000}-\\u{e007f}]",
  "u",
);

function visible(character) {
  if (!HIDDEN.test(character)) return character;
  return `\u27e8U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
}

/** Replace what is in an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
