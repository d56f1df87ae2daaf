// The permanent link of a receipt, its QR code, the file, and what to type.
import { el, fill } from "./dom.js";
import { t } from "./texts.js";

/** A text to copy, with a button that does. */
function copied(text, label) {
  const heard = el("span", { class: "quiet", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      fill(heard, t("receipt.copied"));
    } catch {
      fill(heard, t("receipt.not_copied")); // not allowed here: the text can be selected
    }
  };
  return [el("button", { type: "button", on: { click: copy } }, label), heard];
}

/** A command line. */
export function command(line) {
  const [button, heard] = copied(line, t("receipt.copy_command"));
  return el("div", { class: "row" }, el("code", { class: "line", dir: "ltr" }, line), button, heard);
}

/** Of a receipt that is kept here under `name`. */
export function share(name) {
  const part = encodeURIComponent(name);
  const link = `${location.origin}/receipt/${part}`;
  const [button, heard] = copied(link, t("receipt.copy_link"));
  const code = el("img", { src: `/window/receipt/${part}/qr.svg`, alt: t("receipt.code"), width: 180, height: 180 });
  const words = el(
    "div", {},
    el("p", {}, el("a", { href: link, class: "digest" }, link)),
    el("div", { class: "row" }, button, heard),
    el("p", {}, el("a", { href: `/receipts/${part}`, download: "receipt.json" }, t("receipt.download"))),
    el("p", { class: "quiet" }, t("receipt.share_why")),
  );
  return el(
    "section", { class: "panel", "aria-labelledby": "share" },
    el("h2", { id: "share" }, t("receipt.share")), el("div", { class: "share" }, code, words),
  );
}
