// What this page says, in the reader's language: t("chat.send"), t("chat.tokens", { count: 3 }).
const response = await fetch(document.documentElement.dataset.texts);
const texts = await response.json();

/** Language of the page (BCP 47). */
export const language = document.documentElement.lang;

/** One text, with values for its {names}. Throws where there is no such text. */
export function t(key, values = {}) {
  const text = texts[key];
  if (text === undefined) throw new Error(`no text ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** A number as the language writes it. */
export function number(value, options = {}) {
  return new Intl.NumberFormat(language, options).format(value);
}

/** A moment (Unix seconds) as the language writes it. */
export function moment(seconds) {
  return new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "medium" }).format(new Date(seconds * 1000));
}
