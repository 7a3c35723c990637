// What several elements need of the page: its CSRF token, icons, short messages, dialogs.

const SVG = "http://www.w3.org/2000/svg";

export function csrfHeaders() {
  return JSON.parse(document.body.getAttribute("hx-headers"));
}

export function icon(name, extra = "") {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", `icon ${extra}`);
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `${document.body.dataset.sprite}#${name}`);
  svg.append(use);
  return svg;
}

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function toast(words, { seconds = 6 } = {}) {
  const close = element("button", { type: "button", class: "icon-button", "aria-label": "Close" }, icon("x", "icon-s"));
  const shown = element("div", { class: "toast" }, element("span", {}, words), close);
  close.addEventListener("click", () => shown.remove());
  document.getElementById("toasts").append(shown);
  setTimeout(() => shown.remove(), seconds * 1000);
}

// Read out by screen readers, shown to nobody.
export function announce(words) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = words;
}

export async function copy(text, words = "Copied.") {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Plain http on a company network: no clipboard API there.
    const field = element("textarea", { class: "visually-hidden", "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  toast(words, { seconds: 2.5 });
}

// Resolves to true when the person agrees.
export function confirmed(words, label = "Delete") {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("[data-confirm-text]").textContent = words;
  dialog.querySelector("[data-confirm-yes]").textContent = label;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
