// The picture and its boxes: pointed at, moved, resized and drawn.
//
// Boxes are plain elements over an <img>, and pointer events move them. A canvas library (Konva)
// would hide them from the keyboard, from readers of the screen and from tests; an annotation
// library (Annotorious) brings a model and an undo of its own, which would compete with the
// journal's. Rectangles are all there is to draw, so neither would pay for its weight.

import { picture } from "./api.js";
import { byId, make, painted, refill } from "./dom.js";
import { begin } from "./pick.js";
import { slice } from "./text.js";

const DIRECTIONS = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const CLICK = 4; // pixels of the screen that a click may move
const LEAST = 2; // pixels of the picture, of a box's side
const ZOOMS = [1, 1.5, 2, 3, 4, 6];

const clamp = value => Math.min(1, Math.max(0, value));

export class Stage {
  constructor(editor) {
    this.editor = editor;
    this.zoom = 1;
    this.size = [4, 3];
    this.drag = null;
    this.hidden = false;
    this.stage = byId("stage");
    this.image = byId("picture");
    editor.addEventListener("open", () => this.show());
    editor.addEventListener("change", () => this.render());
    editor.addEventListener("light", () => this.light());
    this.image.addEventListener("load", () => this.fit());
    this.image.addEventListener("error", () => this.missing());
    new ResizeObserver(() => this.fit()).observe(byId("scroll"));
    this.stage.addEventListener("pointerdown", event => this.down(event));
    this.stage.addEventListener("pointermove", event => this.over(event));
    this.stage.addEventListener("pointerup", event => this.up(event));
    this.stage.addEventListener("pointercancel", () => this.cancel());
    this.stage.addEventListener("pointerover", event => this.point(event));
    this.stage.addEventListener("pointerleave", () => editor.light(null));
  }

  show() {
    const { record, store } = this.editor;
    byId("no-picture").hidden = true;
    this.image.hidden = false;
    this.image.alt = record.caption;
    this.image.src = picture(record.number, store.token);
    this.zoom = 1;
    this.fit();
  }

  missing() {
    const { record } = this.editor;
    this.image.hidden = true;
    byId("no-picture").hidden = false;
    byId("no-picture").textContent =
      `No picture can be shown here: ${record.image ?? record.facts.url ?? "none is named"}`;
    this.fit();
  }

  /** Return width and height of the picture in its own pixels. */
  pixels() {
    const { width, height } = this.editor.record ?? {};
    const { naturalWidth, naturalHeight } = this.image;
    if (width && height) return [width, height];
    return naturalWidth ? [naturalWidth, naturalHeight] : [1000, 750];
  }

  fit() {
    const { naturalWidth, naturalHeight, hidden } = this.image;
    const [width, height] = !hidden && naturalWidth ? [naturalWidth, naturalHeight] : this.pixels();
    const room = byId("scroll");
    const scale = Math.min((room.clientWidth - 24) / width, (room.clientHeight - 24) / height);
    this.stage.style.width = `${Math.max(80, width * scale * this.zoom)}px`;
    this.stage.style.height = `${Math.max(60, height * scale * this.zoom)}px`;
  }

  zoomBy(step) {
    const place = ZOOMS.indexOf(this.zoom) + step;
    this.zoom = step === 0 ? 1 : ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, place))];
    this.fit();
    this.stage.querySelector(".box.chosen")?.scrollIntoView({ block: "center", inline: "center" });
  }

  toggle() {
    this.hidden = !this.hidden;
    this.stage.classList.toggle("bare", this.hidden);
  }

  // ----- what is seen -----

  render() {
    const { editor } = this;
    if (!editor.record) return;
    this.stage.classList.toggle("drawing", editor.mode === "draw");
    const byArea = editor.entries.map((_, entry) => entry).sort((a, b) => this.area(b) - this.area(a));
    const boxes = editor.entries.map((_, entry) => this.box(entry, byArea.indexOf(entry)));
    refill(byId("boxes"), [...boxes, ...this.pending()]);
    refill(byId("ghosts"), editor.showOther ? this.ghosts() : []);
    const { entry } = editor.chosen;
    refill(byId("handles"), entry === null ? [] : this.handles(entry));
    this.light();
  }

  area(entry) {
    const [x0, y0, x1, y1] = this.editor.corners(entry);
    return (x1 - x0) * (y1 - y0);
  }

  box(entry, rank) {
    const { editor } = this;
    const phrase = editor.phraseOf(entry);
    const corners = editor.corners(entry);
    const score = editor.entries[entry][6];
    const told = score === null ? phrase.words : `${phrase.words} ${Math.round(score * 100)}%`;
    const label = make("span.label", {}, told);
    label.classList.toggle("under", corners[1] < 0.09);
    label.classList.toggle("from-right", corners[0] + corners[2] > 1);
    const box = make("div.box", {
      role: "button", tabindex: 0, "aria-label": told,
      data: { entry, phrase: phrase.key, key: `box-${entry}` },
      onfocus: () => editor.light(phrase.key),
      onblur: () => editor.light(null),
      onkeydown: event => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        editor.choose(phrase.key, entry);
      },
    }, label);
    box.classList.toggle("chosen", editor.chosen.entry === entry);
    box.style.zIndex = rank + 1;
    return painted(this.placed(box, corners), editor.paint(phrase));
  }

  placed(element, [x0, y0, x1, y1]) {
    element.style.left = `${x0 * 100}%`;
    element.style.top = `${y0 * 100}%`;
    element.style.width = `${(x1 - x0) * 100}%`;
    element.style.height = `${(y1 - y0) * 100}%`;
    return element;
  }

  pending() {
    const waiting = this.drag?.drawn ?? (this.editor.pick?.purpose === "draw" && this.editor.pick.box);
    return waiting ? [this.placed(make("div.pending"), waiting)] : [];
  }

  ghosts() {
    const { record, view } = this.editor;
    const { other } = record;
    const pairs = (other?.pairs ?? []).filter(pair => pair.theirs !== null && pair.iou < 0.98);
    return pairs.map(({ kind, ours, theirs }) => {
      const [start, end, ...corners] = other[other.view][theirs];
      const words = slice(other.caption, start, end);
      const says = kind === "words" || kind === "theirs"; // else it has the words of ours
      const label = says ? make("span.label", {}, `${words} (other)`) : null;
      const ghost = make("div.ghost", { data: { theirs } }, label);
      const phrase = ours === null || view !== record.view ? null : this.editor.phraseOf(ours);
      if (phrase) painted(ghost, this.editor.paint(phrase));
      return this.placed(ghost, corners);
    });
  }

  handles(entry) {
    const [x0, y0, x1, y1] = this.editor.corners(entry);
    const phrase = this.editor.phraseOf(entry);
    return DIRECTIONS.map(direction => {
      const handle = make(`div.handle.${direction}`, { data: { direction } });
      const across = direction.includes("w") ? x0 : direction.includes("e") ? x1 : (x0 + x1) / 2;
      const down = direction.includes("n") ? y0 : direction.includes("s") ? y1 : (y0 + y1) / 2;
      handle.style.left = `${across * 100}%`;
      handle.style.top = `${down * 100}%`;
      return painted(handle, this.editor.paint(phrase));
    });
  }

  light() {
    const lit = this.editor.lit ?? (this.editor.chosen.entry === null ? this.editor.chosen.phrase : null);
    this.stage.classList.toggle("pointing", lit !== null);
    for (const box of byId("boxes").children) {
      box.classList.toggle("lit", lit !== null && box.dataset.phrase === lit);
    }
  }

  point(event) {
    if (this.drag) return;
    this.editor.light(event.target.closest(".box")?.dataset.phrase ?? null);
  }

  // ----- the hand -----

  at(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [clamp((event.clientX - left) / width), clamp((event.clientY - top) / height)];
  }

  snapped(corners) {
    const [width, height] = this.pixels();
    return corners.map((corner, axis) => {
      const side = axis % 2 ? height : width;
      return clamp(Math.round(corner * side) / side);
    });
  }

  down(event) {
    const { editor } = this;
    if (event.button !== 0 || !editor.record || editor.mode === "caption") return;
    event.preventDefault();
    document.activeElement?.blur();
    this.stage.setPointerCapture(event.pointerId);
    const from = this.at(event);
    const screen = [event.clientX, event.clientY];
    const { direction } = event.target.dataset;
    const box = event.target.closest(".box");
    const free = editor.mode === "draw" || event.shiftKey;
    if (direction && !free) {
      const entry = editor.chosen.entry;
      this.drag = { kind: "resize", entry, direction, from, screen, corners: editor.corners(entry) };
    } else if (box && !free) {
      const entry = Number(box.dataset.entry);
      if (editor.pick?.purpose !== "draw") {
        const phrase = editor.phraseOf(entry);
        if (editor.chosen.entry !== entry) editor.pick = null;
        editor.choose(phrase.key, entry);
      }
      this.drag = { kind: "move", entry, from, screen, corners: editor.corners(entry) };
    } else {
      this.drag = { kind: "draw", from, screen };
    }
  }

  over(event) {
    const { drag, editor } = this;
    if (!drag) return;
    const [x, y] = [event.clientX - drag.screen[0], event.clientY - drag.screen[1]];
    drag.far ||= Math.hypot(x, y) >= CLICK;
    if (!drag.far) return;
    const to = this.at(event);
    if (drag.kind === "draw") {
      const [xs, ys] = [[drag.from[0], to[0]], [drag.from[1], to[1]]].map(side => side.sort((a, b) => a - b));
      drag.drawn = this.snapped([xs[0], ys[0], xs[1], ys[1]]);
      refill(byId("boxes"), [...byId("boxes").querySelectorAll(".box"), ...this.pending()]);
      return;
    }
    const change = drag.kind === "move" ? this.moved(drag, to) : this.resized(drag, to);
    drag.result = this.snapped(change);
    editor.draft = { entry: drag.entry, corners: drag.result };
    this.render();
  }

  moved({ corners: [x0, y0, x1, y1], from }, to) {
    const x = Math.min(1 - x1, Math.max(-x0, to[0] - from[0]));
    const y = Math.min(1 - y1, Math.max(-y0, to[1] - from[1]));
    return [x0 + x, y0 + y, x1 + x, y1 + y];
  }

  resized({ corners, direction, from }, to) {
    const [width, height] = this.pixels();
    let [x0, y0, x1, y1] = corners;
    const [x, y] = [to[0] - from[0], to[1] - from[1]];
    if (direction.includes("w")) x0 = Math.min(clamp(x0 + x), x1 - LEAST / width);
    if (direction.includes("e")) x1 = Math.max(clamp(x1 + x), x0 + LEAST / width);
    if (direction.includes("n")) y0 = Math.min(clamp(y0 + y), y1 - LEAST / height);
    if (direction.includes("s")) y1 = Math.max(clamp(y1 + y), y0 + LEAST / height);
    return [x0, y0, x1, y1];
  }

  up() {
    const { drag, editor } = this;
    this.drag = null;
    if (!drag) return;
    if (drag.kind === "draw") {
      if (drag.far) this.drawn(drag.drawn);
      else if (!editor.pick) editor.choose(null);
      return;
    }
    if (drag.result) editor.move(drag.entry, drag.result);
  }

  cancel() {
    this.drag = null;
    this.editor.draft = null;
    this.render();
  }

  /** Give a drawn box to the chosen words or phrase, or ask whose it is. */
  drawn(corners) {
    const { editor } = this;
    const [width, height] = this.pixels();
    if ((corners[2] - corners[0]) * width < LEAST || (corners[3] - corners[1]) * height < LEAST) {
      this.render();
      return;
    }
    if (editor.mode === "draw") editor.mode = "look";
    const span = editor.words ?? editor.phraseAt(editor.chosen.phrase)?.span;
    if (span) editor.draw(span, corners);
    else begin(editor, "draw", corners);
  }

  /** Move the chosen box, or its lower right corner, by whole pixels of the picture. */
  step(x, y, resize) {
    const { entry } = this.editor.chosen;
    const [width, height] = this.pixels();
    const corners = this.editor.corners(entry);
    const drag = { corners, direction: "se", from: [0, 0] };
    const to = [x / width, y / height];
    this.editor.nudge(entry, this.snapped(resize ? this.resized(drag, to) : this.moved(drag, to)));
  }
}
