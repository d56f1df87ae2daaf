// Before the first paint: the theme that the reader chose last, if any; else the system's.
try {
  const chosen = localStorage.getItem("assay-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch {
  // storage is off: the system's theme
}
