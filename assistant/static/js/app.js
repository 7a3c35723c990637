// Behaviour of the whole page: theme, dialogs, confirmation, errors of requests, the history list.
import { refresh } from "./lists.js";
import { confirmed, copy, toast } from "./page.js";

const YEAR = 365 * 24 * 3600;
const agreed = new WeakSet();

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  // A cookie, so that the server writes it into the next page and nothing flashes.
  document.cookie = `theme=${theme}; path=/; max-age=${YEAR}; SameSite=Lax`;
}

document.addEventListener(
  "click",
  async (event) => {
    const button = event.target.closest("[data-confirm]");
    if (!button || agreed.delete(button)) return;
    event.preventDefault();
    event.stopPropagation();
    if (await confirmed(button.dataset.confirm, button.dataset.confirmLabel)) {
      agreed.add(button);
      button.click();
    }
  },
  true,
);

document.addEventListener("click", (event) => {
  const target = event.target.closest("button, a");
  if (!target) return;
  if (target.matches("[data-theme-toggle]")) switchTheme();
  if (target.dataset.openDialog) document.getElementById(target.dataset.openDialog).showModal();
  if (target.matches("[data-close-dialog]")) target.closest("dialog").close();
  if (target.matches("[data-close-details]")) target.closest("details").open = false;
  if (target.matches("[data-copy-value]")) {
    copy(target.parentElement.querySelector("[data-value]").textContent, "Token copied.");
  }
  if (target.matches("[data-copy]")) copy(answerAsText(target.closest(".answer")), "Answer copied.");
});

// A menu opens beside its button, on the side that has more room. ``toggle`` does not bubble.
document.addEventListener(
  "toggle",
  ({ target: menu, newState }) => {
    if (newState !== "open" || !menu.matches(".menu[popover]")) return;
    const button = document.querySelector(`[popovertarget="${menu.id}"]`).getBoundingClientRect();
    const isAbove = button.top > innerHeight / 2;
    menu.style.left = `${Math.max(8, Math.min(button.left, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = isAbove ? "auto" : `${button.bottom + 8}px`;
    menu.style.bottom = isAbove ? `${innerHeight - button.top + 8}px` : "auto";
  },
  true,
);

for (const dialog of document.querySelectorAll("dialog[data-open]")) dialog.showModal();

// Markers as [n], and the list of sources below, so that a pasted answer keeps its evidence.
function answerAsText(answer) {
  const text = answer.querySelector("[data-text]").cloneNode(true);
  for (const marker of text.querySelectorAll(".cite")) marker.replaceWith(`[${marker.textContent}]`);
  const holder = document.createElement("div");
  holder.className = "visually-hidden";
  holder.append(text);
  document.body.append(holder);
  const words = text.innerText.trim();
  holder.remove();
  const sources = [...answer.querySelectorAll(".sources > ol .source")].map((source) => {
    const title = source.querySelector(".source-title");
    return `[${source.dataset.source}] ${title.textContent.trim()} ${title.href ?? ""}`.trim();
  });
  return sources.length ? `${words}\n\nSources\n${sources.join("\n")}` : words;
}

// <local-time datetime>: the server knows UTC only; today's times need no date.
customElements.define(
  "local-time",
  class extends HTMLElement {
    connectedCallback() {
      const at = new Date(this.getAttribute("datetime"));
      const isToday = at.toDateString() === new Date().toDateString();
      const options = isToday ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" };
      this.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "medium" });
      this.textContent = at.toLocaleString(undefined, options);
    }
  },
);

// --- htmx ------------------------------------------------------------------------------------

const WORDS = {
  400: "That was not understood. Reload the page and try again.",
  401: "You are signed out. Reload the page to sign in.",
  403: "You may not do that, or this page was open for too long. Reload it and try again.",
  404: "That is no longer here, or is not shared with you.",
  503: "The service is not reachable for a moment. Try again in a few seconds.",
};

document.addEventListener("htmx:responseError", (event) => {
  if (event.target.closest("[data-poll]")) return;
  toast(WORDS[event.detail.xhr.status] ?? "Something broke on our side. Try again.");
});

document.addEventListener("htmx:sendError", (event) => {
  if (event.target.closest("[data-poll]")) return;
  toast("No connection to the server. Check your network and try again.");
});

// A session that ended answers with the sign-in page: go there instead of showing it inside.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.responseURL.includes("/sign-in/")) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

document.body.addEventListener("attachments-changed", () => refresh("attachments"));

// What a person opened stays open when a fresher list takes its place.
const unfolded = new Map();

document.addEventListener("htmx:beforeSwap", (event) => {
  for (const details of document.querySelectorAll("details[id]")) unfolded.set(details.id, details.open);
  if (!event.detail.shouldSwap) unfolded.clear();
});

document.addEventListener("htmx:afterSwap", () => {
  for (const [id, open] of unfolded) document.getElementById(id)?.toggleAttribute("open", open);
  unfolded.clear();
});

document.addEventListener("htmx:configRequest", (event) => {
  if (event.target.id === "history") {
    event.detail.parameters.current = document.getElementById("main").dataset.conversation ?? "";
  }
});

document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id !== "main") return;
  for (const link of document.querySelectorAll(".nav [aria-current]")) link.removeAttribute("aria-current");
  document.body.dispatchEvent(new CustomEvent("history-changed"));
  document.getElementById("question")?.focus();
});
