// Puts the parts together: what is asked, by pointer, touch or keys, and all views of the answer.

class Inspector {
  constructor(model, root) {
    this.model = model;
    this.root = root;
    this.hovered = null; // what the pointer is at: { token, key, segment, part, element }
    this.focused = null; // what the keyboard is at
    this.pinned = null;
    this.tokens = new Tokens(model);
    this.lights = new Lights(this.tokens);
    this.card = new Card(model);
    this.colours = {};
    this.mask = new Mask(model, this.colours);
    this.lay();
    this.listenToTokens();
    this.listenToMask();
  }

  lay() {
    const { model, mask, card, tokens } = this;
    const ink = model.weights ? " · the stronger, the darker; without ink: exactly 0" : "";
    const axes = make("p", "axes", `rows look ↓ · columns are seen →${ink}`);
    const aside = make("div", "aside", this.tools(), mask.element, axes);
    this.body = make("div", "main", tokens.element, aside, card.element);
    this.root.append(...[header(model), alarm(model), this.body, card.live].filter(Boolean));
  }

  tools() {
    const button = (sign, name, does) => {
      const element = make("button", "tool", sign);
      element.type = "button";
      element.setAttribute("aria-label", name);
      element.title = name;
      element.addEventListener("click", does);
      return element;
    };
    const bar = make("div", "tools", make("span", "name", this.model.weights ? "attention weights" : "attention mask"));
    bar.append(
      button("−", "zoom out", () => this.mask.zoom(1 / 1.6)),
      button("+", "zoom in", () => this.mask.zoom(1.6)),
      button("fit", "fit the whole mask", () => this.mask.fit()),
    );
    return bar;
  }

  /** What is asked now: the pin before the pointer before the keyboard; beside a pin, the others ask about it. */
  get focus() {
    const asked = this.pinned ?? this.hovered ?? this.focused;
    if (!asked) return null;
    const beside = this.pinned ? this.hovered ?? this.focused : null;
    const other = beside ? beside.key ?? beside.token : asked.key ?? null;
    const runs = this.model.sees(asked.token);
    return {
      ...asked, runs, count: total(runs), pinned: Boolean(this.pinned),
      previous: this.model.previous[asked.token], key: this.pinned && other === asked.token ? null : other,
    };
  }

  update() {
    const focus = this.focus;
    this.lights.show(focus);
    this.mask.focus = focus;
    this.mask.drawOver();
    this.card.show(focus);
  }

  hover(asked) {
    const same = (a, b) => a === b || (a && b && a.token === b.token && a.key === b.key && a.element === b.element);
    if (same(asked, this.hovered)) return;
    this.hovered = asked;
    this.update();
  }

  pin(asked) {
    const again = this.pinned && asked && this.pinned.token === asked.token && this.pinned.segment === asked.segment;
    this.pinned = again ? null : asked;
    if (this.pinned) this.mask.reveal(this.pinned.token);
    this.update();
  }

  stopOf(event) {
    const element = event.target.closest?.(".token, .head, .tile");
    return element ? { ...element.stop, element } : null;
  }

  listenToTokens() {
    const { element } = this.tokens;
    element.addEventListener("pointerover", (event) => {
      const stop = this.stopOf(event);
      const isBetween = !stop && event.target.closest(".words, .cells");
      if (event.pointerType !== "touch" && !isBetween) this.hover(stop);
    });
    element.addEventListener("pointerleave", () => this.hover(null));
    element.addEventListener("focusin", (event) => this.focusOn(event));
    element.addEventListener("focusout", (event) => {
      if (element.contains(event.relatedTarget)) return; // it only moves on
      this.focused = null;
      this.update();
    });
    element.addEventListener("click", (event) => this.act(this.stopOf(event)));
    element.addEventListener("keydown", (event) => this.press(event));
  }

  focusOn(event) {
    const stop = this.stopOf(event);
    if (!stop) return;
    this.tokens.focus(stop.element);
    this.focused = stop.element.matches(":focus-visible") ? stop : null;
    if (this.focused && !this.pinned) this.mask.reveal(stop.token);
    this.update();
  }

  /** A click or Enter: an image opens or closes, all else is pinned. */
  act(stop) {
    if (!stop) return;
    if (stop.part === undefined) return this.pin(stop);
    this.tokens.toggle(this.model.parts[stop.part]);
    this.update();
  }

  press(event) {
    const stop = this.stopOf(event);
    if (!stop || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && this.pinned) this.pin(null);
    else if (event.key === "Enter" || event.key === " ") this.act(stop);
    else {
      const next = this.tokens.neighbour(stop.element, event.key);
      if (!next) return;
      this.hovered = null;
      this.tokens.focus(next);
    }
    event.preventDefault();
    event.stopPropagation();
  }

  listenToMask() {
    const { element } = this.mask;
    const point = (event) => {
      const box = element.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    this.listenToDrags(element, point);
    element.addEventListener("pointerleave", () => {
      this.isOver = false;
      this.hover(null);
    });
    element.addEventListener("wheel", (event) => this.wheel(event, point(event)), { passive: false });
    element.addEventListener("keydown", (event) => this.pressMask(event));
    element.addEventListener("dblclick", (event) => this.mask.zoom(2.5, ...point(event)));
  }

  /** A drag pans, a click asks; two fingers zoom. */
  listenToDrags(element, point) {
    const down = new Map();
    let moved = 0;
    element.addEventListener("pointerdown", (event) => {
      if (!down.size) moved = 0;
      down.set(event.pointerId, point(event));
      element.setPointerCapture(event.pointerId);
    });
    element.addEventListener("pointermove", (event) => {
      if (event.movementX || event.movementY) this.isOver = true; // a page that scrolls beneath it moves it by nothing
      const [from, to] = [down.get(event.pointerId), point(event)];
      if (!from) return this.hover(this.inMask(to));
      moved += Math.hypot(to[0] - from[0], to[1] - from[1]);
      if (down.size === 2) this.pinch([...down.entries()].find(([id]) => id !== event.pointerId)[1], from, to);
      else if (moved > 4) this.mask.pan(to[0] - from[0], to[1] - from[1]);
      down.set(event.pointerId, to);
    });
    const up = (event) => {
      if (!down.delete(event.pointerId) || event.type === "pointercancel" || down.size || moved > 4) return;
      const asked = this.inMask(point(event));
      this.pin(asked && { token: asked.token });
      if (this.pinned) this.tokens.reveal(this.pinned.token);
    };
    element.addEventListener("pointerup", up);
    element.addEventListener("pointercancel", up);
  }

  pinch(still, from, to) {
    const apart = (point) => Math.hypot(point[0] - still[0], point[1] - still[1]);
    this.mask.zoom(apart(to) / Math.max(1, apart(from)), (still[0] + to[0]) / 2, (still[1] + to[1]) / 2);
  }

  inMask([x, y]) {
    const cell = this.mask.cellAt(x, y);
    return cell && { token: cell.query, key: cell.key };
  }

  /** The wheel zooms once the pointer came here by itself; a page scrolled past the mask scrolls on. */
  wheel(event, [x, y]) {
    const isIdle = event.deltaY > 0 && this.mask.isFit;
    if (!event.ctrlKey && !event.metaKey && (!this.isOver || isIdle)) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 20 : 1;
    this.mask.zoom(Math.exp(Math.max(-60, Math.min(60, -event.deltaY * lines)) * 0.006), x, y);
    this.hover(this.inMask([x, y]));
  }

  pressMask(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = this.mask.plot / 8;
    const does = {
      "+": () => this.mask.zoom(1.6),
      "=": () => this.mask.zoom(1.6),
      "-": () => this.mask.zoom(1 / 1.6),
      0: () => this.mask.fit(),
      ArrowLeft: () => this.mask.pan(step, 0),
      ArrowRight: () => this.mask.pan(-step, 0),
      ArrowUp: () => this.mask.pan(0, step),
      ArrowDown: () => this.mask.pan(0, -step),
      Escape: () => this.pin(null),
    }[event.key];
    if (!does) return;
    does();
    event.preventDefault();
    event.stopPropagation();
  }

  /** As large as there is room, and as sharp as the screen; notebooks take outputs out of sight and put them back. */
  watchSize() {
    const fit = () => {
      const width = this.mask.element.clientWidth;
      this.followTheme();
      if (width) this.mask.resize(width, globalThis.devicePixelRatio || 1);
    };
    new ResizeObserver(fit).observe(this.mask.element);
    fit();
  }

  /** The document outlives its outputs: what watches it does not keep them. */
  watchTheme() {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const self = new WeakRef(this);
    const follow = () => {
      if (self.deref()) return self.deref().followTheme();
      watcher.disconnect();
      return system.removeEventListener("change", follow);
    };
    const watcher = new MutationObserver(follow);
    for (const each of [document.documentElement, document.body]) watcher.observe(each, { attributeFilter: THEMED });
    system.addEventListener("change", follow);
  }

  /** Light or dark as the surroundings are: their own word first, then the system's. */
  followTheme() {
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const theme = hostTheme() ?? (isDark ? "dark" : "light");
    if (!this.root.isConnected || this.root.dataset.theme === theme) return;
    this.root.dataset.theme = theme;
    const style = getComputedStyle(this.root);
    for (const name of COLOUR_NAMES) this.colours[name] = style.getPropertyValue(`--${name}`).trim();
    this.mask.draw();
  }
}

const THEMED = ["class", "theme", "data-jp-theme-light", "data-vscode-theme-kind"];
const COLOUR_NAMES = [
  "prompt", "shared", "padding", "image", ...COLOURS, "surface", "mask", "ink", "muted", "accent", "veil", "line",
  "edge", "leak", "leak-edge", "weight", "weighed", "font", "mono",
];

/** What Jupyter, VS Code or Colab say of their theme; null where nobody says anything. */
function hostTheme() {
  const { body, documentElement: html } = document;
  const jupyter = body.dataset.jpThemeLight ?? html.dataset.jpThemeLight;
  if (jupyter) return jupyter === "false" ? "dark" : "light";
  const code = body.dataset.vscodeThemeKind ?? body.className;
  if (/vscode-(high-contrast-)?light/.test(code)) return "light";
  if (/vscode-(dark|high-contrast)/.test(code)) return "dark";
  const colab = html.getAttribute("theme");
  return colab === "dark" || colab === "light" ? colab : null;
}

/** The element just before the script; where that is not known, the first of its own that is still empty. */
function ownElement(name) {
  const before = document.currentScript?.previousElementSibling;
  if (before?.dataset.vlmpack === name) return before;
  return [...document.querySelectorAll(`[data-vlmpack="${name}"]`)].find((each) => !each.shadowRoot);
}

/** All is built before anything is replaced: where a browser is too old, the plain text stays. */
function start(name, data) {
  const host = ownElement(name);
  if (!host || host.shadowRoot) return;
  const root = make("div", "inspector");
  const inspector = new Inspector(new Model(data), root);
  if (document.body.dataset.vlmpackPage !== undefined) root.classList.add("whole");
  host.attachShadow({ mode: "open" }).append(make("style", "", STYLES), root);
  inspector.watchTheme();
  inspector.watchSize();
}
