// The first answer, within a blink: the hole filled smoothly from its border. It is shown as a draft and never kept.

import { canvasOf } from "./dom.js";

const SIDE = 448; // longer side that it is made at

/**
 * Fills what is hidden by averages of what is known, coarser and coarser, and then finer again (push and pull).
 *
 * Gives {image, box}: a canvas that is transparent outside the hole, and where it lies in the extended picture.
 */
export function fill(picture, mask, frame, hole) {
  const width = picture.width + frame.left + frame.right, height = picture.height + frame.top + frame.bottom;
  const [left, top, right, bottom] = hole ?? [0, 0, width, height];
  const pad = Math.max(16, 0.3 * Math.max(right - left, bottom - top));
  const x = Math.max(0, Math.floor(left - pad)), y = Math.max(0, Math.floor(top - pad));
  const box = [x, y, Math.min(width, Math.ceil(right + pad)) - x, Math.min(height, Math.ceil(bottom + pad)) - y];
  const scale = Math.min(1, SIDE / Math.max(box[2], box[3]));
  const wide = Math.max(1, Math.round(box[2] * scale)), high = Math.max(1, Math.round(box[3] * scale));
  const canvas = canvasOf(wide, high), c = canvas.getContext("2d", { willReadFrequently: true });
  c.setTransform(wide / box[2], 0, 0, high / box[3], (frame.left - x) * wide / box[2], (frame.top - y) * high / box[3]);
  c.imageSmoothingQuality = "medium";
  c.drawImage(picture, 0, 0);
  c.setTransform(1, 0, 0, 1, 0, 0);
  const image = c.getImageData(0, 0, wide, high), hidden = new Uint8Array(wide * high);
  const values = new Float32Array(wide * high * 4); // colours times weight, weight
  const step = Math.max(1, Math.round(1 / scale / 3));
  for (let row = 0, k = 0; row < high; row++) {
    for (let column = 0; column < wide; column++, k++) {
      hidden[k] = covered(row, column) ? 1 : 0;
      if (hidden[k] || image.data[4 * k + 3] < 255) continue;
      for (let j = 0; j < 3; j++) values[4 * k + j] = image.data[4 * k + j];
      values[4 * k + 3] = 1;
    }
  }
  const filled = pull(values, wide, high);
  for (let k = 0; k < hidden.length; k++) {
    for (let j = 0; j < 3; j++) image.data[4 * k + j] = filled[4 * k + j];
    image.data[4 * k + 3] = hidden[k] ? 255 : 0;
  }
  c.putImageData(image, 0, 0);
  return { image: canvas, box };

  /** Whether any of the pixels under one of the small picture is hidden. */
  function covered(row, column) {
    const upper = Math.floor(row / high * box[3]) + y - frame.top, lower = Math.ceil((row + 1) / high * box[3]) + y - frame.top;
    const first = Math.floor(column / wide * box[2]) + x - frame.left, last = Math.ceil((column + 1) / wide * box[2]) + x - frame.left;
    if (upper < 0 || first < 0 || lower > picture.height || last > picture.width) return true;
    for (let py = upper; py < lower; py += step) for (let px = first; px < last; px += step) if (mask.plane[py * mask.width + px]) return true;
    return false;
  }
}

/** Values with weight 1 everywhere. */
function pull(values, wide, high) {
  const out = new Float32Array(values.length);
  let holes = false;
  for (let k = 3; k < values.length && !holes; k += 4) holes = values[k] < 1;
  if (!holes || (wide === 1 && high === 1)) {
    for (let k = 0; k < values.length; k += 4) {
      const weight = values[k + 3];
      for (let j = 0; j < 3; j++) out[k + j] = weight ? values[k + j] / weight : 128;
      out[k + 3] = 1;
    }
    return out;
  }
  const w = Math.ceil(wide / 2), h = Math.ceil(high / 2), small = new Float32Array(w * h * 4);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const from = 4 * (y * wide + x), to = 4 * ((y >> 1) * w + (x >> 1));
      for (let j = 0; j < 4; j++) small[to + j] += values[from + j];
    }
  }
  for (let k = 0; k < small.length; k += 4) { // a weight of 1 is enough
    const weight = small[k + 3];
    if (weight > 1) for (let j = 0; j < 4; j++) small[k + j] /= weight;
  }
  const coarse = pull(small, w, h);
  for (let y = 0; y < high; y++) {
    const fy = Math.min(h - 1, Math.max(0, y / 2 - 0.25)), y0 = Math.floor(fy), y1 = Math.min(h - 1, y0 + 1), dy = fy - y0;
    for (let x = 0; x < wide; x++) {
      const fx = Math.min(w - 1, Math.max(0, x / 2 - 0.25)), x0 = Math.floor(fx), x1 = Math.min(w - 1, x0 + 1), dx = fx - x0;
      const at = 4 * (y * wide + x), weight = values[at + 3];
      for (let j = 0; j < 3; j++) {
        const above = coarse[4 * (y0 * w + x0) + j] * (1 - dx) + coarse[4 * (y0 * w + x1) + j] * dx;
        const below = coarse[4 * (y1 * w + x0) + j] * (1 - dx) + coarse[4 * (y1 * w + x1) + j] * dx;
        out[at + j] = values[at + j] + (1 - weight) * (above * (1 - dy) + below * dy);
      }
      out[at + 3] = 1;
    }
  }
  return out;
}
