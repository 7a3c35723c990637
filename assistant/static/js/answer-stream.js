// <answer-stream>: follows the events of one answer and draws it as it comes. When the answer has
// ended, the stored answer, made by the server under the reader's rights, takes its place.
import { MarkdownView } from "./markdown.js";
import { announce, csrfHeaders, element, icon, toast } from "./page.js";

const STAGES = {
  searching: "Searching your documents…",
  attachments: "Reading the attached files…",
  reading: "Reading…",
  thinking: "Thinking…",
  shortening: "That was too long for the model; asking with less…",
  writing: "Writing…",
};
const RETRY_MS = 1500;
const NEAR_BOTTOM = 160;
const GAP = 24;

class AnswerStream extends HTMLElement {
  #source = null;
  #view = null;
  #text = "";
  #links = new Map();
  #passages = new Map();
  #spoken = 0;
  #frame = 0;
  #at = -1;
  #ended = false;

  connectedCallback() {
    this.#view = new MarkdownView(this.querySelector("[data-text]"));
    document.dispatchEvent(new CustomEvent("answer-started", { detail: { stop: () => this.stop() } }));
    this.#toBottom(true);
    this.#open();
  }

  disconnectedCallback() {
    this.#close();
    document.dispatchEvent(new CustomEvent("answer-ended"));
  }

  async stop() {
    this.#say("Stopping…");
    const headers = { ...csrfHeaders(), Accept: "application/json" };
    const answer = await fetch(this.dataset.stopUrl, { method: "POST", headers }).catch(() => null);
    if (!answer?.ok) toast("The answer could not be stopped. Try again.");
  }

  #open() {
    const source = new EventSource(this.dataset.eventsUrl);
    this.#source = source;
    const on = (name, act) =>
      source.addEventListener(name, (event) => {
        if (event.data !== undefined) act(JSON.parse(event.data));
      });
    on("status", (data) => this.#status(data));
    on("sources", (data) => this.#sources(data.passages));
    on("delta", (data) => this.#delta(data.text));
    on("citation", (data) => this.#citation(data));
    on("done", (data) => this.#finish(data.abstained ? "Nothing was found in your documents." : "The answer is complete."));
    on("error", (data) => this.#finish(data.detail));
    // The connection's own error has no data. The browser reconnects with Last-Event-ID by itself,
    // unless the server refused: then the stored answer says how it ended.
    source.addEventListener("error", (event) => {
      if (event.data !== undefined || this.#ended) return;
      this.#say("The connection was lost. Reconnecting…");
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#load(), RETRY_MS);
    });
  }

  #close() {
    this.#source?.close();
    this.#source = null;
    cancelAnimationFrame(this.#frame);
  }

  #status({ stage, queue_position: position }) {
    const words = STAGES[stage] ?? "Working…";
    this.#say(position ? `Place ${position} in the line…` : words);
  }

  #sources(passages) {
    for (const passage of passages) {
      this.#passages.set(passage.number, passage);
      this.#links.set(passage.number, [placeOf(passage.document.id, passage.document.version_id, passage.locator)]);
    }
    this.#say(passages.length === 1 ? "Reading 1 passage…" : `Reading ${passages.length} passages…`);
  }

  #delta(text) {
    this.#text += text;
    this.#say("Writing…");
    this.#draw();
    this.#speak();
  }

  #citation({ number, quote, verified, locator, document_id: id, version_id: version }) {
    const passage = this.#passages.get(number);
    if (!passage) return;
    const url = placeOf(id || passage.document.id, version || passage.document.version_id, locator);
    if (passage.markers) this.#links.get(number).push(url);
    else this.#links.set(number, [url]);
    passage.markers = (passage.markers ?? 0) + 1;
    if (passage.markers === 1) this.#card(passage, quote, verified, url);
    this.#draw();
  }

  // The first quote of a source, so that one can look while the rest is being written.
  #card({ number, document: { title }, locator }, quote, verified, url) {
    let list = this.querySelector(".source-list");
    if (!list) {
      list = element("ol", { class: "source-list" });
      const panel = element("aside", { class: "sources", "aria-label": "Sources of this answer" });
      panel.append(element("h3", {}, "Sources"), list);
      this.querySelector(".answer").append(panel);
    }
    const where = [(locator.heading_path ?? []).slice(-2).join(" › "), locator.page ? `page ${locator.page}` : ""];
    const badge = verified
      ? element("span", { class: "verified" }, icon("circle-check", "icon-s"), " Quote verified")
      : element("span", { class: "verified unverified" }, icon("triangle-alert", "icon-s"), " Not verified: read it in the source");
    const card = element(
      "li",
      { class: "source", "data-source": number },
      element("span", { class: "number" }, String(number)),
      element("a", { class: "source-title", href: url }, title),
      element("span", { class: "where" }, where.filter(Boolean).join(" · ")),
      element("div", { class: "quote", "data-place": url }, element("blockquote", {}, quote), badge),
    );
    const after = [...list.children].find((other) => Number(other.dataset.source) > number);
    list.insertBefore(card, after ?? null);
  }

  #draw() {
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      const pinned = this.#isAtBottom();
      this.#view.update(this.#text, this.#links);
      if (pinned) this.#toBottom();
    });
  }

  // Whole sentences: a screen reader that gets every token reads none of them.
  #speak() {
    const rest = this.#text.slice(this.#spoken);
    const end = Math.max(rest.lastIndexOf(". "), rest.lastIndexOf("\n"), rest.lastIndexOf("? "));
    if (end < 40) return;
    announce(rest.slice(0, end + 1).replace(/\[\d+\]|[*_#`]/g, ""));
    this.#spoken += end + 1;
  }

  #say(words) {
    const place = this.querySelector("[data-status-words]");
    if (place && place.textContent !== words) place.textContent = words;
  }

  #finish(words) {
    this.#ended = true;
    this.#close();
    announce(words);
    this.#load();
  }

  #load() {
    const pinned = this.#isAtBottom();
    window.htmx
      .ajax("GET", this.dataset.answerUrl, { source: this, target: this, swap: "outerHTML" })
      .then(() => pinned && this.#toBottom());
  }

  // Pixels from the end of the text to the composer's edge, which covers what is below. The sources
  // beside it may be longer: to follow them would push the question out of sight.
  #below() {
    const text = document.getElementById(this.id)?.querySelector(".answer-main");
    const edge = document.querySelector("chat-composer")?.getBoundingClientRect().top ?? window.innerHeight;
    return text ? text.getBoundingClientRect().bottom + GAP - edge : 0;
  }

  // Who has not scrolled since is taken along, however much came at once.
  #isAtBottom() {
    return window.scrollY === this.#at || this.#below() < NEAR_BOTTOM;
  }

  #toBottom(isFirst = false) {
    // A page opened at a fragment stays there.
    if (isFirst && location.hash) return;
    window.scrollBy({ top: Math.max(this.#below(), 0) });
    this.#at = window.scrollY;
  }
}

function placeOf(id, version, locator) {
  const query = new URLSearchParams({ v: version, start: locator.char_start, end: locator.char_end });
  return `/documents/${encodeURIComponent(id)}/?${query}#passage`;
}

customElements.define("answer-stream", AnswerStream);
