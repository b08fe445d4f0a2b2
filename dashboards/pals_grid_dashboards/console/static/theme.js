// Before the first paint: the theme that was chosen here before. "auto" follows the system.
(function () {
  "use strict";
  let chosen = null;
  try {
    chosen = localStorage.getItem("pals-grid-theme");
  } catch {
    // Storage is forbidden here: the system's theme holds.
  }
  document.documentElement.dataset.theme = ["light", "dark"].includes(chosen) ? chosen : "auto";
})();
