"use strict";
// A page is complete without this script. It adds what needs a hand: the theme, sorting, folding.
(() => {
  const KEY = "slant-report-theme";
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // A page opened from a file may be denied storage; the choice then lasts as long as the page.
  const stored = {
    get() { try { return localStorage.getItem(KEY); } catch { return null; } },
    set(value) { try { localStorage.setItem(KEY, value); } catch { /* not kept */ } },
  };
  const theme = stored.get();
  if (theme === "dark" || theme === "light") root.dataset.theme = theme;

  function themeButton() {
    const button = document.getElementById("theme");
    const isDark = () => (root.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
    const show = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `${button.textContent} theme`);
    };
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      stored.set(root.dataset.theme);
      show();
    });
    dark.addEventListener("change", show);
    show();
    button.hidden = false;
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    const body = table.tBodies[0];
    const collator = new Intl.Collator("en", { numeric: true });
    heads.forEach((head, column) => {
      const isText = head.dataset.kind === "text";
      const value = (row) => row.cells[column].dataset.sort;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        // The first click shows what one looks for: names from A, figures from the largest.
        const now = head.getAttribute("aria-sort");
        const ascending = now ? now !== "ascending" : isText;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        const order = isText
          ? (a, b) => collator.compare(value(a), value(b))
          : (a, b) => Number(value(a)) - Number(value(b));
        body.append(...[...body.rows].sort((a, b) => (ascending ? order(a, b) : order(b, a))));
      });
    });
  }

  // All are measured before any is changed: the browser lays out the page once, not once for each.
  function fold(texts) {
    texts.forEach((text) => text.classList.add("folded"));
    const isLong = texts.map((text) => {
      // To hide a line or two behind a button would save nothing.
      const hidden = text.scrollHeight - text.clientHeight;
      return hidden >= 3 * parseFloat(getComputedStyle(text).fontSize);
    });
    texts.forEach((text, i) => {
      if (isLong[i]) unfoldable(text);
      else text.classList.remove("folded");
    });
  }

  function unfoldable(text) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "unfold";
    const show = () => {
      const folded = text.classList.contains("folded");
      button.textContent = folded ? "Show all" : "Show less";
      button.setAttribute("aria-expanded", String(!folded));
    };
    button.addEventListener("click", () => { text.classList.toggle("folded"); show(); });
    show();
    text.after(button);
  }

  addEventListener("DOMContentLoaded", () => {
    themeButton();
    document.querySelectorAll("table.sortable").forEach(sortable);
    fold([...document.querySelectorAll("blockquote")]);  // while all of them can be measured
  });
})();
