"""The style and the script of the page, kept out of the way of its structure."""

PAGE_STYLE = """
:root { color-scheme: light dark; --page: #f6f5f2; --card: #ffffff; --text: #1d1f23;
  --soft: #5c6068; --line: #dedbd4; --shade: rgb(20 20 30 / 8%); }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1c1e21; --text: #eceae4;
  --soft: #a3a6ad; --line: #33363b; --shade: rgb(0 0 0 / 40%); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: clamp(1rem, 3vw, 2.5rem); background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { margin-bottom: 1.75rem; }
h1 { margin: 0; font-size: clamp(1.4rem, 3vw, 2rem); line-height: 1.2; letter-spacing: -0.015em;
  overflow-wrap: anywhere; text-wrap: balance; }
header p, .note, summary { color: var(--soft); }
header p { margin: 0.35rem 0 0; }
main { display: grid; gap: 1.75rem; align-items: start; }
main.many { grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px;
  box-shadow: 0 8px 28px var(--shade); }
.picture { position: relative; overflow: hidden; border-radius: 13px 13px 0 0; line-height: 0; }
.picture img { width: 100%; height: auto; }
.words { padding: 1.1rem 1.3rem 1.3rem; }
h2 { margin: 0; color: var(--soft); font-size: 0.8rem; font-weight: 600; overflow-wrap: anywhere; }
main.single h2 { display: none; }
.caption { margin: 0.35rem 0 0; font: 1.2rem/1.75 Charter, "Iowan Old Style", "Palatino Linotype",
  Georgia, serif; white-space: pre-line; overflow-wrap: break-word; text-wrap: pretty; }
.note, details { margin: 0.8rem 0 0; font-size: 0.85rem; }
details ul { margin: 0.4rem 0 0; padding-left: 1.2rem; overflow-wrap: anywhere; }
@media (min-width: 60rem) {
  main.single .card { display: grid; grid-template-columns: minmax(0, 1.6fr) minmax(18rem, 1fr); }
  main.single .picture { border-radius: 13px 0 0 13px; align-self: start; }
  main.single .words { padding: 1.6rem 1.8rem; } }
@media print { .card { break-inside: avoid; box-shadow: none; } header p { display: none; } }
"""

LINKS_STYLE = """
.phrase { padding: 0.05em 0.12em; border-radius: 4px; cursor: pointer; transition: 0.12s;
  background: color-mix(in srgb, var(--paint) 15%, transparent);
  box-shadow: inset 0 -2px var(--paint); box-decoration-break: clone;
  -webkit-box-decoration-break: clone; }
.phrase.lit { background: var(--paint); color: var(--ink); }
.phrase:focus-visible { outline: 3px solid var(--text); outline-offset: 2px; }
.box { position: absolute; min-width: 6px; min-height: 6px; border: 2px solid var(--paint);
  border-radius: 3px; outline: 1px solid rgb(255 255 255 / 75%); cursor: pointer;
  transition: opacity 0.12s; }
.box.lit { z-index: 2; border-width: 3px; box-shadow: 0 0 0 200rem rgb(0 0 0 / 35%);
  background: none; }
.card.pointing .box:not(.lit) { opacity: 0.15; }
.card.crowd .box.lit { box-shadow: 0 0 0 2px rgb(0 0 0 / 45%); }
.label { position: absolute; left: -3px; padding: 0.2em 0.5em; border-radius: 3px; opacity: 0;
  background: var(--paint); color: var(--ink); font-size: 0.8rem; line-height: 1.3;
  white-space: nowrap; pointer-events: none; max-width: var(--room); overflow: hidden;
  text-overflow: ellipsis; }
.label.above { bottom: 100%; } .label.under { top: 0; }
.label.from-right { left: auto; right: -3px; }
.box.lit .label { opacity: 1; }
@media (prefers-reduced-motion: reduce) { .phrase, .box { transition: none; } }
"""

STYLE = PAGE_STYLE + LINKS_STYLE

LINKS_SCRIPT = """
'use strict';
const linkUp = card => {
  const linked = () => card.querySelectorAll('[data-links]');
  const first = element => element.dataset.links.split(' ')[0];
  const find = target => target instanceof Element ? target.closest('[data-links]') : null;
  let kept = null;
  const light = link => {
    let boxes = 0;
    for (const element of linked()) {
      const lit = link !== null && element.dataset.links.split(' ').includes(link);
      element.classList.toggle('lit', lit);
      boxes += lit && !element.hidden && element.classList.contains('box');
    }
    card.classList.toggle('pointing', boxes > 0);
    card.classList.toggle('crowd', boxes > 1);
  };
  const keep = link => {
    kept = link;
    for (const element of linked()) {
      if (element.tabIndex !== 0) continue;
      element.setAttribute('aria-pressed', String(first(element) === kept));
    }
    light(kept);
  };
  const enter = event => { const at = find(event.target); light(at ? first(at) : kept); };
  card.addEventListener('pointerover', enter);
  card.addEventListener('focusin', enter);
  card.addEventListener('pointerleave', () => light(kept));
  card.addEventListener('focusout', () => light(kept));
  card.addEventListener('click', event => {
    const at = find(event.target);
    keep(at && first(at) !== kept ? first(at) : null);
  });
  card.addEventListener('keydown', event => {
    const at = find(event.target);
    if (event.key === 'Escape') keep(null);
    if (at && (event.key === 'Enter' || event.key === ' ')) {
      event.preventDefault();
      keep(first(at) === kept ? null : first(at));
    }
  });
  return { keep, refresh: () => light(kept) };
};
"""
"""Ties phrases and boxes of a card together; they may be replaced later, then `refresh`."""

SCRIPT = LINKS_SCRIPT + "document.querySelectorAll('.card').forEach(linkUp);\n"
