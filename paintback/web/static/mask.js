// The mask: a canvas of the picture's size, opaque where the picture is repainted, with undo.

import { canvasOf } from "./dom.js";

const HISTORY = 256 * 2 ** 20; // bytes of remembered pixels
export const TINT = "#ff2d78";

export class Mask {
  constructor(width, height) {
    this.canvas = canvasOf(width, height);
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.undone = [];
    this.done = [];
    this.changed = () => {};
  }

  get width() { return this.canvas.width; }
  get height() { return this.canvas.height; }

  /** Remembers what a change of this part will replace; `box` is [left, top, right, bottom]. */
  change(box, draw) {
    const [left, top, right, bottom] = this.inside(box);
    if (right <= left || bottom <= top) return;
    const before = this.context.getImageData(left, top, right - left, bottom - top);
    draw(this.context);
    this.remember({ left, top, before });
  }

  inside([left, top, right, bottom]) {
    return [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)),
      Math.min(this.width, Math.ceil(right)), Math.min(this.height, Math.ceil(bottom))];
  }

  remember(entry) {
    this.done.push(entry);
    this.undone = [];
    let bytes = 0;
    for (let k = this.done.length - 1; k >= 0; k--) {
      bytes += this.done[k].before.data.length;
      if (bytes > HISTORY && k < this.done.length - 1) {
        this.done.splice(0, k + 1);
        break;
      }
    }
    this.changed();
  }

  swap(from, to) {
    const entry = from.pop();
    if (!entry) return;
    const { left, top, before } = entry;
    to.push({ left, top, before: this.context.getImageData(left, top, before.width, before.height) });
    this.context.putImageData(before, left, top);
    this.changed();
  }

  undo() { this.swap(this.done, this.undone); }
  redo() { this.swap(this.undone, this.done); }

  get all() { return [0, 0, this.width, this.height]; }

  clear() { this.change(this.all, (c) => c.clearRect(0, 0, this.width, this.height)); }

  invert() {
    this.change(this.all, (c) => {
      const image = c.getImageData(0, 0, this.width, this.height);
      paint(image, (k) => image.data[k + 3] < 128);
      c.putImageData(image, 0, 0);
    });
  }

  /** Grows by whole pixels; diagonal steps every second time make it round enough. */
  grow(pixels) {
    this.change(this.all, (c) => {
      for (let k = 0; k < pixels; k++) {
        const copy = canvasOf(this.width, this.height);
        copy.getContext("2d").drawImage(this.canvas, 0, 0);
        const steps = [[1, 0], [-1, 0], [0, 1], [0, -1], ...(k % 2 ? [[1, 1], [1, -1], [-1, 1], [-1, -1]] : [])];
        for (const [x, y] of steps) c.drawImage(copy, x, y);
      }
    });
  }

  /** Takes a black and white picture, or what is painted on an empty layer. */
  load(bitmap) {
    this.change(this.all, (c) => {
      c.clearRect(0, 0, this.width, this.height);
      c.drawImage(bitmap, 0, 0);
      const image = c.getImageData(0, 0, this.width, this.height), d = image.data;
      paint(image, (k) => (0.299 * d[k] + 0.587 * d[k + 1] + 0.114 * d[k + 2]) * (d[k + 3] / 255) > 127.5);
      c.putImageData(image, 0, 0);
    });
  }

  /** The box around what is painted, [left, top, right, bottom], or null. */
  bounds() {
    const { data } = this.context.getImageData(0, 0, this.width, this.height);
    let left = this.width, top = this.height, right = 0, bottom = 0;
    for (let y = 0, k = 3; y < this.height; y++) {
      for (let x = 0; x < this.width; x++, k += 4) {
        if (data[k] > 127) {
          if (x < left) left = x;
          if (x >= right) right = x + 1;
          if (y < top) top = y;
          bottom = y + 1;
        }
      }
    }
    return right ? [left, top, right, bottom] : null;
  }

  /** A PNG: white is repainted. */
  toBlob() {
    const copy = canvasOf(this.width, this.height), context = copy.getContext("2d");
    const image = this.context.getImageData(0, 0, this.width, this.height);
    for (let k = 0; k < image.data.length; k += 4) {
      image.data.fill(image.data[k + 3] > 127 ? 255 : 0, k, k + 3);
      image.data[k + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    return new Promise((resolve) => copy.toBlob(resolve, "image/png"));
  }
}

function paint(image, where) {
  const [red, green, blue] = [1, 3, 5].map((k) => parseInt(TINT.slice(k, k + 2), 16));
  for (let k = 0; k < image.data.length; k += 4) {
    const on = where(k);
    image.data[k] = red; image.data[k + 1] = green; image.data[k + 2] = blue;
    image.data[k + 3] = on ? 255 : 0;
  }
}
