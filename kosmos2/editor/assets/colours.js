// One colour for each phrase, the same wherever its words come again, and kept while it is edited.

import { keyOf, named } from "./text.js";

function hash(text) {
  let value = 2166136261;
  for (const letter of text) value = Math.imul(value ^ letter.codePointAt(0), 16777619) >>> 0;
  return value;
}

/**
 * Return a Map from span key to number of a colour. A phrase keeps the colour that it had in
 * `before` (a list of {key, words, boxes, colour}) where its words, its boxes or its place are
 * still there; a new one gets the colour of its words, or the next that is free.
 */
export function assigned(phrases, before, count) {
  const colours = new Map();
  const taken = new Set();
  const give = (phrase, colour) => {
    colours.set(phrase.key, colour);
    taken.add(colour);
  };
  const left = [...before];
  for (const same of [
    (phrase, old) => named(phrase.words) === named(old.words) && phrase.key === old.key,
    (phrase, old) => named(phrase.words) === named(old.words),
    (phrase, old) => phrase.boxes.some(box => old.boxes.includes(box)),
    (phrase, old) => phrase.key === old.key,
  ]) {
    for (const phrase of phrases) {
      if (colours.has(phrase.key)) continue;
      const found = left.findIndex(old => same(phrase, old) && !taken.has(old.colour));
      if (found >= 0) give(phrase, left.splice(found, 1)[0].colour);
    }
  }
  for (const phrase of phrases) {
    if (colours.has(phrase.key)) continue;
    const wished = hash(named(phrase.words)) % count;
    const order = Array.from({ length: count }, (_, step) => (wished + step) % count);
    give(phrase, order.find(colour => !taken.has(colour)) ?? wished);
  }
  return colours;
}

/** Return the phrases of a view's entries in the order of the caption, with their entries. */
export function phrasesOf(entries, wordsAt) {
  const phrases = new Map();
  entries.forEach(([start, end, ...rest], entry) => {
    const key = keyOf([start, end]);
    if (!phrases.has(key)) {
      phrases.set(key, { key, span: [start, end], words: wordsAt(start, end), entries: [], boxes: [] });
    }
    phrases.get(key).entries.push(entry);
    phrases.get(key).boxes.push(rest.slice(0, 4).join(" "));
  });
  return [...phrases.values()].sort((a, b) => a.span[0] - b.span[0] || a.span[1] - b.span[1]);
}
