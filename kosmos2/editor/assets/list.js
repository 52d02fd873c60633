// The list of records: only the rows that are seen exist, only their pages are asked for.

import { get, thumbnail } from "./api.js";
import { byId, make } from "./dom.js";

const HEIGHT = 68; // pixels of a row, as in the style sheet
const PAGE = 50;
const BEYOND = 6; // rows that are kept ready above and below

export class List {
  constructor(editor) {
    this.editor = editor;
    this.name = null;
    this.total = 0;
    this.place = 0; // of the record that is open, in the list
    this.pages = new Map();
    this.box = byId("list");
    this.rows = byId("rows");
    this.box.addEventListener("scroll", () => this.draw());
    this.rows.addEventListener("click", event => {
      const row = event.target.closest(".row");
      if (row) this.go(Number(row.dataset.place));
    });
    new ResizeObserver(() => this.draw()).observe(this.box);
    editor.addEventListener("saved", () => this.refresh());
  }

  /** Show another list; open its first record unless the one that is open is to stay. */
  async show({ list, total }, stay) {
    this.name = list;
    this.total = total;
    this.pages.clear();
    this.place = 0;
    this.rows.style.height = `${total * HEIGHT}px`;
    byId("count").textContent =
      `${total.toLocaleString("en")} of ${this.editor.store.records.toLocaleString("en")} records`;
    this.box.scrollTop = 0;
    if (total && !stay) await this.go(0);
    this.draw();
  }

  async page(number) {
    if (!this.pages.has(number)) {
      const asked = get(`/api/lists/${this.name}?offset=${number * PAGE}&limit=${PAGE}`);
      this.pages.set(number, asked.then(({ rows }) => rows, () => []));
    }
    return this.pages.get(number);
  }

  async row(place) {
    const rows = await this.page(Math.floor(place / PAGE));
    return rows[place % PAGE];
  }

  /** Open the record at a place of the list. */
  async go(place) {
    if (place < 0 || place >= this.total) {
      this.editor.say(place < 0 ? "This is the first record." : "This is the last record of the list.");
      return;
    }
    this.place = place;
    this.reveal();
    const row = await this.row(place);
    if (!row || this.place !== place) return;
    await this.editor.open(row.number);
    history.replaceState(null, "", `#${row.number + 1}`);
    this.ahead(place + 1);
  }

  async ahead(place) {
    const row = place < this.total ? await this.row(place) : null;
    if (row) new Image().src = `/api/records/${row.number}/picture?of=${this.editor.store.token}`;
  }

  reveal() {
    const top = this.place * HEIGHT;
    const { scrollTop, clientHeight } = this.box;
    if (top < scrollTop) this.box.scrollTop = top - HEIGHT;
    else if (top + HEIGHT > scrollTop + clientHeight) this.box.scrollTop = top - clientHeight + 2 * HEIGHT;
    this.draw();
  }

  /** Ask anew for the page of the record that was edited. */
  async refresh() {
    const number = Math.floor(this.place / PAGE);
    if (this.name === null || !this.total) return;
    this.pages.delete(number);
    await this.page(number);
    this.draw();
  }

  async draw() {
    const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - BEYOND);
    const seen = Math.ceil(this.box.clientHeight / HEIGHT) + 2 * BEYOND;
    const last = Math.min(this.total, first + seen);
    const turn = (this.turn = Symbol("drawing"));
    const places = Array.from({ length: Math.max(0, last - first) }, (_, step) => first + step);
    const rows = await Promise.all(places.map(place => this.row(place)));
    if (turn !== this.turn) return;
    const known = new Map([...this.rows.children].map(row => [row.dataset.shows, row]));
    this.rows.replaceChildren(...places.flatMap((place, step) => {
      if (!rows[step]) return [];
      const shows = JSON.stringify([this.name, place, rows[step]]);
      const row = known.get(shows) ?? this.made(place, rows[step], shows);
      row.classList.toggle("open", place === this.place);
      return [row];
    }));
  }

  made(place, row, shows) {
    const { store } = this.editor;
    const image = make("img", { src: thumbnail(row.number, store.token), alt: "", loading: "lazy" });
    image.addEventListener("error", () => image.classList.add("missing"));
    const facts = [`${row.boxes} box${row.boxes === 1 ? "" : "es"}`];
    if (row.lowest !== null) facts.push(`≥ ${Math.round(row.lowest * 100)}%`);
    if (row.disagreement) facts.push(`Δ ${row.disagreement.toFixed(2)}`);
    facts.push(...row.reasons);
    const told = [row.status, ...facts, "≥: the least score", "Δ: disagreement"].join("\n");
    const element = make("div.row", { data: { place, shows, number: row.number } }, image,
      make("div.about", {},
        make("p", { title: row.caption }, row.caption || "(no caption)"),
        make("small", { title: told }, make(`i.dot.${row.status}`), facts.join(" · "))));
    element.style.top = `${place * HEIGHT}px`;
    return element;
  }
}
