// What the theme leaves out: printing, long formulas, focus after a dialog, and a search for numbers with clean
// summaries.
"use strict";

// --- printing: on paper the palette is light and nothing is folded ------------------------------------------
{
  const root = document.documentElement;
  let theme, folded = [];
  window.addEventListener("beforeprint", () => {
    theme = root.dataset.theme;
    root.dataset.theme = "light";
    folded = [...document.querySelectorAll("article details:not([open])")];
    folded.forEach((one) => (one.open = true));
  });
  window.addEventListener("afterprint", () => {
    root.dataset.theme = theme;
    folded.forEach((one) => (one.open = false));
  });
}

// --- formulas: one in a line that is wider than the page scrolls in a box of its own -------------------------
document.addEventListener("DOMContentLoaded", () => {
  const fit = () => {
    const formulas = [...document.querySelectorAll("article mjx-container:not([display])")];
    formulas.forEach((one) => one.classList.remove("wide"));
    const room = (one) => one.closest("p, li, td, th, dd, dt, figcaption, caption, div").clientWidth;
    const wide = formulas.filter((one) => one.getBoundingClientRect().width > room(one));
    wide.forEach((one) => one.classList.add("wide"));
  };
  if (window.MathJax && MathJax.startup) {
    MathJax.startup.promise = MathJax.startup.promise.then(fit);
    addEventListener("resize", fit);
  }
});

// --- keyboard: Esc closes a dialog, and the focus stays on or returns to what was pressed ----------------------
document.addEventListener("DOMContentLoaded", () => {
  let opener = null;
  const back = () => opener && opener.focus();
  const press = (event) => {
    opener = event.target.closest(".primary-toggle, .secondary-toggle, .search-button, .search-button__button") || opener;
    setTimeout(() => document.activeElement === document.body && back());
  };
  document.addEventListener("click", press, {capture: true}); // before the theme, which takes the focus away
  document.addEventListener("keydown", (event) => {
    const dialog = event.key === "Escape" && document.querySelector("dialog[open]");
    if (dialog) dialog.close();
  });
  for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", back);
});

// --- search --------------------------------------------------------------------------------------------------

// TeX as a line of text: summaries are cut anywhere, so their formulas cannot be drawn.
const GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho _ sigma tau "
  + "upsilon phi chi psi omega";
const SIGNS = {le: "≤", ge: "≥", ll: "≪", gg: "≫", times: "×", cdot: "·", pm: "±", infty: "∞", approx: "≈", in: "∈",
  sum: "Σ", to: "→", sqrt: "√", top: "ᵀ", ne: "≠", sim: "~", lesssim: "≲", E: "E", R: "R"};
GREEK.split(" ").forEach((name, place) => (SIGNS[name] = String.fromCharCode(945 + place)));

const plainFormula = (tex) => tex
  .replace(/\\[()[\]]|\\(?:left|right|mathbb|mathrm|mathbf|operatorname|text|hat|tilde|begin|end)\b/g, "")
  .replace(/\\([A-Za-z]+)/g, (_, name) => SIGNS[name] || ` ${name} `)
  .replace(/\\.|[{}$&]/g, "");

const plainText = (html) => {
  const page = new DOMParser().parseFromString(html, "text/html");
  const content = page.querySelector("article") || page.querySelector('[role="main"]');
  if (!content) return "";
  const noise = ".headerlink, script, style, svg, button, nav, summary, .prev-next-area, #jb-print-docs-body";
  content.querySelectorAll(noise).forEach((one) => one.remove());
  content.querySelectorAll(".math").forEach((one) => (one.textContent = plainFormula(one.textContent)));
  content.querySelectorAll("td, th, p, li, dt, dd, h1, h2, h3, figcaption, caption, pre").forEach((one) => one.append(" "));
  const formulas = content.textContent.replace(/\\\(.*?\\\)/gs, plainFormula);
  return formulas.replace(/\s+/g, " ").trim();
};

// Registered before Sphinx's own start of the search, and so run before it.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const parse = Search._parseQuery;
  Search._parseQuery = (query) => {
    const parsed = parse(query);
    const [, terms, , highlighted] = parsed;
    for (const word of splitQuery(query))
      if (/^\d+$/.test(word)) [terms, highlighted].forEach((words) => words.add(word)); // Sphinx drops them
    return parsed;
  };
  Search.htmlToText = plainText;
  // A page that was opened as a file may not read the others.
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
});
