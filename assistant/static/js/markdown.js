// Markdown of a model to DOM nodes, made one by one: no string of it is ever parsed as HTML.
// The same rules as assistant/web/rendering.py: no raw HTML, no images, links only to sources.
import MarkdownIt from "../vendor/markdown-it/markdown-it.js";

const CITATION = /\[(\d{1,3}(?: ?, ?\d{1,3}){0,9})\]/g;
const TAGS = new Set(
  "p br hr em strong s code pre blockquote ul ol li h1 h2 h3 h4 h5 h6 table thead tbody tr th td".split(" "),
);

// Reference definitions would let a text redefine what [1] means.
const parser = new MarkdownIt("commonmark", { html: false, linkify: false, maxNesting: 20 })
  .enable(["table", "strikethrough"])
  .disable(["reference", "html_block", "html_inline"]);

// Draws growing text into one element; only blocks that changed are made again.
export class MarkdownView {
  #container;
  #blocks = [];

  constructor(container) {
    this.#container = container;
  }

  // `links` maps a source number to the addresses of its markers, in order.
  update(text, links) {
    const lines = text.split("\n");
    let seen = {};
    let index = 0;
    for (const tokens of topLevel(parser.parse(text, {}))) {
      const [first, last] = tokens[0].map ?? [0, lines.length];
      const source = lines.slice(first, last).join("\n");
      const key = JSON.stringify([tokens[0].type, source, seen, source.includes("[") ? [...links] : 0]);
      const known = this.#blocks[index];
      if (known?.key !== key) {
        const after = { ...seen };
        const made = document.createDocumentFragment();
        build(tokens, made, links, after);
        const node = made.firstElementChild ?? document.createElement("p");
        if (known) known.node.replaceWith(node);
        else this.#container.append(node);
        this.#blocks[index] = { key, node, seen: after };
      }
      seen = this.#blocks[index].seen;
      index += 1;
    }
    for (const gone of this.#blocks.splice(index)) gone.node.remove();
  }
}

function* topLevel(tokens) {
  let group = [];
  for (const token of tokens) {
    group.push(token);
    if (token.level === 0 && token.nesting !== 1 && token.type !== "inline") {
      yield group;
      group = [];
    }
  }
  if (group.length) yield group;
}

function build(tokens, root, links, seen) {
  const stack = [root];
  const top = () => stack[stack.length - 1];
  for (const token of tokens) {
    if (token.hidden) continue;
    if (token.type === "inline") inline(token.children, top(), links, seen);
    else if (token.type === "fence" || token.type === "code_block") {
      const code = make("code");
      code.textContent = token.content;
      const pre = make("pre");
      pre.append(code);
      top().append(pre);
    } else if (token.nesting === 1) {
      const node = make(token.tag);
      const start = token.tag === "ol" ? token.attrGet("start") : null;
      if (start !== null) node.setAttribute("start", start);
      if (token.tag === "table") {
        const box = document.createElement("div");
        box.className = "table-wrap";
        box.append(node);
        top().append(box);
      } else top().append(node);
      stack.push(node);
    } else if (token.nesting === -1) stack.pop();
    else if (token.type === "hr") top().append(make("hr"));
    else top().append(token.content);
  }
}

function inline(tokens, root, links, seen) {
  const stack = [root];
  const targets = [];
  const top = () => stack[stack.length - 1];
  const say = (words) => {
    top().append(words);
    if (targets.length) targets[targets.length - 1].label += words;
  };
  for (const token of tokens) {
    if (token.type === "text" && !targets.length) cite(token.content, top(), links, seen);
    else if (token.type === "image") say(plain(token.children) || "image");
    else if (token.type === "link_open") targets.push({ href: token.attrGet("href") ?? "", label: "" });
    else if (token.type === "link_close") {
      const { href, label } = targets.pop();
      if (href && href.replace(/^mailto:/, "") !== label) say(` (${href})`);
    } else if (token.type === "code_inline") {
      const code = make("code");
      code.textContent = token.content;
      top().append(code);
      if (targets.length) targets[targets.length - 1].label += token.content;
    } else if (token.type === "softbreak") top().append("\n");
    else if (token.type === "hardbreak") top().append(make("br"));
    else if (token.nesting === 1) {
      const node = make(token.tag);
      top().append(node);
      stack.push(node);
    } else if (token.nesting === -1) stack.pop();
    else say(token.content);
  }
}

function cite(text, parent, links, seen) {
  let at = 0;
  for (const match of text.matchAll(CITATION)) {
    const numbers = match[1].split(",").map(Number);
    if (!numbers.every((number) => links.get(number)?.length)) continue;
    parent.append(text.slice(at, match.index));
    for (const number of numbers) {
      const urls = links.get(number);
      const place = seen[number] ?? 0;
      seen[number] = place + 1;
      const link = document.createElement("a");
      link.href = urls[Math.min(place, urls.length - 1)];
      link.className = "cite";
      link.dataset.number = String(number);
      link.textContent = String(number);
      parent.append(link);
    }
    at = match.index + match[0].length;
  }
  parent.append(text.slice(at));
}

function plain(tokens) {
  return (tokens ?? []).map((token) => (token.type === "image" ? plain(token.children) : token.content)).join("");
}

function make(tag) {
  if (!TAGS.has(tag)) throw new Error(`no such tag in an answer: ${tag}`);
  return document.createElement(tag);
}
