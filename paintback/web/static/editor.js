// The picture on the stage: view, tools, and what is laid over it. Coordinates are the picture's pixels unless said.

import { canvasOf, clamp } from "./dom.js";
import { Mask, TINT } from "./mask.js";

const NONE = { left: 0, top: 0, right: 0, bottom: 0 };
const REACH = 12; // of a handle, in pixels of the screen
export const TOOLS = ["brush", "eraser", "box", "lasso", "frame", "hand"];

export class Editor {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picture = null;
    this.mask = null;
    this.frame = { ...NONE };
    this.tool = "brush";
    this.size = 24;
    this.view = { scale: 1, x: 0, y: 0, fitted: true };
    this.shown = null; // a result: {bitmap, base, frame, split, spread, original}
    this.preview = null;
    this.cursor = null;
    this.path = null; // of the stroke, box or lasso that is being drawn
    this.panning = false; // Space is held
    this.locked = false;
    this.below = 0; // pixels of the screen that a result keeps free below it
    this.pointers = new Map();
    this.changed = () => {}; // mask or frame
    this.split = () => {}; // the divider was dragged
    this.viewed = () => {}; // at which scale
    this.check = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.check = null; this.draw(); });
    this.listen();
  }

  // what is shown

  open(bitmap) {
    this.picture = bitmap;
    this.mask = new Mask(bitmap.width, bitmap.height);
    this.mask.changed = () => { this.draw(); this.changed(); };
    this.frame = { ...NONE };
    this.shown = this.preview = this.path = null;
    this.cursor = { x: bitmap.width / 2, y: bitmap.height / 2, seen: false };
    this.fit();
    this.changed();
  }

  show(result) {
    this.shown = result;
    this.preview = null;
    if (this.view.fitted) this.fit();
    this.draw();
  }

  /** Lays a prediction over the hole; `box` is [left, top, width, height] of the extended picture. */
  addPreview(image, [left, top, width, height]) {
    const { width: w, height: h } = this.bounds();
    this.preview ??= canvasOf(w, h);
    this.preview.getContext("2d").drawImage(image, left, top, width, height);
    this.draw();
  }

  endPreview() {
    this.preview = null;
    this.draw();
  }

  setFrame(frame) {
    this.frame = { ...this.frame, ...frame };
    if (this.view.fitted && !this.path) this.fit();
    this.draw();
    this.changed();
  }

  /** What is on the stage: the picture with its frame. */
  bounds() {
    const base = this.shown ? this.shown.base : this.picture, frame = this.shown ? this.shown.frame : this.frame;
    return { left: -frame.left, top: -frame.top, width: base.width + frame.left + frame.right, height: base.height + frame.top + frame.bottom };
  }

  // view

  resize() {
    const ratio = devicePixelRatio || 1, { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    if (this.view.fitted) this.fit();
    this.paint();
  }

  fit() {
    if (!this.picture) return;
    const { clientWidth, clientHeight } = this.canvas, { left, top, width, height } = this.bounds();
    const pad = Math.min(clientWidth, clientHeight) < 420 ? 14 : 26, below = this.shown ? this.below : 0;
    const scale = clamp(Math.min((clientWidth - 2 * pad) / width, (clientHeight - 2 * pad - below) / height), 0.01, 16);
    this.view = {
      scale,
      x: (clientWidth - width * scale) / 2 - left * scale,
      y: (clientHeight - below - height * scale) / 2 - top * scale,
      fitted: true,
    };
    this.draw();
  }

  zoom(factor, at = { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 }) {
    const scale = clamp(this.view.scale * factor, 0.02, 64), by = scale / this.view.scale;
    this.view = { scale, x: at.x - (at.x - this.view.x) * by, y: at.y - (at.y - this.view.y) * by, fitted: false };
    this.draw();
  }

  pan(x, y) {
    this.view = { ...this.view, x: this.view.x + x, y: this.view.y + y, fitted: false };
    this.draw();
  }

  here(event) {
    const box = this.canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  toPicture({ x, y }) {
    return { x: (x - this.view.x) / this.view.scale, y: (y - this.view.y) / this.view.scale };
  }

  // drawing

  draw() {
    this.frameRequest ??= requestAnimationFrame(() => { this.frameRequest = null; this.paint(); });
  }

  paint() {
    const c = this.context, ratio = devicePixelRatio || 1, { scale, x, y } = this.view;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    if (!this.picture) return;
    this.viewed(scale);
    c.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
    c.imageSmoothingEnabled = scale < 3;
    c.imageSmoothingQuality = "high";
    const b = this.bounds();
    c.fillStyle = this.checks(scale);
    c.fillRect(b.left, b.top, b.width, b.height);
    if (this.shown) this.paintResult(c, b);
    else this.paintPicture(c, b);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (this.shown) this.paintDivider(c, b);
    else this.paintTools(c, b);
  }

  paintPicture(c, b) {
    c.drawImage(this.picture, 0, 0);
    if (this.preview) {
      c.drawImage(this.preview, b.left, b.top);
      return;
    }
    c.globalAlpha = this.locked ? 0.25 : 0.5;
    if (b.left || b.top || b.width > this.picture.width || b.height > this.picture.height) {
      c.fillStyle = TINT;
      c.beginPath();
      c.rect(b.left, b.top, b.width, b.height);
      c.rect(0, 0, this.picture.width, this.picture.height);
      c.fill("evenodd");
    }
    c.drawImage(this.mask.canvas, 0, 0);
    c.globalAlpha = 1;
  }

  paintResult(c, b) {
    const { bitmap, base, split, spread, original } = this.shown;
    c.drawImage(base, 0, 0);
    if (original) return;
    c.save();
    c.beginPath();
    c.rect(b.left + split * b.width, b.top, (1 - split) * b.width, b.height);
    c.clip();
    c.drawImage(bitmap, b.left, b.top);
    if (spread) c.drawImage(spread, b.left, b.top);
    c.restore();
  }

  paintDivider(c, b) {
    if (this.shown.original) return;
    const { scale, x, y } = this.view, at = x + (b.left + this.shown.split * b.width) * scale;
    const top = y + b.top * scale, height = b.height * scale;
    for (const [colour, width] of [["rgb(0 0 0 / .45)", 4], ["#fff", 2]]) {
      c.strokeStyle = colour; c.lineWidth = width;
      c.beginPath(); c.moveTo(at, top); c.lineTo(at, top + height); c.stroke();
    }
    c.beginPath(); c.arc(at, top + height / 2, 13, 0, 7);
    c.fillStyle = "#fff"; c.fill(); c.strokeStyle = "rgb(0 0 0 / .45)"; c.lineWidth = 1; c.stroke();
    c.beginPath();
    for (const side of [-1, 1]) {
      c.moveTo(at + side * 3.5, top + height / 2 - 4); c.lineTo(at + side * 7, top + height / 2); c.lineTo(at + side * 3.5, top + height / 2 + 4);
    }
    c.strokeStyle = "#333"; c.lineWidth = 1.6; c.stroke();
  }

  paintTools(c, b) {
    const { scale, x, y } = this.view;
    const screen = (p) => [x + p.x * scale, y + p.y * scale];
    if (this.tool === "frame" && !this.locked) {
      const [left, top] = screen({ x: b.left, y: b.top }), width = b.width * scale, height = b.height * scale;
      outlined(c, () => { c.beginPath(); c.rect(left, top, width, height); }, 1.5);
      for (const [px, py, across] of [[left, top + height / 2, 0], [left + width, top + height / 2, 0], [left + width / 2, top, 1], [left + width / 2, top + height, 1]]) {
        c.beginPath();
        c.roundRect(px - (across ? 20 : 4), py - (across ? 4 : 20), across ? 40 : 8, across ? 8 : 40, 4);
        c.fillStyle = "#fff"; c.fill(); c.strokeStyle = "rgb(0 0 0 / .6)"; c.lineWidth = 1; c.stroke();
      }
    }
    if (this.path && (this.tool === "box" || this.tool === "lasso")) {
      outlined(c, () => {
        c.beginPath();
        if (this.tool === "box") {
          const [[ax, ay], [bx, by]] = [screen(this.path[0]), screen(this.path.at(-1))];
          c.rect(ax, ay, bx - ax, by - ay);
        } else this.path.forEach((p, k) => c[k ? "lineTo" : "moveTo"](...screen(p)));
      }, 1.5);
    }
    if (this.cursor?.seen && !this.locked && !this.panning && !["frame", "hand"].includes(this.tool)) {
      const [px, py] = screen(this.cursor);
      outlined(c, () => {
        c.beginPath();
        if (this.tool === "brush" || this.tool === "eraser") c.arc(px, py, Math.max(1.5, this.size / 2 * scale), 0, 7);
        else { c.moveTo(px - 9, py); c.lineTo(px + 9, py); c.moveTo(px, py - 9); c.lineTo(px, py + 9); }
      }, 1.3);
    }
  }

  /** A chequered ground, of the same size on the screen at every zoom. */
  checks(scale) {
    if (!this.check) {
      const style = getComputedStyle(document.documentElement), tile = canvasOf(16, 16), c = tile.getContext("2d");
      c.fillStyle = style.getPropertyValue("--check-a"); c.fillRect(0, 0, 16, 16);
      c.fillStyle = style.getPropertyValue("--check-b"); c.fillRect(0, 0, 8, 8); c.fillRect(8, 8, 8, 8);
      this.check = this.context.createPattern(tile, "repeat");
    }
    this.check.setTransform(new DOMMatrix().scale(1 / scale));
    return this.check;
  }

  // tools: down, move and up come from the pointer or from the keyboard

  down(p) {
    if (this.locked || this.shown || !this.picture) return;
    this.path = [p];
    if (this.tool === "brush" || this.tool === "eraser") {
      this.before = canvasOf(this.mask.width, this.mask.height);
      this.before.getContext("2d").drawImage(this.mask.canvas, 0, 0);
      this.stroke(p, p);
    }
    this.draw();
  }

  move(p) {
    if (this.path) {
      const last = this.path.at(-1);
      if (this.tool === "box") this.path = [this.path[0], p];
      else this.path.push(p);
      if (this.before) this.stroke(last, p);
    }
    this.draw();
  }

  up() {
    const path = this.path;
    this.path = null;
    if (!path) return;
    const xs = path.map((p) => p.x), ys = path.map((p) => p.y);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
    if (this.before) {
      const reach = this.size / 2 + 2;
      const [left, top, right, bottom] = this.mask.inside([box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach]);
      if (right > left && bottom > top) {
        const before = this.before.getContext("2d").getImageData(left, top, right - left, bottom - top);
        this.mask.remember({ left, top, before });
      }
      this.before = null;
    } else if (this.tool === "box") {
      const [left, top, right, bottom] = box.map(Math.round);
      if (right > left && bottom > top) this.mask.change([left, top, right, bottom], (c) => { c.fillStyle = TINT; c.fillRect(left, top, right - left, bottom - top); });
    } else if (this.tool === "lasso" && path.length > 2) {
      this.mask.change([box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1], (c) => {
        c.fillStyle = TINT;
        c.beginPath();
        path.forEach((p) => c.lineTo(p.x, p.y));
        c.fill();
      });
    }
    this.draw();
  }

  cancel() {
    if (this.before) {
      this.mask.context.clearRect(0, 0, this.mask.width, this.mask.height);
      this.mask.context.drawImage(this.before, 0, 0);
    }
    this.path = this.before = null;
    this.draw();
  }

  stroke(from, to) {
    const c = this.mask.context;
    c.globalCompositeOperation = this.tool === "eraser" ? "destination-out" : "source-over";
    c.strokeStyle = TINT;
    c.lineCap = c.lineJoin = "round";
    c.lineWidth = this.size;
    c.beginPath();
    c.moveTo(from.x, from.y);
    c.lineTo(to.x, to.y + (from === to ? 0.001 : 0));
    c.stroke();
    c.globalCompositeOperation = "source-over";
  }

  // pointer

  listen() {
    const on = (name, run) => this.canvas.addEventListener(name, run);
    on("wheel", (event) => {
      if (!this.picture) return;
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0016)), this.here(event));
    });
    on("pointerdown", (event) => this.press(event));
    on("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.release(event));
    on("pointerleave", () => { if (this.cursor && !this.path) { this.cursor.seen = false; this.draw(); } });
    on("contextmenu", (event) => event.preventDefault());
  }

  press(event) {
    if (!this.picture) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    const at = this.here(event);
    this.pointers.set(event.pointerId, at);
    if (this.pointers.size === 2) { // two fingers: pinch
      this.cancel();
      this.doing = "pinch";
      return;
    }
    if (event.button === 1 || this.panning || this.tool === "hand") this.doing = "pan";
    else if (this.shown) { this.doing = "split"; this.dragSplit(at); }
    else if (event.button === 0 && this.tool === "frame") this.doing = this.locked ? null : this.handle(at);
    else if (event.button === 0) { this.doing = "draw"; this.down(this.toPicture(at)); }
    event.preventDefault();
  }

  drag(event) {
    if (!this.picture) return;
    const at = this.here(event), last = this.pointers.get(event.pointerId);
    if (!["frame", "hand"].includes(this.tool)) this.cursor = { ...this.toPicture(at), seen: true };
    this.canvas.style.cursor = this.cursorAt(at);
    if (!last) { this.draw(); return; }
    if (this.doing === "pinch") {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const apart = (a) => Math.max(1, Math.hypot(a.x - other.x, a.y - other.y));
        this.pan((at.x - last.x) / 2, (at.y - last.y) / 2);
        this.zoom(apart(at) / apart(last), { x: (at.x + other.x) / 2, y: (at.y + other.y) / 2 });
      }
    } else if (this.doing === "pan") this.pan(at.x - last.x, at.y - last.y);
    else if (this.doing === "split") this.dragSplit(at);
    else if (this.doing === "draw") {
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.move(this.toPicture(this.here(one)));
    } else if (this.doing?.side) this.dragFrame(at);
    this.pointers.set(event.pointerId, at);
  }

  release(event) {
    this.pointers.delete(event.pointerId);
    if (this.doing === "draw") this.up();
    if (this.doing?.side) { this.view.fitted = this.doing.fitted; this.doing = null; if (this.view.fitted) this.fit(); }
    if (!this.pointers.size) this.doing = null;
  }

  dragSplit(at) {
    const { left, width } = this.bounds();
    this.shown.split = clamp((this.toPicture(at).x - left) / width, 0, 1);
    this.split(this.shown.split);
    this.draw();
  }

  handle(at) {
    const { left, top, width, height } = this.bounds(), { scale, x, y } = this.view;
    const sides = {
      left: Math.abs(at.x - (x + left * scale)), right: Math.abs(at.x - (x + (left + width) * scale)),
      top: Math.abs(at.y - (y + top * scale)), bottom: Math.abs(at.y - (y + (top + height) * scale)),
    };
    const side = Object.keys(sides).sort((a, b) => sides[a] - sides[b])[0];
    if (sides[side] > REACH) return null;
    const fitted = this.view.fitted;
    this.view.fitted = false; // the view stays while a side is dragged
    return { side, fitted };
  }

  dragFrame(at) {
    const p = this.toPicture(at), { side } = this.doing;
    const out = { left: -p.x, top: -p.y, right: p.x - this.picture.width, bottom: p.y - this.picture.height }[side];
    this.setFrame({ [side]: clamp(Math.round(out), 0, 8192) });
  }

  cursorAt(at) {
    if (this.panning || this.tool === "hand") return "grab";
    if (this.shown) return "ew-resize";
    if (this.locked) return "default";
    if (this.tool === "frame") {
      const fitted = this.view.fitted, hit = this.handle(at);
      this.view.fitted = fitted;
      return !hit ? "default" : hit.side === "left" || hit.side === "right" ? "ew-resize" : "ns-resize";
    }
    return "none";
  }

  // keyboard: arrows move the cursor, Enter is the button

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && this.shown) {
      this.shown.split = clamp(this.shown.split + 0.02 * step[0], 0, 1);
      this.split(this.shown.split);
      this.draw();
      return true;
    }
    if (!this.picture || this.shown || this.locked || ["frame", "hand"].includes(this.tool)) return false;
    if (step) {
      const far = (event.shiftKey ? 10 : 2) * Math.max(1, Math.round(1 / this.view.scale));
      this.cursor = {
        x: clamp(this.cursor.x + far * step[0], 0, this.picture.width),
        y: clamp(this.cursor.y + far * step[1], 0, this.picture.height),
        seen: true,
      };
      this.move({ ...this.cursor });
      return true;
    }
    if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) {
      this.cursor.seen = true;
      if (this.path) this.up();
      else this.down({ ...this.cursor });
      return true;
    }
    if (event.key === "Escape" && this.path) {
      this.cancel();
      return true;
    }
    return false;
  }
}

/** A line that is seen on every ground: dark around white. */
function outlined(c, trace, width) {
  for (const [colour, wide] of [["rgb(0 0 0 / .6)", width + 2], ["#fff", width]]) {
    c.strokeStyle = colour;
    c.lineWidth = wide;
    trace();
    c.stroke();
  }
}
