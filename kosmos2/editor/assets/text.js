// Captions as characters. The server counts code points, JavaScript counts UTF-16 units: an emoji
// is one there and two here. All spans in this page are the server's.

export const characters = text => Array.from(text);

export const slice = (text, start, end) => characters(text).slice(start, end).join("");

/** Return the place in code points of an offset in UTF-16 units. */
export const place = (text, units) => characters(text.slice(0, units)).length;

/** Return the spans of all words, punctuation at their ends left out. */
export function wordsOf(text) {
  const found = [];
  for (const match of text.matchAll(/[\p{L}\p{N}](?:[^\s]*[\p{L}\p{N}])?/gu)) {
    found.push([place(text, match.index), place(text, match.index + match[0].length)]);
  }
  return found;
}

/** Return a span that begins and ends with whole words; null where it holds none. */
export function wholeWords(text, [start, end]) {
  const touched = wordsOf(text).filter(([from, to]) => from < end && start < to);
  return touched.length ? [touched[0][0], touched.at(-1)[1]] : null;
}

/** Return the words of a phrase as two records may share them: without capitals and article. */
export const named = words =>
  words.toLowerCase().trim().split(/\s+/).join(" ").replace(/^(a|an|the) /, "");

/** Return the span of words in a caption that has them too, else null. */
export function spanOf(caption, words) {
  const at = caption.toLowerCase().indexOf(words.toLowerCase());
  if (at < 0 || !words) return null;
  const start = place(caption, at);
  return [start, start + characters(words).length];
}

export const keyOf = ([start, end]) => `${start}-${end}`;
