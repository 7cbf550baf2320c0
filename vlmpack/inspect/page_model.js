// What is shown: a pack's arrays, unpacked from runs, and the questions that are asked of them.

const COLOURS = ["response-0", "response-1", "response-2", "response-3", "response-4"];

/** Runs of one value: value, length, value, length, ... */
function equalRuns(runs, length) {
  const array = new Int32Array(length);
  for (let run = 0, at = 0; run < runs.length; at += runs[run + 1], run += 2) {
    array.fill(runs[run], at, at + runs[run + 1]);
  }
  return array;
}

/** Runs that rise by one: first value, length, ... */
function risingRuns(runs, length) {
  const array = new Int32Array(length);
  for (let run = 0, at = 0; run < runs.length; run += 2) {
    for (let step = 0; step < runs[run + 1]; step++) array[at++] = runs[run] + step;
  }
  return array;
}

/** Joins neighbours for which `same` holds into [start, stop). */
function stretches(length, same) {
  const found = [];
  for (let at = 0; at < length; at++) {
    if (at && same(at - 1, at)) found.at(-1)[1]++;
    else found.push([at, at + 1]);
  }
  return found;
}

class Model {
  constructor(data) {
    Object.assign(this, {
      title: data.title, account: data.account, responses: data.responses, images: data.images,
      pictures: data.pictures, vocabulary: data.vocabulary,
    });
    this.segments = data.segments.map((each, number) => this.segment(each, number));
    this.parts = this.segments.flatMap((each) => each.parts);
    this.tokens = this.segments.at(-1).stop;
    this.reach = equalRuns(data.reach, this.tokens);
    this.position = risingRuns(data.position, this.tokens);
    this.previous = risingRuns(data.previous, this.tokens);
    this.blocks = equalRuns(data.blocks, this.tokens);
    this.words = data.vocabulary.length ? equalRuns(data.words, this.tokens) : null;
    this.weights = data.weights && Uint8Array.from(atob(data.weights), (byte) => byte.charCodeAt(0));
    this.index();
    this.wrong = this.findWrong();
    this.outside = this.weights ? this.findOutside() : 0;
  }

  segment(each, number) {
    const parts = each.parts.map(([start, stop, place]) => ({ start, stop, place, segment: number }));
    const colour = each.kind === "response" ? COLOURS[each.hue % COLOURS.length] : each.kind;
    const short = each.name.replace(/^prompts? /, "").replace(/^segment /, "");
    return { ...each, number, parts, colour, short, start: parts[0].start, stop: parts.at(-1).stop };
  }

  /** Which segment and part each token stands in, where each segment's subtree ends, what each token predicts. */
  index() {
    this.segmentOf = new Int32Array(this.tokens);
    this.partOf = new Int32Array(this.tokens);
    this.predicts = new Map();
    this.parts.forEach((part, number) => {
      part.number = number;
      this.segmentOf.fill(part.segment, part.start, part.stop);
      this.partOf.fill(number, part.start, part.stop);
    });
    for (const each of this.segments) each.end = each.stop;
    for (const each of [...this.segments].reverse()) {
      const parent = this.segments[each.parent];
      if (parent) parent.end = Math.max(parent.end, each.end);
      each.responses = this.responses.filter((response) => response.path.includes(each.number));
    }
    this.previous.forEach((before, token) => {
      if (before >= 0) this.predicts.set(before, [...(this.predicts.get(before) ?? []), token]);
    });
  }

  /** So many of what paths end in. */
  ends(number) {
    return this.words ? plural(number, "response") : plural(number, "leaf", "leaves");
  }

  at(token) {
    return this.segments[this.segmentOf[token]];
  }

  part(token) {
    return this.parts[this.partOf[token]];
  }

  colour(part) {
    return part.place >= 0 ? "image" : this.segments[part.segment].colour;
  }

  /** The text of a token; its id where nothing says how it is read; null of a forest alone. */
  text(token) {
    if (!this.words) return null;
    const [id, piece] = this.vocabulary[this.words[token]];
    return piece ?? String(id);
  }

  id(token) {
    return this.words ? this.vocabulary[this.words[token]][0] : null;
  }

  /** The rule by which the model attends, on the pack's own arrays. */
  isSeen(query, key) {
    if (key <= query && query < this.reach[key]) return true;
    return this.blocks[query] >= 0 && this.blocks[query] === this.blocks[key];
  }

  /** The same by the forest alone: a token's own path, and its stretch inside its segment. */
  isOnPath(query, key) {
    if (key <= query) return query < this.at(key).end;
    return this.blocks[query] >= 0 && this.blocks[query] === this.blocks[key] && this.at(query) === this.at(key);
  }

  /** What a token may attend to, as [start, stop) stretches. */
  sees(query) {
    const runs = [];
    for (let key = 0; key < this.tokens; key++) {
      if (!this.isSeen(query, key)) continue;
      if (runs.length && runs.at(-1)[1] === key) runs.at(-1)[1]++;
      else runs.push([key, key + 1]);
    }
    return runs;
  }

  /** Tokens that are seen and must not be. */
  leaked(query, runs) {
    if (!this.wrong.cells) return [];
    return runs.flatMap(([start, stop]) => {
      const keys = Array.from({ length: stop - start }, (_, step) => start + step);
      return keys.filter((key) => !this.isOnPath(query, key));
    });
  }

  weight(query, key) {
    return this.weights[query * this.tokens + key];
  }

  /** Neighbours that the same tokens see, in one part. */
  columns() {
    return stretches(this.tokens, (a, b) => this.reach[a] === this.reach[b] && this.partOf[a] === this.partOf[b]);
  }

  /** Pairs of neighbourhoods that see each other both ways: [query run, key run]. */
  bothWays() {
    const { blocks, partOf } = this;
    const runs = stretches(this.tokens, (a, b) => blocks[a] === blocks[b] && partOf[a] === partOf[b]);
    const byBlock = new Map();
    for (const run of runs) {
      const block = this.blocks[run[0]];
      if (block >= 0) byBlock.set(block, [...(byBlock.get(block) ?? []), run]);
    }
    return [...byBlock.values()].flatMap((same) => same.flatMap((query) => same.map((key) => [query, key])));
  }

  /** Where the pack's arrays say other than its forest: cells too many and too few, as rectangles, and how many. */
  findWrong() {
    const [leaks, holes] = [[], []];
    let missing = 0;
    for (const [start, stop] of this.columns()) {
      const end = this.at(start).end;
      if (this.reach[start] > end) leaks.push({ queries: [end, this.reach[start]], keys: [start, stop] });
      if (this.reach[start] >= end) continue;
      holes.push({ queries: [Math.max(start, this.reach[start]), end], keys: [start, stop] });
      for (let key = start; key < stop; key++) {
        for (let query = Math.max(key, this.reach[key]); query < end; query++) missing += !this.isSeen(query, key);
      }
    }
    const size = ({ queries, keys }) => (queries[1] - queries[0]) * (keys[1] - keys[0]);
    let cells = leaks.reduce((sum, each) => sum + size(each), 0);
    for (const [queries, keys] of this.bothWays()) {
      if (this.isOnPath(queries[0], keys[0])) continue;
      leaks.push({ queries, keys });
      for (let key = keys[0]; key < keys[1]; key++) {
        for (let query = queries[0]; query < queries[1]; query++) cells += !(key <= query && query < this.reach[key]);
      }
    }
    return { leaks, holes, missing, cells };
  }

  /** How many weights outside the mask are not exactly zero. */
  findOutside() {
    let found = 0;
    for (let query = 0; query < this.tokens; query++) {
      for (let key = 0; key < this.tokens; key++) found += this.isOutside(query, key);
    }
    return found;
  }

  /** Where no weight may be: not seen, or seen by a mask that is wrong. */
  isOutside(query, key) {
    return this.weight(query, key) > 0 && !(this.isSeen(query, key) && this.isOnPath(query, key));
  }
}
