// The list of the court's cases, the newest first, with what the reader wishes to see of it.
import { badge, count, digits, facts, left, title, tokens, trouble, when } from "./court_words.js";
import { el } from "./dom.js";
import { t } from "./texts.js";

/** Draw it. `found`: what the server said; `wish`: what was asked for; `again(changes)`: asks for something else. */
export function drawList(found, wish, again) {
  return [
    el("h1", {}, t("court.title")),
    el("p", { class: "lead" }, t("court.lead")),
    trouble(found.trouble),
    filters(wish, again),
    el("p", { class: "quiet", id: "count" }, t("court.count", { count: count(found.count), open: count(found.open) })),
    found.cases.length ? cases(found) : el("p", { class: "panel empty" }, t(nothing(found, wish))),
    pages(found, wish, again),
    found.block === null ? null : el("p", { class: "quiet small" }, reach(found)),
  ];
}

function nothing(found, wish) {
  if (found.block === null) return "court.unread";
  return wish.state || wish.with ? "court.none_fits" : "court.none";
}

function filters(wish, again) {
  const choice = (value) =>
    el(
      "label",
      {},
      el("input", {
        type: "radio",
        name: "state",
        id: `state-${value || "all"}`,
        value,
        checked: wish.state === value,
        on: { change: () => again({ state: value, before: "" }) },
      }),
      el("span", {}, t(`court.filter_${value || "all"}`)),
    );
  const box = el("input", {
    type: "search",
    id: "with",
    value: wish.with,
    maxlength: "66",
    spellcheck: "false",
    autocomplete: "off",
  });
  const search = (event) => {
    event.preventDefault();
    again({ with: box.value.trim(), before: "" });
  };
  return el(
    "form",
    { class: "filters", role: "search", on: { submit: search } },
    el(
      "fieldset",
      { class: "choice" },
      el("legend", { class: "visually-hidden" }, t("court.filter")),
      choice(""),
      choice("open"),
      choice("decided"),
    ),
    el("label", { class: "with", for: "with" }, el("span", { class: "quiet" }, t("court.with")), box),
    el("button", { type: "submit", id: "search" }, t("court.search")),
  );
}

function cases(found) {
  return el(
    "ul",
    { class: "cases" },
    ...found.cases.map((each) => el("li", { class: "panel case" }, ...card(each, found.now))),
  );
}

function card(each, now) {
  return [
    el(
      "div",
      { class: "head" },
      el("h2", {}, el("a", { href: `/court/${each.name}`, id: `case-${each.name}` }, title(each))),
      badge(each),
    ),
    facts(
      [t("court.accused"), digits(each.provider)],
      [t("court.accuser"), digits(each.challenger)],
      each.receipt === null ? null : [t("court.receipt"), digits(each.receipt)],
      each.at === null ? [t("court.block"), count(each.block)] : [t("court.opened"), when(each.at)],
      standing(each, now),
    ),
  ];
}

function standing(each, now) {
  if (each.state !== "open")
    return each.slashed_wei === null
      ? [t("court.moves"), count(each.moves)]
      : [t("court.lost"), tokens(each.slashed_wei)];
  const rest = left(each.deadline, now);
  return [t("court.turn"), `${t(`court.turn_${each.turn}`)} · ${rest || t("court.late")}`];
}

function pages(found, wish, again) {
  if (found.next === null && !wish.before) return null;
  return el(
    "p",
    { class: "pages" },
    wish.before
      ? el("button", { type: "button", id: "newest", on: { click: () => again({ before: "" }) } }, t("court.newest"))
      : null,
    found.next === null
      ? null
      : el(
          "button",
          { type: "button", id: "older", on: { click: () => again({ before: found.next }) } },
          t("court.older"),
        ),
  );
}

function reach(found) {
  const said = t("court.reach", { block: count(found.block), at: when(found.now), back: count(found.back) });
  return found.whole ? said : `${said} ${t("court.reach_more")}`;
}
