// What `assay doctor` finds here: looked at when the owner wishes, one finding after the other.
import { el, fill, foreign } from "./dom.js";
import { count, one } from "./node-parts.js";
import { moment, t } from "./texts.js";

const PATH = "/window/owner/doctor";
const BADGES = { well: "good", note: "doubt", bad: "bad" };

/** Begin to show it. `asOwner`: how the owner asks. */
export function doctor(asOwner) {
  const round = async (options) => {
    try {
      const found = await asOwner(PATH, options);
      show(found);
      if (found.running) setTimeout(round, 700);
    } catch (error) {
      one("doctor-words").textContent = error.message;
      one("look").disabled = false;
    }
  };
  one("look").addEventListener("click", () => round({ method: "POST", body: {} }));
  round();
}

function show(found) {
  one("look").disabled = found.running;
  const bad = found.findings.filter((each) => each.health === "bad").length;
  if (found.running) one("doctor-words").textContent = t("node.looking");
  else if (found.at === null) one("doctor-words").textContent = t("node.not_looked");
  else one("doctor-words").textContent = t(bad ? "node.not_fit" : "node.fit", { when: moment(count(found.at)) });
  fill(one("findings"), ...found.findings.map(finding));
}

function finding(each) {
  const health = each.health in BADGES ? each.health : "bad";
  return el(
    "li",
    { class: "row finding" },
    el("span", { class: `badge ${BADGES[health]}` }, t(`node.health_${health}`)),
    el(
      "div",
      {},
      el("strong", {}, foreign(each.check, 40)),
      " ",
      foreign(each.detail),
      each.remedy ? el("p", { class: "remedy" }, t("node.remedy"), " ", foreign(each.remedy)) : null,
    ),
  );
}
