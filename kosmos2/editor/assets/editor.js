// The record that is open: what it is, what of it is chosen, and every edit on its way to the server.
//
// Events: "open" (another record), "change" (the record, what is chosen, or the mode), "light" (what
// the pointer is on), "told" (something to say; detail: {text, tone, action, label}).

import { get, post } from "./api.js";
import { assigned, phrasesOf } from "./colours.js";
import { keyOf, slice } from "./text.js";

const IDLE = 400; // milliseconds after the last arrow key, until a nudged box is saved

/** Return whether an edit, if it is of a box, means the same box in both states of a record. */
function isOfSameBox({ view, entry }, before, after) {
  if (entry === undefined) return true;
  const box = record => JSON.stringify(record[view]?.[entry]?.slice(0, 6));
  return box(before) === box(after);
}

export class Editor extends EventTarget {
  constructor(store) {
    super();
    this.store = store;
    this.record = null;
    this.view = "ref_exps";
    this.phrases = [];
    this.chosen = { phrase: null, entry: null };
    this.lit = null; // key of a phrase
    this.words = null; // a span that is no phrase yet: the next box drawn is its
    this.pick = null; // {purpose: "relink" | "respan" | "draw" | "new", box, from, to}
    this.mode = "look"; // or "draw", "caption"
    this.draft = null; // {entry, corners} of a box that is being moved
    this.showOther = true;
    this.sending = Promise.resolve();
    this.opening = 0;
  }

  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  say(text, tone = "plain", label = "", action = null) {
    this.tell("told", { text, tone, label, action });
  }

  async open(number) {
    await this.settle();
    const turn = ++this.opening;
    let record = await get(`/api/records/${number}`);
    await this.settle(); // what was done while it came is of the record before
    if (turn !== this.opening) return; // somebody has gone on meanwhile
    if (record.number === this.record?.number && record.version < this.record.version) record = this.record;
    this.phrases = [];
    this.view = record.view;
    this.mode = "look";
    this.draft = null;
    this.forget();
    this.take(record);
    this.tell("open");
    this.tell("change");
  }

  /** Let go of what is chosen. */
  forget() {
    this.chosen = { phrase: null, entry: null };
    this.words = this.pick = this.lit = null;
  }

  take(record) {
    this.record = record;
    const now = phrasesOf(this.entries, (start, end) => slice(record.caption, start, end));
    const colours = assigned(now, this.phrases, this.store.palette.length);
    this.phrases = now.map(phrase => ({ ...phrase, colour: colours.get(phrase.key) }));
  }

  get entries() {
    return this.record?.[this.view] ?? [];
  }

  phraseAt(key) {
    return this.phrases.find(phrase => phrase.key === key) ?? null;
  }

  phraseOf(entry) {
    return this.phrases.find(phrase => phrase.entries.includes(entry)) ?? null;
  }

  paint(phrase) {
    return this.store.palette[phrase.colour];
  }

  /** Return the corners of a box as it is shown: where it is being moved to, else where it is. */
  corners(entry) {
    return this.draft?.entry === entry ? this.draft.corners : this.entries[entry].slice(2, 6);
  }

  choose(phrase, entry = null) {
    if (entry !== this.chosen.entry) this.settle();
    this.chosen = { phrase, entry };
    this.words = null;
    this.tell("change");
  }

  light(key) {
    if (this.lit === key) return;
    this.lit = key;
    this.tell("light");
  }

  setView(view) {
    if (this.record[view] === null || view === this.view) return;
    this.settle();
    this.view = view;
    this.forget();
    this.take(this.record);
    this.tell("change");
  }

  setMode(mode) {
    this.mode = mode;
    if (mode !== "look") this.pick = null;
    this.tell("change");
  }

  // ----- edits -----

  /** Send one edit after those before it; return whether it was made. */
  edit(edit) {
    const made = this.sending.then(() => this.send(edit));
    this.sending = made.catch(() => {});
    return made;
  }

  async send(edit, number = this.record.number, version = this.record.version) {
    try {
      const { record, statuses } = await post(`/api/records/${number}/edits`, { version, edit });
      this.accept(record, statuses, number);
      return true;
    } catch (refused) {
      if (this.draft?.sent) this.draft = null;
      if (refused.status === 409) {
        const canBe = isOfSameBox(edit, this.record, refused.body.record);
        this.accept(refused.body.record, null, number);
        const again = canBe ? () => this.edit(edit) : null;
        this.say("This record was changed in another window, and is shown as it is now. Your last " +
          "edit was not made" + (canBe ? "." : ": its box is another one now."),
          "warn", "Make it now", again);
      } else {
        const again = refused.status ? null : () => this.edit(edit);
        this.say(`Not saved: ${refused.message}`, "bad", again ? "Try again" : "", again);
        this.tell("change");
      }
      return false;
    }
  }

  accept(record, statuses, number) {
    if (statuses) this.store.statuses = statuses;
    if (this.draft?.sent) this.draft = null; // else a hand is moving the next one
    if (this.record.number === number) {
      this.take(record);
      this.keepChosen();
    }
    this.tell("saved", record);
    this.tell("change");
  }

  /** Choose nothing that is not there any more. */
  keepChosen() {
    const { phrase, entry } = this.chosen;
    if (entry !== null && entry >= this.entries.length) this.chosen.entry = null;
    const owner = this.chosen.entry !== null ? this.phraseOf(this.chosen.entry) : null;
    if (owner) this.chosen.phrase = owner.key;
    else if (!this.phraseAt(phrase)) this.chosen.phrase = null;
    if (this.words && this.words[1] > [...this.record.caption].length) this.words = null;
  }

  /** Move a box by hand or key; it is saved when it has come to rest. */
  nudge(entry, corners) {
    this.draft = { entry, corners };
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.settle(), IDLE);
    this.tell("change");
  }

  /** Save what is still on its way; return when the server has all of it. */
  async settle() {
    clearTimeout(this.resting);
    const draft = this.draft;
    this.resting = null;
    if (draft && !draft.sent) {
      draft.sent = true;
      this.edit({ kind: "move", view: this.view, entry: draft.entry, corners: draft.corners });
    }
    await this.sending;
  }

  move(entry, corners) {
    this.draft = { entry, corners };
    return this.settle();
  }

  async draw(span, corners, score = null) {
    await this.settle();
    const made = await this.edit({ kind: "draw", view: this.view, span, corners, score });
    if (made) this.choose(this.phraseOf(this.entries.length - 1)?.key, this.entries.length - 1);
  }

  async remove() {
    await this.settle();
    const { phrase, entry } = this.chosen;
    if (entry !== null) return this.edit({ kind: "delete", view: this.view, entry });
    const chosen = this.phraseAt(phrase);
    if (chosen) return this.edit({ kind: "drop_phrase", view: this.view, span: chosen.span });
    this.say("Choose a box or a phrase first.");
  }

  async relink(entry, span) {
    await this.settle();
    const made = await this.edit({ kind: "relink", view: this.view, entry, span });
    if (made) this.choose(this.phraseOf(entry)?.key ?? null, entry);
  }

  async respan(old, span) {
    await this.settle();
    const made = await this.edit({ kind: "respan", view: this.view, old, new: span });
    if (made) this.choose(this.phrases.find(each => each.key === keyOf(span))?.key ?? null);
  }

  async reword(caption) {
    const before = this.entries.length;
    const made = await this.edit({ kind: "reword", caption });
    const gone = before - this.entries.length;
    if (made && gone > 0) {
      this.say(`${gone} box${gone > 1 ? "es" : ""} went with the words that are gone.`, "warn",
        "Undo", () => this.undo());
    }
  }

  async undo() {
    await this.settle();
    if (this.record.can_undo) return this.edit({ kind: "undo" });
    this.say("Nothing to undo in this record.");
  }

  async redo() {
    await this.settle();
    if (this.record.can_redo) return this.edit({ kind: "redo" });
    this.say("Nothing to redo in this record.");
  }

  async decide(status) {
    await this.settle();
    return this.edit({ kind: "decide", status });
  }
}
