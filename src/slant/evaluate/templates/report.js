"use strict";
// Filters over the mistakes. Runs after the shared script, which has folded the texts by then.
(() => {
  const AT_ONCE = 12;
  const ON_PAPER = 48;

  function filters(bar) {
    const cards = [...document.querySelectorAll(".card")];
    const selects = [...bar.querySelectorAll("select")];
    const range = bar.querySelector("input");
    const least = bar.querySelector(".least");
    const clear = bar.querySelector(".clear");
    const output = bar.querySelector("output");
    const none = document.querySelector(".none");
    const paper = document.querySelector(".on-paper");
    const more = document.getElementById("more");
    let limit = AT_ONCE;
    const apply = () => {
      const chosen = selects.filter((select) => select.value);
      let matching = 0;
      for (const card of cards) {
        card.hidden = Number(card.dataset.confidence) < Number(range.value)
          || chosen.some((select) => card.dataset[select.dataset.key] !== select.value);
        matching += card.hidden ? 0 : 1;
        card.classList.toggle("beyond", matching > limit);
        card.classList.toggle("far", matching > Math.max(limit, ON_PAPER));
      }
      least.textContent = `${range.value}\u00a0%`;
      range.setAttribute("aria-valuetext", `${range.value} percent`);
      output.textContent = `${matching} of ${cards.length} mistakes`;
      more.textContent = `Show ${Math.min(AT_ONCE, matching - limit)} more of ${matching}`;
      more.hidden = matching <= limit;
      none.hidden = matching > 0;
      const printed = Math.min(matching, Math.max(limit, ON_PAPER));
      paper.textContent = `Printed: ${printed} of ${cards.length}.`;
      clear.hidden = matching === cards.length;
    };
    const again = () => {
      limit = AT_ONCE;
      apply();
    };
    selects.forEach((select) => select.addEventListener("change", again));
    range.addEventListener("input", again);
    clear.addEventListener("click", () => {
      selects.forEach((select) => { select.value = ""; });
      range.value = range.min;
      again();
      selects[0].focus();  // or the focus would be lost with the button
    });
    more.addEventListener("click", () => {
      const next = document.querySelector(".card.beyond:not([hidden])");
      limit += AT_ONCE;
      apply();
      next.tabIndex = -1;
      next.focus({ preventScroll: true });  // or the focus would be lost with the button
    });
    apply();
    bar.hidden = false;
  }

  addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".filters").forEach(filters);
  });
})();
