// What is sold: prices by level, and hours. They are the owner's to change while the program runs.
import { el, fill, foreign } from "./dom.js";
import { one, tell, wei } from "./node-parts.js";
import { moment, t } from "./texts.js";

const PATH = "/window/owner/sale";
const DAY = 86_400;
const PRICE = /^(0|[1-9][0-9]{0,27})$/;
const KEPT = new Set(["prices", "places", "hours"]);
let shown = "";
let typed = false;

/** Begin. `asOwner`: how the owner asks. */
export function sale(asOwner) {
  const form = one("sale");
  const act = async (options) => {
    try {
      const found = await asOwner(PATH, options);
      typed = false;
      shown = ""; // said anew, with the time: also where nothing is another
      tell(one("sale-problem"), null);
      show(found);
      one("sale-title").focus();
    } catch (error) {
      tell(one("sale-problem"), error.message);
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const body = said();
    if (body === null) tell(one("sale-problem"), t("node.sale_wrong"));
    else act({ method: "POST", body });
  });
  form.addEventListener("input", () => {
    typed = true;
    estimates();
  });
  one("estimate").addEventListener("input", estimates);
  one("sale-reset").addEventListener("click", () => act({ method: "DELETE", body: {} }));
}

/** Show what is sold, as the program says: `levels` are those that it offers. What is being typed stays. */
export function show(found, levels = rows().map((row) => row.dataset.level)) {
  one("sale-clock").textContent = t("node.sale_clock", { clock: String(found.clock).slice(0, 20) });
  const now = JSON.stringify([found.prices, found.hours, found.kept, levels]);
  if (typed || now === shown) return;
  shown = now;
  fill(one("sale-prices"), table(levels, found.prices));
  one("sale-always").checked = found.hours === null;
  if (found.hours !== null) [one("sale-begin").value, one("sale-end").value] = found.hours.split("-");
  const what = found.kept.filter((each) => KEPT.has(each)).map((each) => t(`node.kept_${each}`)).join(", ");
  const when = moment(Date.now() / 1000);
  one("sale-words").textContent = what ? t("node.sale_kept", { what, when }) : t("node.sale_configured", { when });
  one("sale-reset").disabled = what === "";
  estimates();
}

const rows = () => [...one("sale-prices").querySelectorAll("tbody tr")];

function table(levels, prices) {
  const heads = ["level", "prompt", "output", "day"].map((name) => el("th", { scope: "col" }, t(`node.sale_${name}`)));
  return el(
    "table",
    {},
    el("thead", {}, el("tr", {}, ...heads)),
    el("tbody", {}, ...levels.map((level) => row(level, prices[level] ?? { prompt: "0", output: "0" }))),
  );
}

function row(level, price) {
  const input = (kind) => {
    const label = `${t(`node.sale_${kind}`)}: ${level}`;
    const attributes = { name: kind, inputmode: "numeric", dir: "ltr", maxlength: "28", autocomplete: "off" };
    attributes["aria-describedby"] = "sale-problem";
    return el("input", { ...attributes, value: price[kind], "aria-label": label });
  };
  return el(
    "tr",
    { dataset: { level } },
    el("th", { scope: "row" }, foreign(level)),
    el("td", {}, input("prompt")),
    el("td", {}, input("output")),
    el("td", { class: "earned" }),
  );
}

/** What the form says; null: something in it is wrong, and marked. */
function said() {
  const inputs = [...one("sale-prices").querySelectorAll("input")];
  for (const input of inputs) input.setAttribute("aria-invalid", !PRICE.test(input.value.trim()));
  const prices = rows().map((row) => {
    const [prompt, output] = [...row.querySelectorAll("input")].map((input) => input.value.trim());
    return [row.dataset.level, { prompt, output }];
  });
  const hours = one("sale-always").checked ? null : `${one("sale-begin").value}-${one("sale-end").value}`;
  const never = hours !== null && share(hours) === 0;
  for (const name of ["sale-begin", "sale-end"]) one(name).setAttribute("aria-invalid", never);
  const wrong = never || inputs.some((input) => !PRICE.test(input.value.trim()));
  return wrong ? null : { prices: Object.fromEntries(prices), hours };
}

/** What part of a day some hours are; 0: they are none. */
function share(hours) {
  const [begin, end] = hours.split("-").map((each) => {
    const [hour, minute] = each.split(":").map(Number);
    return 60 * hour + minute;
  });
  const minutes = (end - begin + 1440) % 1440;
  return Number.isFinite(minutes) ? minutes / 1440 : 0;
}

/** What each price earns in a day of answers, one after the other. */
function estimates() {
  const always = one("sale-always").checked;
  for (const name of ["sale-begin", "sale-end"]) one(name).disabled = always;
  const part = always ? 1 : share(`${one("sale-begin").value}-${one("sale-end").value}`);
  const pace = Number(one("e-pace").value.replace(",", "."));
  const tokens = pace >= 0 && pace <= 1e6 ? BigInt(Math.round(pace * part * DAY)) : null;
  for (const row of rows()) {
    const price = row.querySelector("[name=output]").value.trim();
    fill(row.querySelector(".earned"), tokens !== null && PRICE.test(price) ? wei(String(tokens * BigInt(price))) : "–");
  }
}
