"use strict";
// Filters over the mistakes. Runs after the shared script, which has folded the texts by then.
(() => {
  const FIRST_MISTAKES = 12;

  function filters(bar) {
    const cards = [...document.querySelectorAll(".card")];
    const selects = [...bar.querySelectorAll("select")];
    const output = bar.querySelector("output");
    const none = document.querySelector(".none");
    const more = document.getElementById("more");
    let limit = FIRST_MISTAKES;
    const apply = () => {
      let matching = 0;
      for (const card of cards) {
        card.hidden = selects.some((s) => s.value && card.dataset[s.dataset.key] !== s.value);
        matching += card.hidden ? 0 : 1;
        card.classList.toggle("beyond", matching > limit);  // on paper these are shown too
      }
      output.textContent = `${matching} of ${cards.length} mistakes`;
      more.textContent = `Show ${matching - limit} more`;
      more.hidden = matching <= limit;
      none.hidden = matching > 0;
    };
    selects.forEach((select) => select.addEventListener("change", apply));
    more.addEventListener("click", () => {
      const next = document.querySelector(".beyond");
      limit = Infinity;
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
