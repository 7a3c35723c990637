// Pointing at or focusing a marker shows its source: title, place, quote and whether it was verified.
import { element } from "./page.js";

const card = element("div", { class: "cite-card", popover: "manual", role: "tooltip", id: "cite-card" });
document.body.append(card);
let shownFor = null;

function show(marker) {
  const source = marker.closest(".answer")?.querySelector(`[data-source="${CSS.escape(marker.dataset.number)}"]`);
  if (!source || shownFor === marker) return;
  hide();
  shownFor = marker;
  const copy = source.cloneNode(true);
  const place = marker.getAttribute("href");
  const quotes = [...copy.querySelectorAll(".quote")];
  if (quotes.some((quote) => quote.dataset.place === place)) {
    for (const quote of quotes) if (quote.dataset.place !== place) quote.remove();
  } else for (const quote of quotes.slice(1)) quote.remove();
  card.replaceChildren(copy);
  card.showPopover();
  const at = marker.getBoundingClientRect();
  const isAbove = at.top > card.offsetHeight + 16;
  // Inside the column of the answer, so that it does not cover the sources beside it.
  const right = marker.closest(".answer-main").getBoundingClientRect().right;
  card.style.left = `${Math.max(8, Math.min(at.left - 24, right - card.offsetWidth))}px`;
  card.style.top = `${isAbove ? at.top - card.offsetHeight - 8 : at.bottom + 8}px`;
  marker.setAttribute("aria-describedby", "cite-card");
  source.classList.add("is-active");
}

function hide() {
  if (!shownFor) return;
  shownFor.removeAttribute("aria-describedby");
  for (const active of document.querySelectorAll(".source.is-active")) active.classList.remove("is-active");
  shownFor = null;
  if (card.matches(":popover-open")) card.hidePopover();
}

for (const name of ["pointerover", "focusin"]) {
  document.addEventListener(name, (event) => {
    const marker = event.target.closest?.(".cite[data-number]");
    if (marker && event.pointerType !== "touch") show(marker);
    else hide();
  });
}
document.addEventListener("focusout", hide);
document.addEventListener("scroll", hide, { capture: true, passive: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});
