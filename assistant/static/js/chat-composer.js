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
    on(document, "click", (event) => this.#followUp(event));
    this.files = this.querySelector("[data-files]");
    on(this.files, "change", () => this.#showFiles());
    on(this.querySelector("[data-file-list]"), "click", (event) => this.#dropFile(event));
    const picker = this.querySelector("[data-picker]");
    if (picker) on(picker, "change", (event) => this.#picked(event.target));
    const narrow = this.querySelector("[data-narrow]");
    if (narrow) {
      on(narrow, "change", () => this.#narrowed(narrow));
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
    this.form.elements.after.value = lastAnswer();
  }

  #sent({ target, detail }) {
    if (target !== this.form || !detail.successful) return;
    this.field.value = "";
    this.files.value = "";
    this.#showFiles();
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

  #followUp(event) {
    const proposed = event.target.closest("[data-follow-up]");
    if (!proposed || this.#stopAnswer) return;
    this.field.value = proposed.dataset.followUp;
    this.#refresh();
    this.form.requestSubmit();
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
      chips.append(chip(words, { clear: field.name, value: field.type === "checkbox" ? field.value : "" }));
      address.append(field.name, field.value);
    }
    if (location.pathname !== "/") return;
    for (const chosen of new URLSearchParams(location.search).getAll("collection")) address.append("collection", chosen);
    history.replaceState(history.state, "", address.size ? `?${address}` : location.pathname);
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

  #showFiles() {
    const chips = [...this.files.files].map((file, at) => chip(file.name, { file: at }));
    this.querySelector("[data-file-list]").replaceChildren(...chips);
  }

  #dropFile(event) {
    const taken = event.target.closest("[data-file]")?.dataset.file;
    if (taken === undefined) return;
    const kept = new DataTransfer();
    [...this.files.files].forEach((file, at) => at !== Number(taken) && kept.items.add(file));
    this.files.files = kept.files;
    this.#showFiles();
    this.field.focus();
  }
}

// A choice in words, with a button to take it back; ``data`` says which.
function chip(words, data) {
  const item = document.createElement("li");
  item.className = "chip";
  const text = document.createElement("span");
  text.textContent = words;
  const button = document.createElement("button");
  button.type = "button";
  Object.assign(button.dataset, data);
  button.setAttribute("aria-label", `Remove: ${words}`);
  button.textContent = "×";
  item.append(text, button);
  return item;
}

function dayInWords(day) {
  return new Date(`${day}T00:00`).toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" });
}

// The answer that the page ends with: another page of this chat may show another branch.
function lastAnswer() {
  const answers = document.querySelectorAll("#thread > [id^=answer-]");
  return answers.length ? answers[answers.length - 1].id.slice("answer-".length) : "";
}

// crypto.randomUUID exists on https and localhost only.
function newKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

customElements.define("chat-composer", ChatComposer);
