// The forest: nested segments, token by token; images as thumbnails that open into their tokens.

// Control and format characters: not seen, or they move what is beside them. Joiners inside a word or an emoji stay.
const INVISIBLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Co}]|(?![\u200c\u200d])\p{Cf}|^[\u200c\u200d]+$/gu;

const MANY = 1500; // tokens from which segments out of sight are left unrendered, until they come into sight

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** A token's text with a mark for what would not be seen, or would move what is beside it. */
function visible(text) {
  if (text === "") return "◦";
  return text.replace(/\n/g, "⏎\n").replace(/\n$/, "").replace(INVISIBLE, mark);
}

function mark(found) {
  if (found === "\n") return found;
  if (found === "\t") return "⇥";
  const code = found.codePointAt(0);
  if (code < 32) return String.fromCodePoint(0x2400 + code);
  return `‹${code.toString(16).toUpperCase().padStart(4, "0")}›`;
}

class Tokens {
  constructor(model) {
    this.model = model;
    this.spans = new Array(model.tokens);
    this.heads = [];
    this.tiles = [];
    this.element = make("div", model.weights ? "forest weighing" : "forest");
    this.element.setAttribute("role", "group");
    this.element.setAttribute("aria-label", "The pack's segments, token by token");
    this.template = make("span", "token");
    this.template.setAttribute("role", "button");
    this.template.tabIndex = -1;
    this.build();
  }

  build() {
    const holders = [];
    for (const segment of this.model.segments) {
      const body = make("div", "body", ...segment.parts.map((part) => this.part(part)));
      if (this.model.tokens > MANY) this.delay(body, segment);
      const children = make("div", "children");
      const section = make("section", `segment ${segment.colour}`, this.head(segment), body, children);
      holders.push({ section, children });
      (holders[segment.parent]?.children ?? this.element).append(section);
    }
    this.sections = holders.map((each) => each.section);
    this.heads[0].tabIndex = 0;
    this.current = this.heads[0];
  }

  /** Leaves a segment unrendered while out of sight; its height is guessed, so that the scrollbar does not jump. */
  delay(body, segment) {
    const letters = body.textContent.length + 2 * (segment.stop - segment.start);
    const images = segment.parts.filter((part) => part.place >= 0).length;
    body.style.contentVisibility = "auto";
    body.style.containIntrinsicHeight = `auto ${8 + 22 * Math.ceil(letters / 62) + 100 * images}px`;
  }

  head(segment) {
    const { responses } = this.model;
    const count = segment.stop - segment.start;
    const head = make("button", "head", make("b", "", segment.name));
    const times = segment.for > 1 ? `shared by ${this.model.ends(segment.for)}` : "";
    head.append(make("span", "fact", [plural(count, "token"), times].filter(Boolean).join(" · ")));
    for (const each of segment.responses.filter((response) => response.path.at(-1) === segment.number)) {
      const beaten = each.beats.map((row) => responses[row].name).join(", ");
      if (beaten) head.append(make("span", "fact beats", `${each.name} preferred to ${beaten}`));
    }
    head.append(make("span", "seeing"));
    head.type = "button";
    head.tabIndex = -1;
    head.stop = { segment: segment.number, token: segment.stop - 1 };
    return (this.heads[segment.number] = head);
  }

  part(part) {
    if (part.place < 0) {
      const run = make("span", this.model.words ? "words" : "cells");
      for (let token = part.start; token < part.stop; token++) {
        run.append(this.token(token));
        if (token + 1 < part.stop && this.model.text(token)?.endsWith("\n")) run.append("\n");
      }
      return run;
    }
    return make("div", "picture", this.tile(part), make("div", "opened"));
  }

  token(token, text = this.model.text(token)) {
    const span = this.template.cloneNode(false);
    span.textContent = text === null ? "" : visible(text);
    if (text === null) span.setAttribute("aria-label", `token ${token}`);
    span.stop = { token };
    return (this.spans[token] = span);
  }

  tile(part) {
    const { image, tokens } = this.model.images[part.place];
    const tile = make("button", "tile");
    const picture = this.model.pictures[image];
    if (picture) tile.append(this.thumbnail(picture));
    const name = make("span", "caption", make("b", "", `image ${image + 1}`));
    name.append(make("span", "", plural(tokens, "token")), make("span", "toggle"));
    tile.append(name);
    tile.type = "button";
    tile.tabIndex = -1;
    tile.stop = { part: part.number, token: part.stop - 1 };
    tile.setAttribute("aria-expanded", "false");
    return (this.tiles[part.number] = tile);
  }

  thumbnail({ url, width, height }) {
    const image = make("img");
    const scale = 88 / Math.max(width, height);
    Object.assign(image, { src: url, alt: "", draggable: false });
    Object.assign(image.style, { width: `${width * scale}px`, height: `${height * scale}px` });
    return image;
  }

  isOpen(part) {
    return this.tiles[part.number]?.getAttribute("aria-expanded") === "true";
  }

  /** Opens an image into its tokens, or closes it. */
  toggle(part) {
    const tile = this.tiles[part.number];
    const open = !this.isOpen(part);
    tile.setAttribute("aria-expanded", String(open));
    const opened = tile.nextElementSibling;
    opened.replaceChildren(...(open ? [this.inside(part)] : []));
    if (open) return;
    for (let token = part.start; token < part.stop; token++) delete this.spans[token];
    if (!this.current.isConnected) this.stand(tile);
  }

  inside(part) {
    const { grid: known, image } = this.model.images[part.place];
    const picture = this.model.pictures[image];
    const grid = picture && known;
    const cells = make("div", grid ? "cells over" : "cells");
    for (let token = part.start; token < part.stop; token++) {
      const cell = this.token(token, null);
      if (grid) cell.columns = grid[1];
      cells.append(cell);
    }
    if (grid) this.overPicture(cells, grid, picture);
    return cells;
  }

  overPicture(cells, [rows, columns], picture) {
    const side = Math.max(13, Math.min(40, 300 / Math.max(rows, columns)));
    const shape = (picture.height / rows) / (picture.width / columns);
    cells.style.gridTemplateColumns = `repeat(${columns}, ${side}px)`;
    cells.style.gridAutoRows = `${side * shape}px`;
    cells.style.backgroundImage = `url("${picture.url}")`;
  }

  /** The element that stands for a token: its own, or its image's while that is closed. */
  elementOf(token) {
    return this.spans[token] ?? this.tiles[this.model.partOf[token]];
  }

  /** Where a key leads from an element; null for keys that lead nowhere. */
  neighbour(element, key) {
    const { model } = this;
    const { token, segment } = element.stop;
    const here = model.segmentOf[token];
    const above = segment === undefined ? here : here - 1; // from inside a segment to its own name first
    switch (key) {
      case "ArrowRight":
        return this.after(element.stop);
      case "ArrowLeft":
        return this.before(element);
      case "ArrowDown":
        return this.inRow(element, 1) ?? this.heads[here + 1] ?? element;
      case "ArrowUp":
        return this.inRow(element, -1) ?? this.heads[above] ?? element;
      case "Home":
        return this.entering(0);
      case "End":
        return this.elementOf(model.tokens - 1);
      default:
        return null;
    }
  }

  after({ token, segment, part }) {
    const { segments, parts } = this.model;
    if (segment !== undefined) return this.entering(segments[segment].start);
    if (part !== undefined && this.isOpen(parts[part])) return this.spans[parts[part].start];
    return this.entering(token + 1);
  }

  before(element) {
    const { token, segment, part } = element.stop;
    const { segments, parts } = this.model;
    const tile = this.tiles[this.model.partOf[token]];
    if (part === undefined && segment === undefined && tile && this.model.part(token).start === token) return tile;
    const first = segment !== undefined ? segments[segment].start : part !== undefined ? parts[part].start : token;
    return first ? this.elementOf(first - 1) : element;
  }

  /** Into a token from before it: an image's tile comes before its tokens. */
  entering(token) {
    if (token >= this.model.tokens) return this.elementOf(this.model.tokens - 1);
    const tile = this.tiles[this.model.partOf[token]];
    return tile && this.model.part(token).start === token ? tile : this.elementOf(token);
  }

  /** In an image laid out over its picture, the token a row up or down. */
  inRow(element, step) {
    if (!element.columns) return null;
    const token = element.stop.token + step * element.columns;
    return this.model.partOf[token] === this.model.partOf[element.stop.token] ? this.spans[token] : null;
  }

  /** Roving tabindex: one element of the forest is in the page's tab order. */
  stand(element) {
    this.current.tabIndex = -1;
    element.tabIndex = 0;
    this.current = element;
  }

  focus(element) {
    this.stand(element);
    if (element.getRootNode().activeElement !== element) element.focus({ preventScroll: true });
    element.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** Scrolls the forest, and nothing else, to a token. */
  reveal(token) {
    const element = this.elementOf(token);
    const box = element.getBoundingClientRect();
    const frame = this.element.getBoundingClientRect();
    if (box.top < frame.top || box.bottom > frame.bottom) {
      this.element.scrollTop += box.top - frame.top - frame.height / 3;
    }
  }
}

function plural(number, what, many = `${what}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? what : many}`;
}
