// The frame of every page: language, theme, and the owner's token, which any page's address can bring.
import "./owner.js";

const root = document.documentElement;

document.getElementById("language").addEventListener("change", (event) => {
  const address = new URL(location.href);
  address.searchParams.set("lang", event.target.value);
  location.assign(address);
});

const button = document.getElementById("theme");
const dark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const name = () => {
  button.textContent = dark() ? button.dataset.light : button.dataset.dark;
};
button.addEventListener("click", () => {
  root.dataset.theme = dark() ? "light" : "dark";
  try {
    localStorage.setItem("assay-theme", root.dataset.theme);
  } catch {
    // storage is off: for this page only
  }
  name();
});
name();
