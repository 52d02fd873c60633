// The caption with its phrases: pointed at, chosen, selected for new words, edited.

import { byId, make, painted, refill } from "./dom.js";
import { marked, take } from "./pick.js";
import { characters, place, wholeWords } from "./text.js";

export class Caption {
  constructor(editor) {
    this.editor = editor;
    this.text = byId("caption");
    this.area = byId("caption-edit");
    editor.addEventListener("change", () => this.render());
    editor.addEventListener("light", () => this.light());
    this.text.addEventListener("pointerover", event => editor.light(this.keyAt(event.target)));
    this.text.addEventListener("pointerleave", () => editor.light(null));
    this.text.addEventListener("click", event => this.click(event));
    document.addEventListener("pointerup", () => setTimeout(() => this.selected()));
    this.area.addEventListener("keydown", event => this.key(event));
  }

  keyAt(target) {
    return target.closest?.("[data-phrase]")?.dataset.phrase ?? null;
  }

  render() {
    const { record, phrases, mode } = this.editor;
    if (!record) return;
    const editing = mode === "caption";
    if (editing && this.area.hidden) this.begin();
    this.area.hidden = !editing;
    this.text.hidden = editing;
    const letters = characters(record.caption);
    const words = marked(this.editor);
    const spans = [...phrases.map(phrase => phrase.span), ...(words ? [words] : [])];
    const borders = [...new Set([0, letters.length, ...spans.flat()])].sort((a, b) => a - b);
    const reached = new Set();
    const runs = borders.slice(1).map((end, index) => {
      const start = borders[index];
      const run = this.run(letters.slice(start, end).join(""), start, end, reached);
      run.classList.toggle("marked", words !== null && words[0] <= start && end <= words[1]);
      return run;
    });
    refill(this.text, runs);
    this.light();
  }

  /** Return a piece of the caption that the same phrases cover, the shortest first. */
  run(words, start, end, reached) {
    const { editor } = this;
    const covering = editor.phrases
      .filter(({ span }) => span[0] <= start && end <= span[1])
      .sort((a, b) => a.span[1] - a.span[0] - (b.span[1] - b.span[0]));
    const run = make("span.run", { data: { start } }, words);
    if (!covering.length) return run;
    const [phrase] = covering;
    run.classList.add("phrase");
    run.dataset.phrase = phrase.key;
    run.dataset.covering = covering.map(({ key }) => key).join(" ");
    if (!reached.has(phrase.key)) {
      reached.add(phrase.key);
      const number = editor.phrases.indexOf(phrase) + 1;
      Object.assign(run, { tabIndex: 0, title: number <= 9 ? `key ${number}` : "" });
      run.setAttribute("role", "button");
      run.dataset.key = `run-${phrase.key}`;
      run.addEventListener("focus", () => editor.light(phrase.key));
      run.addEventListener("blur", () => editor.light(null));
      run.addEventListener("keydown", event => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        event.stopPropagation();
        this.chosen(run);
      });
    }
    // A line for each phrase that goes through here, the innermost nearest to the words.
    run.style.boxShadow = covering
      .map((each, level) => `0 ${2 + 3 * level}px 0 ${level ? 1 : 0}px ${editor.paint(each).paint}`)
      .slice(0, 1)
      .concat(covering.slice(1).map((each, level) => `0 ${5 + 3 * level}px ${editor.paint(each).paint}`))
      .join(", ");
    return painted(run, editor.paint(phrase));
  }

  light() {
    const { lit, chosen } = this.editor;
    for (const run of this.text.children) {
      const keys = run.dataset.covering?.split(" ") ?? [];
      run.classList.toggle("lit", lit !== null && keys.includes(lit));
      run.classList.toggle("chosen", chosen.phrase !== null && keys.includes(chosen.phrase));
    }
  }

  click(event) {
    if (!getSelection().isCollapsed) return;
    const run = event.target.closest("[data-covering]");
    if (run) this.chosen(run);
  }

  /** Choose the innermost phrase of a run; where that is chosen already, the next one around it. */
  chosen(run) {
    const { editor } = this;
    const keys = run.dataset.covering.split(" ");
    const key = keys[(keys.indexOf(editor.chosen.phrase) + 1) % keys.length];
    if (editor.pick) take(editor, editor.phraseAt(keys[0]).span, true);
    else editor.choose(keys.length === 1 ? keys[0] : key);
  }

  /** Take words that the pointer has selected. */
  selected() {
    const selection = getSelection();
    if (selection.isCollapsed || !this.text.contains(selection.anchorNode)) return;
    if (!this.text.contains(selection.focusNode)) return;
    const range = selection.getRangeAt(0);
    const ends = [
      this.placeOf(range.startContainer, range.startOffset),
      this.placeOf(range.endContainer, range.endOffset),
    ];
    selection.removeAllRanges();
    const span = wholeWords(this.editor.record.caption, ends);
    if (span) take(this.editor, span, false);
  }

  placeOf(node, offset) {
    if (node === this.text) {
      return Number(node.children[offset]?.dataset.start ?? characters(this.editor.record.caption).length);
    }
    const run = node.parentElement.closest(".run") ?? node;
    return Number(run.dataset.start) + (node === run ? 0 : place(node.data, offset));
  }

  begin() {
    this.area.hidden = false;
    this.area.value = this.editor.record.caption;
    this.before = this.area.value; // as a textarea has it: its line ends may be others
    setTimeout(() => {
      this.area.focus();
      this.area.setSelectionRange(this.area.value.length, this.area.value.length);
    });
  }

  key(event) {
    event.stopPropagation();
    if (event.key === "Escape") this.editor.setMode("look");
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    const { value } = this.area;
    this.editor.setMode("look");
    if (value !== this.before) this.editor.reword(value);
  }
}
