// Chooses the theme before anything is drawn: what a person chose, else what the system prefers. No module, so that it
// runs first.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* A browser without storage forgets it. */ }
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark ? "dark" : "light";
})();
