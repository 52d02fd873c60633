// Elements by name, and made in one call.

export const byId = id => document.getElementById(id);

/** Make an element: `make("button.small", {title: "…", onclick}, "text", child, …)`. */
export function make(kind, fields = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  element.className = classes.join(" ");
  for (const [name, value] of Object.entries(fields)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

/** Give an element other children; what had the focus has it again if its data-key is still there. */
export function refill(parent, children) {
  const held = parent.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  parent.replaceChildren(...children);
  if (held) parent.querySelector(`[data-key="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
}

export function painted(element, { paint, ink }) {
  element.style.setProperty("--paint", paint);
  element.style.setProperty("--ink", ink);
  return element;
}
