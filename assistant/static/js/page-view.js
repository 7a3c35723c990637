// <page-view>: the original page as it looks, the cited words marked on it. PDFs and pictures.

const PREFERENCE = "reading"; // in localStorage: who chose pages gets pages next time
const WIDEST = 2; // device pixels for each of CSS, so that a canvas stays small on dense screens

class PageView extends HTMLElement {
  #abort = new AbortController();
  #source = null;
  #boxes = [];
  #number = 1;
  #drawing = Promise.resolve();

  connectedCallback() {
    this.#abort = new AbortController();
    const on = (selector, act) =>
      this.querySelector(selector).addEventListener("click", act, { signal: this.#abort.signal });
    this.#boxes = JSON.parse(this.dataset.boxes);
    this.#number = Number(this.dataset.page);
    document.addEventListener("click", (event) => this.#toPassage(event), { signal: this.#abort.signal });
    this.hidden = false;
    on("[data-show=text]", () => this.#choose("text"));
    on("[data-show=page]", () => this.#choose("page"));
    on("[data-previous]", () => this.#turn(-1));
    on("[data-next]", () => this.#turn(1));
    if (this.#boxes.length && localStorage.getItem(PREFERENCE) === "page") this.#show("page");
  }

  disconnectedCallback() {
    this.#abort.abort();
    this.#source?.then((source) => source.close(), () => {});
    this.#source = null;
  }

  #choose(what) {
    localStorage.setItem(PREFERENCE, what);
    this.#show(what);
  }

  #show(what) {
    for (const button of this.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === what));
    }
    document.getElementById("words").hidden = what !== "text";
    this.querySelector("[data-pages]").hidden = what !== "page";
    if (what === "page") this.#draw();
    else document.getElementById("passage")?.scrollIntoView({ block: "center" });
  }

  // The link leads into the text, which is hidden while pages are shown.
  #toPassage(event) {
    if (!event.target.closest?.('a[href="#passage"]') || this.querySelector("[data-pages]").hidden) return;
    event.preventDefault();
    this.#number = Number(this.dataset.page);
    this.#draw();
  }

  #turn(by) {
    this.#number += by;
    this.#draw();
  }

  // One page after the other: a canvas takes one drawing at a time.
  #draw() {
    this.#drawing = this.#drawing.then(() => this.#drawPage());
  }

  async #drawPage() {
    const sheet = this.querySelector("[data-sheet]");
    const problem = this.querySelector("[data-problem]");
    sheet.setAttribute("aria-busy", "true");
    try {
      this.#source ??= this.dataset.kind === "pdf" ? openPdf(this.dataset) : openPicture(this.dataset);
      const source = await this.#source;
      this.#number = Math.min(Math.max(this.#number, 1), source.pages);
      const canvas = this.querySelector("canvas");
      await source.draw(this.#number, canvas, sheet.clientWidth * Math.min(devicePixelRatio, WIDEST));
      canvas.setAttribute("aria-label", `Page ${this.#number} of ${source.pages}`);
      this.querySelector("[data-number]").textContent = `Page ${this.#number} of ${source.pages}`;
      this.querySelector("[data-previous]").disabled = this.#number === 1;
      this.querySelector("[data-next]").disabled = this.#number === source.pages;
      this.#mark(sheet);
      sheet.hidden = false;
      problem.hidden = true;
      sheet.dataset.drawn = String(this.#number);
    } catch (error) {
      console.warn(error);
      this.#source = null;
      sheet.hidden = true;
      problem.hidden = false;
    } finally {
      sheet.removeAttribute("aria-busy");
    }
    sheet.querySelector(".page-box")?.scrollIntoView({ block: "center" });
  }

  #mark(sheet) {
    for (const old of sheet.querySelectorAll(".page-box")) old.remove();
    for (const [page, x0, y0, x1, y1] of this.#boxes) {
      if (page !== this.#number) continue;
      const box = document.createElement("mark");
      box.className = "page-box";
      Object.assign(box.style, {
        left: `${x0 * 100}%`,
        top: `${y0 * 100}%`,
        width: `${(x1 - x0) * 100}%`,
        height: `${(y1 - y0) * 100}%`,
      });
      sheet.append(box);
    }
  }
}

async function openPdf({ file, library, worker, assets }) {
  const pdfjs = await import(library);
  pdfjs.GlobalWorkerOptions.workerSrc = worker;
  const task = pdfjs.getDocument({
    url: file,
    cMapUrl: `${assets}cmaps/`,
    wasmUrl: `${assets}wasm/`,
    enableXfa: false,
    verbosity: 0,
  });
  const pdf = await task.promise;
  return {
    pages: pdf.numPages,
    async draw(number, canvas, width) {
      const page = await pdf.getPage(number);
      const viewport = page.getViewport({ scale: width / page.getViewport({ scale: 1 }).width });
      canvas.width = Math.round(viewport.width);
      canvas.height = Math.round(viewport.height);
      await page.render({ canvas, viewport }).promise;
    },
    close: () => task.destroy(),
  };
}

async function openPicture({ file }) {
  const response = await fetch(file);
  if (!response.ok) throw new Error(`${response.status}`);
  const picture = await createImageBitmap(await response.blob());
  return {
    pages: 1,
    async draw(_, canvas, width) {
      canvas.width = Math.round(Math.min(width, picture.width));
      canvas.height = Math.round((canvas.width * picture.height) / picture.width);
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    },
    close: () => picture.close(),
  };
}

customElements.define("page-view", PageView);
