// What the list shows: the form at the top of the page as a query.

import { get } from "./api.js";
import { byId, make } from "./dom.js";

const PAUSE = 250; // milliseconds after the last letter
const PLAIN = { sort: "place" }; // what is set without being a filter

export class Filters {
  constructor(editor, list) {
    this.editor = editor;
    this.list = list;
    this.form = byId("filters");
    this.statuses = new Set();
    const { store } = editor;
    for (const [reason, count] of Object.entries(store.reasons)) {
      this.form.reason.append(make("option", { value: reason }, `${reason} (${count})`));
    }
    byId("reason-row").hidden = !Object.keys(store.reasons).length;
    byId("disagreement-row").hidden = !store.has_other;
    this.form.sort.querySelector("[value=disagreement]").hidden = !store.has_other;
    this.form.addEventListener("input", () => this.soon());
    this.form.addEventListener("submit", event => event.preventDefault());
    // A form of several fields and no submit button does not submit itself.
    this.form.addEventListener("keydown", event => {
      if (event.key !== "Enter" || !event.target.matches("input")) return;
      event.target.blur();
      this.jump();
    });
    byId("show-all").addEventListener("click", () => {
      this.clear();
      this.ask();
    });
    document.addEventListener("pointerdown", event => {
      if (!byId("more").contains(event.target)) byId("more").open = false;
    });
    editor.addEventListener("saved", () => this.count());
    this.count();
  }

  /** Show how many records have each status; a click asks for these alone. */
  count() {
    const buttons = Object.entries(this.editor.store.statuses).map(([status, count]) => {
      const pressed = this.statuses.has(status);
      return make("button", {
        type: "button", "aria-pressed": String(pressed), data: { status },
        onclick: () => {
          if (pressed) this.statuses.delete(status);
          else this.statuses.add(status);
          this.ask();
        },
      }, make(`i.dot.${status}`), `${status} `, make("b", {}, count.toLocaleString("en")));
    });
    byId("statuses").replaceChildren(...buttons);
  }

  clear() {
    this.statuses.clear();
    for (const field of this.form.querySelectorAll("input")) field.value = "";
    for (const field of this.form.querySelectorAll("select")) field.selectedIndex = 0;
  }

  query() {
    const query = new URLSearchParams();
    for (const [name, value] of new FormData(this.form)) {
      if (value === "" || PLAIN[name] === value) continue;
      query.append(name, name.endsWith("_area") ? String(Number(value) / 100) : value);
    }
    for (const status of this.statuses) query.append("status", status);
    return query;
  }

  soon() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask(), PAUSE);
  }

  async ask(stay = false) {
    clearTimeout(this.waiting);
    if (/^#\d+$/.test(this.form.text.value)) return; // a place to jump to, no filter
    const query = this.query();
    this.count();
    const set = [...query.keys()].filter(name => name !== "text" && name !== "status");
    byId("more-count").textContent = set.length ? ` (${set.length})` : "";
    try {
      await this.list.show(await get(`/api/lists?${query}`), stay);
    } catch (refused) {
      this.editor.say(refused.message, "bad");
    }
  }

  /** Go to `#12`, the record with this number in the store. */
  jump() {
    const number = /^#(\d+)$/.exec(this.form.text.value)?.[1];
    if (!number) return this.ask();
    this.form.text.value = "";
    return this.to(Number(number) - 1);
  }

  async to(number) {
    this.clear();
    await this.ask(true);
    await this.list.go(Math.min(Math.max(0, number), this.list.total - 1));
  }
}
