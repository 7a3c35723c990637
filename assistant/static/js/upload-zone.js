// <upload-zone>: files and whole folders, dropped or chosen, sent three at a time, each with its
// own progress and its own reason when it is refused.
import { refresh } from "./lists.js";
import { csrfHeaders, element, icon, toast } from "./page.js";

const AT_ONCE = 3;
const SHOWN = 200;
const REFRESH_MS = 1500;

class UploadZone extends HTMLElement {
  #abort = null;
  #queue = [];
  #items = [];
  #running = 0;
  #refreshAt = 0;

  connectedCallback() {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    const on = (target, name, act) => target.addEventListener(name, act, { signal });
    this.list = this.querySelector("[data-list]");
    this.querySelector("[data-plain-submit]").hidden = true;
    this.querySelector("[data-pick-folder]").hidden = !("webkitdirectory" in HTMLInputElement.prototype);
    for (const input of this.querySelectorAll("input[type=file]")) {
      on(input, "change", () => {
        this.#add([...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })));
        input.value = "";
      });
    }
    on(window, "dragover", (event) => this.#over(event));
    on(window, "dragleave", (event) => event.relatedTarget === null && this.classList.remove("is-over"));
    on(window, "drop", (event) => this.#drop(event));
    on(window, "beforeunload", (event) => this.#isBusy() && event.preventDefault());
    on(this.querySelector("[data-retry-all]"), "click", () => this.#retryAll());
    on(this.querySelector("[data-dismiss]"), "click", () => this.#dismiss());
  }

  disconnectedCallback() {
    this.#abort.abort();
  }

  #isBusy() {
    return this.#running > 0 || this.#queue.length > 0;
  }

  #over(event) {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    this.classList.add("is-over");
  }

  async #drop(event) {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    this.classList.remove("is-over");
    // Entries must be taken before the first await: the list is emptied after the event.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...event.dataTransfer.files];
    if (!entries.length) return this.#add(files.map((file) => ({ file, path: file.name })));
    const found = [];
    try {
      for (const entry of entries) await walk(entry, "", found);
    } catch {
      toast("A folder could not be read completely. Try choosing it with the button.");
    }
    this.#add(found);
  }

  #add(files) {
    // .DS_Store, .git and the like are never meant.
    const wanted = files.filter(({ path }) => !path.split("/").some((part) => part.startsWith(".")));
    const left = files.length - wanted.length;
    if (left) toast(left === 1 ? "1 hidden file was left out." : `${left} hidden files were left out.`);
    if (!wanted.length) return;
    this.list.hidden = false;
    const batch = randomId();
    const follow = this.querySelector("[data-batch]");
    follow.href = `${this.dataset.batches}${batch}/`;
    for (const { file, path } of wanted) {
      const item = { file, path, batch, loaded: 0, state: "waiting", row: null };
      this.#items.push(item);
      this.#queue.push(item);
      this.#show(item);
    }
    this.#next();
  }

  #next() {
    while (this.#running < AT_ONCE && this.#queue.length) this.#send(this.#queue.shift());
    this.#summarise();
  }

  #send(item) {
    this.#running += 1;
    item.state = "sending";
    const body = new FormData();
    body.append("path", item.path);
    body.append("batch", item.batch);
    body.append("file", item.file);
    const request = new XMLHttpRequest();
    request.open("POST", this.dataset.url);
    request.setRequestHeader("Accept", "application/json");
    for (const [name, value] of Object.entries(csrfHeaders())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      item.loaded = event.lengthComputable ? event.loaded / event.total : 0;
      this.#show(item);
      this.#summarise();
    });
    request.addEventListener("loadend", () => {
      this.#running -= 1;
      item.loaded = 1;
      item.state = request.status === 202 ? "done" : "failed";
      item.why = request.status === 202 ? "" : reason(request);
      item.twin = request.status === 202 ? JSON.parse(request.responseText).twin : null;
      this.#show(item);
      this.#refreshTable();
      this.#next();
    });
    request.send(body);
    this.#show(item);
  }

  #show(item) {
    const items = this.querySelector("[data-items]");
    if (!item.row) {
      if (items.children.length >= SHOWN && item.state !== "failed") return;
      item.bar = element("progress", { max: "1", value: "0", "aria-label": `Upload of ${item.path}` });
      item.words = element("span", { class: "state" });
      item.row = element("li", {}, element("span", { class: "name", title: item.path }, item.path), item.words, element("span"));
    }
    const { row } = item;
    if (item.state === "failed") items.prepend(row);
    else if (!row.isConnected) items.append(row);
    if (item.state === "sending" && !item.bar.isConnected) item.words.replaceChildren(item.bar);
    item.bar.value = item.loaded;
    if (item.state !== "sending") {
      item.words.textContent = { waiting: "Waiting", done: "Uploaded", failed: "Refused" }[item.state];
    }
    row.querySelector(".why")?.remove();
    row.lastElementChild.replaceChildren(
      { done: icon("circle-check", "icon-s"), failed: icon("circle-alert", "icon-s") }[item.state] ?? "",
    );
    if (item.why) row.append(element("span", { class: "why" }, item.why));
    row.querySelector(".twin")?.remove();
    if (item.twin) row.append(element("a", { class: "twin", href: item.twin.url }, item.twin.words));
  }

  #summarise() {
    const count = (state) => this.#items.filter((item) => item.state === state).length;
    const [done, failed, total] = [count("done"), count("failed"), this.#items.length];
    const bar = this.querySelector("[data-total]");
    bar.max = total || 1;
    bar.value = this.#items.reduce((sum, item) => sum + item.loaded, 0);
    bar.hidden = !this.#isBusy();
    const files = total === 1 ? "file" : "files";
    const words = this.#isBusy() ? `Uploading ${done + failed + 1 > total ? total : done + failed + 1} of ${total} ${files}` : `${done} of ${total} ${files} uploaded`;
    this.querySelector("[data-summary]").textContent = failed ? `${words}, ${failed} refused` : words;
    this.querySelector("[data-retry-all]").hidden = failed === 0 || this.#isBusy();
    this.querySelector("[data-batch]").hidden = done === 0;
  }

  #retryAll() {
    for (const item of this.#items.filter((other) => other.state === "failed")) {
      Object.assign(item, { state: "waiting", why: "", loaded: 0 });
      this.#queue.push(item);
      this.#show(item);
    }
    this.#next();
  }

  #dismiss() {
    if (this.#isBusy()) return toast("The uploads are still running.");
    this.#items = [];
    this.querySelector("[data-items]").replaceChildren();
    this.list.hidden = true;
  }

  // The table polls by itself once something is unfinished; until then it must be told.
  #refreshTable() {
    const now = Date.now();
    if (this.#isBusy() && now - this.#refreshAt < REFRESH_MS) return;
    this.#refreshAt = now;
    refresh("documents");
  }
}

// crypto.randomUUID is missing on plain http, as on many company networks.
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// Depth first, in the order of the folder. A reader returns at most 100 entries at a time.
async function walk(entry, parent, found) {
  const path = parent ? `${parent}/${entry.name}` : entry.name;
  if (entry.isFile) {
    found.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path });
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const batch = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!batch.length) return;
    for (const child of batch) await walk(child, path, found);
  }
}

function reason(request) {
  if (request.status === 0) return "The connection broke. Check your network and retry.";
  try {
    const { detail } = JSON.parse(request.responseText);
    if (detail) return detail;
  } catch {
    // Not JSON: a proxy or an error page spoke.
  }
  return (
    {
      403: "You may not add documents here, or this page was open for too long. Reload it.",
      404: "This collection is no longer here, or is not shared with you.",
      413: "The file is larger than allowed. Split it, or ask an administrator to raise the limit.",
      503: "The service is not reachable for a moment. Retry in a few seconds.",
    }[request.status] ?? "The server could not take the file. Retry, or tell an administrator."
  );
}

customElements.define("upload-zone", UploadZone);
