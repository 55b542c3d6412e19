// The picture on the stage: view, tools, and what is laid over it. Coordinates are the picture's pixels unless said.

import { canvasOf, clamp } from "./dom.js";
import { Layer, MaskLayer } from "./layers.js";
import { Mask, TINT } from "./mask.js";

const NONE = { left: 0, top: 0, right: 0, bottom: 0 };
const REACH = 12; // of a handle, in pixels of the screen
const LENS = 62; // radius of the magnifier, likewise
const CLICK = 5; // how far the hand may move within a click, likewise
export const TOOLS = ["brush", "eraser", "box", "lasso", "object", "wand", "frame", "hand"];

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
    this.previews = []; // {image, box}: the draft, and what is predicted
    this.cursor = null;
    this.path = null; // of the stroke, box or lasso that is being drawn
    this.panning = false; // Space is held
    this.locked = false;
    this.lens = false; // the magnifier is shown for the mouse too
    this.touched = false; // by a finger, which hides what it paints on
    this.below = 0; // pixels of the screen that a result keeps free below it
    this.pointers = new Map();
    this.layers = { picture: new Layer(), result: new Layer(), spread: new Layer(), mask: new MaskLayer() };
    this.dirty = null; // what of the screen is painted anew, [left, top, right, bottom]
    this.changed = () => {}; // mask or frame
    this.remember = () => {}; // an entry of the history
    this.released = () => {}; // a stroke, box or lasso has ended
    this.pick = () => {}; // ({x, y} or a box, take away): what is to be found
    this.split = () => {}; // the divider was dragged
    this.viewed = () => {}; // at which scale
    this.check = null;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.check = null; this.draw(); });
    this.listen();
  }

  // what is shown

  /** Shows a picture, with a mask of its own or an empty one. */
  open(bitmap, mask = new Mask(bitmap.width, bitmap.height), frame = NONE) {
    this.picture = bitmap;
    this.mask = mask;
    mask.painted = (part) => { this.layers.mask.stale(part); this.drawPart(part); this.changed(); };
    mask.remember = (entry) => this.remember(entry);
    this.frame = { ...frame };
    this.shown = this.path = null;
    this.previews = [];
    this.cursor = { x: bitmap.width / 2, y: bitmap.height / 2, seen: false };
    this.layers.mask.stale();
    this.fit();
    this.changed();
  }

  show(result) {
    this.shown = result;
    this.previews = [];
    if (this.view.fitted) this.fit();
    this.draw();
  }

  /** Lays a prediction over the hole; `box` is [left, top, width, height] of the extended picture. */
  addPreview(image, box) {
    this.previews = [...this.previews.filter((one) => String(one.box) !== String(box)), { image, box }];
    this.draw();
  }

  endPreview() {
    this.previews = [];
    this.draw();
  }

  setFrame(frame) {
    this.frame = { ...this.frame, ...frame };
    if (this.view.fitted && !this.path) this.fit();
    this.draw();
    this.changed();
  }

  /** Remembers that the frame was another one. */
  framed(before) {
    const after = { ...this.frame };
    if (Object.keys(NONE).every((side) => before[side] === after[side])) return;
    this.remember({ kind: "frame", bytes: 0, back: () => this.setFrame(before), forth: () => this.setFrame(after) });
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
    this.draw();
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

  toScreen(p) {
    return { x: this.view.x + p.x * this.view.scale, y: this.view.y + p.y * this.view.scale };
  }

  // drawing: only what has changed, from layers that have the screen's resolution

  /** All of the screen. */
  draw() { this.drawBox([0, 0, this.canvas.width, this.canvas.height]); }

  /** A part of the picture. */
  drawPart([left, top, right, bottom]) {
    const ratio = devicePixelRatio || 1, a = this.toScreen({ x: left, y: top }), b = this.toScreen({ x: right, y: bottom });
    this.drawBox([a.x * ratio - 2, a.y * ratio - 2, b.x * ratio + 2, b.y * ratio + 2]);
  }

  /** What lies under the brush and the magnifier, as they were last painted and as they are now. */
  drawCursor() {
    const ratio = devicePixelRatio || 1;
    for (const box of [this.under, this.lensed, this.cursorBox(), this.lensBox()]) if (box) this.drawBox(box.map((value) => value * ratio));
  }

  cursorBox() {
    if (!this.cursor?.seen) return null;
    const { x, y } = this.toScreen(this.cursor), reach = Math.max(14, this.size / 2 * this.view.scale + 6);
    return [x - reach, y - reach, x + reach, y + reach];
  }

  drawBox([left, top, right, bottom]) {
    const box = [Math.max(0, Math.floor(left)), Math.max(0, Math.floor(top)), Math.min(this.canvas.width, Math.ceil(right)), Math.min(this.canvas.height, Math.ceil(bottom))];
    const d = this.dirty;
    this.dirty = d ? [Math.min(d[0], box[0]), Math.min(d[1], box[1]), Math.max(d[2], box[2]), Math.max(d[3], box[3])] : box;
    this.frameRequest ??= requestAnimationFrame(() => { this.frameRequest = null; this.paint(); });
  }

  paint() {
    if (!this.dirty) return;
    const c = this.context, ratio = devicePixelRatio || 1, { scale, x, y } = this.view, [left, top, right, bottom] = this.dirty;
    this.dirty = null;
    if (right <= left || bottom <= top) return;
    const box = [left, top, right - left, bottom - top];
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.save();
    c.beginPath();
    c.rect(...box);
    c.clip();
    c.clearRect(...box);
    if (this.picture) {
      this.viewed(scale);
      this.place = { scale: scale * ratio, x: x * ratio, y: y * ratio, width: this.canvas.width, height: this.canvas.height };
      const b = this.bounds();
      c.setTransform(scale * ratio, 0, 0, scale * ratio, x * ratio, y * ratio);
      c.fillStyle = this.checks(scale);
      c.fillRect(b.left, b.top, b.width, b.height);
      c.setTransform(1, 0, 0, 1, 0, 0);
      if (this.shown) this.paintResult(c, b, box);
      else this.paintPicture(c, b, box);
      c.setTransform(ratio, 0, 0, ratio, 0, 0);
      if (this.shown) this.paintDivider(c, b);
      else this.paintTools(c, b);
    }
    c.restore();
  }

  paintPicture(c, b, box) {
    const lay = (canvas) => c.drawImage(canvas, ...box, ...box), { scale, x, y } = this.place;
    lay(this.layers.picture.of(this.picture, 0, 0, this.place));
    if (this.previews.length) {
      c.setTransform(scale, 0, 0, scale, x, y);
      c.imageSmoothingQuality = "high";
      for (const { image, box: [left, top, width, height] } of this.previews) c.drawImage(image, b.left + left, b.top + top, width, height);
      return;
    }
    c.globalAlpha = this.locked ? 0.25 : 0.5;
    if (b.left || b.top || b.width > this.picture.width || b.height > this.picture.height) {
      c.setTransform(scale, 0, 0, scale, x, y);
      c.fillStyle = TINT;
      c.beginPath();
      c.rect(b.left, b.top, b.width, b.height);
      c.rect(0, 0, this.picture.width, this.picture.height);
      c.fill("evenodd");
      c.setTransform(1, 0, 0, 1, 0, 0);
    }
    lay(this.layers.mask.of(this.mask, this.place, box));
    c.globalAlpha = 1;
  }

  paintResult(c, b, box) {
    const { bitmap, base, split, spread, original } = this.shown, { scale, x } = this.place;
    const lay = (canvas) => c.drawImage(canvas, ...box, ...box);
    lay(this.layers.picture.of(base, 0, 0, this.place));
    if (original) return;
    c.save();
    c.beginPath();
    c.rect(x + (b.left + split * b.width) * scale, 0, this.canvas.width, this.canvas.height);
    c.clip();
    lay(this.layers.result.of(bitmap, b.left, b.top, this.place));
    if (spread) lay(this.layers.spread.of(spread, b.left, b.top, this.place));
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
    this.under = this.cursorBox(); // what is to be painted anew once they are elsewhere
    this.lensed = this.lensBox();
    this.paintLens(c);
    if (this.tool === "frame" && !this.locked) {
      const [left, top] = screen({ x: b.left, y: b.top }), width = b.width * scale, height = b.height * scale;
      outlined(c, () => { c.beginPath(); c.rect(left, top, width, height); }, 1.5);
      for (const [px, py, across] of [[left, top + height / 2, 0], [left + width, top + height / 2, 0], [left + width / 2, top, 1], [left + width / 2, top + height, 1]]) {
        c.beginPath();
        c.roundRect(px - (across ? 20 : 4), py - (across ? 4 : 20), across ? 40 : 8, across ? 8 : 40, 4);
        c.fillStyle = "#fff"; c.fill(); c.strokeStyle = "rgb(0 0 0 / .6)"; c.lineWidth = 1; c.stroke();
      }
    }
    if (this.path && (["box", "lasso"].includes(this.tool) || (this.tool === "object" && !this.isClick()))) {
      outlined(c, () => {
        c.beginPath();
        if (this.tool !== "lasso") {
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

  /** Where the magnifier is shown: in a corner, away from the brush. */
  lensBox() {
    if (!this.path || !["brush", "eraser"].includes(this.tool) || !(this.lens || this.touched)) return null;
    const { x, y } = this.toScreen(this.path.at(-1)), wide = this.canvas.clientWidth, side = 2 * LENS + 12;
    const left = x < side + 40 && y < side + 40 ? wide - side : 0;
    return [left, 0, left + side, side];
  }

  paintLens(c) {
    const box = this.lensBox();
    if (!box) return;
    const ratio = devicePixelRatio || 1, scale = clamp(3 * this.view.scale, 1, 16), p = this.path.at(-1);
    const middle = [box[0] + LENS + 6, box[1] + LENS + 6], reach = LENS / scale;
    c.save();
    c.beginPath();
    c.arc(...middle, LENS, 0, 7);
    c.clip();
    c.fillStyle = "#888";
    c.fillRect(box[0], box[1], 2 * LENS + 12, 2 * LENS + 12);
    c.imageSmoothingEnabled = scale < 3;
    c.translate(middle[0] - p.x * scale, middle[1] - p.y * scale);
    c.scale(scale, scale);
    const left = Math.max(0, Math.floor(p.x - reach)), top = Math.max(0, Math.floor(p.y - reach));
    const wide = Math.min(this.picture.width, Math.ceil(p.x + reach)) - left, high = Math.min(this.picture.height, Math.ceil(p.y + reach)) - top;
    if (wide > 0 && high > 0) {
      c.drawImage(this.picture, left, top, wide, high, left, top, wide, high);
      const lens = this.lensMask ??= new MaskLayer(), side = Math.round(2 * LENS * ratio), at = scale * ratio;
      const place = { scale: at, x: side / 2 - p.x * at, y: side / 2 - p.y * at, width: side, height: side };
      lens.stale();
      c.globalAlpha = 0.5;
      c.drawImage(lens.of(this.mask, place, [0, 0, side, side]), p.x - side / 2 / at, p.y - side / 2 / at, side / at, side / at);
    }
    c.restore();
    outlined(c, () => { c.beginPath(); c.arc(...middle, this.size / 2 * scale, 0, 7); }, 1);
    outlined(c, () => { c.beginPath(); c.arc(...middle, LENS, 0, 7); }, 2);
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

  down(p, away = false) {
    if (this.locked || this.shown || !this.picture) return;
    this.path = [p];
    this.away = away;
    if (this.tool === "brush" || this.tool === "eraser") {
      this.before = this.mask.plane.slice();
      this.stroke(p, p);
    }
    this.drawCursor();
  }

  move(p) {
    if (this.path) {
      const last = this.path.at(-1);
      if (["box", "object", "wand"].includes(this.tool)) this.path = [this.path[0], p];
      else this.path.push(p);
      if (this.before) this.stroke(last, p);
      else this.draw();
    }
    this.drawCursor();
  }

  /** Whether the hand has not moved since it came down. */
  isClick() {
    const [a, b] = [this.path[0], this.path.at(-1)];
    return Math.hypot(a.x - b.x, a.y - b.y) * this.view.scale < CLICK;
  }

  up() {
    const path = this.path, click = path && this.isClick();
    this.path = null;
    if (!path) return;
    const xs = path.map((p) => p.x), ys = path.map((p) => p.y);
    const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)], whole = box.map(Math.round);
    if (this.before) {
      const reach = this.size / 2 + 2, part = this.mask.inside([box[0] - reach, box[1] - reach, box[2] + reach, box[3] + reach]);
      const { before } = this;
      this.before = null;
      if (part[2] > part[0] && part[3] > part[1]) this.mask.changed(part, this.mask.copy(part, before));
    } else if (this.tool === "box") this.mask.rectangle(whole);
    else if (this.tool === "lasso" && path.length > 2) this.mask.polygon(path);
    else if (this.tool === "wand" || (this.tool === "object" && click)) this.pick({ x: Math.floor(path[0].x), y: Math.floor(path[0].y) }, this.away);
    else if (this.tool === "object") this.pick(this.mask.inside(whole), this.away);
    this.draw();
    if (["brush", "eraser", "box", "lasso"].includes(this.tool)) this.released();
  }

  cancel() {
    if (this.before) {
      this.mask.plane.set(this.before);
      this.layers.mask.stale();
    }
    this.path = this.before = null;
    this.draw();
  }

  stroke(from, to) {
    const box = this.mask.line(from, to, this.size / 2, this.tool === "eraser" ? 0 : 1);
    this.layers.mask.stale(box);
    this.drawPart(box);
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
    on("pointerleave", () => { if (this.cursor && !this.path) { this.cursor.seen = false; this.drawCursor(); } });
    on("contextmenu", (event) => event.preventDefault());
  }

  press(event) {
    if (!this.picture) return;
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.touched = event.pointerType !== "mouse";
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
    else if (event.button === 0) { this.doing = "draw"; this.down(this.toPicture(at), event.altKey); }
    event.preventDefault();
  }

  drag(event) {
    if (!this.picture) return;
    const at = this.here(event), last = this.pointers.get(event.pointerId);
    if (!["frame", "hand"].includes(this.tool)) this.cursor = { ...this.toPicture(at), seen: true };
    this.canvas.style.cursor = this.cursorAt(at);
    if (!last) { this.drawCursor(); return; }
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
    if (this.doing?.side) { this.framed(this.doing.before); this.view.fitted = this.doing.fitted; this.doing = null; if (this.view.fitted) this.fit(); }
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
    return { side, fitted, before: { ...this.frame } };
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
      if (!this.path) this.down({ ...this.cursor }, event.altKey);
      else this.up();
      if (["object", "wand"].includes(this.tool)) this.up();
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
