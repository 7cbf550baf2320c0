// In words: what was saved, what is wrong, and all there is to know of the token that is asked about.

const SAVINGS = [["tokens", "tokens"], ["passes", "vision passes"], ["cells", "query–key pairs"]];

/** What was saved, a pair of bars for each amount. */
function header(model) {
  const facts = [plural(model.tokens, "token"), plural(model.segments.length, "segment")];
  const shown = new Set(model.images.map((each) => each.image)).size;
  if (shown) facts.push(plural(shown, "image"));
  const title = make("div", "title", make("h2", "", model.title), make("p", "", facts.join(" · ")));
  const savings = make("div", "savings");
  for (const [name, what] of SAVINGS) {
    const [alone, packed] = model.account[name];
    if (alone) savings.append(saving(what, alone, packed));
  }
  return make("header", "", title, savings);
}

function saving(what, alone, packed) {
  const most = Math.max(alone, packed);
  const ratio = most / Math.min(alone, packed);
  const than = ratio < 1.005 ? "" : alone > packed ? "fewer " : "more ";
  const bar = (name, number) => {
    const length = make("i");
    length.style.setProperty("--share", number / most);
    const said = make("span", "number", number.toLocaleString("en"));
    return make("div", `bar ${name}`, make("span", "", name), length, said);
  };
  const times = make("span", "times", `${ratio >= 99.5 ? Math.round(ratio) : ratio.toFixed(ratio >= 9.95 ? 1 : 2)}×`);
  const heading = make("div", "what", times, make("b", "", than + what));
  return make("div", "saving", heading, bar("unpacked", alone), bar("packed", packed));
}

/** What must not be overlooked; null if all is as it should be. */
function alarm(model) {
  const said = [];
  const { cells, missing } = model.wrong;
  if (cells) said.push(`leak: ${plural(cells, "query–key pair")} that no path in the forest allows`);
  if (missing) said.push(`hole: ${plural(missing, "query–key pair")} of a path that the mask leaves out`);
  if (model.outside) said.push(`leak: ${plural(model.outside, "attention weight")} outside the mask not exactly 0`);
  if (!said.length) return null;
  const element = make("p", "alarm", make("b", "", "⚠ "), said.join("; "));
  element.setAttribute("role", "alert");
  return element;
}

function swatch(colour) {
  return make("i", `swatch ${colour}`);
}

function unit(text) {
  return make("span", "unit", text);
}

class Card {
  constructor(model) {
    this.model = model;
    this.element = make("div", "card");
    this.live = make("p", "live");
    this.live.setAttribute("aria-live", "polite");
    this.show(null);
  }

  show(focus) {
    this.element.replaceChildren(...(focus ? this.about(focus) : this.hint()));
    this.live.textContent = focus ? this.sentence(focus) : "";
  }

  hint() {
    const keys = (key, does) => make("span", "keys", make("kbd", "", key), ` ${does}`);
    return [
      make(
        "p", "", "Point at a token, at a segment’s name or at a row of the mask: what it may attend to stays lit. ",
        "A click pins it.",
      ),
      make(
        "p", "hints", keys("Tab", "into the text"), keys("← →", "token"), keys("↑ ↓", "segment"),
        keys("Enter", "pins, opens an image"), keys("Esc", "frees"),
      ),
      make(
        "p", "", "In the mask each row is a token that looks, each column one that is seen. ",
        this.model.weights ? "Darker: more weight. Red: outside the mask." : "Filled: may attend.",
      ),
      make("p", "legend", ...this.legend()),
    ];
  }

  legend() {
    const kinds = { image: "image", prompt: "prompt", shared: "several responses’" };
    const there = new Set(this.model.parts.map((part) => this.model.colour(part)));
    const keys = Object.keys(kinds).filter((kind) => there.has(kind));
    const chip = (colours, name) => make("span", "chip", ...colours.map(swatch), unit(name));
    const own = COLOURS.filter((colour) => there.has(colour));
    const before = make("span", "chip", make("i", "swatch outlined"), unit("predicts the token pointed at"));
    return [...keys.map((kind) => chip([kind], kinds[kind])), chip(own, "a response’s own"), before];
  }

  about(focus) {
    const { model } = this;
    const { token } = focus;
    const segment = model.at(token);
    const title = make("div", "asked", swatch(model.colour(model.part(token))), make("b", "", this.name(focus)));
    title.append(make("span", "", this.whose(focus, segment)));
    if (focus.pinned) title.append(make("span", "pin", "pinned · Esc frees"));
    return [title, make("dl", "", ...this.rows(focus, segment))];
  }

  rows(focus, segment) {
    const { model } = this;
    const { token } = focus;
    const rows = [];
    const row = (name, isWide, ...content) => {
      if (!content.length) return;
      rows.push(make("div", isWide ? "wide" : "", make("dt", "", name), make("dd", "", ...content)));
    };
    const count = make("b", "", focus.count.toLocaleString("en"));
    if (focus.key !== null) row("points at", true, ...this.relation(focus));
    row("sees", true, count, ` of ${plural(model.tokens, "token")}: `, ...this.chips(focus.runs));
    row("leak", true, ...this.leaks(focus));
    row("skips", true, ...this.skipped(focus));
    if (model.weights) row("attends", true, ...this.strongest(focus));
    row("index", false, `${token}`, this.tokenId(token));
    row("position", false, `${model.position[token]}`, unit(" on its path"));
    row("predicted by", false, ...this.quote(model.previous[token], "nothing: it stands first"));
    row("predicts", false, ...this.predicted(token));
    row("belongs to", true, this.responses(segment));
    return rows;
  }

  /** A whole segment or image is asked by its last token, which sees the most of it. */
  name({ token, segment, part }) {
    if (segment !== undefined) return this.model.segments[segment].name;
    if (part !== undefined) return `image ${this.model.images[this.model.parts[part].place].image + 1}`;
    return this.words(token);
  }

  words(token) {
    const text = this.model.text(token);
    return text === null ? `token ${token}` : `“${visible(text).replace(/\n/g, "")}”`;
  }

  whose({ token, segment, part }, own) {
    if (segment !== undefined) return "to its last token";
    if (part !== undefined) return `in ${own.name}, to its last token`;
    return `${this.inImage(token)}${own.name}, token ${token - own.start + 1} of ${own.stop - own.start}`;
  }

  inImage(token) {
    const { place, start, stop } = this.model.part(token);
    if (place < 0) return "";
    const { image, grid } = this.model.images[place];
    const [row, column] = grid ? [Math.floor((token - start) / grid[1]) + 1, ((token - start) % grid[1]) + 1] : [];
    const where = grid ? `row ${row}, column ${column}` : `token ${token - start + 1} of ${stop - start}`;
    return `image ${image + 1}, ${where}; in `;
  }

  tokenId(token) {
    const id = this.model.id(token);
    return unit(id === null ? "" : `, id ${id}`);
  }

  quote(token, otherwise) {
    if (token < 0) return [unit(otherwise)];
    return [this.words(token), unit(this.model.words ? ` ${token}` : "")];
  }

  predicted(token) {
    const next = this.model.predicts.get(token) ?? [];
    const shown = next.slice(0, 4).flatMap((each, row) => [...(row ? [", "] : []), ...this.quote(each)]);
    return next.length > 4 ? [...shown, unit(` and ${next.length - 4} more`)] : shown;
  }

  responses(segment) {
    const { responses } = segment;
    if (!responses.length) return "no response: it fills up";
    const names = responses.map((each) => each.name);
    const said = names.length <= 6 ? names.join(", ") : `${names[0]} … ${names.at(-1)}`;
    return names.length > 1 ? `${said} (${names.length} of ${this.model.ends(this.model.responses.length)})` : said;
  }

  /** Each segment of which something is seen, in the order of the path, and how much that is. */
  seenOf(runs) {
    const bySegment = new Map();
    for (const segment of this.model.segments) {
      const count = total(within(runs, segment.start, segment.stop));
      if (count) bySegment.set(segment, count);
    }
    return [...bySegment].map(([segment, count]) => {
      const size = segment.stop - segment.start;
      return { segment, said: (count === size ? `${count}` : `${count} of ${size}`).replace(/\B(?=(\d{3})+\b)/g, ",") };
    });
  }

  chips(runs) {
    return this.seenOf(runs).map(({ segment, said }) => {
      return make("span", "chip", swatch(segment.colour), make("span", "", said), unit(segment.name));
    });
  }

  /** Segments that stand earlier in the pack and are not seen: siblings and other trees. */
  skipped({ token, runs }) {
    const earlier = this.model.segments.filter((each) => each.start <= token);
    const missed = earlier.filter((each) => !within(runs, each.start, each.stop).length);
    const count = missed.reduce((sum, each) => sum + each.stop - each.start, 0);
    if (!count) return [];
    const said = missed.length <= 4 ? missed.map((each) => each.name).join(" · ") : plural(missed.length, "segment");
    return [`${plural(count, "token")} before it, on other paths: `, unit(said)];
  }

  leaks({ token, runs }) {
    const leaked = this.model.leaked(token, runs);
    if (!leaked.length) return [];
    const said = `${plural(leaked.length, "token")} that its path does not hold: ${this.words(leaked[0])}`;
    return [make("b", "alarm", leaked.length > 1 ? `${said} …` : said)];
  }

  strongest({ token }) {
    const { model } = this;
    const weighed = Array.from({ length: model.tokens }, (_, key) => key).filter((key) => model.weight(token, key));
    const top = weighed.sort((a, b) => model.weight(token, b) - model.weight(token, a)).slice(0, 3);
    const share = (key) => (model.weight(token, key) > 2 ? (model.weight(token, key) / 255).toFixed(2) : "< 0.01");
    const said = top.flatMap((key, row) => [row ? ", " : "", `${this.words(key)} `, unit(share(key))]);
    const leaks = weighed.filter((key) => model.isOutside(token, key));
    if (leaks.length) said.push(make("b", "alarm", ` leak: ${leaks.map((key) => this.words(key)).join(", ")}`));
    return said;
  }

  relation({ token, key }) {
    const { model } = this;
    const seen = model.isSeen(token, key);
    const wrong = seen !== model.isOnPath(token, key);
    let said = seen ? "seen" : key > token ? "not seen: it comes later" : "not seen: it is on another path";
    if (wrong) said = seen ? "seen, though no path allows it: a leak" : "not seen, though it is on its path: a hole";
    return [this.words(key), unit(` ${key} in ${model.at(key).name}: `), make("b", wrong ? "alarm" : "", said)];
  }

  sentence(focus) {
    const { model } = this;
    const { token } = focus;
    const own = model.at(token);
    const seen = this.seenOf(focus.runs).map(({ segment, said }) => `${said} of ${segment.name}`).join("; ");
    const before = model.previous[token];
    const said = [
      `${this.name(focus)}, ${this.whose(focus, own)}. Index ${token}, position ${model.position[token]}.`,
      `Sees ${focus.count} of ${plural(model.tokens, "token")}: ${seen}.`,
      before < 0 ? "Predicted by nothing." : `Predicted by ${this.words(before)}, index ${before}.`,
      `Part of ${this.responses(own)}.`,
    ];
    if (focus.key !== null) said.push(this.relation(focus).map((part) => part.textContent ?? part).join(""));
    if (focus.pinned) said.push("Pinned.");
    return said.join(" ");
  }
}
