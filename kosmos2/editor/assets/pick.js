// Choosing words: for a box that was drawn or is linked anew, for a phrase, or for a new phrase.
// By mouse (a phrase, or words selected in the caption), by number, or by arrow keys and Enter.

import { keyOf, wordsOf } from "./text.js";

const ASKS = {
  relink: "Whose box is this? Click a phrase, press its number, or select words.",
  draw: "Whose box is this? Click a phrase, press its number, or select words.",
  respan: "Which words is this phrase? Select them in the caption.",
  new: "Which words are a new phrase? Select them in the caption.",
};
const KEYS = "← → move over words, Shift extends, Enter takes them, Esc cancels.";

export const hintOf = pick => `${ASKS[pick.purpose]} ${KEYS}`;

export function begin(editor, purpose, box = null) {
  const words = wordsOf(editor.record.caption);
  const phrase = editor.phraseAt(editor.chosen.phrase);
  let from = null;
  let to = null;
  if (purpose === "respan" && phrase) {
    from = words.findIndex(([, end]) => end > phrase.span[0]);
    to = words.findLastIndex(([start]) => start < phrase.span[1]);
  }
  editor.mode = "look";
  editor.pick = { purpose, box, from, to };
  editor.tell("change");
}

export const cancel = editor => {
  editor.pick = null;
  editor.words = null;
  editor.tell("change");
};

/** Return the span that arrow keys have marked so far. */
export function marked(editor) {
  const { from, to } = editor.pick ?? {};
  if (from === null || from === undefined || from < 0) return editor.words;
  const words = wordsOf(editor.record.caption);
  return words[from] && words[to] ? [words[from][0], words[to][1]] : null;
}

export function arrow(editor, step, extend) {
  const pick = editor.pick;
  const last = wordsOf(editor.record.caption).length - 1;
  const inside = value => Math.min(last, Math.max(0, value));
  if (pick.from === null) {
    pick.from = pick.to = step > 0 ? 0 : last;
  } else if (extend) {
    pick.to = Math.max(pick.from, inside(pick.to + step));
  } else {
    pick.from = pick.to = inside((step > 0 ? pick.to : pick.from) + step);
  }
  editor.tell("change");
}

/** Take a span for what it was asked for; `isPhrase` where a phrase was chosen, not words. */
export function take(editor, span, isPhrase) {
  const pick = editor.pick;
  if (!span) return;
  editor.pick = null;
  if (!pick || pick.purpose === "new") {
    const known = editor.phraseAt(keyOf(span));
    editor.chosen = { phrase: known?.key ?? null, entry: null };
    editor.words = known ? null : span;
    editor.tell("change");
  } else if (pick.purpose === "respan") {
    const phrase = editor.phraseAt(editor.chosen.phrase);
    if (isPhrase || !phrase) editor.choose(keyOf(span));
    else editor.respan(phrase.span, span);
  } else if (pick.purpose === "relink") {
    editor.relink(pick.box, span);
  } else {
    editor.draw(span, pick.box);
  }
}
