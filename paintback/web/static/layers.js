// Layers of the stage at the screen's resolution, so that painting does not depend on how large the picture is.
// A `place` says where the picture is: {scale, x, y} from its pixels to those of the screen, and the screen's size.

import { canvasOf } from "./dom.js";
import { TINT } from "./mask.js";

const INK = [5, 3, 1].reduce((value, k) => value * 256 + parseInt(TINT.slice(k, k + 2), 16), 255) >>> 0; // as bytes lie
const levels = new WeakMap(); // of pictures: themselves, at half the size, at a quarter, ...

/** A picture at the smallest size of which the screen shows all. */
function level(image, scale) {
  const list = levels.get(image) ?? levels.set(image, [image]).get(image);
  let k = 0;
  for (; scale * 2 ** (k + 1) <= 1 && Math.max(list[k].width, list[k].height) > 512; k++) {
    if (list[k + 1]) continue;
    const half = canvasOf(Math.ceil(list[k].width / 2), Math.ceil(list[k].height / 2)), c = half.getContext("2d");
    c.imageSmoothingQuality = "low"; // of just a half, it is the mean of four
    c.drawImage(list[k], 0, 0, half.width, half.height);
    list[k + 1] = half;
  }
  return list[k];
}

const same = (a, b) => a && ["scale", "x", "y", "width", "height"].every((name) => a[name] === b[name]);

/** A picture as the screen shows it. */
export class Layer {
  constructor() {
    this.canvas = canvasOf(1, 1);
    this.key = {};
  }

  /** The layer of an image whose corner is at (left, top) of the picture. */
  of(image, left, top, place) {
    const { key } = this;
    if (key.image === image && key.left === left && key.top === top && same(key.place, place)) return this.canvas;
    this.key = { image, left, top, place };
    Object.assign(this.canvas, { width: place.width, height: place.height });
    const c = this.canvas.getContext("2d");
    c.setTransform(place.scale, 0, 0, place.scale, place.x, place.y);
    c.imageSmoothingEnabled = place.scale < 3;
    c.imageSmoothingQuality = "medium";
    c.drawImage(level(image, place.scale), left, top, image.width, image.height);
    return this.canvas;
  }
}

/** The mask as the screen shows it, of which only what has changed is made anew. */
export class MaskLayer {
  constructor() {
    this.canvas = canvasOf(1, 1);
    this.old = null; // a part of the picture, [left, top, right, bottom]
  }

  /** A part of the mask is another one; without one, all of it. */
  stale(part = [-Infinity, -Infinity, Infinity, Infinity]) {
    const [a, b] = [this.old, part];
    this.old = a ? [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[2], b[2]), Math.max(a[3], b[3])] : b;
  }

  of(mask, place) {
    if (this.mask !== mask || !same(this.place, place)) {
      if (this.canvas.width !== place.width || this.canvas.height !== place.height) Object.assign(this.canvas, { width: place.width, height: place.height });
      Object.assign(this, { mask, place });
      this.stale();
    }
    if (this.old) {
      const [left, top, right, bottom] = this.old, { scale, x, y, width, height } = place;
      this.make(Math.max(0, Math.floor(left * scale + x) - 1), Math.max(0, Math.floor(top * scale + y) - 1),
        Math.min(width, Math.ceil(right * scale + x) + 1), Math.min(height, Math.ceil(bottom * scale + y) + 1));
      this.old = null;
    }
    return this.canvas;
  }

  make(left, top, right, bottom) {
    const wide = right - left, high = bottom - top;
    if (wide <= 0 || high <= 0) return;
    const { scale, x, y } = this.place, { plane, width, height } = this.mask;
    const image = new ImageData(wide, high), pixels = new Uint32Array(image.data.buffer);
    const count = Math.max(1, Math.min(3, Math.ceil(1 / scale - 0.01))); // looks at each pixel of the screen, so that thin lines are seen
    const places = (length, at, start, most) => {
      const found = new Int32Array(length * count);
      for (let k = 0; k < found.length; k++) {
        const value = Math.floor((start + (k + 0.5) / count - at) / scale);
        found[k] = value < 0 || value >= most ? -1 : value;
      }
      return found;
    };
    const columns = places(wide, x, left, width), rows = places(high, y, top, height);
    for (let j = 0; j < rows.length; j++) {
      if (rows[j] < 0) continue;
      const from = rows[j] * width, to = Math.floor(j / count) * wide;
      if (plane.subarray(from, from + width).indexOf(1) < 0) continue;
      for (let k = 0; k < columns.length; k++) if (columns[k] >= 0 && plane[from + columns[k]]) pixels[to + Math.floor(k / count)] = INK;
    }
    this.canvas.getContext("2d").putImageData(image, left, top);
  }
}
