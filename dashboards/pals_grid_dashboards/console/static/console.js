import { drawCharts, redrawCharts, refreshCharts } from "./charts.js";

const THEMES = ["auto", "light", "dark"];
const THEME_WORDS = { auto: "automatic", light: "light", dark: "dark" };

function setUpTheme() {
  const button = document.getElementById("theme");
  const root = document.documentElement;
  const show = () => {
    button.textContent = `Theme: ${THEME_WORDS[root.dataset.theme]}`;
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    root.dataset.theme = next;
    try {
      localStorage.setItem("pals-grid-theme", next);
    } catch {
      // Storage is forbidden here: the choice lasts as long as the page.
    }
    show();
    redrawCharts();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
  show();
  button.hidden = false;
}

function setUpLive() {
  const live = document.getElementById("live");
  if (!live) return;
  let wasLost = false;
  const show = (state, text) => {
    live.dataset.state = state;
    const words = live.querySelector(".text");
    if (words.textContent !== text) words.textContent = text;
  };
  document.body.addEventListener("htmx:sseOpen", () => {
    show("open", "Live");
    if (wasLost) refreshCharts();
    wasLost = false;
  });
  document.body.addEventListener("htmx:sseError", () => {
    wasLost = true;
    show("lost", "Connection lost, trying again");
  });
  document.body.addEventListener("htmx:sseMessage", (event) => {
    if (event.detail.type === "chart") refreshCharts();
  });
  setInterval(() => {
    if (!document.hidden) refreshCharts();
  }, 60_000);
}

function setUpSitePicker() {
  const picker = document.getElementById("site-picker");
  if (!picker) return;
  picker.form.classList.add("scripted");
  picker.addEventListener("change", () => picker.form.requestSubmit());
}

function setUpConfirm() {
  // Only one question is open at a time; Escape takes it back.
  document.addEventListener("keydown", (event) => {
    const open = document.querySelector("details.confirm[open]");
    if (event.key === "Escape" && open) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
}

setUpTheme();
setUpLive();
setUpSitePicker();
setUpConfirm();
drawCharts(document);
document.body.addEventListener("htmx:load", (event) => drawCharts(event.detail.elt));
