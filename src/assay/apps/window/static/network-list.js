// A list that the server pages, sorts and filters: providers, and receipts.
import { el, fill } from "./dom.js";
import { asOwner } from "./owner.js";
import { t } from "./texts.js";

const TYPING_MS = 80;
// As in network.css: there, rows are cards, and long.
const narrow = matchMedia("(max-width: 60rem)");

/**
 * Runs the list in `root` (its form [data-filters], its heads [data-sort], its tbody, [data-status], [data-previous],
 * [data-next]). `sort`, `descending`: at first. `row`: makes a row of what the server gives. `told`: the line above the
 * table. `came`: is told each page. `rising`: what is sorted upwards at first. `kept`: the wishes stand in the address.
 */
export function listing(root, { path, sort, descending, row, told, came = () => {}, rising = [], kept = false }) {
  const part = (selector) => root.querySelector(selector);
  const form = part("[data-filters]");
  const order = part("[data-order]");
  const state = { sort, descending, cursors: [""], place: 0, next: null, found: null };
  let asking = null;
  let typing = 0;

  async function load() {
    asking?.abort();
    const mine = (asking = new AbortController());
    const query = wishes(form);
    query.set("sort", state.sort);
    query.set("descending", state.descending ? "1" : "0");
    if (kept) remember(query, form);
    query.set("limit", narrow.matches ? "10" : "25");
    if (state.cursors[state.place]) query.set("after", state.cursors[state.place]);
    part("table").setAttribute("aria-busy", "true");
    try {
      const page = await asOwner(`${path}?${query}`, { signal: mine.signal });
      show(page);
    } catch (error) {
      if (mine.signal.aborted) return;
      const again = el("button", { type: "button", on: { click: load } }, t("network.again"));
      fill(part("[data-status]"), t("network.failed", { reason: error.message }), " ", again);
    } finally {
      if (asking === mine) part("table").removeAttribute("aria-busy");
    }
  }

  function show(page) {
    state.next = page.next;
    if (state.place === 0) state.found = page.found;
    else page.found ??= state.found;
    fill(part("tbody"), ...page.rows.map((each) => row(each, page)));
    fill(part("[data-status]"), told(page));
    part("[data-previous]").setAttribute("aria-disabled", String(state.place === 0));
    part("[data-next]").setAttribute("aria-disabled", String(!page.next));
    for (const button of root.querySelectorAll("[data-sort]")) {
      const mine = button.dataset.sort === state.sort;
      const way = state.descending ? "descending" : "ascending";
      if (mine) button.closest("th").setAttribute("aria-sort", way);
      else button.closest("th").removeAttribute("aria-sort");
    }
    order.value = `${state.sort}-${state.descending ? 1 : 0}`;
    came(page);
  }

  function anew() {
    clearTimeout(typing);
    state.cursors = [""];
    state.place = 0;
    load();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    anew();
  });
  form.addEventListener("input", (event) => {
    if (event.target.type !== "search") return;
    clearTimeout(typing);
    typing = setTimeout(anew, TYPING_MS);
  });
  form.addEventListener("change", (event) => {
    if (event.target === order) {
      const [by, way] = order.value.split("-");
      state.sort = by;
      state.descending = way === "1";
    } else if (event.target.type === "search") return;
    anew();
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.sort) {
      const mine = button.dataset.sort === state.sort;
      state.descending = mine ? !state.descending : !rising.includes(button.dataset.sort);
      state.sort = button.dataset.sort;
      anew();
    } else if (button?.matches("[data-next]") && state.next) {
      state.place += 1;
      state.cursors[state.place] = state.next;
      load();
    } else if (button?.matches("[data-previous]") && state.place) {
      state.place -= 1;
      load();
    }
  });
  if (kept) recall(state, form);
  load();
}

function wishes(form) {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
  return query;
}

/** Put the wishes into the address, so that it can be shared. */
function remember(query, form) {
  const address = new URL(location.href);
  for (const { name } of form.elements) if (name) address.searchParams.delete(name);
  for (const [name, value] of query) address.searchParams.set(name, value);
  history.replaceState(history.state, "", address);
}

function recall(state, form) {
  const query = new URLSearchParams(location.search);
  for (const field of form.elements) {
    const value = field.name ? query.get(field.name) : null;
    if (value === null) continue;
    // Which models and sources there are is known with the first page only.
    if (field.tagName === "SELECT" && ![...field.options].some((option) => option.value === value)) {
      field.append(el("option", { value }, value));
    }
    field.value = value;
  }
  if (/^[a-z]{1,16}$/.test(query.get("sort") ?? "")) {
    state.sort = query.get("sort");
    state.descending = query.get("descending") === "1";
  }
}
