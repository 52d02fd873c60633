// Beside the picture: every phrase with its boxes in numbers, the other store, what is decided.

import { byId, make, painted, refill } from "./dom.js";
import { begin, take } from "./pick.js";
import { slice, spanOf } from "./text.js";

const VIEWS = { noun_chunks: "Noun chunks", ref_exps: "Expressions" };
const KINDS = {
  moved: "another box", words: "other words", ours: "only here", theirs: "only there", same: "the same",
};

export class Panel {
  constructor(editor, stage) {
    this.editor = editor;
    this.stage = stage;
    editor.addEventListener("change", () => this.render());
    editor.addEventListener("light", () => this.light());
    byId("phrases").addEventListener("pointerover", event => {
      editor.light(event.target.closest("[data-phrase]")?.dataset.phrase ?? null);
    });
    byId("phrases").addEventListener("pointerleave", () => editor.light(null));
  }

  render() {
    const { editor } = this;
    const { record } = editor;
    if (!record) return;
    byId("record-id").textContent = record.id ?? record.image ?? `record ${record.number + 1}`;
    byId("record-head").dataset.shows = `${record.number}@${record.version}`;
    byId("record-status").textContent = record.status;
    byId("record-status").className = `badge ${record.status}`;
    byId("undo").disabled = !record.can_undo;
    byId("redo").disabled = !record.can_redo;
    this.views();
    refill(byId("phrases"), [...editor.phrases.map((phrase, index) => this.phrase(phrase, index)),
      ...this.newWords()]);
    this.other();
    const facts = Object.entries(record.facts);
    byId("facts").hidden = !facts.length;
    byId("fact-list").replaceChildren(...facts.flatMap(([name, value]) =>
      [make("dt", {}, name), make("dd", {}, value)]));
    this.light();
  }

  views() {
    const { editor } = this;
    const known = Object.keys(VIEWS).filter(view => editor.record[view] !== null);
    byId("view").hidden = known.length < 2;
    byId("view").replaceChildren(...known.map(view => make("button", {
      type: "button", "aria-pressed": String(view === editor.view),
      title: "Other view ( v )", onclick: () => editor.setView(view),
    }, VIEWS[view])));
  }

  phrase(phrase, index) {
    const { editor } = this;
    const item = make("li", { data: { phrase: phrase.key } },
      make("button.words", {
        type: "button", data: { key: `phrase-${phrase.key}` },
        onclick: () => (editor.pick ? take(editor, phrase.span, true) : editor.choose(phrase.key)),
      }, make("b.swatch", {}, index < 9 ? String(index + 1) : "•"), phrase.words),
      ...phrase.entries.map(entry => this.box(phrase, entry)));
    item.classList.toggle("chosen", editor.chosen.phrase === phrase.key);
    if (editor.chosen.phrase === phrase.key && editor.chosen.entry === null) {
      item.append(make("div.tools", {},
        this.tool("other words", "s", () => begin(editor, "respan")),
        this.tool("delete phrase", "Del", () => editor.remove())));
    }
    return painted(item, editor.paint(phrase));
  }

  box(phrase, entry) {
    const { editor } = this;
    const [width, height] = this.stage.pixels();
    const score = editor.entries[entry][6];
    const pixels = editor.corners(entry).map((corner, axis) => Math.round(corner * (axis % 2 ? height : width)));
    const chosen = editor.chosen.entry === entry;
    const told = score === null ? "no score" : `${(score * 100).toFixed(0)}%`;
    const row = make("div.numbers", {},
      make("button", {
        type: "button", title: "x0, y0, x1, y1 in pixels of the picture",
        data: { key: `numbers-${entry}` }, onclick: () => editor.choose(phrase.key, entry),
      }, make("span", {}, pixels.join("  ")), make("small", {}, told)));
    row.classList.toggle("chosen", chosen);
    if (chosen) {
      row.append(make("div.tools", {},
        this.tool("re-link", "r", () => begin(editor, "relink", entry)),
        this.tool("delete box", "Del", () => editor.remove())));
    }
    return row;
  }

  tool(name, key, onclick) {
    return make("button", { type: "button", onclick }, name, make("kbd", {}, key));
  }

  newWords() {
    const { words, record, pick } = this.editor;
    if (!words || pick) return [];
    return [make("li.new", {}, `“${slice(record.caption, ...words)}” has no box yet: drag one in the picture.`)];
  }

  // ----- the other store -----

  other() {
    const { editor } = this;
    const { other } = editor.record;
    byId("other").hidden = !editor.store.has_other;
    if (!editor.store.has_other) return;
    if (!other) {
      byId("other").replaceChildren(make("h2", {}, "The other store has no such record"));
      return;
    }
    const apart = other.pairs.filter(pair => pair.kind !== "same" || pair.iou < 0.98);
    const rows = apart.map(pair => this.pair(pair, other));
    const same = other.caption === editor.record.caption;
    byId("other").replaceChildren(
      make("h2", {}, `Other store: disagreement ${other.amount.toFixed(2)} `, make("kbd", { title: "show its boxes" }, "o")),
      same ? "" : make("p.caption", {}, other.caption),
      rows.length ? make("ul", {}, ...rows) : make("p", {}, "The same phrases, the same boxes."));
  }

  pair(pair, other) {
    const { editor } = this;
    const there = pair.theirs === null ? null : other[other.view][pair.theirs];
    const here = pair.ours === null ? null : editor.phraseOf(pair.ours);
    const words = there ? slice(other.caption, there[0], there[1]) : here?.words ?? "";
    const overlap = pair.ours === null || pair.theirs === null ? "" : ` · IoU ${pair.iou.toFixed(2)}`;
    const item = make("li", { data: here ? { phrase: here.key } : {} },
      make("span", {}, words), make("small", {}, `${KINDS[pair.kind]}${overlap}`));
    // Pairs are of the view that is shown at first; in the other one they would name other boxes.
    const canTake = there && (pair.kind !== "words" || this.spanHere(other, there));
    if (canTake && editor.view === editor.record.view) {
      item.append(make("button", { type: "button", onclick: () => this.takeOver(pair, other) }, "take"));
    }
    return here ? painted(item, editor.paint(here)) : item;
  }

  /** Do as the other store has it. */
  takeOver({ kind, ours, theirs }, other) {
    const { editor } = this;
    const there = other[other.view][theirs];
    const span = this.spanHere(other, there);
    const corners = there.slice(2, 6);
    if (kind === "same" || kind === "moved") editor.move(ours, corners);
    else if (kind === "words") editor.relink(ours, span);
    else if (span) editor.draw(span, corners, there[6]);
    else begin(editor, "draw", corners);
  }

  /** Return the span of a phrase of the other store in our caption, null where it has no such words. */
  spanHere(other, [start, end]) {
    const { caption } = this.editor.record;
    return caption === other.caption ? [start, end] : spanOf(caption, slice(other.caption, start, end));
  }

  light() {
    for (const element of document.querySelectorAll("aside [data-phrase]")) {
      element.classList.toggle("lit", element.dataset.phrase === this.editor.lit);
    }
  }
}
