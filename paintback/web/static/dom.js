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

/** Seconds as people say them, `roughly` where they are a guess. */
export function spoken(seconds, roughly = false) {
  if (seconds < 9.95) return roughly ? `${Math.max(1, Math.round(seconds))} s` : `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Gives a file to be kept. */
export function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Lets somebody choose files. */
export function pick(input, run) {
  input.value = "";
  input.onchange = () => { if (input.files.length) run([...input.files]); };
  input.click();
}

/** Asks before something is done; gives the button's value, "" where nothing was chosen. */
export function ask(text, choices) {
  const box = $("ask");
  $("ask-text").textContent = text;
  $("ask-choices").replaceChildren(...choices.map(({ label, value, primary }) => make("button", { value, textContent: label, className: primary ? "primary" : "" })));
  box.returnValue = "";
  box.showModal();
  return new Promise((resolve) => box.addEventListener("close", () => resolve(box.returnValue), { once: true }));
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
