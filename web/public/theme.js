// Runs before the first paint, so that a dark page never flashes white. The rest is in src/app/theme.svelte.ts.
(function () {
  var theme = null;
  try {
    theme = localStorage.getItem("weir.theme");
  } catch (error) {
    // Storage may be forbidden; the system's theme is used then.
  }
  if (theme === "light" || theme === "dark") {
    document.documentElement.dataset.theme = theme;
  }
})();
