// The mask: rectangles and triangles on a canvas, queries in rows and keys in columns; never a cell for each pair.

const FAR = 0.5; // strength of what is seen of other segments, beside a segment's own triangle

class Mask extends Plot {
  constructor(model, colours) {
    super(model.tokens);
    this.model = model;
    this.colours = colours;
    this.shapes = this.findShapes();
    this.outside = this.findOutside();
    this.base = make("canvas");
    this.over = make("canvas");
    this.element = make("div", "mask", this.base, this.over);
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "img");
    const label = `Attention mask of ${model.tokens} tokens: rows look, columns are seen.`;
    this.element.setAttribute("aria-label", `${label} Plus and minus zoom, 0 fits, arrow keys move.`);
  }

  /** Each column run's triangle of own tokens, and the rectangle of those after it that see it all. */
  findShapes() {
    const { model } = this;
    const shapes = [];
    for (const [start, stop] of model.columns()) {
      const part = model.part(start);
      const reach = model.reach[start];
      const colour = model.colour(part);
      const own = Math.min(reach, Math.max(stop, model.at(start).stop));
      if (reach > start) shapes.push({ colour, own: true, triangle: true, keys: [start, Math.min(stop, reach)] });
      if (own > stop) shapes.push({ colour, own: true, queries: [stop, own], keys: [start, stop] });
      const after = Math.max(stop, own);
      if (reach > after) shapes.push({ colour, queries: [after, reach], keys: [start, stop] });
    }
    for (const [queries, keys] of model.bothWays()) {
      shapes.push({ colour: model.colour(model.part(keys[0])), own: true, queries, keys });
    }
    return shapes;
  }

  resize(width, ratio) {
    const side = Math.floor(width);
    for (const canvas of [this.base, this.over]) {
      canvas.width = canvas.height = Math.round(side * ratio);
      canvas.style.width = canvas.style.height = `${side}px`;
      canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    super.resize(width, ratio);
  }

  move(view) {
    super.move(view);
    this.element.classList.toggle("near", !this.isFit);
    this.draw();
  }

  draw() {
    if (!this.side) return;
    const pen = this.base.getContext("2d");
    pen.clearRect(0, 0, this.side, this.side);
    this.inPlot(pen, () => {
      pen.fillStyle = this.colours["mask"];
      pen.fillRect(GUTTER, GUTTER, this.plot, this.plot);
      for (const shape of this.shapes) if (!shape.own) this.fill(pen, shape);
      for (const shape of this.shapes) if (shape.own) this.fill(pen, shape);
      pen.globalAlpha = 1;
      if (this.model.weights) this.drawWeights(pen);
      this.drawLines(pen);
    });
    drawAxis(pen, this, true);
    drawAxis(pen, this, false);
    this.drawOver();
  }

  fill(pen, { colour, own, triangle, queries, keys }) {
    pen.fillStyle = this.colours[this.model.weights ? "weighed" : colour];
    pen.globalAlpha = own || this.model.weights ? 1 : FAR;
    if (triangle) {
      this.tracePath(pen, keys);
      pen.fill();
      return;
    }
    const [x, y] = [this.px(keys[0]), this.py(queries[0])];
    const hair = 1 / this.ratio; // a pixel of the screen: nothing is too small to be seen
    pen.fillRect(x, y, Math.max(this.px(keys[1]) - x, hair), Math.max(this.py(queries[1]) - y, hair));
  }

  /** Stairs where they can be seen, a straight edge where not. */
  tracePath(pen, [start, stop]) {
    const rows = this.plot / this.view.cell;
    pen.beginPath();
    pen.moveTo(this.px(start), this.py(start));
    if (this.view.cell < 1.5) {
      pen.lineTo(this.px(stop), this.py(stop));
    } else {
      const last = Math.min(stop, Math.ceil(this.view.y + rows) + 1);
      for (let token = Math.max(start, Math.floor(this.view.y) - 1); token < last; token++) {
        pen.lineTo(this.px(token + 1), this.py(token));
        pen.lineTo(this.px(token + 1), this.py(token + 1));
      }
      pen.lineTo(this.px(stop), this.py(stop));
    }
    pen.lineTo(this.px(start), this.py(stop));
  }

  /** Lines where segments begin, and between cells when they are large. */
  drawLines(pen) {
    const { cell } = this.view;
    pen.fillStyle = this.colours["line"];
    const every = cell >= 9 ? this.visible(this.view.y).concat(this.visible(this.view.x)) : [];
    for (const token of new Set(every)) this.cross(pen, token, 1 / this.ratio);
    const segments = this.model.segments.filter((each) => (each.stop - each.start) * cell >= 3);
    pen.fillStyle = this.colours["edge"];
    for (const each of segments) this.cross(pen, each.start, 1 / this.ratio);
  }

  cross(pen, token, thickness) {
    pen.fillRect(this.px(token), GUTTER, thickness, this.plot);
    pen.fillRect(GUTTER, this.py(token), this.plot, thickness);
  }

  /** A pixel for each weight, stretched over the plot; the stronger, the darker. */
  drawWeights(pen) {
    const { x, y, cell } = this.view;
    const side = this.tokens * cell;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(this.inked(), GUTTER - x * cell, GUTTER - y * cell, side, side);
  }

  inked() {
    const colour = this.colours["weight"];
    if (this.ink?.colour === colour) return this.ink.canvas;
    const canvas = make("canvas");
    canvas.width = canvas.height = this.tokens;
    const image = new ImageData(this.tokens, this.tokens);
    const pixels = new Uint32Array(image.data.buffer);
    const [red, green, blue] = rgb(colour);
    const paint = (blue << 16) | (green << 8) | red;
    this.model.weights.forEach((weight, at) => {
      const strength = weight ? Math.round(40 + 215 * Math.sqrt(weight / 255)) : 0;
      pixels[at] = (strength << 24) | paint;
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
    this.ink = { colour, canvas };
    return canvas;
  }

  /** Weights outside the mask, a cell each, but not more than can be told apart. */
  findOutside() {
    const found = [];
    const { tokens } = this.model;
    for (let query = 0; this.model.outside && query < tokens; query++) {
      for (let key = 0; key < tokens && found.length < 5000; key++) {
        if (this.model.isOutside(query, key)) found.push({ queries: [query, query + 1], keys: [key, key + 1] });
      }
    }
    return found;
  }

  drawOver() {
    const pen = this.over.getContext("2d");
    pen.clearRect(0, 0, this.side, this.side);
    if (!this.side) return;
    if (this.focus) drawAsked(pen, this, this.focus);
    this.inPlot(pen, () => drawWrong(pen, this));
  }
}

/** Any colour of CSS as red, green and blue bytes. */
function rgb(colour) {
  const pen = make("canvas").getContext("2d");
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data.slice(0, 3);
}
