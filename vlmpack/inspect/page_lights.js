// What is lit in the forest: what a token sees, what predicts it, what it is held against.

class Lights {
  constructor(tokens) {
    this.tokens = tokens;
    this.model = tokens.model;
    this.lit = {}; // elements by the class that marks them
    this.seeing = this.model.segments.map(() => "");
  }

  /** Lights what is asked, and changes only what differs from before: from one token to the next that is little. */
  show(focus) {
    const before = this.lit;
    this.lit = {};
    if (focus) this.light(focus);
    for (const segment of this.model.segments) this.say(segment, focus);
    this.tokens.element.classList.toggle("asking", Boolean(focus));
    for (const name of Object.keys({ ...before, ...this.lit })) this.swap(name, before[name], this.lit[name]);
  }

  swap(name, before = new Set(), now = new Set()) {
    for (const element of before) if (!now.has(element)) element.classList.remove(name);
    for (const element of now) if (!before.has(element)) element.classList.add(name);
    if (name !== "pinned") return;
    for (const element of [...before, ...now]) element.setAttribute("aria-pressed", String(now.has(element)));
  }

  put(element, name) {
    (this.lit[name] ??= new Set()).add(element);
  }

  light(focus) {
    const asked = focus.element?.isConnected ? focus.element : this.tokens.elementOf(focus.token);
    for (const segment of this.model.segments) this.lightSegment(segment, focus);
    this.put(asked, "query");
    this.put(this.tokens.elementOf(focus.token), "query");
    if (focus.previous >= 0) this.put(this.tokens.elementOf(focus.previous), "previous");
    if (focus.key !== null) this.put(this.tokens.elementOf(focus.key), "key");
    for (const key of this.model.leaked(focus.token, focus.runs)) this.put(this.tokens.elementOf(key), "leak");
    if (focus.pinned) this.put(asked, "pinned");
  }

  /** A whole segment where possible, single tokens where they differ. */
  lightSegment(segment, focus) {
    const seen = within(focus.runs, segment.start, segment.stop);
    const all = total(seen) === segment.stop - segment.start;
    if (seen.length) this.put(this.tokens.sections[segment.number], all ? "all" : "some");
    if (all && !this.model.weights) return;
    for (const part of segment.parts) this.lightPart(part, within(seen, part.start, part.stop), focus);
  }

  lightPart(part, seen, focus) {
    const { spans, tiles } = this.tokens;
    if (tiles[part.number] && seen.length) this.put(tiles[part.number], "seen");
    for (const [start, stop] of seen) {
      for (let token = start; token < stop; token++) if (spans[token]) this.put(spans[token], "seen");
    }
    if (this.model.weights) this.shade(part, focus.token);
  }

  /** Actual attention: the stronger, the darker; outside the mask it is an error. */
  shade(part, query) {
    for (let token = part.start; token < part.stop; token++) {
      const element = this.tokens.spans[token];
      const weight = this.model.weight(query, token);
      if (!element || !weight) continue;
      element.style.setProperty("--share", (0.08 + 0.72 * Math.sqrt(weight / 255)).toFixed(3));
      this.put(element, "weighed");
      if (this.model.isOutside(query, token)) this.put(element, "leak");
    }
  }

  /** Beside a segment's name, how much of it is seen. */
  say(segment, focus) {
    const count = focus ? total(within(focus.runs, segment.start, segment.stop)) : 0;
    const said = !count ? "" : count === segment.stop - segment.start ? "● seen" : `◐ ${count} of ${segment.stop - segment.start} seen`;
    if (said === this.seeing[segment.number]) return;
    this.seeing[segment.number] = said;
    this.tokens.heads[segment.number].querySelector(".seeing").textContent = said;
  }
}

/** The parts of stretches that lie in [start, stop). */
function within(runs, start, stop) {
  return runs.map(([a, b]) => [Math.max(a, start), Math.min(b, stop)]).filter(([a, b]) => a < b);
}

function total(runs) {
  return runs.reduce((sum, [start, stop]) => sum + stop - start, 0);
}
