// Small helpers that every module uses.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A sentence that begins with a capital and ends without its full stop. */
export const capital = (text) => text.replace(/^./, (first) => first.toUpperCase()).replace(/\.$/, "");

/** A canvas that is not on the page. */
export function canvasOf(width, height) {
  return make("canvas", { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)) });
}

/** Seconds as people say them. */
export function spoken(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** One message at a time, over the picture; `action` is {label, run}. */
export function toast(text, { bad = false, action = null } = {}) {
  const box = $("toast"), button = $("toast-do");
  box.hidden = false;
  box.classList.toggle("bad", bad);
  $("toast-text").textContent = text;
  button.hidden = !action;
  if (action) {
    button.textContent = action.label;
    button.onclick = () => { hush(); action.run(); };
  }
  clearTimeout(toast.timer);
  if (!bad && !action) toast.timer = setTimeout(hush, 6000);
}

export function hush() {
  $("toast").hidden = true;
}

/** Told to screen readers, at most once a second or so. */
export function announce(text) {
  $("live").textContent = text;
}
