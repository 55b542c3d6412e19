// The mask: one byte for each pixel of the picture, 1 where it is repainted.

import { canvasOf } from "./dom.js";

export const TINT = "#ff2d78";
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const asked = new Map();
let number = 0;
worker.addEventListener("message", ({ data: { id, result, error } }) => {
  const { resolve, reject } = asked.get(id);
  asked.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
});

/** Has something done beside the page, which goes on being drawn. */
function beside(task, values) {
  return new Promise((resolve, reject) => {
    asked.set(++number, { resolve, reject });
    worker.postMessage({ id: number, task, ...values });
  });
}

export class Mask {
  constructor(width, height) {
    Object.assign(this, { width, height, version: 0, growing: null });
    this.plane = new Uint8Array(width * height);
    this.painted = () => {}; // a part, [left, top, right, bottom], is another one
    this.remember = () => {}; // an entry of the history
  }

  get all() { return [0, 0, this.width, this.height]; }

  inside([left, top, right, bottom]) {
    return [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)),
      Math.min(this.width, Math.ceil(right)), Math.min(this.height, Math.ceil(bottom))];
  }

  /** The bytes of a part of a plane. */
  copy([left, top, right, bottom], plane = this.plane) {
    const wide = right - left, part = new Uint8Array(wide * (bottom - top));
    for (let y = top; y < bottom; y++) part.set(plane.subarray(y * this.width + left, y * this.width + right), (y - top) * wide);
    return part;
  }

  put([left, top, right, bottom], part) {
    const wide = right - left;
    for (let y = top; y < bottom; y++) this.plane.set(part.subarray((y - top) * wide, (y - top + 1) * wide), y * this.width + left);
  }

  /** Changes a part; what was there is remembered. */
  change(box, draw) {
    const part = this.inside(box);
    if (part[2] <= part[0] || part[3] <= part[1]) return;
    const before = this.copy(part);
    draw(this.plane);
    this.changed(part, before);
  }

  /** Tells of a part that is another one now than it was `before`. */
  changed(part, before) {
    this.version += 1;
    this.painted(part);
    let kept = before;
    const swap = () => {
      const now = this.copy(part);
      this.put(part, kept);
      kept = now;
      this.version += 1;
      this.painted(part);
    };
    this.remember({ kind: "mask", bytes: before.length, back: swap, forth: swap });
  }

  // shapes: each gives the box that it lies in

  /** What is within a radius of a line; a pixel is painted where its middle is. */
  line(from, to, radius, value) {
    const r = Math.max(0.5, radius), long = Math.hypot(to.x - from.x, to.y - from.y);
    const [nx, ny] = long ? [(from.y - to.y) / long * r, (to.x - from.x) / long * r] : [0, 0];
    const corners = [[from.x + nx, from.y + ny], [to.x + nx, to.y + ny], [to.x - nx, to.y - ny], [from.x - nx, from.y - ny]];
    const box = this.inside([Math.min(from.x, to.x) - r, Math.min(from.y, to.y) - r, Math.max(from.x, to.x) + r, Math.max(from.y, to.y) + r]);
    for (let y = box[1]; y < box[3]; y++) {
      const at = y + 0.5;
      let low = Infinity, high = -Infinity;
      for (const p of [from, to]) {
        const half = r * r - (at - p.y) ** 2;
        if (half >= 0) { low = Math.min(low, p.x - Math.sqrt(half)); high = Math.max(high, p.x + Math.sqrt(half)); }
      }
      for (let k = 0; k < 4; k++) {
        const [ax, ay] = corners[k], [bx, by] = corners[(k + 1) % 4];
        if (ay === by || (at < ay) === (at < by)) continue;
        const x = ax + (at - ay) / (by - ay) * (bx - ax);
        low = Math.min(low, x); high = Math.max(high, x);
      }
      const start = Math.max(box[0], Math.ceil(low - 0.5)), end = Math.min(box[2], Math.floor(high - 0.5) + 1);
      if (end > start) this.plane.fill(value, y * this.width + start, y * this.width + end);
    }
    return box;
  }

  rectangle([left, top, right, bottom]) {
    this.change([left, top, right, bottom], (plane) => {
      const [a, b, c, d] = this.inside([left, top, right, bottom]);
      for (let y = b; y < d; y++) plane.fill(1, y * this.width + a, y * this.width + c);
    });
  }

  polygon(points) {
    const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
    const box = this.inside([Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)]);
    this.change(box, (plane) => {
      for (let y = box[1]; y < box[3]; y++) {
        const at = y + 0.5, crossings = [];
        points.forEach((p, k) => {
          const q = points[(k + 1) % points.length];
          if ((at < p.y) !== (at < q.y)) crossings.push([p.x + (at - p.y) / (q.y - p.y) * (q.x - p.x), p.y < q.y ? 1 : -1]);
        });
        crossings.sort((a, b) => a[0] - b[0]);
        let turns = 0;
        crossings.forEach(([x, turn], k) => {
          turns += turn;
          if (!turns || k + 1 === crossings.length) return;
          const start = Math.max(box[0], Math.ceil(x - 0.5)), end = Math.min(box[2], Math.floor(crossings[k + 1][0] - 0.5) + 1);
          if (end > start) plane.fill(1, y * this.width + start, y * this.width + end);
        });
      }
    });
  }

  // all of it

  clear() { this.change(this.all, (plane) => plane.fill(0)); }

  invert() {
    this.change(this.all, (plane) => { for (let k = 0; k < plane.length; k++) plane[k] ^= 1; });
  }

  /** Grows by whole pixels. */
  grow(pixels) {
    const { version } = this, asked = beside("grow", { plane: this.plane, width: this.width, height: this.height, pixels });
    this.growing = asked.then((grown) => {
      if (version === this.version) this.change(this.all, (plane) => plane.set(grown)); // else something was painted meanwhile
    });
    return this.growing;
  }

  /** Takes a black and white picture, scaled to this one. */
  load(bitmap) { this.change(this.all, (plane) => plane.set(this.read(bitmap))); }

  /** Adds what is white in a black and white picture, or takes it away. */
  add(bitmap, value = 1) {
    const other = this.read(bitmap), box = boundsOf(other, this.width, this.height);
    if (box) this.change(box, (plane) => { for (let k = 0; k < plane.length; k++) if (other[k]) plane[k] = value; });
    return Boolean(box);
  }

  read(bitmap) {
    const canvas = canvasOf(this.width, this.height), c = canvas.getContext("2d", { willReadFrequently: true });
    c.imageSmoothingEnabled = bitmap.width !== this.width || bitmap.height !== this.height;
    c.drawImage(bitmap, 0, 0, this.width, this.height);
    const d = c.getImageData(0, 0, this.width, this.height).data, plane = new Uint8Array(this.plane.length);
    for (let k = 0, j = 0; k < plane.length; k++, j += 4) plane[k] = (0.299 * d[j] + 0.587 * d[j + 1] + 0.114 * d[j + 2]) * d[j + 3] > 127.5 * 255 ? 1 : 0;
    return plane;
  }

  /** The box around what is painted, [left, top, right, bottom], or null. */
  bounds() { return boundsOf(this.plane, this.width, this.height); }

  /** A PNG: white is repainted. */
  async toBlob() {
    await this.growing;
    return beside("png", { plane: this.plane, width: this.width, height: this.height });
  }
}

function boundsOf(plane, width, height) {
  let left = width, top = height, right = 0, bottom = 0;
  for (let y = 0; y < height; y++) {
    const row = plane.subarray(y * width, (y + 1) * width), first = row.indexOf(1);
    if (first < 0) continue;
    left = Math.min(left, first);
    right = Math.max(right, row.lastIndexOf(1) + 1);
    top = Math.min(top, y);
    bottom = y + 1;
  }
  return right ? [left, top, right, bottom] : null;
}
