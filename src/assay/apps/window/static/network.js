// The network: starts what belongs to the page that is shown.
import { ownerToken } from "./owner.js";
import { showProvider } from "./network-provider.js";
import { listProviders } from "./network-providers.js";
import { listReceipts } from "./network-receipts.js";
import { askWhy, showWhy } from "./network-why.js";

const root = document.querySelector("[data-view]");
const last = () => {
  const name = location.pathname.split("/").pop();
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
};

if (root.dataset.view === "provider") showProvider(root, last());
else if (root.dataset.view === "why") showWhy(root, last());
else {
  listProviders(document.getElementById("providers"), document.getElementById("links"));
  askWhy(document.getElementById("why-form"));
  const receipts = document.getElementById("receipts");
  let listed = false;
  const owner = () => {
    if (listed || ownerToken() === null) return;
    listed = true;
    receipts.querySelector("[data-owners]").hidden = false;
    receipts.querySelector("[data-strangers]").hidden = true;
    listReceipts(receipts);
  };
  owner();
  addEventListener("hashchange", owner);
}
