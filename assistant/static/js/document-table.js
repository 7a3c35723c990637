// <document-table>: keeps the selection while the table is replaced by a fresher one.

const selected = new Set();

class DocumentTable extends HTMLElement {
  connectedCallback() {
    for (const box of this.#boxes()) box.checked = selected.has(box.value);
    this.addEventListener("change", this);
    this.#refresh();
  }

  disconnectedCallback() {
    this.removeEventListener("change", this);
  }

  handleEvent({ target }) {
    if (target.matches("[data-select-all]")) for (const box of this.#boxes()) box.checked = target.checked;
    for (const box of this.#boxes()) {
      if (box.checked) selected.add(box.value);
      else selected.delete(box.value);
    }
    this.#refresh();
  }

  #boxes() {
    return [...this.querySelectorAll('input[name="documents"][type="checkbox"]')];
  }

  #refresh() {
    const boxes = this.#boxes();
    const count = boxes.filter((box) => box.checked).length;
    for (const value of [...selected]) if (!boxes.some((box) => box.value === value)) selected.delete(value);
    const bar = this.querySelector("[data-bulk]");
    if (bar) {
      bar.hidden = count === 0;
      bar.querySelector("[data-selected]").textContent = String(count);
    }
    const all = this.querySelector("[data-select-all]");
    if (all) {
      all.checked = count > 0 && count === boxes.length;
      all.indeterminate = count > 0 && count < boxes.length;
    }
  }
}

customElements.define("document-table", DocumentTable);
