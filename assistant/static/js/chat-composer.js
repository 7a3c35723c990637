// <chat-composer>: the form for questions. Enter sends; while an answer is written it offers Stop.

class ChatComposer extends HTMLElement {
  #abort = null;
  #stopAnswer = null;

  connectedCallback() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const on = (target, name, act) => target.addEventListener(name, act, { signal });
    this.form = this.querySelector("form");
    this.field = this.querySelector("textarea");
    on(this.field, "keydown", (event) => this.#key(event));
    on(this.field, "input", () => this.#refresh());
    on(this.form, "submit", (event) => this.#submit(event));
    on(this.form, "htmx:afterRequest", (event) => this.#sent(event));
    on(this.querySelector("[data-stop]"), "click", () => this.#stopAnswer?.());
    on(document, "answer-started", (event) => this.#busy(event.detail.stop));
    on(document, "answer-ended", () => this.#busy(null));
    on(document, "click", (event) => this.#example(event));
    const picker = this.querySelector("[data-picker]");
    if (picker) {
      on(picker, "change", (event) => this.#picked(event.target));
      on(picker, "toggle", () => this.#place(picker, "[data-picker-button]"));
    }
    const narrow = this.querySelector("[data-narrow]");
    if (narrow) {
      on(narrow, "change", () => this.#narrowed(narrow));
      on(narrow, "toggle", () => this.#place(narrow, "[data-narrow-button]"));
      on(this.querySelector("[data-chips]"), "click", (event) => this.#widen(event, narrow));
    }
    const running = document.querySelector("answer-stream");
    this.#busy(running?.stop ? () => running.stop() : null);
    this.#refresh();
  }

  disconnectedCallback() {
    this.#abort.abort();
  }

  #key(event) {
    // isComposing: Enter that ends a word of an input method is no Enter.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!this.#stopAnswer && this.field.value.trim()) this.form.requestSubmit();
  }

  #submit(event) {
    if (!this.field.value.trim() || this.#stopAnswer) {
      event.preventDefault();
      event.stopImmediatePropagation();
    }
    this.querySelector("#composer-error").textContent = "";
  }

  #sent({ target, detail }) {
    if (target !== this.form || !detail.successful) return;
    this.field.value = "";
    this.form.elements.key.value = newKey();
    this.#refresh();
  }

  #refresh() {
    const { value } = this.field;
    const max = Number(this.dataset.max);
    const length = [...value].length;
    const count = this.querySelector("[data-count]");
    count.hidden = length < max * 0.8;
    count.textContent = `${length.toLocaleString("en")} of ${max.toLocaleString("en")}`;
    count.classList.toggle("is-over", length > max);
    this.querySelector("[data-send]").disabled = !value.trim();
    if (!CSS.supports("field-sizing", "content")) {
      this.field.style.height = "auto";
      this.field.style.height = `${this.field.scrollHeight}px`;
    }
  }

  #busy(stop) {
    this.#stopAnswer = stop;
    this.querySelector("[data-send]").hidden = Boolean(stop);
    this.querySelector("[data-stop]").hidden = !stop;
  }

  #example(event) {
    const example = event.target.closest("[data-example]");
    if (!example) return;
    this.field.value = example.dataset.example;
    this.#refresh();
    this.field.focus();
  }

  #picked(box) {
    const all = this.querySelector("[data-all]");
    const single = [...this.querySelectorAll("[name=collections]")];
    if (box === all) for (const other of single) other.checked = false;
    const chosen = single.filter((other) => other.checked);
    all.checked = chosen.length === 0;
    this.querySelector("[data-picker-label]").textContent =
      chosen.length === 0 ? "All collections" : chosen.length === 1 ? "1 collection" : `${chosen.length} collections`;
  }

  // Chips say what is chosen; those without a button were set elsewhere and stay.
  #narrowed(narrow) {
    const chips = this.querySelector("[data-chips]");
    for (const chip of chips.querySelectorAll(":scope > :has([data-clear])")) chip.remove();
    const address = new URLSearchParams();
    for (const field of narrow.querySelectorAll("[name=types]:checked, [name=since], [name=until]")) {
      if (!field.value) continue;
      const label = field.closest("label").textContent.trim();
      const words = field.dataset.words ? `${field.dataset.words} ${dayInWords(field.value)}` : label;
      chips.append(this.#chip(words, field));
      address.append(field.name, field.value);
    }
    if (location.pathname !== "/") return;
    for (const chosen of new URLSearchParams(location.search).getAll("collection")) address.append("collection", chosen);
    history.replaceState(history.state, "", address.size ? `?${address}` : location.pathname);
  }

  #chip(words, field) {
    const chip = document.createElement("li");
    chip.className = "chip";
    const text = document.createElement("span");
    text.textContent = words;
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.clear = field.name;
    button.dataset.value = field.type === "checkbox" ? field.value : "";
    button.setAttribute("aria-label", `Remove: ${words}`);
    button.textContent = "×";
    chip.append(text, button);
    return chip;
  }

  #widen(event, narrow) {
    const clear = event.target.closest("[data-clear]");
    if (!clear) return;
    for (const field of narrow.querySelectorAll(`[name=${clear.dataset.clear}]`)) {
      if (field.type !== "checkbox") field.value = "";
      else if (field.value === clear.dataset.value) field.checked = false;
    }
    this.#narrowed(narrow);
    this.field.focus();
  }

  #place(picker, opener) {
    const button = this.querySelector(opener).getBoundingClientRect();
    const isAbove = button.top > innerHeight / 2;
    picker.style.left = `${Math.max(8, Math.min(button.left, innerWidth - picker.offsetWidth - 8))}px`;
    picker.style.top = isAbove ? "auto" : `${button.bottom + 8}px`;
    picker.style.bottom = isAbove ? `${innerHeight - button.top + 8}px` : "auto";
  }
}

function dayInWords(day) {
  return new Date(`${day}T00:00`).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}

// crypto.randomUUID exists on https and localhost only.
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

customElements.define("chat-composer", ChatComposer);
