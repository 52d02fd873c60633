// Puts the page together.

import { get } from "./api.js";
import { Caption } from "./caption.js";
import { byId, make } from "./dom.js";
import { Editor } from "./editor.js";
import { Filters } from "./filters.js";
import { obeyKeys } from "./keys.js";
import { List } from "./list.js";
import { Panel } from "./panel.js";
import { hintOf } from "./pick.js";
import { Stage } from "./stage.js";

const SECONDS = { plain: 4, warn: 12, bad: 20 };

function toast({ text, tone, label, action }) {
  const element = make(`div.toast.${tone}`, { role: "alert" }, make("span", {}, text));
  const gone = () => element.remove();
  if (action) {
    element.append(make("button", { type: "button", onclick: () => { gone(); action(); } }, label));
  }
  element.append(make("button.close", { type: "button", "aria-label": "Close", onclick: gone }, "×"));
  byId("toasts").append(element);
  setTimeout(gone, SECONDS[tone] * 1000);
}

function hint(editor) {
  const { pick, words, mode } = editor;
  const text = pick ? hintOf(pick)
    : mode === "draw" ? "Drag a box, also over others; Enter puts one in the middle, Esc cancels."
    : mode === "caption" ? "Enter saves the caption, and phrases follow their words. Esc cancels."
    : words ? "Drag a box for these words; Esc cancels." : "";
  byId("hint").hidden = !text;
  byId("hint").textContent = text;
}

async function start() {
  const editor = new Editor(await get("/api/store"));
  const { store } = editor;
  document.title = `${store.name} – kosmos2 edit`;
  byId("store-name").textContent = store.name;
  editor.addEventListener("told", event => toast(event.detail));
  editor.addEventListener("change", () => hint(editor));
  const stage = new Stage(editor);
  new Caption(editor);
  new Panel(editor, stage);
  const list = new List(editor);
  const filters = new Filters(editor, list);
  obeyKeys({ editor, list, stage, filters });
  const press = (id, key) => byId(id).addEventListener("click", () => {
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  });
  byId("undo").addEventListener("click", () => editor.undo());
  byId("redo").addEventListener("click", () => editor.redo());
  press("accept", "a");
  press("reject", "x");
  addEventListener("pagehide", () => editor.settle());
  document.body.classList.toggle("empty", !store.records);
  const asked = /^#(\d+)$/.exec(location.hash)?.[1];
  if (asked) await filters.to(Number(asked) - 1);
  else await filters.ask();
  document.body.dataset.ready = "yes";
}

start().catch(error => toast({ text: error.message, tone: "bad" }));
