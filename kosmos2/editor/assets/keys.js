// Every key in one table: it is what the page obeys, and what its help shows.

import { byId, make } from "./dom.js";
import { arrow, begin, cancel, marked, take } from "./pick.js";

const TYPING = "input:not([type=checkbox]), textarea, select";

/** Return groups of [keys, what they do, how]; a key that may not be meant gives `false` back. */
function table({ editor, list, stage, filters }) {
  const has = () => editor.chosen.entry !== null;
  const nudge = (x, y, resize = false) => () => has() && (stage.step(x, y, resize), true);
  const arrows = (by, resize) => ({ ArrowLeft: nudge(-by, 0, resize), ArrowRight: nudge(by, 0, resize),
    ArrowUp: nudge(0, -by, resize), ArrowDown: nudge(0, by, resize) });
  const named = (prefix, keys) => Object.fromEntries(
    Object.entries(keys).map(([key, run]) => [prefix + key, run]));
  const turn = step => () => {
    const boxes = editor.phrases.flatMap(phrase => phrase.entries.map(entry => [phrase.key, entry]));
    if (!boxes.length) return;
    const at = boxes.findIndex(([, entry]) => entry === editor.chosen.entry);
    editor.choose(...boxes[(at + step + boxes.length + (at < 0 && step < 0)) % boxes.length]);
  };
  const decide = async status => {
    const { place } = list;
    const made = editor.record.status === status || (await editor.decide(status));
    if (made && list.place === place) await list.go(place + 1);
  };
  const number = Object.fromEntries("123456789".split("").map((key, index) => [key, () => {
    const phrase = editor.phrases[index];
    if (!phrase) return;
    if (editor.pick) take(editor, phrase.span, true);
    else editor.choose(phrase.key);
  }]));
  return [
    ["Records", [
      ["j  ↓", "next record", { j: () => list.go(list.place + 1), ArrowDown: () => list.go(list.place + 1) }],
      ["k  ↑", "record before", { k: () => list.go(list.place - 1), ArrowUp: () => list.go(list.place - 1) }],
      ["a", "accept and go on", { a: () => decide("accepted") }],
      ["x", "reject and go on", { x: () => decide("rejected") }],
      ["/", "look for a phrase or id; #12 goes to record 12", { "/": () => byId("text").select() }],
      ["f", "all filters, and sorting", { f: () => { byId("more").open = !byId("more").open; } }],
      ["Shift+r", "ask for the list again", { "Shift+R": () => filters.ask(true) }],
    ]],
    ["Phrases and boxes", [
      ["1 … 9", "choose a phrase", number],
      ["n  Shift+n", "next box, box before", { n: turn(1), "Shift+N": turn(-1) }],
      ["drag", "draw a box for the chosen phrase or words; in a box: move it", {}],
      ["d", "draw over other boxes (as Shift+drag does)", { d: () => editor.setMode(editor.mode === "draw" ? "look" : "draw") }],
      ["Enter", "while drawing: a box in the middle", { Enter: () => editor.mode === "draw" && (stage.drawn(stage.snapped([0.35, 0.35, 0.65, 0.65])), true) }],
      ["← ↑ → ↓", "move the chosen box by a pixel; with Shift by ten", { ...arrows(1), ...named("Shift+", arrows(10)) }],
      ["Alt+← ↑ → ↓", "resize it at its lower right corner; with Shift by ten", { ...named("Alt+", arrows(1, true)), ...named("Alt+Shift+", arrows(10, true)) }],
      ["Del", "delete the chosen box, or phrase", { Delete: () => editor.remove(), Backspace: () => editor.remove() }],
      ["r", "re-link the chosen box to other words", { r: () => has() ? begin(editor, "relink", editor.chosen.entry) : editor.say("Choose a box first: click it, or press n.") }],
      ["s", "the chosen phrase is other words", { s: () => editor.chosen.phrase ? begin(editor, "respan") : editor.say("Choose a phrase first: click it, or press its number.") }],
      ["w", "choose words for a new phrase", { w: () => begin(editor, "new") }],
      ["e", "edit the caption; Enter saves, Esc cancels", { e: () => editor.setMode("caption") }],
      ["Esc", "choose nothing; cancel", { Escape: () => editor.mode === "draw" ? editor.setMode("look") : editor.choose(null) }],
    ]],
    ["Everything", [
      ["z  Ctrl+z", "undo, in this record", { z: () => editor.undo(), "Ctrl+z": () => editor.undo() }],
      ["y  Ctrl+y", "redo", { y: () => editor.redo(), "Ctrl+y": () => editor.redo(), "Ctrl+Shift+Z": () => editor.redo(), "Shift+Z": () => editor.redo() }],
      ["v", "the other view: noun chunks, expressions", { v: () => editor.setView(editor.view === "ref_exps" ? "noun_chunks" : "ref_exps") }],
      ["o", "show or hide the other store's boxes", { o: () => { editor.showOther = !editor.showOther; editor.tell("change"); } }],
      ["h", "hide and show all boxes", { h: () => stage.toggle() }],
      ["+  −  0", "larger, smaller, whole picture", { "+": () => stage.zoomBy(1), "=": () => stage.zoomBy(1), "-": () => stage.zoomBy(-1), 0: () => stage.zoomBy(0) }],
      ["?", "this help", { "?": () => byId("help").showModal() }],
    ]],
  ];
}

/** Keys while words are being picked; everything else is as always. */
function picking(editor, name) {
  const [, extend, step] = /^(Shift\+)?Arrow(Left|Right)$/.exec(name) ?? [];
  if (step) arrow(editor, step === "Left" ? -1 : 1, Boolean(extend));
  else if (name === "Enter") take(editor, marked(editor), false);
  else if (name === "Escape") cancel(editor);
  else return false;
  return true;
}

function nameOf(event) {
  const letter = event.key.length === 1;
  const shift = event.shiftKey && (!letter || /^\p{Lu}$/u.test(event.key));
  const control = event.ctrlKey || event.metaKey;
  return (control ? "Ctrl+" : "") + (event.altKey ? "Alt+" : "") + (shift ? "Shift+" : "") + event.key;
}

export function obeyKeys(parts) {
  const { editor } = parts;
  const groups = table(parts);
  const bound = Object.assign({}, ...groups.flatMap(([, rows]) => rows.map(([, , keys]) => keys)));
  // An arrow with a box chosen moves the box; without one it goes through the records.
  const first = Object.assign({}, ...groups[1][1].map(([, , keys]) => keys));
  const later = Object.assign({}, ...groups[0][1].map(([, , keys]) => keys));
  document.addEventListener("keydown", event => {
    if (event.isComposing || byId("help").open) return;
    if (event.target.matches(TYPING)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (!editor.record && !["/", "f", "?"].includes(event.key)) return;
    const name = nameOf(event);
    if (editor.pick && picking(editor, name)) return event.preventDefault();
    // Where the one that comes first is not meant (it gives `false` back), the other one is.
    const run = [first[name], later[name], bound[name]].filter(Boolean);
    if (run.some(each => each() !== false)) event.preventDefault();
  });
  showHelp(groups);
}

function showHelp(groups) {
  const help = byId("help");
  help.replaceChildren(
    make("h2", {}, "Keys", make("button", { type: "button", onclick: () => help.close() }, "Close")),
    make("div.groups", {}, ...groups.map(([title, rows]) => make("section", {}, make("h3", {}, title),
      make("dl", {}, ...rows.flatMap(([keys, what]) => [
        make("dt", {}, ...keys.split("  ").map(key => make("kbd", {}, key))), make("dd", {}, what)]))))),
    make("p", {}, "Every edit is on the disk before the next one. The store itself is written anew only by ",
      make("code", {}, "kosmos2 edit RECORDS --apply"), "."));
  help.addEventListener("click", event => event.target === help && help.close());
  byId("help-button").addEventListener("click", () => help.showModal());
}
