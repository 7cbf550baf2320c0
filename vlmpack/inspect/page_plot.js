// Which cutout of the mask is in sight, and where its cells are in pixels.

const GUTTER = 64; // pixels for names on both axes
const CLOSEST = 44; // pixels of a cell, at most

class Plot {
  constructor(tokens) {
    this.tokens = tokens;
    this.view = { cell: 0, x: 0, y: 0 };
    this.side = 0;
    this.isFit = true;
    this.focus = null; // what is asked
  }

  resize(width, ratio) {
    this.side = Math.floor(width);
    this.plot = this.side - GUTTER - 1;
    this.ratio = ratio;
    this.move(this.isFit ? { cell: 0, x: 0, y: 0 } : this.view);
  }

  /** Pixels of a cell when all of them are in sight. */
  get fitting() {
    return this.plot / this.tokens;
  }

  /** Shows another cutout, as near and as far as makes sense. */
  move({ cell, x, y }) {
    const near = Math.max(CLOSEST, this.fitting);
    this.view.cell = Math.min(near, Math.max(this.fitting, cell));
    const most = this.tokens - this.plot / this.view.cell;
    this.view.x = Math.min(Math.max(0, x), Math.max(0, most));
    this.view.y = Math.min(Math.max(0, y), Math.max(0, most));
    this.isFit = this.view.cell <= this.fitting * 1.0001;
  }

  /** Zooms around a point of the element, which stays where it is; without one around the token that is asked about. */
  zoom(factor, px = this.anchor((token) => this.px(token)), py = this.anchor((token) => this.py(token))) {
    const { cell, x, y } = this.view;
    const next = Math.min(Math.max(CLOSEST, this.fitting), Math.max(this.fitting, cell * factor));
    const shift = (at) => Math.max(0, at - GUTTER) * (1 / cell - 1 / next);
    this.move({ cell: next, x: x + shift(px), y: y + shift(py) });
  }

  anchor(placeOf) {
    const place = this.focus ? placeOf(this.focus.token) : 0;
    return place >= GUTTER && place <= this.side ? place : GUTTER + this.plot / 2;
  }

  pan(dx, dy) {
    this.move({ cell: this.view.cell, x: this.view.x - dx / this.view.cell, y: this.view.y - dy / this.view.cell });
  }

  fit() {
    this.move({ cell: 0, x: 0, y: 0 });
  }

  /** Brings a row into sight. */
  reveal(query) {
    const rows = this.plot / this.view.cell;
    if (query >= this.view.y && query + 1 <= this.view.y + rows) return;
    this.move({ ...this.view, y: query - rows / 2 });
  }

  /** The cell at a point of the element; null outside the plot. */
  cellAt(px, py) {
    if (px < GUTTER && py < GUTTER) return null;
    const at = (p, from) => Math.floor(from + (Math.max(p, GUTTER) - GUTTER) / this.view.cell);
    const cell = { query: at(py, this.view.y), key: px < GUTTER ? null : at(px, this.view.x) };
    const last = this.tokens - 1;
    return py < GUTTER || cell.query > last || cell.key > last ? null : cell;
  }

  /** On a whole pixel of the screen, so that neighbours neither overlap nor gape. */
  snap(pixels) {
    return Math.round(pixels * this.ratio) / this.ratio;
  }

  /** Left edge of a token's column. */
  px(token) {
    return this.snap(GUTTER + (token - this.view.x) * this.view.cell);
  }

  /** Upper edge of a token's row. */
  py(token) {
    return this.snap(GUTTER + (token - this.view.y) * this.view.cell);
  }

  /** Draws what may not reach beyond the cells. */
  inPlot(pen, draw) {
    pen.save();
    pen.beginPath();
    pen.rect(GUTTER, GUTTER, this.plot + 1, this.plot + 1);
    pen.clip();
    draw();
    pen.restore();
  }

  /** Tokens in sight along an axis that begins at `from`. */
  visible(from) {
    const last = Math.min(this.tokens, Math.ceil(from + this.plot / this.view.cell));
    return Array.from({ length: Math.max(0, last - Math.floor(from)) }, (_, step) => Math.floor(from) + step);
  }
}
