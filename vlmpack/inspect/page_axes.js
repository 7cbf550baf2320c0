// The mask's axes: a coloured band of the segments, and their names or the tokens' own texts.

const BAND = 6; // pixels of a band
const LEGIBLE = 11; // pixels of a cell from which each token's text stands on the axes

/** Bands in the segments' colours; names beside them, or the tokens' own texts when there is room. */
function drawAxis(pen, mask, down) {
  const edge = GUTTER - BAND - 2;
  const place = down ? (token) => mask.py(token) : (token) => mask.px(token);
  pen.save();
  pen.beginPath();
  pen.rect(down ? 0 : GUTTER, down ? GUTTER : 0, down ? GUTTER : mask.plot + 1, down ? mask.plot + 1 : GUTTER);
  pen.clip();
  for (const part of mask.model.parts) {
    pen.fillStyle = mask.colours[mask.model.colour(part)];
    const [from, size] = [place(part.start), Math.max(1 / mask.ratio, place(part.stop) - place(part.start) - 1)];
    if (down) pen.fillRect(edge, from, BAND, size);
    else pen.fillRect(from, edge, size, BAND);
  }
  drawNames(pen, mask, down, place);
  pen.restore();
}

function drawNames(pen, mask, down, place) {
  pen.font = mask.view.cell >= LEGIBLE ? mask.colours["mono"] : mask.colours["font"];
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  pen.fillStyle = mask.colours["muted"];
  const written = [];
  for (const [start, stop, name] of namesOf(mask, down)) {
    const [from, to] = [Math.max(GUTTER, place(start)), Math.min(mask.side, place(stop))];
    const at = (from + to) / 2; // in the middle of what is in sight
    if (to - from < 2 || written.some((other) => Math.abs(other - at) < 11)) continue;
    written.push(at);
    write(pen, name, at, down);
  }
}

/** What to write on an axis, most telling first: images, responses, prompts, what is shared. */
function namesOf(mask, down) {
  const { model } = mask;
  const images = model.parts.filter((part) => part.place >= 0);
  const named = images.map((part) => [part.start, part.stop, `image ${model.images[part.place].image + 1}`]);
  if (mask.view.cell >= LEGIBLE && model.words) {
    const words = mask.visible(down ? mask.view.y : mask.view.x).filter((token) => model.part(token).place < 0);
    return [...named, ...words.map((token) => [token, token + 1, visible(model.text(token))])];
  }
  for (const kind of ["response", "prompt", "shared", "padding"]) {
    for (const each of model.segments) if (each.kind === kind) named.push([each.start, each.stop, each.short]);
  }
  return named;
}

function write(pen, name, at, down) {
  const room = GUTTER - BAND - 8;
  pen.save();
  pen.translate(down ? room + 3 : at, down ? at : room + 3);
  if (!down) pen.rotate(Math.PI / 2);
  pen.fillText(shortened(pen, name.trim(), room), 0, 0.5);
  pen.restore();
}

/** As much of a text as there is room for. */
function shortened(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  const letters = [...text];
  while (letters.length && pen.measureText(`${letters.join("")}…`).width > room) letters.pop();
  return `${letters.join("")}…`;
}
