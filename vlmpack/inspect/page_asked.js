// Over the mask: the row that is asked about, and above all else what is wrong.

/** The row of the token that is asked about, what it sees, and what predicts it. */
function drawAsked(pen, mask, { token, runs, previous, key }) {
  const height = Math.max(mask.view.cell, 4);
  const y = mask.py(token) - (height - mask.view.cell) / 2;
  mask.inPlot(pen, () => {
    pen.fillStyle = mask.colours["veil"];
    pen.fillRect(GUTTER, GUTTER, mask.plot, y - GUTTER);
    pen.fillRect(GUTTER, y + height, mask.plot, mask.side - y);
    drawRow(pen, mask, runs, y, height);
    if (previous >= 0) drawBox(pen, mask, previous, y, height, mask.colours["accent"]);
    if (key !== null) {
      pen.fillStyle = mask.colours["ink"];
      pen.fillRect(mask.px(key) + mask.view.cell / 2 - 0.5, GUTTER, 1, y - GUTTER);
      drawBox(pen, mask, key, y, height, mask.colours["ink"]);
    }
  });
  drawChip(pen, mask, String(token), y + height / 2);
}

function drawRow(pen, mask, runs, y, height) {
  pen.fillStyle = mask.colours["ink"];
  pen.fillRect(GUTTER, y - 1, mask.plot, 1);
  pen.fillRect(GUTTER, y + height, mask.plot, 1);
  if (mask.model.weights) return;
  const inset = height > 8 ? height / 4 : 0;
  for (const [start, stop] of runs) {
    pen.fillRect(mask.px(start), y + inset, Math.max(1, mask.px(stop) - mask.px(start)), height - 2 * inset);
  }
}

function drawBox(pen, mask, key, y, height, colour) {
  const width = Math.max(mask.view.cell, 4);
  pen.strokeStyle = colour;
  pen.lineWidth = 2;
  pen.strokeRect(mask.px(key) - (width - mask.view.cell) / 2, y, width, height);
}

function drawChip(pen, mask, name, at) {
  if (at < GUTTER || at > mask.side) return;
  pen.font = mask.colours["font"];
  const width = pen.measureText(name).width + 8;
  pen.fillStyle = mask.colours["surface"];
  const covered = mask.view.cell < LEGIBLE ? 11 : 8; // the name that stands there, and not its neighbours
  pen.fillRect(0, at - covered, GUTTER - BAND - 3, 2 * covered);
  pen.fillStyle = mask.colours["ink"];
  pen.beginPath();
  pen.roundRect(GUTTER - BAND - 3 - width, at - 8, width, 16, 3);
  pen.fill();
  pen.fillStyle = mask.colours["surface"];
  pen.textBaseline = "middle";
  pen.textAlign = "left";
  pen.fillText(name, GUTTER - BAND + 1 - width, at + 0.5);
}

/** Above all else and never too small to be seen: cells that must not be, and, dashed, cells that are missing. */
function drawWrong(pen, mask) {
  const { leaks, holes } = mask.model.wrong;
  pen.strokeStyle = mask.colours["leak-edge"];
  pen.fillStyle = mask.colours["leak"];
  pen.lineWidth = 2;
  for (const leak of [...leaks, ...mask.outside]) {
    pen.fillRect(...frame(mask, leak));
    pen.strokeRect(...frame(mask, leak));
  }
  pen.setLineDash([4, 3]);
  for (const hole of holes) pen.strokeRect(...frame(mask, hole));
  pen.setLineDash([]);
}

function frame(mask, { queries, keys }) {
  const [x, y] = [mask.px(keys[0]), mask.py(queries[0])];
  return [x, y, Math.max(4, mask.px(keys[1]) - x), Math.max(4, mask.py(queries[1]) - y)];
}
